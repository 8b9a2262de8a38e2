//! The command line: commands, and how they report errors.
//!
//! An error is one line on stderr. The exit code is 2 for bad usage or configuration and 1 for a
//! failure.

mod access;
mod advise;
mod agent;
mod ask;
mod budgets;
mod check;
mod config;
mod controller;
mod demo;
mod export;
mod failure;
mod families;
mod history_args;
mod history_data_args;
mod hook;
mod host;
mod hubble;
mod invalid;
mod named_file;
mod otlp;
mod pair_log;
mod plain;
mod prices;
mod progress;
mod prometheus_args;
mod reconcile;
mod replay;
mod report;
mod server;
mod signals;
mod top;
mod trust;
mod unload_nodes;
mod values;
mod whatif;
mod zones;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use failure::{print, redraw, usage};
use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    path::PathBuf,
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

pub use failure::Failure;

/// Measures the traffic that crosses availability zones, in the kernel, and serves it in Hubble's API.
#[derive(Debug, Parser)]
#[command(name = "meridian", version, max_term_width = 100)]
pub struct Cli {
    /// Log level on stderr: error, warn, info, debug or trace; also by module (meridian::datapath=debug).
    #[arg(
        long,
        global = true,
        env = "MERIDIAN_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL",
        help_heading = "Logging"
    )]
    log_level: String,
    /// Format of log lines.
    #[arg(
        long,
        global = true,
        env = "MERIDIAN_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Logging"
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Counts real traffic between network namespaces on this machine, without a cluster. Needs root; leaves nothing
    /// behind.
    Demo(demo::Args),
    /// Counts this node's traffic and serves flows and metrics until interrupted.
    Agent(Box<agent::Args>),
    /// Watches the cluster, sends zones and endpoints to the agents, and sums up their counters.
    Controller(Box<controller::Args>),
    /// Checks whether an agent can run on this node, one line for each finding; exit code 0 if it can.
    Check(check::Args),
    /// Shows traffic by zones and by pairs of pods, of a node or a cluster, live.
    Top(top::Args),
    /// Serves recorded flows to Hubble's clients, like an agent.
    Replay(Box<replay::Args>),
    /// Removes the agents and everything they left on the nodes of a cluster. The chart runs this on uninstallation.
    UnloadNodes(unload_nodes::Args),
    /// Checks a configuration file, or prints the reference.
    #[command(subcommand)]
    Config(config::Config),
    /// Prints shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Shows the traffic between zones and regions and its cost, from a history.
    Report(report::Args),
    /// Exports traffic between zones and regions in other tools' formats.
    #[command(subcommand)]
    Export(export::Export),
    /// Compares a provider's bill with a history: for each day and node the bytes of both, and possible causes of
    /// the difference.
    Reconcile(reconcile::Args),
    /// Shows the price of traffic between zones and regions, and the rule for it.
    #[command(subcommand)]
    Prices(prices::Prices),
    /// Shows changes that reduce traffic between zones, their savings and their risks.
    Advise(advise::Args),
    /// Shows the traffic of a service as it would have been with another preference, or with other endpoints.
    Whatif(whatif::Args),
    /// Queries the zone table, or makes a static one.
    #[command(subcommand)]
    Zones(zones::Zones),
}

/// Leaves out the Kubernetes client's own lines about failed requests, which lack the object and the address; our lines
/// about the same failures have both. A level for the client's module shows its lines.
fn without_the_clients_own(level: EnvFilter, asked: &str) -> EnvFilter {
    const CLIENT: &str = "kube_client";
    if asked.contains(CLIENT) {
        return level;
    }
    match format!("{CLIENT}::client::builder=off").parse() {
        Ok(off) => level.add_directive(off),
        Err(_) => level,
    }
}

impl Cli {
    /// The command line, with the settings of the file that it names. Bad usage ends the process.
    ///
    /// # Errors
    /// The file can't be read, or has something that can't be.
    pub fn from_args(mut args: Vec<OsString>) -> Result<Self, Failure> {
        let mut command = Self::command();
        let mut matches = command.try_get_matches_from_mut(&args).unwrap_or_else(|error| error.exit());
        if let Some((name, given)) = matches.subcommand()
            && let Some(path) = configuration(given)
            && let Some(program) = command.find_subcommand(name)
        {
            args.extend(config::flags(path, program, given)?);
            let refused = |error| usage(format!("{}: {}", path.display(), config::one_line(&error)));
            matches = command.clone().try_get_matches_from(args).map_err(refused)?;
        }
        Ok(Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
    }
}

/// The file of a program that has one, if it is named.
fn configuration(given: &ArgMatches) -> Option<&PathBuf> {
    given.try_get_one("config").ok().flatten()
}

/// Runs a command.
///
/// # Errors
/// Why it ended without success.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let level = EnvFilter::try_new(&cli.log_level)
        .map_err(|error| Failure::Usage(format!("--log-level {}: {error}", cli.log_level)))?;
    // A line of the log would be written over the screen.
    let is_screen = matches!(&cli.command, Command::Top(args) if args.is_interactive());
    let level = if is_screen { EnvFilter::new("off") } else { without_the_clients_own(level, &cli.log_level) };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(level);
    match cli.log_format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Agent(args) => agent::run(*args),
        Command::Controller(args) => controller::run(*args),
        Command::Check(args) => check::run(&args),
        Command::Top(args) => top::run(&args),
        Command::UnloadNodes(args) => unload_nodes::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Config(command) => config::run(&command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "meridian", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Report(args) => report::run(&args),
        Command::Export(command) => export::run(&command),
        Command::Reconcile(args) => reconcile::run(&args),
        Command::Advise(args) => advise::run(&args),
        Command::Whatif(args) => whatif::run(&args),
        Command::Prices(command) => prices::run(&command),
        Command::Zones(command) => zones::run(&command),
    }
}
