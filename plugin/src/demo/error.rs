//! Why the demo does not run.

use crate::{datapath, yaml};
use std::io;

/// Why the demo does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process may not make namespaces.
    #[error("making a network namespace is not permitted ({source}): run as root (the demo needs CAP_SYS_ADMIN)")]
    NotPermitted {
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something failed in a namespace.
    #[error("network namespace {name}, {what}: {source}")]
    Namespace {
        /// The namespace.
        name: String,
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A client or server of the demo failed.
    #[error("the demo's traffic: {source}")]
    Traffic {
        /// What it met.
        source: io::Error,
    },
    /// The kernel side.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// The demo's own table.
    #[error(transparent)]
    Table(#[from] yaml::Error),
}
