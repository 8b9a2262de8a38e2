//! Lines that a container runtime has split: `TIME stdout P BEGINNING`, then `TIME stdout F END`. Those of the other
//! stream can be between them.

use super::{
    piece::{LONGEST, Piece},
    reason::Reason,
};

/// The streams of a container, each with the beginning of a line that has no end yet.
#[derive(Debug, Default)]
pub(super) struct Parts([Option<Beginning>; 2]);

#[derive(Debug)]
struct Beginning {
    /// The number of the first line.
    line: u64,
    text: Vec<u8>,
}

/// A line of a container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContainerLine {
    pub(super) stream: Stream,
    /// Whether the text continues in a later line.
    pub(super) is_part: bool,
    /// Where the text begins.
    pub(super) content: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Parts {
    pub(super) const fn new() -> Self {
        Self([None, None])
    }

    pub(super) const fn is_empty(&self) -> bool {
        matches!(self.0, [None, None])
    }

    /// Whether a line of the stream has begun.
    pub(super) const fn has(&self, stream: Stream) -> bool {
        self.0[stream as usize].is_some()
    }

    /// Adds the text of a line, which has this number. Returns the whole line after its last part.
    pub(super) fn add(&mut self, line: ContainerLine, number: u64, text: &[u8]) -> Option<(u64, Piece)> {
        let place = &mut self.0[line.stream as usize];
        let Beginning { line: first, text: mut whole } =
            place.take().unwrap_or_else(|| Beginning { line: number, text: Vec::new() });
        // A copy of the file may have line ends of Windows.
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        whole.extend_from_slice(&text[..text.len().min(LONGEST - whole.len())]);
        if line.is_part {
            *place = Some(Beginning { line: first, text: whole });
            return None;
        }
        let piece = if whole.len() < LONGEST {
            Piece::Text(String::from_utf8_lossy(&whole).into_owned())
        } else {
            Piece::Left(Reason::TooLong, format!("an object is longer than {LONGEST} bytes"))
        };
        Some((first, piece))
    }

    /// Takes a line that has no end.
    pub(super) fn unfinished(&mut self) -> Option<(u64, Piece)> {
        let beginning = self.0.iter_mut().find_map(Option::take)?;
        Some((beginning.line, Piece::Left(Reason::NotJson, "not JSON: a line that was cut has no end".to_owned())))
    }
}

/// The line of a container runtime that starts with this text.
pub(super) fn container_line(start: &[u8]) -> Option<ContainerLine> {
    let mut words = start.splitn(4, |byte| *byte == b' ');
    let (time, stream, flag) = (words.next()?, words.next()?, words.next()?);
    let is_time = time.first().is_some_and(u8::is_ascii_digit) && time.contains(&b'T');
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let is_part = match flag {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    let content = start.len() - words.next()?.len();
    is_time.then_some(ContainerLine { stream, is_part, content })
}
