//! The bytes of a flow log as UTF-8 text: decompresses gzip and zstd, and decodes UTF-16.
//!
//! Everything is streamed, so memory is bounded, regardless of the file's headers.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};
use std::io::{self, BufRead, BufReader, Chain, Cursor, Error, ErrorKind, Read};

/// The limit of nested compression.
const LAYERS: usize = 3;
/// The limit of a file's decompressed size, in bytes. A file of a thousandth of it can decompress to this size.
const LARGEST: u64 = 64 << 30;
/// The number of leading bytes that identify a format.
const HEAD: usize = 6;

type Source<'r> = Box<dyn Read + 'r>;
type Peeked<'r> = BufReader<Chain<Cursor<Vec<u8>>, Source<'r>>>;

/// The format of a file, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileFormat {
    Plain,
    Gzip,
    Zstd,
    Utf16 {
        is_big: bool,
    },
    /// A known format that is not supported.
    Foreign(&'static str),
}

impl FileFormat {
    const fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame, with which parallel compressors begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xff, 0xfe, ..] | [b'{' | b'[' | b'\r' | b'\n', 0, ..] => Self::Utf16 { is_big: false },
            // Any other text before the first object, such as a time.
            [b' '..=b'~', 0, b' '..=b'~', 0, ..] => Self::Utf16 { is_big: false },
            // NUL before text in UTF-8 fills the place of a truncated log.
            [0xfe, 0xff, ..] | [0, b' '..=b'~' | b'\r' | b'\n', 0, ..] => Self::Utf16 { is_big: true },
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Foreign("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Foreign("bzip2"),
            [b'P', b'K', 3, 4, ..] => Self::Foreign("zip"),
            [4, 0x22, 0x4d, 0x18, ..] => Self::Foreign("lz4"),
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c] => Self::Foreign("7z"),
            [0xff, 6, 0, 0, b's', b'N'] => Self::Foreign("snappy"),
            _ => Self::Plain,
        }
    }
}

/// Opens the text of a file, decompressed if needed.
///
/// # Errors
/// The file can't be read, or its compression is not supported: [`ErrorKind::Unsupported`].
pub(super) fn text<'r>(from: impl Read + 'r) -> io::Result<Source<'r>> {
    let mut from: Source<'r> = Box::new(from);
    for _ in 0..=LAYERS {
        let (head, peeked) = peek(from)?;
        from = match FileFormat::of(&head) {
            FileFormat::Plain => return Ok(Box::new(peeked)),
            FileFormat::Gzip => Box::new(Bounded::new(MultiGzDecoder::new(peeked))),
            FileFormat::Zstd => Box::new(Bounded::new(Zstd::Between(peeked))),
            FileFormat::Utf16 { is_big } => return Ok(Box::new(Utf16::new(peeked, is_big))),
            FileFormat::Foreign(name) => {
                let text = format!("{name} is not read, but gzip and zstd are: unpack it first");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        };
    }
    Err(Error::new(ErrorKind::Unsupported, format!("it is packed more than {LAYERS} times")))
}

