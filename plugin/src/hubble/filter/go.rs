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

/// A number of 16 bits.
///
/// # Errors
/// The error text of `strconv.ParseUint`.
pub(super) fn parse_u16(text: &str) -> Result<u16, String> {
    let failed = |why: &str| format!("strconv.ParseUint: parsing {}: {why}", quote(text));
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed("invalid syntax"));
    }
    text.parse().map_err(|_| failed("value out of range"))
}

/// The memory limit of a regular expression.
pub(super) const REGEXP_BYTES: usize = 1 << 20;

/// Compiles regular expressions that match anywhere.
///
/// # Errors
/// The invalid expression and the reason. The text is not Go's.
pub(super) fn regexps(patterns: &[String]) -> Result<Vec<Regex>, (String, String)> {
    let compile = |pattern: &String| {
        RegexBuilder::new(pattern).size_limit(REGEXP_BYTES).build().map_err(|error| {
            let message = match error {
                regex::Error::Syntax(message) => message.lines().last().unwrap_or_default().replace("error: ", ""),
                error => error.to_string(),
            };
            (pattern.clone(), format!("error parsing regexp: {message}: `{pattern}`"))
        })
    };
    patterns.iter().map(compile).collect()
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
        assert_eq!(parse_u16("65536").unwrap_err(), r#"strconv.ParseUint: parsing "65536": value out of range"#);
        for text in ["", "-1", "+1", "1_000", " 1", "x"] {
            assert!(parse_u16(text).unwrap_err().ends_with(": invalid syntax"), "{text}");
        }
    }
}
