//! Errors of an agent.

use crate::{
    datapath::{self, NotAlone},
    export::Output,
    outputs, servers, yaml,
    zones::InvalidTable,
};
use std::{io, path::PathBuf};

/// The reason why an agent ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process lacks capabilities.
    #[error("{}: run as root, or with it", missing.join("; "))]
    Capabilities {
        /// Each missing capability, with its purpose.
        missing: Vec<String>,
    },
    /// Another agent runs.
    #[error(transparent)]
    NotAlone(#[from] NotAlone),
    /// An agent runs with the pins that must be removed.
    #[error("{0}; end it first")]
    InUse(NotAlone),
    /// The datapath failed.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// The static table is invalid.
    #[error(transparent)]
    Zones(#[from] yaml::Error<InvalidTable>),
    /// The metrics or flow logs are invalid.
    #[error(transparent)]
    Outputs(#[from] outputs::Error),
    /// A server failed.
    #[error(transparent)]
    Servers(#[from] servers::Error),
    /// The pair log can't be written.
    #[error("the pair log {output}: {source}")]
    PairLog {
        /// The output.
        output: Output,
        /// The cause.
        source: io::Error,
    },
    /// The kernel can't wake this process.
    #[error("waiting for {what}: {source}")]
    Wait {
        /// The awaited event.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A file that an agent left behind can't be removed.
    #[error("{}: {source}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// Whether the configuration is wrong; otherwise the failure happened at run time.
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Zones(_) | Self::Outputs(_))
    }
}
