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

    /// The text up to the end of the quote, and the number of bytes that it takes.
    pub(super) fn unquote(self, text: &[u8]) -> (usize, String) {
        let (mut plain, mut at) = (Vec::with_capacity(text.len()), 0);
        loop {
            match (self, &text[at..]) {
                (Self::Doubled, [b'"', b'"', ..]) => plain.push(b'"'),
                (Self::Escaped, [b'\\', escaped, ..]) => match escaped {
                    b'n' => plain.push(b'\n'),
                    b'r' => plain.push(b'\r'),
                    b't' => plain.push(b'\t'),
                    // Within a string of the JSON, which writes it in the same way.
                    b'u' | b'b' | b'f' => plain.extend([b'\\', *escaped]),
                    other => plain.push(*other),
                },
                (_, [b'"', ..] | []) => return (at, String::from_utf8_lossy(&plain).into_owned()),
                (_, [byte, ..]) => {
                    plain.push(*byte);
                    at += 1;
                    continue;
                }
            }
            at += 2;
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
        let escaped = |text: &str| Quoting::Escaped.unquote(text.as_bytes());
        assert_eq!(escaped(r#"{\"a\":\"\\\"\u00e9\"}" x"#), (22, r#"{"a":"\"\u00e9"}"#.to_owned()));
        assert_eq!(escaped(r#"{\"a\":1"#).1, r#"{"a":1"#);
        assert_eq!(escaped(r#"{\"a\":1\"#).1, r#"{"a":1\"#);
        let doubled = |text: &str| Quoting::Doubled.unquote(text.as_bytes());
        assert_eq!(doubled(r#"{""a"":"""",""b"":""\""""},x"#), (28, r#"{"a":"","b":"\""},x"#.to_owned()));
        assert_eq!(doubled(r#"{""a"":1}",x"#), (9, r#"{"a":1}"#.to_owned()));
    }
}
