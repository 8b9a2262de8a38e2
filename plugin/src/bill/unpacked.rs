//! The text of a bill: decompresses gzip, and refuses the formats that are no text.

use super::invalid::InvalidLine;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};

/// Bytes of a buffer.
const BUFFER: usize = 1 << 17;
/// Leading bytes that identify a format.
const HEAD: usize = 4;
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// The text of a bill.
pub(super) type Text<'r> = Box<dyn BufRead + 'r>;

/// Opens the text of a bill, decompressed if needed.
pub(super) fn text<'r>(from: impl Read + 'r) -> Result<Text<'r>, InvalidLine> {
    let (head, peeked) = peek(Box::new(from))?;
    let (head, text) = if head.starts_with(&[0x1f, 0x8b]) {
        let unpacked = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, peeked));
        peek(Box::new(unpacked))?
    } else {
        (head, peeked)
    };
    match head.as_slice() {
        [] => return Err(InvalidLine::Empty),
        b"PAR1" => return Err(InvalidLine::Parquet),
        [b'P', b'K', 3, 4] => return Err(InvalidLine::Packed("zip")),
        [0x28, 0xb5, 0x2f, 0xfd] => return Err(InvalidLine::Packed("zstd")),
        [b'B', b'Z', b'h', _] => return Err(InvalidLine::Packed("bzip2")),
        [0x1f, 0x8b, ..] => return Err(InvalidLine::Packed("gzip in gzip")),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(InvalidLine::Utf16),
        _ => {}
    }
    let mut text = BufReader::with_capacity(BUFFER, text);
    if head.starts_with(BYTE_ORDER_MARK) {
        io::copy(&mut text.by_ref().take(BYTE_ORDER_MARK.len() as u64), &mut io::sink())?;
    }
    Ok(Box::new(text))
}

/// The first bytes, and all bytes. A pipe may deliver them in pieces.
fn peek<'r>(mut from: Box<dyn Read + 'r>) -> io::Result<(Vec<u8>, Box<dyn Read + 'r>)> {
    let mut head = Vec::new();
    from.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(from))))
}

impl From<io::Error> for InvalidLine {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Unreadable(error) }
    }
}
