//! `meridian agent`.

mod args;

use super::{Failure, print, signals::signals};
use crate::{agent, servers::END_TIMEOUT};
use tokio::runtime::Runtime;

pub(super) use args::Args;

pub(super) fn run(args: Args) -> Result<(), Failure> {
    if let Some((remains, stay)) = args.unload() {
        agent::unload(&remains)?;
        print("nothing of Meridian's is left in the kernel and in the state folder\n")?;
        return stay.map_or(Ok(()), |at| {
            let runtime = Runtime::new().map_err(Failure::failed)?;
            runtime.block_on(async { Ok::<_, Failure>(agent::stay(at.0, signals()?.end).await?) })?;
            runtime.shutdown_timeout(END_TIMEOUT);
            Ok(())
        });
    }
    let settings = args.settings()?;
    // Several threads: this one counts, and blocks.
    let runtime = Runtime::new().map_err(Failure::failed)?;
    runtime.block_on(async {
        let asked = signals()?;
        Ok(agent::run(&settings, &asked.reload, &asked.end).await?)
    })
}
