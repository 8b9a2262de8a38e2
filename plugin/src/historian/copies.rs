//! Blocks of another replica: the hours and days that this replica lacks or has recorded less of. A block is copied
//! whole or not at all, so that nothing is counted twice.

use super::{Historian, Inner, store::Store};
use crate::{
    archive::{self, Archive},
    history::{Block, Span},
};
use std::collections::BTreeSet;

/// Seconds that a whole hour or day may lack: the process ticks every ten seconds.
const GAP: u32 = 60;

/// What became of a block of another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// It has the better coverage, and is kept.
    Unchanged,
    /// The own block stays, or the hour is not over.
    NoBetter,
    /// The limit of the folder is reached.
    NoRoom,
}

impl Inner {
    /// The files, if there are any.
    fn archive(&mut self) -> Option<&mut Archive> {
        match &mut self.store {
            Store::Folder(_, archive) => Some(archive),
            Store::Memory(_) => None,
        }
    }

    /// Whether a span ended before the open hour.
    fn is_sealed(&self, span: Span) -> bool {
        span.end() <= self.open.span().start
    }
}

impl Historian {
    /// The hours and days on disk that are over.
    pub fn sealed(&self) -> Vec<Span> {
        let mut inner = self.lock();
        let spans: Vec<Span> = inner.archive().map(|archive| archive.spans().collect()).unwrap_or_default();
        spans.into_iter().filter(|span| inner.is_sealed(*span)).collect()
    }

    /// The file of a span that is over; `None` if there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn encoded(&self, span: Span) -> Result<Option<Vec<u8>>, archive::Error> {
        let mut inner = self.lock();
        if !inner.is_sealed(span) {
            return Ok(None);
        }
        inner.archive().map_or(Ok(None), |archive| archive.encoded(span))
    }

    /// Whether another replica's block of a span may be better: the span is over and recent enough to be kept, and this
    /// replica has no block of it, or did not record all of it.
    pub fn lacks(&self, span: Span) -> bool {
        let mut inner = self.lock();
        let now = inner.open.span().start;
        if !inner.is_sealed(span) {
            return false;
        }
        let Some(archive) = inner.archive() else { return false };
        let is_whole = |block: Block| block.coverage.recorded_seconds.saturating_add(GAP) >= block.span.seconds;
        archive.keeps(span, now) && !archive.read(span).is_some_and(is_whole)
    }

    /// Keeps another replica's block, whose file has this size, if it has the better coverage.
    ///
    /// # Errors
    /// It can't be written.
    pub fn adopt(&self, block: &Block, size: u64) -> Result<CopyOutcome, archive::Error> {
        let mut inner = self.lock();
        if !inner.is_sealed(block.span) {
            return Ok(CopyOutcome::NoBetter);
        }
        let Some(archive) = inner.archive() else { return Ok(CopyOutcome::NoBetter) };
        if archive.read(block.span).is_some_and(|own| own.seen() >= block.seen()) {
            return Ok(CopyOutcome::NoBetter);
        }
        if !archive.has_room(size) {
            return Ok(CopyOutcome::NoRoom);
        }
        archive.copy(block)?;
        Ok(CopyOutcome::Unchanged)
    }

    /// Makes these days anew of their hours, where the hours have the better coverage.
    ///
    /// # Errors
    /// A day can't be written.
    pub fn renew_days(&self, days: &BTreeSet<Span>) -> Result<(), archive::Error> {
        for day in days {
            let mut inner = self.lock();
            let Some(archive) = inner.archive() else { return Ok(()) };
            archive.renew(*day)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
