//! Reads YAML files. An error is one line: file, line, reason.

use crate::bounded_file;
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde_saphyr::Options;
use std::{
    io,
    path::{Path, PathBuf},
};

/// The size limit of a file. A table with every address of a large cluster takes a fifth of it.
const MAX_BYTES: u64 = 64 << 20;

/// The reason why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The contents of the file are invalid.
    #[error("{}:{line}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The reason.
        reason: String,
    },
}

/// A line number and the reason why the line is refused.
pub type Refusal = (u64, String);

/// Reads the bytes of a file.
///
/// # Errors
/// The file can't be read, or is too large.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    bounded_file::read(path, MAX_BYTES).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

/// Parses a text. `needs` names the keys that are required, for the error about an empty file.
///
/// # Errors
/// The text is not UTF-8, not YAML, or not of this form.
pub fn parse<T: DeserializeOwned>(text: &[u8], needs: &str) -> Result<T, Refusal> {
    serde_saphyr::from_str_with_options(text_of(text, needs)?, options()).map_err(|error| refusal(&error))
}

/// The same, where the form is known only at run time.
///
/// # Errors
/// As [`parse`].
pub fn parse_with<T>(
    text: &[u8],
    needs: &str,
    form: impl for<'de> DeserializeSeed<'de, Value = T>,
) -> Result<T, Refusal> {
    let text = text_of(text, needs)?;
    serde_saphyr::with_deserializer_from_str_with_options(text, options(), |from| form.deserialize(from))
        .map_err(|error| refusal(&error))
}

fn text_of<'t>(text: &'t [u8], needs: &str) -> Result<&'t str, Refusal> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = 1 + text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64;
        (line, "not UTF-8 text".to_owned())
    })?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Err((1, format!("the file is empty: it needs {needs}")));
    }
    Ok(text)
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 8_000_000, max_nodes: 4_000_000 },
        with_snippet: false,
    }
}

fn refusal(error: &serde_saphyr::Error) -> Refusal {
    let line = error.location().map_or(1, |location| location.line());
    (line, one_line(&error.without_snippet().to_string()))
}

/// The message without line breaks and without the position, which the error already has.
fn one_line(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].chars().take(300).collect()
}
