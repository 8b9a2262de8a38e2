//! History on disk: a folder with a file for each hour and each day.
//!
//! A file is complete or absent: a block is written to a temporary file, synced and renamed. An unreadable file is
//! renamed and reported, and only its own hour is lost. Other processes may read the folder while one writes it. When a
//! day is over, its hours become a block of the day. Blocks that are too old or exceed the folder's limit are removed,
//! the oldest hours first.

mod folder;
mod retention;

pub use folder::{Error, Lock};
pub use retention::Limits;

use crate::history::{Block, Builder, Span};
use folder::Folder;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// What became of blocks.
#[derive(Debug, Default)]
pub struct Tally {
    /// Blocks that were written.
    pub written: AtomicU64,
    /// Blocks that could not be written.
    pub failed: AtomicU64,
    /// Blocks that could not be read, and were set aside.
    pub damaged: AtomicU64,
    /// Blocks that were removed to keep the limits.
    pub removed: AtomicU64,
    /// Blocks of another replica that are kept.
    pub copied: AtomicU64,
    /// Blocks and lists of another replica that could not be copied.
    pub uncopied: AtomicU64,
}

/// A folder of blocks that one process writes.
#[derive(Debug)]
pub struct Archive {
    folder: Folder,
    /// The blocks, with the bytes of their files.
    blocks: BTreeMap<Span, u64>,
    limits: Limits,
    tally: std::sync::Arc<Tally>,
    /// While it is held, no other process writes the folder.
    _lock: Lock,
}

impl Archive {
    /// Opens a folder to write it; it is made if it is not there.
    ///
    /// # Errors
    /// It can't be made, read or locked.
    pub fn open(path: &Path, limits: Limits, tally: std::sync::Arc<Tally>) -> Result<Self, Error> {
        let folder = Folder::create(path)?;
        let lock = folder.lock()?;
        folder.remove_unfinished()?;
        let blocks = folder.list()?.into_iter().collect();
        Ok(Self { folder, blocks, limits, tally, _lock: lock })
    }

    /// Writes a block in place of the one that was there.
    ///
    /// # Errors
    /// The file system's: the block that was there is there still.
    pub fn write(&mut self, block: &Block) -> Result<(), Error> {
        let bytes = block.encode();
        let written = self.folder.write(block.span, &bytes);
        let count = if written.is_ok() { &self.tally.written } else { &self.tally.failed };
        count.fetch_add(1, Ordering::Relaxed);
        written?;
        self.blocks.insert(block.span, bytes.len() as u64);
        Ok(())
    }

    /// The block of a span, if there is one. One that can't be read is set aside.
    pub fn read(&mut self, span: Span) -> Option<Block> {
        self.blocks.get(&span)?;
        match self.folder.read(span) {
            Ok(block) => block,
            Err(error) => {
                tracing::error!(%error, "a block of the history is set aside; its time is missing from now on");
                self.tally.damaged.fetch_add(1, Ordering::Relaxed);
                self.folder.set_aside(span);
                self.blocks.remove(&span);
                None
            }
        }
    }

    /// The blocks that there are.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.blocks.keys().copied()
    }

    /// The file of a block, as it is; `None` if there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn encoded(&self, span: Span) -> Result<Option<Vec<u8>>, Error> {
        if self.blocks.contains_key(&span) { self.folder.encoded(span) } else { Ok(None) }
    }

    /// Whether a block of this span is recent enough to be kept; `now` is in seconds since 1970.
    pub fn keeps(&self, span: Span, now: u64) -> bool {
        !self.limits.is_too_old(span, now)
    }

    /// Whether so many further bytes are within the limit.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.limits.bytes
    }

    /// Writes a block of another replica in place of the one that was there.
    ///
    /// # Errors
    /// As for `write`.
    pub fn copy(&mut self, block: &Block) -> Result<(), Error> {
        self.write(block)?;
        self.tally.copied.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a day anew of its hours if these have the better coverage. A day that has no block gets none.
    ///
    /// # Errors
    /// The file system's.
    pub fn renew(&mut self, day: Span) -> Result<(), Error> {
        let Some(block) = self.read(day) else { return Ok(()) };
        let sum = self.sum(day);
        if sum.seen() > block.seen() { self.write(&sum) } else { Ok(()) }
    }

    /// The bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.blocks.values().sum()
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Makes days of the hours of days that are over, and removes what is too old or too much. To be called now and
    /// then; `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The file system's.
    pub fn maintain(&mut self, now: u64) -> Result<(), Error> {
        for day in retention::days_to_make(self.blocks.keys().copied(), now) {
            let sum = self.sum(day);
            self.write(&sum)?;
        }
        for span in self.limits.surplus(&self.blocks, now) {
            self.folder.remove(span)?;
            self.blocks.remove(&span);
            self.tally.removed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The sum of a day's hours.
    fn sum(&mut self, day: Span) -> Block {
        let mut sum = Builder::new(day, self.limits.rows);
        for hour in retention::hours(day) {
            if let Some(block) = self.read(hour) {
                sum.absorb(&block);
            }
        }
        sum.block()
    }
}

/// The blocks of a folder that show a range best: days where all of a day is asked for, and hours elsewhere.
///
/// # Errors
/// The folder can't be read. A block that can't be read is left out, and is in `damaged`.
pub fn read_range(path: &Path, from: u64, to: u64, mut each: impl FnMut(&Block)) -> Result<Vec<Error>, Error> {
    let folder = Folder::open(path)?;
    let spans = folder.list()?.into_iter().map(|(span, _)| span);
    let mut damaged = Vec::new();
    for span in retention::best(spans, from, to) {
        match folder.read(span) {
            Ok(Some(block)) => each(&block),
            // It became part of a day, or too old, since.
            Ok(None) => {}
            Err(error) => damaged.push(error),
        }
    }
    Ok(damaged)
}

#[cfg(test)]
mod tests;
