//! Errors of namespaces and links.

use std::io;

/// An error of a namespace or a link.
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
}
