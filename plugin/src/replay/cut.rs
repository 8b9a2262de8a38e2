//! Long lines that docker's json-file driver has cut: objects with a text of at most 16 KiB each, of which all but
//! the last end without a line's end. Collectors that do not join the parts of a container's line have such objects, too.

use super::piece::LONGEST;
use serde::de::IgnoredAny;
use serde_json::{Deserializer, Map, Value};

/// The fields with the text: docker's, and that of Fluent Bit's parser of container logs.
const TEXTS: [&str; 2] = ["log", "message"];

/// The streams of a container, each with the beginning of a line that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct CutLines([(&'static str, Option<Beginning>); 2]);

#[derive(Debug)]
struct Beginning {
    text: String,
    /// The number of the line in the file.
    line: u64,
}

impl CutLines {
    pub(super) const fn new() -> Self {
        Self([("stdout", None), ("stderr", None)])
    }

    /// The object with all of its line's text; `None` while that continues in a later object.
    pub(super) fn join(&mut self, line: u64, mut object: Map<String, Value>) -> Option<Map<String, Value>> {
        // Docker's fluentd driver has the name `source` for it.
        let stream = object.get("stream").or_else(|| object.get("source"));
        let stream = stream.and_then(Value::as_str).unwrap_or_default();
        let Some((_, beginning)) = self.0.iter_mut().find(|(name, _)| *name == stream) else { return Some(object) };
        // Fluent Bit keeps the flag of the container runtime.
        let is_end = object.get("logtag").and_then(Value::as_str) == Some("F");
        let Some(key) = TEXTS.into_iter().find(|key| object.get(*key).is_some_and(Value::is_string)) else {
            return Some(object);
        };
        let Some(Value::String(text)) = object.get_mut(key) else { return Some(object) };
        let first = beginning.as_ref().map_or(line, |beginning| beginning.line);
        if let Some(Beginning { text: before, .. }) = beginning.take() {
            text.insert_str(0, &before);
        }
        // Collectors leave the line's end out, and their texts are whole.
        if is_end || text.ends_with('\n') || text.len() >= LONGEST || !is_begun(text) {
            return Some(object);
        }
        *beginning = Some(Beginning { text: std::mem::take(text), line: first });
        None
    }

    /// Where lines began that have no end.
    pub(super) fn unfinished(&mut self) -> impl Iterator<Item = u64> {
        self.0.iter_mut().filter_map(|(_, beginning)| beginning.take()).map(|beginning| beginning.line)
    }
}

/// Whether an object begins in the text, and does not end there.
fn is_begun(text: &str) -> bool {
    let Some(start) = text.find('{') else { return false };
    let object = Deserializer::from_str(&text[start..]).into_iter::<IgnoredAny>().next();
    matches!(object, Some(Err(error)) if error.is_eof())
}
