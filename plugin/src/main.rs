//! The command `meridian`.

use clap::Parser;
use meridian::cli::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("meridian: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
