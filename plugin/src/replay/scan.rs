//! Finds JSON objects in the text of a log: one on each line, in an array, indented, or concatenated; with an optional
//! prefix from a container runtime or `kubectl logs` on each line, or quoted within other text.

use super::{
    parts::{Parts, container_line},
    piece::{LONGEST, Piece},
    quoting::Quoting,
    reason::Reason,
};
use serde_json::{Deserializer, Map, Value};
use std::io::{self, ErrorKind, Read};

/// The number of bytes to read at once.
const CHUNK: usize = 1 << 16;
/// The number of bytes before an object that are examined.
const PREFIX: usize = 128;
/// The texts at which a flow is searched in a broken line: a killed writer leaves half a line, and the next writer
/// continues on the same one. The second one is within a text, as docker writes it.
const BEGINNINGS: [&[u8]; 2] = [b"{\"flow\":", b"{\\\"flow\\\":"];

/// Scans a text.
pub(super) struct Scanner<R> {
    from: R,
    buffer: Vec<u8>,
    /// The position in the buffer up to which the text was scanned.
    at: usize,
    /// The line number of the position, from 1.
    line: u64,
    ended: bool,
    /// Lines that a container runtime has split.
    parts: Parts,
    /// The line that the last finding ended in.
    found: u64,
    /// The line that the last object ended in: other text of it is no loss.
    read: u64,
}

/// The beginning of an object.
enum Start {
    /// A name follows, or the end.
    Object,
    Quoted(Quoting),
    /// A brace of other text, such as the labels of a stream: `{app="cilium"}`.
    Other,
}

