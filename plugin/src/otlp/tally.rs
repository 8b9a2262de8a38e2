//! How the exports went.

use std::sync::atomic::{AtomicU64, Ordering};

/// How the exports went.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages that the collector accepted.
    pub accepted: AtomicU64,
    /// Messages that did not arrive, or that the collector refused.
    pub failed: AtomicU64,
    /// Sums that the collector rejected in messages that it accepted.
    pub rejected: AtomicU64,
    /// Sums in the last export.
    pub sums: AtomicU64,
}

impl Tally {
    pub(super) fn add(&self, to: fn(&Self) -> &AtomicU64, count: u64) {
        to(self).fetch_add(count, Ordering::Relaxed);
    }
}
