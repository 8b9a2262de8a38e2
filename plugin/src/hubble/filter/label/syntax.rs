//! Keys and values of labels as Kubernetes has them, and selectors that can't be, in its words.

use super::super::go::quote;

const LONGEST: usize = 63;
const LONGEST_PREFIX: usize = 253;
const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// A selector that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// One of its requirements.
    #[error("unable to parse requirement: {0}")]
    Requirement(Box<InvalidSelector>),
    /// Something else follows.
    #[error("found '{text}', expected: {expected}")]
    Found {
        /// The text found.
        text: String,
        /// The expected text.
        expected: &'static str,
    },
    /// No values follow an operator that has some.
    #[error("found '{text}' expected: '('")]
    NoValues {
        /// The text found.
        text: String,
    },
    /// A key.
    #[error("<nil>: Invalid value: {}: {source}", quote(key))]
    Key {
        /// The key.
        key: String,
        /// The fault.
        source: InvalidKey,
    },
    /// Values.
    #[error("{}", listed(.0))]
    Values(Vec<InvalidValue>),
}

impl InvalidSelector {
    pub(super) fn found(text: &str, expected: &'static str) -> Self {
        Self::Found { text: text.to_owned(), expected }
    }
}

/// One as it is, more in brackets.
fn listed(values: &[InvalidValue]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    if let [text] = &texts[..] { text.clone() } else { format!("[{}]", texts.join(", ")) }
}

/// A value that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// It is compared as a number and is none.
    #[error("values[{index}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer", quote(value))]
    NoInteger {
        /// Which of the values.
        index: usize,
        /// The value.
        value: String,
    },
    /// No label has such a value.
    #[error("values[{index}][{key}]: Invalid value: {}: {}", quote(value), joined(faults))]
    Faults {
        /// Which of the values.
        index: usize,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The fault.
        faults: Vec<Fault>,
    },
}

/// A key that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It has more than a prefix and a name.
    #[error("a valid label key {NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")]
    Slashes,
    /// Its parts.
    #[error("{}", joined(.0))]
    Faults(Vec<Fault>),
}

/// The fault of a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The prefix of a key.
    #[error("prefix part must be non-empty")]
    EmptyPrefix,
    /// The prefix of a key.
    #[error("prefix part must be no more than {LONGEST_PREFIX} bytes")]
    LongPrefix,
    /// The prefix of a key.
    #[error("prefix part {SUBDOMAIN}")]
    Prefix,
    /// The name of a key.
    #[error("name part must be non-empty")]
    EmptyName,
    /// The name of a key.
    #[error("name part must be no more than {LONGEST} bytes")]
    LongName,
    /// The name of a key.
    #[error("name part {NAME}")]
    Name,
    /// A value.
    #[error("must be no more than {LONGEST} bytes")]
    LongValue,
    /// A value.
    #[error("{VALUE}")]
    Value,
}

fn joined(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A name with an optional DNS prefix before a slash.
pub(super) fn check_key(key: &str) -> Result<(), InvalidKey> {
    let mut faults = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            prefix_faults(prefix, &mut faults);
            name
        }
        _ => return Err(InvalidKey::Slashes),
    };
    if name.is_empty() {
        faults.push(Fault::EmptyName);
    } else if name.len() > LONGEST {
        faults.push(Fault::LongName);
    }
    if !is_name(name) {
        faults.push(Fault::Name);
    }
    if faults.is_empty() { Ok(()) } else { Err(InvalidKey::Faults(faults)) }
}

fn prefix_faults(prefix: &str, faults: &mut Vec<Fault>) {
    if prefix.is_empty() {
        faults.push(Fault::EmptyPrefix);
        return;
    }
    if prefix.len() > LONGEST_PREFIX {
        faults.push(Fault::LongPrefix);
    }
    let is_label =
        |label: &str| is_name(label) && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !prefix.split('.').all(is_label) {
        faults.push(Fault::Prefix);
    }
}

/// The fault of a value, if it has one.
pub(super) fn value_faults(value: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    if value.len() > LONGEST {
        faults.push(Fault::LongValue);
    }
    if !value.is_empty() && !is_name(value) {
        faults.push(Fault::Value);
    }
    faults
}

/// Letters and digits at both ends; also dashes, underscores and dots in between.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric));
    ends && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
