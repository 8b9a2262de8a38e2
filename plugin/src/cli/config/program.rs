//! The programs that have settings.

use super::super::{agent, controller};
use clap::{Args as _, Command};

/// A program with settings.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(in super::super) enum Program {
    /// `meridian agent`.
    Agent,
    /// `meridian controller`.
    Controller,
}

impl Program {
    /// Its arguments.
    pub(super) fn command(self) -> Command {
        match self {
            Self::Agent => agent::Args::augment_args(Command::new("agent")),
            Self::Controller => controller::Args::augment_args(Command::new("controller")),
        }
    }
}
