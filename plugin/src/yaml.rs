//! Reads YAML files. An error is one line: file, line, reason.

use crate::bounded_file;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed},
};
use serde_saphyr::Options;
use std::{
    io,
    path::{Path, PathBuf},
};

/// The size limit of a file. A table with every address of a large cluster takes a fifth of it.
const MAX_BYTES: u64 = 64 << 20;

/// An unusable file. `R` is the reason for which its contents are refused.
#[derive(Debug, thiserror::Error)]
pub enum Error<R = Invalid> {
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
        reason: R,
    },
}

/// The reason for which a text is not YAML of the required form.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The text is not UTF-8.
    #[error("not UTF-8 text")]
    NotUtf8,
    /// The text has no keys.
    #[error("the file is empty: it needs {needs}")]
    Empty {
        /// The required keys.
        needs: String,
    },
    /// The parser refuses it.
    #[error("{message}")]
    Form {
        /// The parser's message, on one line.
        message: String,
    },
}

/// A refused line of a text.
#[derive(Debug)]
pub struct Refusal<R = Invalid> {
    /// The line, from 1.
    pub line: u64,
    /// The reason.
    pub reason: R,
}

impl<R> Refusal<R> {
    /// Refuses a line.
    pub fn new(line: u64, reason: impl Into<R>) -> Self {
        Self { line, reason: reason.into() }
    }

    /// The refusal as one of a wider set of reasons.
    pub fn widen<W: From<R>>(self) -> Refusal<W> {
        Refusal { line: self.line, reason: self.reason.into() }
    }

    /// The error of the file at `path`.
    pub fn of_file(self, path: &Path) -> Error<R> {
        Error::Refused { path: path.to_owned(), line: self.line, reason: self.reason }
    }
}

/// Reads the bytes of a file.
///
/// # Errors
/// The file can't be read, or is too large.
pub fn read<R>(path: &Path) -> Result<Vec<u8>, Error<R>> {
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

/// A list; a key without a value is an empty one, as it is once each of its entries is a comment.
///
/// # Errors
/// It is no list of these.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn text_of<'t>(text: &'t [u8], needs: &str) -> Result<&'t str, Refusal> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = 1 + text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64;
        Refusal::new(line, Invalid::NotUtf8)
    })?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Err(Refusal::new(1, Invalid::Empty { needs: needs.to_owned() }));
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
    Refusal::new(line, Invalid::Form { message: one_line(&error.without_snippet().to_string()) })
}

/// Messages of the parser that name its own functions and events, and their meaning for the file's author.
const MEANINGS: [(&str, &str); 5] = [
    ("expected sequence start", "expected a list, such as [a, b]"),
    ("expected mapping start", "expected keys with values"),
    ("expected string scalar", "expected a text"),
    ("multiple YAML documents detected", "more than one document: only one is read, so take out the lines ---"),
    (", set DuplicateKeyPolicy", ""),
];

/// The message without line breaks and without the position, which the error already has.
fn one_line(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = message.rfind(" at line ").unwrap_or(message.len());
    let message = &message[..end];
    let meaning =
        MEANINGS.iter().find_map(|(words, meaning)| Some(format!("{}{meaning}", &message[..message.find(words)?])));
    meaning.as_deref().unwrap_or(message).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_about_the_file_and_not_about_the_parser() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(default, deserialize_with = "list")]
            names: Vec<String>,
        }
        let read = |text: &str| {
            parse::<File>(text.as_bytes(), "names").map_err(|error| format!("{}: {}", error.line, error.reason))
        };
        for empty in ["names:\n", "names: []\n", "names: null\n", "names:\n# - a\n"] {
            assert_eq!(read(empty), Ok(File::default()), "{empty}");
        }
        let refused = |text: &str| read(text).unwrap_err();
        assert_eq!(refused("names: a\n"), "1: expected a list, such as [a, b]");
        assert_eq!(refused("- a\n"), "1: expected keys with values");
        assert_eq!(
            refused("names: [a]\n---\nnames: [b]\n"),
            "3: more than one document: only one is read, so take out the lines ---"
        );
        assert_eq!(refused("names: [a]\nnames: [b]\n"), "2: duplicate mapping key: names");
        assert!(refused("colour: a\n").starts_with("1: unknown field"), "{}", refused("colour: a\n"));
    }
}