/// The first bytes, without consuming them. A pipe may deliver them in pieces.
fn peek(mut from: Source<'_>) -> io::Result<(Vec<u8>, Peeked<'_>)> {
    let mut head = vec![0; HEAD];
    let mut len = 0;
    while len < HEAD {
        match from.read(&mut head[len..]) {
            // A short line that has arrived is not held back until more follows.
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(len);
    Ok((head.clone(), BufReader::with_capacity(1 << 16, Cursor::new(head).chain(from))))
}

/// Fails if a file decompresses to more than [`LARGEST`].
struct Bounded<R> {
    from: R,
    left: u64,
}

impl<R: Read> Bounded<R> {
    const fn new(from: R) -> Self {
        Self { from, left: LARGEST }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(to)?;
        let too_large = || Error::new(ErrorKind::InvalidData, format!("it unpacks to more than {LARGEST} bytes"));
        self.left = self.left.checked_sub(n as u64).ok_or_else(too_large)?;
        Ok(n)
    }
}

/// Concatenated frames of zstd. The decoder refuses windows of more than 100 MiB.
enum Zstd<R: BufRead> {
    Between(R),
    Within(R, Box<FrameDecoder>),
    /// The part of a torn frame that could be unpacked, and the error after it.
    Torn(Box<FrameDecoder>, Error),
    Ended,
}

/// An empty last block and a checksum: the decoder holds the last megabytes back until a frame ends, since later blocks
/// may refer to them.
const LAST_BLOCK: [u8; 7] = [1, 0, 0, 0, 0, 0, 0];

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, Self::Ended) {
                Self::Ended => return Ok(0),
                Self::Torn(mut frame, error) => match frame.read(to)? {
                    0 if !to.is_empty() => return Err(error),
                    n => {
                        *self = Self::Torn(frame, error);
                        return Ok(n);
                    }
                },
                Self::Between(mut from) => {
                    if from.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    *self = Self::begin(from)?;
                }
                Self::Within(mut from, mut frame) => {
                    if frame.can_collect() == 0 && frame.is_finished() {
                        *self = Self::Between(from);
                        continue;
                    }
                    let some = BlockDecodingStrategy::UptoBytes(to.len());
                    if frame.can_collect() == 0
                        && let Err(error) = frame.decode_blocks(&mut from, some)
                    {
                        let is_cut = from.fill_buf().is_ok_and(<[u8]>::is_empty);
                        let cut = || Error::new(ErrorKind::UnexpectedEof, "incomplete zstd frame");
                        let _ = frame.decode_blocks(&LAST_BLOCK[..], BlockDecodingStrategy::All);
                        *self = Self::Torn(frame, if is_cut { cut() } else { broken(error) });
                        continue;
                    }
                    let n = frame.read(to)?;
                    *self = Self::Within(from, frame);
                    if n > 0 || to.is_empty() {
                        return Ok(n);
                    }
                }
            }
        }
    }
}

impl<R: BufRead> Zstd<R> {
    fn begin(mut from: R) -> io::Result<Self> {
        let mut frame = Box::new(FrameDecoder::new());
        match frame.init(&mut from) {
            Ok(()) => Ok(Self::Within(from, frame)),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                io::copy(&mut from.by_ref().take(length.into()), &mut io::sink())?;
                Ok(Self::Between(from))
            }
            Err(error) => Err(broken(error)),
        }
    }
}

fn broken(error: FrameDecoderError) -> Error {
    Error::new(ErrorKind::InvalidData, error.to_string())
}

/// UTF-16 as UTF-8. Invalid characters become U+FFFD.
struct Utf16<R> {
    from: R,
    is_big: bool,
    /// The high surrogate of a pair.
    high: Option<u16>,
    /// Decoded bytes that were not returned yet.
    text: Vec<u8>,
    handed: usize,
    ended: bool,
}

impl<R: Read> Utf16<R> {
    const fn new(from: R, is_big: bool) -> Self {
        Self { from, is_big, high: None, text: Vec::new(), handed: 0, ended: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(1 << 14);
        self.from.by_ref().take(1 << 14).read_to_end(&mut bytes)?;
        self.ended = bytes.is_empty();
        let units = bytes.chunks(2).map(|pair| match *pair {
            [a, b] if self.is_big => u16::from_be_bytes([a, b]),
            [a, b] => u16::from_le_bytes([a, b]),
            _ => 0xfffd,
        });
        let mut units: Vec<u16> = self.high.take().into_iter().chain(units).collect();
        if !self.ended {
            self.high = units.pop_if(|last| (0xd800..0xdc00).contains(last));
        }
        let decoded = char::decode_utf16(units).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER));
        (self.text, self.handed) = (decoded.collect::<String>().into_bytes(), 0);
        Ok(())
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.handed == self.text.len() && !self.ended {
            self.fill()?;
        }
        let n = (&self.text[self.handed..]).read(to)?;
        self.handed += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write;

