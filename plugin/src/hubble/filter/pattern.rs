//! Filters by name pattern: DNS names and node names, where `*` matches any part.

use super::{
    field::SizedCheck,
    go::{Regexp, RegexpFault, quote_rune},
};
use crate::flows::Encoded;

/// Matches any DNS name.
const ANY: &str = r"(?:[-0-9_a-z]+(?:\.[-0-9_a-z]+)*)";
/// The size limit of all patterns of a field, compiled.
const PATTERNS_BYTES: usize = 4 << 20;
/// The cluster of a node name that has none.
const DEFAULT_CLUSTER: &str = "default";

/// A pattern that can't be, in Hubble's words.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidPattern {
    /// It is empty.
    #[error("empty pattern")]
    Empty,
    /// A node's name has more parts than a cluster and a node.
    #[error("too many slashes in pattern")]
    Slashes,
    /// It ends in dots.
    #[error("multiple trailing dots in pattern")]
    TrailingDots,
    /// It has a character that is in no name.
    #[error("{}: invalid rune in pattern", quote_rune(*.0))]
    Rune(char),
    /// All together are too large.
    #[error(transparent)]
    Regexp(#[from] RegexpFault),
}

/// `number` is the field number of the names in the flow.
pub(super) fn fqdn(patterns: &[String], number: u64) -> Result<SizedCheck, InvalidPattern> {
    let pattern = one_of(patterns, translate)?;
    let bytes = pattern.bytes();
    let check = Box::new(move |flow: &Encoded| flow.own().strings(number).any(|name| pattern.is_match(name)));
    Ok(SizedCheck { check, bytes })
}

/// A node, a cluster followed by a slash, or both with a slash between.
pub(super) fn node_name(patterns: &[String]) -> Result<SizedCheck, InvalidPattern> {
    let pattern = one_of(patterns, |pattern| {
        let parts: Vec<&str> = pattern.split('/').collect();
        let (cluster, node) = match parts[..] {
            _ if pattern.is_empty() => return Err(InvalidPattern::Empty),
            [node] => ("", node),
            [cluster, node] => (cluster, node),
            _ => return Err(InvalidPattern::Slashes),
        };
        let part = |pattern: &str| if pattern.is_empty() { Ok(ANY.to_owned()) } else { translate(pattern) };
        Ok(format!("{}/{}", part(cluster)?, part(node)?))
    })?;
    let bytes = pattern.bytes();
    let check = Box::new(move |flow: &Encoded| match flow.node_name() {
        "" => false,
        name if name.contains('/') => pattern.is_match(name),
        name => pattern.is_match(&format!("{DEFAULT_CLUSTER}/{name}")),
    });
    Ok(SizedCheck { check, bytes })
}

fn one_of(
    patterns: &[String],
    translate: impl Fn(&str) -> Result<String, InvalidPattern>,
) -> Result<Regexp, InvalidPattern> {
    let parts: Vec<String> = patterns.iter().map(|pattern| translate(pattern)).collect::<Result<_, _>>()?;
    Ok(Regexp::new(&format!(r"\A(?:{})\z", parts.join("|")), PATTERNS_BYTES)?)
}

/// The regular expression of a pattern.
fn translate(pattern: &str) -> Result<String, InvalidPattern> {
    let pattern = pattern.trim();
    let pattern = pattern.strip_suffix('.').unwrap_or(pattern).to_lowercase();
    if pattern.is_empty() {
        return Err(InvalidPattern::Empty);
    }
    if pattern.ends_with('.') {
        return Err(InvalidPattern::TrailingDots);
    }
    let mut regexp = String::new();
    for char in pattern.chars() {
        match char {
            '.' => regexp.push_str(r"\."),
            '*' => regexp.push_str("[-.0-9a-z]*"),
            '-' | '_' | '0'..='9' | 'a'..='z' => regexp.push(char),
            _ => return Err(InvalidPattern::Rune(char)),
        }
    }
    Ok(regexp)
}
