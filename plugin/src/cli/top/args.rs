//! The flags of `meridian top`, and the counters that they name.

use crate::{
    api::{ClientError, Stream, Target},
    cli::{Failure, access::TokenArgs, server::connect, trust::TrustArgs, values::Seconds},
    proto::v1::{WatchRequest, WatchResponse},
};
use std::{
    env,
    io::{self, IsTerminal},
};

/// Pairs of pods in a table of text, and on the screen, which scrolls.
pub(super) const PRINTED_PAIRS: u32 = 15;
pub(super) const LISTED_PAIRS: u32 = 1000;

/// Flags of `meridian top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "On a terminal, `?` shows the keys.")]
pub(in crate::cli) struct Args {
    /// Agent or controller to query, HOST:PORT or unix:PATH. Default: the agent's socket, or 127.0.0.1:4344 if there is
    /// none, as in a controller's pod.
    #[arg(long, env = "MERIDIAN_SERVER", value_name = "ADDRESS")]
    pub(super) server: Option<Target>,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    /// HTTP port with prices and findings. Default: ports 9981 and 9980 of the server.
    #[arg(long, env = "MERIDIAN_REPORT_SERVER", value_name = "HOST:PORT")]
    pub(super) http: Option<String>,
    #[command(flatten)]
    pub(super) token: TokenArgs,
    /// Time between updates.
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub(super) interval: Seconds,
    /// Number of pairs of pods to list. Default: 1000 on a terminal, 15 as text.
    #[arg(long, value_name = "NUMBER")]
    pub(super) pairs: Option<u32>,
    /// Number of updates before exit, as text. Default: until Ctrl-C.
    #[arg(long, value_name = "NUMBER")]
    pub(super) count: Option<u64>,
    /// Print text instead of using the whole terminal. Implied by --count, and where stdout is no terminal.
    #[arg(long)]
    plain: bool,
}

impl Args {
    /// Whether the terminal is used as a screen with keys.
    pub(in crate::cli) fn is_interactive(&self) -> bool {
        let is_able = || env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        !self.plain && self.count.is_none() && io::stdout().is_terminal() && is_able()
    }

    pub(super) fn request(&self, pairs: u32) -> Result<WatchRequest, Failure> {
        let interval = prost_types::Duration::try_from(self.interval.0).map_err(Failure::failed)?;
        Ok(WatchRequest { interval: Some(interval), pairs: self.pairs.unwrap_or(pairs) })
    }
}

/// Watches that server, or the replica of a controller that it names.
pub(super) async fn watch(args: &Args, request: WatchRequest) -> Result<Stream<WatchResponse>, Failure> {
    let answer = match connect(args.server.as_ref(), &args.trust).await?.watch(request).await {
        Err(ClientError::Elsewhere { leader, .. }) => {
            connect(Some(&Target::Tcp(leader)), &args.trust).await?.watch(request).await
        }
        answer => answer,
    };
    answer.map_err(Failure::failed)
}
