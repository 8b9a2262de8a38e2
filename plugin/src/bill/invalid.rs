//! The reasons for which a bill is refused: one line with file and line.

use super::{amount::InvalidAmount, day::InvalidDay};
use std::io;

/// Why a bill is refused.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct BadBill {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The reason.
    pub reason: InvalidLine,
}

/// Why a line of a bill is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidLine {
    /// There is no byte.
    #[error("the file is empty")]
    Empty,
    /// A format that is not read.
    #[error("Parquet is not read: export the report as CSV, packed by gzip or not, or convert it")]
    Parquet,
    /// A compression that is not read.
    #[error("{0} is not read: unpack it first, or pack it by gzip")]
    Packed(&'static str),
    /// An encoding that is not read.
    #[error("UTF-16 is not read: save it as UTF-8")]
    Utf16,
    /// The file system, or the decompression.
    #[error("it can't be read: {0}")]
    Unreadable(#[source] io::Error),
    /// The last line has no end.
    #[error("the file ends within this line: it is truncated, or lacks its last line break")]
    Truncated,
    /// A line is too long.
    #[error("the line is longer than {0} bytes, or a quote is not closed")]
    TooLong(usize),
    /// There are too many columns.
    #[error("there are more than {0} columns")]
    TooWide(usize),
    /// A line has not as many fields as the first one has names.
    #[error("it has {found} fields, but there are {expected} columns")]
    Fields {
        /// Those of the line.
        found: usize,
        /// Those of the first line.
        expected: usize,
    },
    /// A column is missing.
    #[error("there is no column {0}: is it {1}?")]
    NoColumn(&'static str, &'static str),
    /// A field is not text.
    #[error("{0} is not UTF-8 text")]
    NotUtf8(&'static str),
    /// A line is not JSON of the required form.
    #[error("it is not a line of the export: {0}")]
    Json(String),
    /// One large list instead of lines.
    #[error("it is a JSON list: write one object on each line, as the export format NEWLINE_DELIMITED_JSON does")]
    JsonList,
    /// An amount is invalid.
    #[error(transparent)]
    Amount(#[from] InvalidAmount),
    /// A time is invalid.
    #[error(transparent)]
    Day(#[from] InvalidDay),
    /// A unit is unknown.
    #[error("`{0}` is not a unit of bytes")]
    Unit(String),
    /// A line is of more than a day.
    #[error("the line is of more than a day: export the report hourly or daily")]
    LongPeriod,
    /// Sums are too large.
    #[error("the sum of a day and resource is larger than any traffic")]
    TooMuch,
}

/// A reason with its line.
pub(super) type Refusal = (u64, InvalidLine);
