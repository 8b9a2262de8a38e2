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
    /// Where the pair log goes, a JSON line for each pair that crossed zones in an interval: `stdout`, `off` or a file.
    /// An agent that follows a controller writes none by default: the controller does.
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
    /// The interval of the pair log, at least 1s.
    #[arg(
        id = "pair_log.interval",
        long = "pair-log-interval",
        env = "MERIDIAN_PAIR_LOG_INTERVAL",
        value_name = "TIME",
        default_value = "10s"
    )]
    pub(super) interval: Seconds,
}
