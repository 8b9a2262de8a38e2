//! Lines of JSON, in bounded memory.

use super::{
    invalid::{InvalidLine, Refusal},
    unpacked::Text,
};
use std::io::{BufRead, Read};

/// Bytes of a line. Those of the export have a few thousand.
const MAX_LINE: usize = 1 << 20;

/// A file of lines.
pub(super) struct Lines<'r> {
    from: Text<'r>,
    number: u64,
    line: Vec<u8>,
}

impl<'r> Lines<'r> {
    pub(super) const fn new(from: Text<'r>) -> Self {
        Self { from, number: 0, line: Vec::new() }
    }

    /// The next line that is not empty, with its number; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, Refusal> {
        loop {
            self.number += 1;
            self.line.clear();
            let mut limited = self.from.by_ref().take(MAX_LINE as u64 + 1);
            limited.read_until(b'\n', &mut self.line).map_err(|error| (self.number, error.into()))?;
            if self.line.len() > MAX_LINE {
                return Err((self.number, InvalidLine::TooLong(MAX_LINE)));
            }
            if self.line.is_empty() {
                return Ok(None);
            }
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                // Borrowed again: a borrow that is returned from a loop would last for all of it.
                return Ok(Some((self.number, &self.line)));
            }
        }
    }
}
