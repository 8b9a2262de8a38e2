//! `meridian top`: the counters of an agent or of a cluster, live.

mod amount;
mod args;
mod draw;
mod http;
mod keys;
mod pair_filter;
mod picture;
mod readings;
mod session;
mod state;
mod table;
mod update;

pub(super) use args::Args;

use super::{Failure, print, redraw, server::target};
use args::{PRINTED_PAIRS, watch};
use picture::picture;
use std::io::{self, IsTerminal};

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    if args.is_interactive() {
        return runtime.block_on(session::run(args));
    }
    runtime.block_on(async {
        tokio::select! {
            result = show(args) => result,
            // Ctrl-C is how it is meant to end.
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

async fn show(args: &Args) -> Result<(), Failure> {
    let mut answers = watch(args, args.request(PRINTED_PAIRS)?).await.map_err(Failure::failed)?;
    let terminal = io::stdout().is_terminal();
    let mut before = None;
    let mut shown = 0;
    while let Some(answer) = answers.next().await.map_err(Failure::failed)? {
        let picture = picture(&answer, before.as_ref());
        // Home, the picture, and nothing of the one before below it.
        if terminal { redraw(&picture) } else { print(&format!("{picture}\n")) }?;
        before = Some(answer);
        shown += 1;
        if args.count.is_some_and(|count| shown >= count) {
            return Ok(());
        }
    }
    Err(Failure::failed(format!("{}: it has ended", target(args.server.as_ref()))))
}
