//! Comma-separated values with a line of names: records in bounded memory, each with its line.

use super::{
    invalid::{InvalidLine, Refusal},
    unpacked::Text,
};
use csv_core::{ReadRecordResult, Reader};
use std::io::BufRead;

/// Bytes of a record. Lines of the Cost and Usage Report have a few thousand.
const MAX_RECORD: usize = 1 << 20;
/// Columns. The Cost and Usage Report has a few hundred, more with many tags.
const MAX_COLUMNS: usize = 1 << 13;

/// A file of records.
pub(super) struct Table<'r> {
    from: Text<'r>,
    reader: Reader,
    /// The line of the next byte.
    line: u64,
    fields: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
    columns: usize,
}

/// A column by its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column(usize, &'static str);

impl<'r> Table<'r> {
    /// Reads the line of names; `find` finds the columns.
    pub(super) fn open<T>(
        from: Text<'r>,
        find: impl FnOnce(&Names) -> Result<T, InvalidLine>,
    ) -> Result<(Self, T), Refusal> {
        let (fields, ends) = (vec![0; MAX_RECORD], vec![0; MAX_COLUMNS]);
        let mut table = Self { from, reader: Reader::new(), line: 1, fields, ends, count: 0, columns: 0 };
        let Some(line) = table.advance()? else { return Err((1, InvalidLine::Empty)) };
        table.columns = table.count;
        let names = (0..table.count).map(|at| normal(&String::from_utf8_lossy(table.bytes(Column(at, ""))))).collect();
        let found = find(&Names(names)).map_err(|reason| (line, reason))?;
        Ok((table, found))
    }

    /// Reads the next record, and returns its line; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<u64>, Refusal> {
        let Some(line) = self.advance()? else { return Ok(None) };
        if self.count == self.columns {
            Ok(Some(line))
        } else {
            Err((line, InvalidLine::Fields { found: self.count, expected: self.columns }))
        }
    }

    /// The bytes of a field of the record.
    pub(super) fn bytes(&self, Column(at, _): Column) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.fields[start..self.ends[at]]
    }

    /// The text of a field of the record, without the spaces around it.
    pub(super) fn text(&self, column: Column) -> Result<&str, InvalidLine> {
        std::str::from_utf8(self.bytes(column)).map(str::trim).map_err(|_| InvalidLine::NotUtf8(column.1))
    }

    /// The same of a column that may be missing.
    pub(super) fn text_of(&self, column: Option<Column>) -> Result<&str, InvalidLine> {
        column.map_or(Ok(""), |column| self.text(column))
    }

    /// Reads a record.
    fn advance(&mut self) -> Result<Option<u64>, Refusal> {
        self.skip_breaks()?;
        let (line, mut written, mut ended) = (self.line, 0, 0);
        loop {
            let input = self.from.fill_buf().map_err(|error| (self.line, error.into()))?;
            let is_end = input.is_empty();
            let (result, read, out, ends) =
                self.reader.read_record(input, &mut self.fields[written..], &mut self.ends[ended..]);
            self.line += input[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
            self.from.consume(read);
            (written, ended) = (written + out, ended + ends);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => return Err((line, InvalidLine::TooLong(MAX_RECORD))),
                ReadRecordResult::OutputEndsFull => return Err((line, InvalidLine::TooWide(MAX_COLUMNS))),
                ReadRecordResult::Record if is_end => return Err((line, InvalidLine::Truncated)),
                ReadRecordResult::Record => {
                    self.count = ended;
                    return Ok(Some(line));
                }
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    /// Skips the rest of a line break, and empty lines.
    fn skip_breaks(&mut self) -> Result<(), Refusal> {
        loop {
            let input = self.from.fill_buf().map_err(|error| (self.line, error.into()))?;
            let breaks = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
            let (count, lines) =
                breaks.fold((0, 0), |(count, lines), byte| (count + 1, lines + u64::from(*byte == b'\n')));
            self.line += lines;
            self.from.consume(count);
            if count == 0 {
                return Ok(());
            }
        }
    }
}

/// The names of the columns, in one form.
pub(super) struct Names(Vec<String>);

impl Names {
    /// A column by its name in snake case.
    pub(super) fn find(&self, name: &'static str) -> Option<Column> {
        self.0.iter().position(|known| known == name).map(|at| Column(at, name))
    }

    /// A column that must be there; `hint` is the question if it is missing.
    pub(super) fn need(&self, name: &'static str, hint: &'static str) -> Result<Column, InvalidLine> {
        self.find(name).ok_or(InvalidLine::NoColumn(name, hint))
    }
}

/// A name in snake case: `lineItem/UsageType` and `line_item_usage_type` are one column, and so are `usage.amount`
/// and `usage_amount`.
fn normal(name: &str) -> String {
    let mut normal = String::new();
    let mut was_small = false;
    for character in name.trim().chars() {
        if character.is_ascii_uppercase() && was_small {
            normal.push('_');
        }
        was_small = character.is_ascii_lowercase() || character.is_ascii_digit();
        normal.push(if matches!(character, '/' | '.' | ' ') { '_' } else { character.to_ascii_lowercase() });
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn lines(text: &str) -> Result<Vec<(u64, String)>, String> {
        let from: Text<'_> = Box::new(Cursor::new(text.as_bytes()));
        let refused = |(line, reason): Refusal| format!("{line}: {reason}");
        let (mut table, column) = Table::open(from, |names| names.need("second_name", "x")).map_err(refused)?;
        let mut lines = Vec::new();
        while let Some(line) = table.next().map_err(refused)? {
            lines.push((line, table.text(column).unwrap().to_owned()));
        }
        Ok(lines)
    }

    #[test]
    fn records_have_the_line_where_they_begin() {
        let found = |text| lines(text).unwrap();
        let expected = vec![(2, "1".to_owned()), (3, "two\nlines".to_owned()), (6, "3".to_owned())];
        assert_eq!(found("a,secondName\nx,1\nx,\"two\nlines\"\n\nx,3\n"), expected);
        assert_eq!(found("a,second/Name\r\nx,1\r\nx,\"two\nlines\"\r\n\r\nx,3\r\n"), expected);
        assert_eq!(found("a,second.name\n"), []);
    }

    #[test]
    fn what_is_malformed_or_truncated_is_refused_with_its_line() {
        let refused = |text: &str| lines(text).unwrap_err();
        assert_eq!(refused(""), "1: the file is empty");
        assert_eq!(refused("\n\n"), "1: the file is empty");
        assert!(refused("a,b\n").starts_with("1: there is no column second_name"));
        assert_eq!(refused("a,secondName\nx,1\nx\n"), "3: it has 1 fields, but there are 2 columns");
        assert_eq!(refused("a,secondName\nx,1,2\n"), "2: it has 3 fields, but there are 2 columns");
        assert!(refused("a,secondName\nx,1\nx,12").starts_with("3: the file ends within this line"));
        assert!(refused("a,secondName\nx,\"1\n").starts_with("2: the file ends within this line"));
        let endless = format!("a,secondName\nx,\"{}", "1\n".repeat(MAX_RECORD));
        assert!(refused(&endless).starts_with("2: the line is longer than 1048576 bytes"));
        let wide = format!("a,secondName\n{}\n", ",".repeat(MAX_COLUMNS + 1));
        assert_eq!(refused(&wide), "2: there are more than 8192 columns");
    }
}
