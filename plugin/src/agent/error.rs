//! Why an agent ends without success.

use crate::{
    datapath::{self, NotAlone},
    export::Output,
    outputs, servers, yaml,
};
use std::{io, path::PathBuf};

/// Why an agent ends without success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process lacks capabilities.
    #[error("{}: run as root, or with it", missing.join("; "))]
    Capabilities {
        /// Each with what is not possible without it.
        missing: Vec<String>,
    },
    /// There is another agent.
    #[error(transparent)]
    NotAlone(#[from] NotAlone),
    /// There is an agent over what is to be taken away.
    #[error("{0}; end it first")]
    InUse(NotAlone),
    /// The kernel side.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// The static table.
    #[error(transparent)]
    Zones(#[from] yaml::Error),
    /// Metrics and flow logs.
    #[error(transparent)]
    Outputs(#[from] outputs::Error),
    /// The servers.
    #[error(transparent)]
    Servers(#[from] servers::Error),
    /// The pair log can't be written.
    #[error("the pair log {output}: {source}")]
    PairLog {
        /// Where it would go.
        output: Output,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not wake this process.
    #[error("waiting for {what}: {source}")]
    Wait {
        /// What is waited for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file that an agent has left behind can't be taken away.
    #[error("{}: {source}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Whether what was configured can't be; otherwise something did not work.
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Zones(_) | Self::Outputs(_))
    }
}
