//! Where the pair log goes. The controller writes that of the cluster, and an agent that follows one writes none by
//! default.

use super::{
    families::CONTROLLER,
    values::{PairLogOutput, Seconds},
};
use clap::builder::ArgPredicate;

/// The pair log.
#[derive(Debug, clap::Args)]
pub(super) struct PairLogArgs {
    /// Output of the pair log, a JSON line for each pair that crossed zones in an interval: `stdout`, `off` or a file.
    /// Off by default for an agent with a controller, which writes it.
    #[arg(
        id = "pair_log.output",
        long = "pair-log",
        env = "MERIDIAN_PAIR_LOG",
        value_name = "OUTPUT",
        value_hint = clap::ValueHint::FilePath,
        default_value_if(CONTROLLER, ArgPredicate::IsPresent, "off"),
        default_value = "stdout"
    )]
    pub(super) output: PairLogOutput,
    /// Interval of the pair log, at least 1s.
    #[arg(
        id = "pair_log.interval",
        long = "pair-log-interval",
        env = "MERIDIAN_PAIR_LOG_INTERVAL",
        value_name = "TIME",
        default_value = "10s"
    )]
    pub(super) interval: Seconds,
}
