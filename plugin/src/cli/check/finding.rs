//! Findings of the check, one line each.

use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    Good,
    /// An agent can run without it.
    Missing,
    /// Useful to know.
    Note,
    /// An agent can't run like this.
    Bad,
}

/// Findings, one line each.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) lines: String,
    pub(super) bad: Option<String>,
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding, what: &str, found: impl fmt::Display) {
        let word = match finding {
            Finding::Good => "ok",
            Finding::Missing => "missing",
            Finding::Note => "note",
            Finding::Bad => "BAD",
        };
        if finding == Finding::Bad {
            self.bad.get_or_insert_with(|| format!("{what}: {found}"));
        }
        self.lines.push_str(&format!("{word:<8} {what:<13} {found}\n"));
    }
}