    fn read(bytes: &[u8]) -> Result<String, ErrorKind> {
        let mut all = String::new();
        text(bytes).and_then(|mut text| text.read_to_string(&mut all)).map_err(|error| error.kind())?;
        Ok(all)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut to = GzEncoder::new(Vec::new(), Compression::default());
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    fn zstd(text: &str) -> Vec<u8> {
        compress_to_vec(text.as_bytes(), CompressionLevel::Fastest)
    }

    #[test]
    fn every_member_and_every_frame_is_unpacked() {
        let long = "{\"flow\":{}}\n".repeat(50_000);
        assert_eq!(read(&[gzip(b"one\n"), gzip(b""), gzip(long.as_bytes())].concat()).unwrap(), format!("one\n{long}"));
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frames = [skipped.clone(), zstd("one\n"), skipped, zstd(&long)].concat();
        assert_eq!(read(&frames).unwrap(), format!("one\n{long}"));
        assert_eq!(read(&gzip(&zstd("both"))).unwrap(), "both");
        assert_eq!(read(b"").unwrap(), "");
        assert_eq!(read(b"{").unwrap(), "{");
    }

    #[test]
    fn utf_16_is_read_in_both_orders_with_a_mark_or_without() {
        let text = format!("{{\"a\":\"\u{fc}\u{1f600}\"}}\r\n{}", "\u{1f600}".repeat(9000));
        let encode = |mark: &str, to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("{mark}{text}").encode_utf16().flat_map(to_bytes).collect()
        };
        for mark in ["", "\u{feff}"] {
            for bytes in [encode(mark, u16::to_le_bytes), encode(mark, u16::to_be_bytes)] {
                assert_eq!(read(&bytes).unwrap().trim_start_matches('\u{feff}'), text);
            }
        }
        for text in ["2026-01-02T03:04:05Z stdout F {}", " {}", "cilium {}"] {
            assert_eq!(read(&text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap(), text);
            assert_eq!(read(&text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>()).unwrap(), text);
        }
        // The rest of a log that was truncated while it was written.
        for text in ["\0{\"a\":1}", "\0\0{\"a\":1}", "{\"a\":1}\n\0\0\0{\"a\":1}"] {
            assert_eq!(read(text.as_bytes()).unwrap(), text);
        }
        // Half a surrogate pair, and half a code unit.
        assert_eq!(read(b"{\0\0\xd8a\0b").unwrap(), "{\u{fffd}a\u{fffd}");
    }

    #[test]
    fn all_that_is_whole_of_a_torn_archive_is_unpacked() {
        // A block has at most 128 KiB, and numbers hardly compress.
        let long: String = (0..200_000_u32).map(|n| format!("{:x}\n", n.wrapping_mul(2_654_435_761))).collect();
        let mut other = zstd(&long);
        let middle = other.len() / 2;
        other[middle..middle + 64].fill(0xff);
        let (gzip, zstd) = (gzip(long.as_bytes()), zstd(&long));
        for (packed, kind) in [
            (&gzip[..gzip.len() / 2], ErrorKind::UnexpectedEof),
            (&zstd[..zstd.len() / 2], ErrorKind::UnexpectedEof),
            (&zstd[..zstd.len() - 2], ErrorKind::UnexpectedEof),
            (&other[..], ErrorKind::InvalidData),
        ] {
            let mut all = Vec::new();
            let error = text(packed).unwrap().read_to_end(&mut all).unwrap_err();
            let whole = all.iter().zip(long.as_bytes()).take_while(|(read, written)| read == written).count();
            let least = long.len() * packed.len().min(middle) / zstd.len() - (256 << 10);
            assert!(error.kind() == kind && whole >= least, "{error}: {whole} of {least}");
        }
    }

    #[test]
    fn a_broken_or_foreign_archive_is_an_error() {
        let mut torn = gzip("x".repeat(100_000).as_bytes());
        torn.truncate(torn.len() - 9);
        assert_eq!(read(&torn), Err(ErrorKind::UnexpectedEof));
        let mut torn = zstd("one");
        torn.truncate(torn.len() - 5);
        assert_eq!(read(&torn), Err(ErrorKind::UnexpectedEof));
        assert_eq!(read(&[&gzip(b"one")[..], b"two, three and four"].concat()), Err(ErrorKind::InvalidInput));
        for foreign in [
            &b"\xfd7zXZ\0\0"[..],
            b"BZh91AY",
            b"PK\x03\x04..",
            b"\x04\x22\x4d\x18..",
            b"7z\xbc\xaf\x27\x1c",
            b"\xff\x06\0\0sNaPpY",
        ] {
            assert_eq!(read(foreign), Err(ErrorKind::Unsupported));
        }
        let packed = (0..5).fold(b"deep".to_vec(), |packed, _| gzip(&packed));
        assert_eq!(read(&packed), Err(ErrorKind::Unsupported));
    }
}
