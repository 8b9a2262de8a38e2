//! Go's formatting and parsing in error texts, which clients show unchanged.

use regex::{Regex, RegexBuilder};
use std::fmt::Write;

/// Go's `%q`: a string in double quotes.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        // Writing to a string can't fail.
        let _ = match char {
            '"' | '\\' => write!(quoted, "\\{char}"),
            '\u{7}' => write!(quoted, "\\a"),
            '\u{8}' => write!(quoted, "\\b"),
            '\u{c}' => write!(quoted, "\\f"),
            '\n' => write!(quoted, "\\n"),
            '\r' => write!(quoted, "\\r"),
            '\t' => write!(quoted, "\\t"),
            '\u{b}' => write!(quoted, "\\v"),
            char if (char as u32) < 0x20 || char as u32 == 0x7f => write!(quoted, "\\x{:02x}", char as u32),
            char => write!(quoted, "{char}"),
        };
    }
    quoted.push('"');
    quoted
}

/// `'%c'`: a character in single quotes.
pub(super) fn quote_rune(char: char) -> String {
    if char == '\'' { r"'\''".to_owned() } else { format!("'{char}'") }
}

/// A text that is no number, as `strconv.ParseUint` has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNumber {
    /// It has something else than digits.
    #[error("strconv.ParseUint: parsing {}: invalid syntax", quote(.0))]
    Syntax(String),
    /// It is too large.
    #[error("strconv.ParseUint: parsing {}: value out of range", quote(.0))]
    Range(String),
}

/// A number of 16 bits.
///
/// # Errors
/// It is none.
pub(super) fn parse_u16(text: &str) -> Result<u16, InvalidNumber> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidNumber::Syntax(text.to_owned()));
    }
    text.parse().map_err(|_| InvalidNumber::Range(text.to_owned()))
}

/// The memory limit of a regular expression.
pub(super) const REGEXP_BYTES: usize = 1 << 20;

/// A text that is no regular expression. The words are not Go's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("error parsing regexp: {}: `{pattern}`", why(source))]
pub struct InvalidRegexp {
    /// The text.
    pub(super) pattern: String,
    source: regex::Error,
}

fn why(error: &regex::Error) -> String {
    match error {
        // Its last line, after those that show the place.
        regex::Error::Syntax(message) => message.lines().last().unwrap_or_default().replace("error: ", ""),
        error => error.to_string(),
    }
}

/// A regular expression that matches anywhere.
///
/// # Errors
/// It is none.
pub(super) fn regexp(pattern: &str) -> Result<Regex, InvalidRegexp> {
    let regexp = RegexBuilder::new(pattern).size_limit(REGEXP_BYTES).build();
    regexp.map_err(|source| InvalidRegexp { pattern: pattern.to_owned(), source })
}

/// Compiles regular expressions that match anywhere.
///
/// # Errors
/// One of them is none.
pub(super) fn regexps(patterns: &[String]) -> Result<Vec<Regex>, InvalidRegexp> {
    patterns.iter().map(|pattern| regexp(pattern)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_does() {
        assert_eq!(quote("a\"b\\c\n\u{1}ü"), r#""a\"b\\c\n\x01ü""#);
    }

    #[test]
    fn numbers_are_read_as_go_does() {
        assert_eq!(parse_u16("08080"), Ok(8080));
        assert_eq!(
            parse_u16("65536").unwrap_err().to_string(),
            r#"strconv.ParseUint: parsing "65536": value out of range"#
        );
        for text in ["", "-1", "+1", "1_000", " 1", "x"] {
            assert!(parse_u16(text).unwrap_err().to_string().ends_with(": invalid syntax"), "{text}");
        }
    }
}
