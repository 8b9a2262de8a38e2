//! The ends of commands: exit codes, errors, and output on stdout.

use crate::{agent, controller};
use std::io::{self, Write};

/// The reason why a command ended without success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Bad usage or configuration.
    #[error("{0}")]
    Usage(String),
    /// The command failed.
    #[error("{0}")]
    Failed(String),
    /// A signal ended the command.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// The exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            // The exit code that shells use for SIGINT.
            Self::Interrupted => 130,
        }
    }

    pub(super) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Self {
        if error.is_configuration() { usage(error) } else { Self::failed(error) }
    }
}

impl From<controller::Error> for Failure {
    fn from(error: controller::Error) -> Self {
        if error.is_configuration() { usage(error) } else { Self::failed(error) }
    }
}

/// Bad usage or configuration.
pub(super) fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

/// Writes a result to stdout. A closed pipe is not an error.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}
