//! The ends of commands: exit codes, errors, and output on stdout.

use super::plain::{plain, plain_lines};
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
        Self::Failed(plain(&error.to_string()))
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

/// Bad usage or configuration, in one line: a text of a file may have line breaks.
pub(super) fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(plain(&error.to_string()))
}

/// Writes a result to stdout, without anything that a terminal obeys. A closed pipe is not an error.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    write(&plain_lines(text))
}

/// Clears the terminal, and shows a picture there.
pub(super) fn redraw(picture: &str) -> Result<(), Failure> {
    write(&format!("\x1b[H\x1b[2J{}", plain_lines(picture)))
}

fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}
