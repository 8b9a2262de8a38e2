//! Errors of the demo.

use crate::{datapath, yaml};
use std::io;

/// An error of the demo.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process may not make namespaces.
    #[error("making a network namespace is not permitted ({source}): run as root (the demo needs CAP_SYS_ADMIN)")]
    NotPermitted {
        /// The kernel's error.
        source: io::Error,
    },
    /// Something failed in a namespace.
    #[error("network namespace {name}, {what}: {source}")]
    Namespace {
        /// The namespace.
        name: String,
        /// The operation.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// A client or server of the demo failed.
    #[error("the demo's traffic: {source}")]
    Traffic {
        /// The cause.
        source: io::Error,
    },
    /// The datapath failed.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// The demo's table is invalid.
    #[error(transparent)]
    Table(#[from] yaml::Error),
}
