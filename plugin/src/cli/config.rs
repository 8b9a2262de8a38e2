//! `meridian config`: checks a configuration without starting anything, and prints the page of all settings.

mod file;
mod program;
mod reference;

pub(super) use file::{flags, one_line};

use super::{Failure, agent, controller, print, usage};
use crate::{
    agent::ZoneSource,
    outputs::Checked,
    zones::{StaticTable, Table},
};
use clap::{FromArgMatches as _, builder::Resettable};
use program::Program;
use reference::reference;
use std::{
    ffi::OsString,
    fmt::Write,
    path::{Path, PathBuf},
};

/// Commands for the configuration.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Config {
    /// Checks a configuration file and the files that it names; exit code 2 if there is an error.
    Check {
        /// The configuration file.
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// Program that reads the file.
        #[arg(long, default_value = "agent")]
        program: Program,
    },
    /// Prints every key with its flag, variable and default, as Markdown.
    Reference,
}

/// `meridian config`.
pub(super) fn run(command: &Config) -> Result<(), Failure> {
    match command {
        Config::Check { file, program } => check(file, *program),
        Config::Reference => print(&reference()),
    }
}

fn check(file: &Path, program: Program) -> Result<(), Failure> {
    // The file alone, whatever this process has in its variables.
    let command = program.command().no_binary_name(true).mut_args(|argument| argument.env(Resettable::Reset));
    let nothing = command.clone().get_matches_from([""; 0]);
    let flags: Vec<OsString> = flags(file, &program.command(), &nothing)?;
    let refused = |error| usage(format!("{}: {}", file.display(), one_line(&error)));
    let matches = command.try_get_matches_from(flags).map_err(refused)?;
    let mut text = format!("{}: good\n", file.display());
    let (zones, outputs, history) = match program {
        Program::Agent => {
            let settings = agent::Args::from_arg_matches(&matches).map_err(refused)?.settings()?;
            let zones = if let ZoneSource::File(zones) = settings.zones { Some(zones) } else { None };
            (zones, settings.outputs.check().map_err(usage)?, settings.history)
        }
        Program::Controller => {
            let settings = controller::Args::from_arg_matches(&matches).map_err(refused)?.settings()?;
            (settings.zones_file, Vec::new(), settings.history)
        }
    };
    if let Some(zones) = zones {
        let table = StaticTable::read(&zones).map_err(usage)?;
        let (prefixes, endpoints) = (table.zones.len() - Table::new().len(), table.endpoints.len());
        // Writing to a string can't fail.
        let _ = writeln!(text, "{}: good, {prefixes} prefixes, {endpoints} endpoints", zones.display());
    }
    let prices = history.prices.rules().filter(|(_, is_own)| *is_own).count();
    let kept = [(history.prices_file, prices, "rules"), (history.budgets_file, history.budgets.len(), "budgets")];
    let kept = kept.into_iter().filter_map(|(path, count, what)| Some(Checked { path: path?, count, what }));
    for Checked { path, count, what } in kept.chain(outputs) {
        let _ = writeln!(text, "{}: good, {count} {what}", path.display());
    }
    print(&text)
}
