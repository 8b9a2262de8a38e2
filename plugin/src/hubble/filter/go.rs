//! Go's formatting and parsing in error texts, which clients show unchanged.

use regex_automata::meta::{BuildError, Config, Regex};
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

/// The size limit of a compiled regular expression.
pub(super) const REGEXP_BYTES: usize = 1 << 20;
/// The limit of what a search remembers, in each direction.
const CACHE_BYTES: usize = 64 << 10;

/// A text that is no regular expression. The words are not Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {fault}: `{pattern}`")]
pub struct InvalidRegexp {
    /// The text.
    pub(super) pattern: String,
    fault: RegexpFault,
}

/// The fault of a regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegexpFault {
    /// The syntax, in the words of the library.
    #[error("{0}")]
    Syntax(String),
    /// The size.
    #[error("Compiled regex exceeds size limit of {0} bytes.")]
    TooLarge(usize),
}

impl From<BuildError> for RegexpFault {
    fn from(error: BuildError) -> Self {
        match (error.size_limit(), error.syntax_error()) {
            (Some(limit), _) => Self::TooLarge(limit),
            // Its last line, after those that show the place.
            (None, Some(error)) => {
                Self::Syntax(error.to_string().lines().last().unwrap_or_default().replace("error: ", ""))
            }
            (None, None) => Self::Syntax(error.to_string()),
        }
    }
}

/// A compiled regular expression that matches anywhere, of a known size.
#[derive(Clone, Debug)]
pub(super) struct Regexp {
    regex: Regex,
    bytes: usize,
}

impl Regexp {
    /// Compiles an expression up to a size.
    ///
    /// # Errors
    /// The text is no regular expression, or a large one.
    pub(super) fn new(pattern: &str, limit: usize) -> Result<Self, RegexpFault> {
        // A backtracking search would remember more.
        let config = Config::new().nfa_size_limit(Some(limit)).onepass_size_limit(Some(CACHE_BYTES));
        let config = config.hybrid_cache_capacity(CACHE_BYTES).backtrack(false);
        let regex = Regex::builder().configure(config).build(pattern)?;
        // One thread serves all clients, so there is one cache.
        let bytes = regex.memory_usage() + regex.create_cache().memory_usage() + 2 * CACHE_BYTES;
        Ok(Self { regex, bytes })
    }

    /// Whether the text has a match.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The limit of the memory that it takes, its searches included.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A regular expression that matches anywhere.
///
/// # Errors
/// It is none.
pub(super) fn regexp(pattern: &str) -> Result<Regexp, InvalidRegexp> {
    Regexp::new(pattern, REGEXP_BYTES).map_err(|fault| InvalidRegexp { pattern: pattern.to_owned(), fault })
}

/// Regular expressions, of which one has to match.
pub(super) struct Regexps(Vec<Regexp>);

impl Regexps {
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.0.iter().any(|regexp| regexp.is_match(text))
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Regexp::bytes).sum()
    }
}

/// Compiles regular expressions that match anywhere.
///
/// # Errors
/// One of them is none.
pub(super) fn regexps(patterns: &[String]) -> Result<Regexps, InvalidRegexp> {
    patterns.iter().map(|pattern| regexp(pattern)).collect::<Result<_, _>>().map(Regexps)
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