impl<R: Read> Scanner<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, buffer: Vec::new(), at: 0, line: 1, ended: false, parts: Parts::new(), found: 0, read: 0 }
    }

    /// The next object or unreadable part, with its line number. `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Piece)>> {
        loop {
            self.skip_blanks()?;
            let line = self.line;
            match self.rest().first().copied() {
                None => return Ok(self.parts.unfinished()),
                Some(_) if line == self.found => {}
                Some(b'0'..=b'9') => match self.container_line()? {
                    Some(Some(found)) => return Ok(Some(found)),
                    Some(None) => continue,
                    None => {}
                },
                Some(_) if !self.parts.is_empty() => return Ok(self.parts.unfinished()),
                Some(_) => {}
            }
            let prefix = self.prefix()?;
            let piece = match self.rest().first() {
                Some(b'{') => match self.start()? {
                    Start::Quoted(quoting) => self.quoted(quoting)?,
                    Start::Object | Start::Other => self.object()?,
                },
                // The end of a line with an object.
                _ if line == self.read => continue,
                _ => {
                    let text = String::from_utf8_lossy(&prefix).trim().to_owned();
                    Piece::Left(Reason::NotJson, format!("not JSON: `{}`", shortened(&text)))
                }
            };
            self.found = self.line;
            if !matches!(piece, Piece::Left(..)) {
                self.read = self.line;
            }
            return Ok(Some((line, piece)));
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Reads more. Returns whether there was any.
    fn fill(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let len = self.buffer.len();
        // Doubled each time: an object that is parsed again after each read costs at most twice its length.
        let more = len.max(CHUNK);
        self.buffer.resize(len + more, 0);
        let read = loop {
            match self.from.read(&mut self.buffer[len..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(len + read.as_ref().map_or(0, |n| *n));
        self.ended = !matches!(read, Ok(1..));
        Ok(read? > 0)
    }

    /// Skips blanks, and the separators of an array: its values are scanned one by one.
    fn skip_blanks(&mut self) -> io::Result<()> {
        loop {
            match self.rest() {
                [] => {
                    if !self.fill()? {
                        return Ok(());
                    }
                }
                [b'\n', ..] => {
                    self.at += 1;
                    self.line += 1;
                }
                // NUL fills a file that was truncated while it was written; RS starts a text in a JSON sequence.
                [b' ' | b'\t' | b'\r' | b',' | b'[' | b']' | 0 | 0x1e, ..] => self.at += 1,
                // The byte order mark of UTF-8, also where files were concatenated.
                [0xef, 0xbb, 0xbf, ..] => self.at += 3,
                [0xef] | [0xef, 0xbb] => {
                    if !self.fill()? {
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    /// Skips to the next object or the end of the line. Returns the text before it, up to the limit.
    fn prefix(&mut self) -> io::Result<Vec<u8>> {
        let mut prefix = Vec::new();
        loop {
            let rest = self.rest();
            let end = rest.iter().position(|byte| matches!(byte, b'{' | b'\n'));
            let text = &rest[..end.unwrap_or(rest.len())];
            prefix.extend_from_slice(&text[..text.len().min(PREFIX - prefix.len())]);
            self.at += text.len();
            match self.rest().first().copied() {
                None if self.fill()? => {}
                None | Some(b'\n') => return Ok(prefix),
                Some(brace) => match self.start()? {
                    Start::Object | Start::Quoted(_) => return Ok(prefix),
                    Start::Other => {
                        prefix.extend(Some(brace).filter(|_| prefix.len() < PREFIX));
                        self.at += 1;
                    }
                },
            }
        }
    }

    /// The beginning at the position, which is at a brace.
    fn start(&mut self) -> io::Result<Start> {
        loop {
            let name = self.rest()[1..].trim_ascii_start();
            // A quote can be doubled or escaped.
            let is_seen = name.len() > Quoting::LONGEST || matches!(name, [b'}', ..]);
            let found = match (name, Quoting::of(name)) {
                (_, Some(quoting)) => Start::Quoted(quoting),
                ([] | [b'"' | b'}', ..], None) => Start::Object,
                _ => Start::Other,
            };
            if is_seen || self.rest().len() >= PREFIX || !self.fill()? {
                return Ok(found);
            }
        }
    }

    /// The text at the position up to the end of its quote, or else of its line.
    fn quoted(&mut self, quoting: Quoting) -> io::Result<Piece> {
        // Read on from there: text that was seen is not seen again.
        let mut seen = 0;
        loop {
            let (len, is_end) = quoting.find_end(&self.rest()[seen..]);
            seen += len;
            if is_end {
                break;
            }
            if seen >= LONGEST {
                self.skip_line()?;
                return Ok(Piece::Left(Reason::TooLong, format!("a line is longer than {LONGEST} bytes")));
            }
            if !self.fill()? {
                seen = self.rest().len();
                break;
            }
        }
        let text = quoting.unquote(&self.rest()[..seen]);
        self.at += seen;
        Ok(Piece::Text(text))
    }

    /// Takes a line of a container runtime that is a part of a longer one. `Some(Some)` once that has its end; `None`
    /// at any other line.
    fn container_line(&mut self) -> io::Result<Option<Option<(u64, Piece)>>> {
        while self.rest().len() < PREFIX && !self.rest().contains(&b'\n') && self.fill()? {}
        let head = &self.rest()[..self.rest().len().min(PREFIX)];
        let Some(found) = container_line(head) else { return Ok(self.parts.unfinished().map(Some)) };
        if !found.is_part && !self.parts.has(found.stream) {
            return Ok(None);
        }
        self.at += found.content;
        let (mut text, number) = (Vec::new(), self.line);
        self.line(&mut text, LONGEST)?;
        Ok(Some(self.parts.add(found, number, &text)))
    }

    /// Parses the object at the position.
    fn object(&mut self) -> io::Result<Piece> {
        loop {
            let mut values = Deserializer::from_slice(self.rest()).into_iter::<Map<String, Value>>();
            let error = match values.next() {
                Some(Ok(object)) => {
                    let len = values.byte_offset();
                    self.line += self.rest()[..len].iter().filter(|byte| **byte == b'\n').count() as u64;
                    self.at += len;
                    return Ok(Piece::Object(object));
                }
                Some(Err(error)) => error,
                None => return Ok(Piece::Left(Reason::NotJson, "not JSON".into())),
            };
            if error.is_eof() && self.rest().len() < LONGEST && self.fill()? {
                continue;
            }
            if error.is_eof() && !self.ended {
                // If the object is on its own line, the line is left out; otherwise the rest of the line is searched.
                if self.rest().contains(&b'\n') {
                    self.skip_line()?
                } else {
                    self.at += 1
                }
                return Ok(Piece::Left(Reason::TooLong, format!("an object is longer than {LONGEST} bytes")));
            }
            self.at += 1;
            self.skip_broken()?;
            return Ok(Piece::Left(Reason::NotJson, format!("not JSON: {error}")));
        }
    }

    /// Skips to the end of the line.
    fn skip_line(&mut self) -> io::Result<()> {
        self.line(&mut Vec::new(), 0)
    }

    /// Skips to the end of the line, or to the next flow in it.
    fn skip_broken(&mut self) -> io::Result<()> {
        loop {
            let rest = self.rest();
            let end = rest.iter().position(|byte| *byte == b'\n');
            let line = &rest[..end.unwrap_or(rest.len())];
            let at = |beginning: &&[u8]| line.windows(beginning.len()).position(|text| text == *beginning);
            if let Some(found) = BEGINNINGS.iter().filter_map(at).min() {
                self.at += found;
                return Ok(());
            }
            if end.is_some() || self.ended {
                self.at += line.len();
                return Ok(());
            }
            // A flow may start here and continue in bytes that are not read yet.
            self.at += line.len().saturating_sub(BEGINNINGS[1].len() - 1);
            self.fill()?;
        }
    }

    /// Appends the rest of the line up to `room`, without its end; skips to the line's end.
    fn line(&mut self, to: &mut Vec<u8>, room: usize) -> io::Result<()> {
        loop {
            let rest = self.rest();
            let end = rest.iter().position(|byte| *byte == b'\n');
            let text = &rest[..end.unwrap_or(rest.len())];
            to.extend_from_slice(&text[..text.len().min(room.saturating_sub(to.len()))]);
            self.at += text.len();
            if end.is_some() || !self.fill()? {
                return Ok(());
            }
        }
    }
}

/// The start of a text, on one line.
fn shortened(text: &str) -> String {
    let mut start: String =
        text.chars().take(40).map(|c| if c.is_alphanumeric() || c.is_ascii_graphic() { c } else { ' ' }).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that returns a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(to.len());
            self.0.read(&mut to[..n])
        }
    }

    fn scan(text: &[u8]) -> Vec<String> {
        let pieces = |at_once: usize| {
            let mut scanner = Scanner::new(Slow(text, at_once));
            std::iter::from_fn(move || scanner.next().unwrap())
                .map(|(line, piece)| match piece {
                    Piece::Object(object) => format!("{line} {}", Value::Object(object)),
                    Piece::Text(text) => format!("{line} text {text}"),
                    Piece::Left(reason, text) => format!("{line} {reason:?} {text}"),
                })
                .collect::<Vec<_>>()
        };
        let all = pieces(usize::MAX);
        if text.len() < 1 << 12 {
            assert_eq!(pieces(1), all, "byte by byte");
        }
        all
    }

    #[test]
    fn objects_are_found_in_any_arrangement() {
        let expected = ["1 {\"a\":1}", "1 {\"b\":[{}]}"];
        for text in ["{\"a\":1}{\"b\":[{}]}", "[{\"a\":1},{\"b\":[{}]}]", "\u{feff}{\"a\":1} \u{feff}{\"b\":[{}]}\n\n"]
        {
            assert_eq!(scan(text.as_bytes()), expected, "{text}");
        }
        for text in [
            "{\"a\":\n1\n}\n\n{\"b\":[\n{}]}",
            "[\n{\"a\":1}\n\n\n,{\"b\":[{}]}\n]",
            "\0\0{\"a\":1}\r\n\n\n\x1e{\"b\":[{}]}",
        ] {
            let lines: Vec<String> = scan(text.as_bytes()).iter().map(|piece| piece[2..].to_owned()).collect();
            assert_eq!(lines, expected.map(|piece| &piece[2..]), "{text}");
        }
        assert_eq!(scan(b"{\n}\n{}"), ["1 {}", "3 {}"]);
        assert!(scan(b" \n[\n]\n").is_empty());
    }

    #[test]
    fn text_before_a_line_is_no_part_of_it() {
        let lines = [
            "2026-01-02T03:04:05.10Z stdout F {\"a\":1}",
            "[pod/cilium-x2/cilium-agent] {\"a\":1}",
            "cilium-x2 cilium-agent {\"a\":1}",
            "\u{1b}[36magent |\u{1b}[0m {\"a\":1}",
            "Jan  2 03:04:05 host cilium[1]: {\"a\":1}",
            "2026-01-02T03:04:05Z {app=\"cilium\", pod=\"cilium-x2\"} {\"a\":1}",
            "{app=\"cilium\"} {\"a\":1}",
            "<14>1 2026-01-02T03:04:05Z host cilium 1 - [x@1 a={b] {\"a\":1}",
            "kube.var.log: [1767322447.5, {{ \t{ \"a\" : 1 }",
        ];
        for line in lines {
            assert_eq!(scan(line.as_bytes()), ["1 {\"a\":1}"], "{line}");
        }
    }

    #[test]
    fn a_line_that_a_runtime_has_cut_is_whole_again() {
        let line = |flag: &str, text: &str| format!("2026-01-02T03:04:05Z stdout {flag} {text}\n");
        let log = [line("P", "{\"a\":\"one "), line("P", "two "), line("F", "three\"}"), line("F", "{}")].concat();
        for log in [&log, &log.replace('\n', "\r\n")] {
            assert_eq!(scan(log.as_bytes()), ["1 text {\"a\":\"one two three\"}", "4 {}"]);
        }
        // The other stream has lines between, one of them cut, too, and one with text after its object.
        let log = [
            line("P", "{\"a\":\"\u{fc}"),
            line("F", "{\"b\":1} end").replace("stdout", "stderr"),
            line("P", "{\"c\"").replace("stdout", "stderr"),
            line("F", "\"}"),
            line("F", ":1}").replace("stdout", "stderr"),
        ];
        assert_eq!(scan(log.concat().as_bytes()), ["2 {\"b\":1}", "1 text {\"a\":\"\u{fc}\"}", "3 text {\"c\":1}"]);
        // No end.
        for rest in ["other\n".to_owned(), "2026 is other\n".to_owned(), String::new()] {
            let found = scan([line("P", "{\"a\":"), rest, line("F", "{}")].concat().as_bytes());
            assert!(found[0].starts_with("1 NotJson") || found[0].starts_with("1 text"), "{found:?}");
            assert!(found.len() == 1 || found[2] == "3 {}", "{found:?}");
        }
        assert_eq!(scan(line("P", "{").as_bytes()), ["1 NotJson not JSON: a line that was cut has no end"]);
        let endless = [line("P", &"x".repeat(LONGEST)), line("P", &"y".repeat(LONGEST)), line("F", "z")].concat();
        assert_eq!(scan(endless.as_bytes()), ["1 TooLong an object is longer than 1048576 bytes"]);
    }

    #[test]
    fn quoted_objects_are_found_in_other_text() {
        let texts = [
            r#"time="2026-01-02T03:04:05Z" level=info msg="{\"a\":\"x\\ny\"}" subsys=hubble"#,
            r#"2026-01-02T03:04:05Z,"{""a"":""x\ny""}",stdout"#,
            r#"log: {\"a\":\"x\\ny\"}"#,
        ];
        for text in texts {
            let found = scan(text.as_bytes());
            assert_eq!(found.last().unwrap(), r#"1 text {"a":"x\ny"}"#, "{text}: {found:?}");
        }
        let ruby = r#"[0] kube.var.log: [1767322447.5, {"log"=>"{\"flow\":{}}", "stream"=>"stdout"}]"#;
        assert_eq!(scan(ruby.as_bytes()).last().unwrap(), "1 text {\"flow\":{}}");
        let empty_name = scan(b"{\"\":1}\n{\"\" :\"\"}\n{\"a\":\"\"}");
        assert_eq!(empty_name, ["1 {\"\":1}", "2 {\"\":\"\"}", "3 {\"a\":\"\"}"]);
        let again: Vec<String> = scan("{\\\"\"".repeat(LONGEST / 4).as_bytes());
        assert_eq!(again.len(), LONGEST / 4, "each is read once");
        let endless = format!("{{\\\"a\\\":{}\n{{}}", "x".repeat(3 * LONGEST));
        assert_eq!(scan(endless.as_bytes()), ["1 TooLong a line is longer than 1048576 bytes", "2 {}"]);
    }

    #[test]
    fn text_after_an_object_of_a_line_is_no_loss() {
        assert_eq!(scan(b"{\"a\":1} end\n{}\nend\n"), ["1 {\"a\":1}", "2 {}", "3 NotJson not JSON: `end`"]);
        assert_eq!(scan(b"{\n\"a\":1} end\nend"), ["1 {\"a\":1}", "3 NotJson not JSON: `end`"]);
    }

    #[test]
    fn a_broken_line_is_left_out_alone() {
        let torn =
            ["{\"flow\":{\"time\":\"2026-1", "{\"flow\":{\"a\":{\"b\":1},", "{\"flow\":", "text {b}", "nonsense", "1"];
        for torn in torn {
            let found = scan(format!("{{}}\n{torn}\n{{\"a\":1}}\n{{\"b\":1}}\n").as_bytes());
            assert_eq!((found.len(), &*found[2], &*found[3]), (4, "3 {\"a\":1}", "4 {\"b\":1}"), "{torn}: {found:?}");
            assert!(found[1].starts_with("2 NotJson not JSON"), "{found:?}");
        }
        assert_eq!(scan(b"{\"flow\":{\"ti{\"flow\":{}}\n")[1..], ["1 {\"flow\":{}}"]);
        let torn = scan(br#"{"log":"{\"flow\":{\"ti{"log":"{\"flow\":{}}\n","stream":"stdout"}"#);
        assert_eq!(torn.last().unwrap(), "1 text {\"flow\":{}}\n", "{torn:?}");
        assert_eq!(scan(b"{\"a\":1}\n{\"flow\":{").len(), 2);
        assert!(scan(&[&b"{\"a\":\"\xff\"}\n"[..], b"{}"].concat())[1] == "2 {}");
    }

    #[test]
    fn an_endless_line_does_not_fill_the_memory() {
        let text = format!("{{\"a\":\"{}\"}}\n{{}}", "x".repeat(3 * LONGEST));
        let found = scan(text.as_bytes());
        assert!(found[0].starts_with("1 TooLong") && found.last().unwrap() == "2 {}", "{}", found.len());
        let mut scanner = Scanner::new(text.as_bytes());
        while scanner.next().unwrap().is_some() {
            assert!(scanner.buffer.capacity() <= 4 * LONGEST, "{}", scanner.buffer.capacity());
        }
        // A search response, on one line and indented.
        for separator in ["", "\n"] {
            let hits: Vec<_> =
                (0..30_000).map(|n| format!("{{\"_source\":{{\"flow\":{{\"uuid\":\"{n}\"}}}}}}")).collect();
            let text = format!("{{\"hits\":{{\"hits\":[{separator}{}]}}}}", hits.join(&format!(",{separator}")));
            assert!(text.len() > LONGEST);
            let found: usize = scan(text.as_bytes()).iter().map(|piece| piece.matches("uuid").count()).sum();
            assert_eq!(found, 30_000);
        }
        assert!(scan("{\"a\":".repeat(LONGEST).as_bytes()).iter().all(|piece| piece.contains("NotJson")));
        assert!(scan("x".repeat(3 * LONGEST).as_bytes()).len() == 1);
    }
}
