//! Expressions that can't be a filter, in the words of Hubble's server where it has some.

use std::{
    fmt::{self, Write},
    io,
};

/// An expression that can't be a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExpression {
    /// It is too long.
    #[error("the expression has {bytes} bytes (at most {most})")]
    Long {
        /// Its length.
        bytes: usize,
        /// The accepted values.
        most: usize,
    },
    /// There is no thread to read it.
    #[error("no thread reads the expression: {0}")]
    Thread(io::ErrorKind),
    /// Reading it has panicked.
    #[error("the expression can't be read")]
    Unreadable,
    /// It has errors.
    #[error("{}", lines(.0))]
    Errors(Vec<Located>),
    /// Its result is no bool.
    #[error("got \"{0}\", wanted \"bool\" result type")]
    Result(String),
    /// It takes too long.
    #[error("the expression takes up to {steps} steps (at most {most})")]
    Steps {
        /// Steps for a flow.
        steps: u64,
        /// The accepted values.
        most: u64,
    },
    /// It takes too much memory.
    #[error("the expression makes values of up to {elements} elements (at most {most})")]
    Size {
        /// Elements of a value.
        elements: u64,
        /// The accepted values.
        most: u64,
    },
}

fn lines(errors: &[Located]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// An error with its position and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    line: isize,
    column: isize,
    error: String,
    /// The line, if there is one.
    source: Option<String>,
}

impl Located {
    /// An error in a text; line and column count from 1.
    pub(super) fn new(text: &str, (line, column): (isize, isize), error: &str) -> Self {
        let source = text.split('\n').nth(line.saturating_sub(1).unsigned_abs()).filter(|_| !text.is_empty());
        Self { line, column, error: error.to_owned(), source: source.map(str::to_owned) }
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, error, source } = self;
        write!(f, "ERROR: <input>:{line}:{column}: {error}")?;
        let Some(source) = source else { return Ok(()) };
        write!(f, "\n | {source}\n | ")?;
        (1..*column).try_for_each(|_| f.write_char('.'))?;
        f.write_char('^')
    }
}
