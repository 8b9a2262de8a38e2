//! Asks a process over HTTP, with texts by name.

use super::{Failure, usage};
use crate::metrics::{AskError, ask};
use std::collections::BTreeMap;

/// The answer of a server at HOST:PORT to a question at a path. A question that makes no sense there is bad usage.
pub(super) fn answer(server: &str, path: &str, texts: &BTreeMap<String, String>) -> Result<String, Failure> {
    let server = server.strip_prefix("http://").unwrap_or(server).trim_end_matches('/');
    let query: Vec<String> = texts.iter().map(|(key, text)| format!("{key}={}", escaped(text))).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    let answer = runtime.block_on(ask(server, &format!("{path}?{}", query.join("&"))));
    answer.map_err(|error| match error {
        AskError::Refused { is_bad: true, .. } => usage(error),
        error => Failure::failed(error),
    })
}

/// A text as a part of a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escaped("label:a/b c&d"), "label%3Aa%2Fb%20c%26d");
        assert_eq!(escaped("2026-11-25T13:00:00Z"), "2026-11-25T13%3A00%3A00Z");
    }
}
