//! Copies of an event in one object: collectors keep the text of a line beside the object that they read from it
//! (`log` and `log_processed`, `message` and `event.original`).

use serde_json::Value;
use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

/// The events of a collector's object. Equal events in one field, such as an array of lines, are no copies.
#[derive(Debug, Default)]
pub(super) struct Copies {
    hasher: RandomState,
    /// For the object and each object around it: the events in its earlier fields.
    earlier: Vec<HashSet<u64>>,
    /// The events found so far.
    found: Vec<u64>,
}

impl Copies {
    /// Begins an object.
    pub(super) fn begin(&mut self) {
        if self.earlier.is_empty() {
            self.found.clear();
        }
        self.earlier.push(HashSet::new());
    }

    /// The number of events found.
    pub(super) const fn found(&self) -> usize {
        self.found.len()
    }

    /// Ends a field of the object, at whose start so many events had been found.
    pub(super) fn end_of_field(&mut self, before: usize) {
        if let Some(earlier) = self.earlier.last_mut() {
            earlier.extend(&self.found[before..]);
        }
    }

    /// Ends the object.
    pub(super) fn end(&mut self) {
        self.earlier.pop();
    }

    /// Whether an earlier field has the event; otherwise it is remembered. A uuid identifies a flow.
    pub(super) fn is_copy(&mut self, event: &Value) -> bool {
        if self.earlier.is_empty() {
            return false;
        }
        let hash = match event.get("uuid").and_then(Value::as_str).filter(|uuid| !uuid.is_empty()) {
            Some(uuid) => self.hasher.hash_one(uuid),
            None => self.hasher.hash_one(event),
        };
        let is_copy = self.earlier.iter().any(|earlier| earlier.contains(&hash));
        if !is_copy {
            self.found.push(hash);
        }
        is_copy
    }
}
