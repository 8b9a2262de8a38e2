//! The command `meridian`.

use meridian::cli::{Cli, run};
use std::{env, process::ExitCode};

fn main() -> ExitCode {
    match Cli::from_args(env::args_os().collect()).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("meridian: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
