//! JSON that is quoted within the text of a line: `msg="{\"flow\":…}"`, and `"{""flow"":…}"` in comma-separated values.

/// How quotes within a text are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    /// `\"`, as in JSON and in Go.
    Escaped,
    /// `""`, as in comma-separated values.
    Doubled,
}

impl Quoting {
    /// The bytes of a quote: quoted twice, it is `\\\"`.
    pub(super) const LONGEST: usize = 4;

    /// The quoting of an object that continues like this after its brace.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        match name {
            // An empty name is followed by a colon.
            [b'"', b'"', b'"' | b':', ..] => None,
            [b'"', b'"', byte, ..] if !byte.is_ascii_whitespace() => Some(Self::Doubled),
            [b'\\', b'"', ..] | [b'\\', b'\\', b'\\', b'"', ..] => Some(Self::Escaped),
            _ => None,
        }
    }

    /// The length of the text up to its last quote or its line's end, and whether that is there. Without it, the length is
    /// that of the bytes whose meaning does not depend on those that follow.
    pub(super) fn find_end(self, text: &[u8]) -> (usize, bool) {
        let mut at = 0;
        loop {
            at += match (self, &text[at..]) {
                (_, [b'\n', ..]) => return (at, true),
                (Self::Escaped, [b'\\', b'\n', ..]) => 1,
                (Self::Escaped, [b'\\', _, ..]) | (Self::Doubled, [b'"', b'"', ..]) => 2,
                (Self::Escaped, [b'\\']) | (Self::Doubled, [b'"']) | (_, []) => return (at, false),
                (_, [b'"', ..]) => return (at, true),
                (_, [_, ..]) => 1,
            };
        }
    }

    /// The meaning of a text without its last quote.
    pub(super) fn unquote(self, text: &[u8]) -> String {
        let (mut plain, mut rest) = (Vec::with_capacity(text.len()), text);
        loop {
            rest = match (self, rest) {
                (Self::Doubled, [b'"', b'"', rest @ ..]) => {
                    plain.push(b'"');
                    rest
                }
                (Self::Escaped, [b'\\', escaped, rest @ ..]) => {
                    match escaped {
                        b'n' => plain.push(b'\n'),
                        b'r' => plain.push(b'\r'),
                        b't' => plain.push(b'\t'),
                        // Within a string of the JSON, which writes it in the same way.
                        b'u' | b'b' | b'f' => plain.extend([b'\\', *escaped]),
                        other => plain.push(*other),
                    }
                    rest
                }
                (_, [byte, rest @ ..]) => {
                    plain.push(*byte);
                    rest
                }
                (_, []) => return String::from_utf8_lossy(&plain).into_owned(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quoting_is_known_by_the_first_name() {
        assert_eq!(Quoting::of(br#"\"flow\""#), Some(Quoting::Escaped));
        assert_eq!(Quoting::of(br#"\\\"flow\\\""#), Some(Quoting::Escaped));
        assert_eq!(Quoting::of(br#"""flow"""#), Some(Quoting::Doubled));
        for plain in [&br#""flow""#[..], br#""":1"#, br#""" :1"#, br#""""""#, br#""""#, br"\n", br"\", b"}", b""] {
            assert_eq!(Quoting::of(plain), None, "{}", plain.escape_ascii());
        }
    }

    #[test]
    fn a_text_ends_with_its_quote_or_its_line() {
        let read = |quoting: Quoting, text: &str| {
            let (len, is_end) = quoting.find_end(text.as_bytes());
            // A text that comes in pieces has the same end.
            let mut seen = 0;
            for end in 0..=text.len() {
                let (more, is_found) = quoting.find_end(&text.as_bytes()[seen..end]);
                seen += more;
                if is_found {
                    break;
                }
            }
            assert_eq!(seen, len, "{text}");
            (quoting.unquote(&text.as_bytes()[..len]), is_end)
        };
        let escaped = |text: &str| read(Quoting::Escaped, text);
        assert_eq!(escaped(r#"{\"a\":\"\\\"\u00e9\"}" x"#), (r#"{"a":"\"\u00e9"}"#.to_owned(), true));
        assert_eq!(escaped("{\\\"a\\\":1\n{}"), (r#"{"a":1"#.to_owned(), true));
        assert_eq!(escaped("{\\\"a\\\":1\\\n{}"), (r#"{"a":1\"#.to_owned(), true));
        assert_eq!(escaped(r#"{\"a\":1"#), (r#"{"a":1"#.to_owned(), false));
        assert_eq!(escaped(r#"{\"a\":1\"#), (r#"{"a":1"#.to_owned(), false));
        let doubled = |text: &str| read(Quoting::Doubled, text);
        assert_eq!(doubled(r#"{""a"":"""",""b"":""\""""}",x"#), (r#"{"a":"","b":"\""}"#.to_owned(), true));
        assert_eq!(doubled("{\"\"a\"\":1}\n\"\""), (r#"{"a":1}"#.to_owned(), true));
        assert_eq!(doubled(r#"{""a"":1}""#), (r#"{"a":1}"#.to_owned(), false));
    }
}
