//! Hours that are over and not on disk, because it was full or failed when they ended. They are written as soon as it
//! takes them.

use super::store::Store;
use crate::history::{Block, Span};
use std::collections::BTreeMap;

/// The number of hours that are kept: memory is bounded however long the disk fails.
const HOURS: usize = 6;

#[derive(Debug, Default)]
pub(super) struct Unwritten(BTreeMap<Span, Block>);

impl Unwritten {
    /// Keeps an hour. Beyond the limit the oldest one is lost.
    pub(super) fn keep(&mut self, block: Block) {
        self.0.insert(block.span, block);
        if self.0.len() > HOURS {
            let lost = self.0.pop_first().map_or(0, |(span, _)| span.start);
            tracing::error!(
                hour = lost,
                "the disk fails for more than {HOURS} hours: this hour of the history is lost"
            );
        }
    }

    /// Takes an hour out, because it is open again.
    pub(super) fn take(&mut self, hour: Span) -> Option<Block> {
        self.0.remove(&hour)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hours of a range.
    pub(super) fn of(&self, from: u64, to: u64) -> impl Iterator<Item = &Block> {
        self.0.values().filter(move |block| block.span.start >= from && block.span.start < to)
    }

    /// Writes the hours, up to the first one that fails. A copy of another replica stays if it has the better coverage.
    pub(super) fn write_to(&mut self, store: &mut Store) {
        while let Some(entry) = self.0.first_entry() {
            let is_copied = store.read(*entry.key()).is_some_and(|copy| copy.seen() > entry.get().seen());
            if !is_copied && store.write(entry.get()).is_err() {
                return;
            }
            entry.remove();
        }
    }
}
