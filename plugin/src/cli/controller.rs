//! `meridian controller`.

mod args;
mod history;
mod totals;

use super::{Failure, signals::signals};
use crate::{allocator, controller, servers::END_TIMEOUT};
use tokio::runtime::Runtime;

pub(super) use args::Args;

/// `meridian controller`.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let settings = args.settings()?;
    allocator::set();
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let result = runtime.block_on(async {
        let asked = signals()?;
        Ok(controller::run(&settings, &asked.reload, &asked.end).await?)
    });
    runtime.shutdown_timeout(END_TIMEOUT);
    result
}
