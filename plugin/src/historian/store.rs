//! Where blocks that are over are kept: in a folder, or in memory.

use crate::{
    archive::{self, Archive, Limits, Tally},
    history::{Block, Span},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The hours that memory has room for.
const HOURS: usize = 48;

/// The blocks of a history.
#[derive(Debug)]
pub(super) enum Store {
    /// Files of a folder.
    Folder(PathBuf, Archive),
    /// The last hours of a process that keeps no files.
    Memory(BTreeMap<Span, Block>),
}

/// The blocks of a range, read without holding up the writer.
pub(super) enum Reader {
    Folder(PathBuf),
    Memory(Vec<Block>),
}

impl Store {
    pub(super) fn open(path: &Path, limits: Limits, tally: Arc<Tally>) -> Result<Self, archive::Error> {
        Ok(Self::Folder(path.to_owned(), Archive::open(path, limits, tally)?))
    }

    pub(super) fn read(&mut self, span: Span) -> Option<Block> {
        match self {
            Self::Folder(_, archive) => archive.read(span),
            Self::Memory(blocks) => blocks.get(&span).cloned(),
        }
    }

    pub(super) fn write(&mut self, block: &Block) -> Result<(), archive::Error> {
        match self {
            Self::Folder(_, archive) => archive.write(block),
            Self::Memory(blocks) => {
                blocks.insert(block.span, block.clone());
                Ok(())
            }
        }
    }

    pub(super) fn maintain(&mut self, now: u64) -> Result<(), archive::Error> {
        match self {
            Self::Folder(_, archive) => archive.maintain(now),
            Self::Memory(blocks) => {
                while blocks.len() > HOURS {
                    blocks.pop_first();
                }
                Ok(())
            }
        }
    }

    /// Blocks, and the bytes of their files.
    pub(super) fn size(&self) -> (usize, u64) {
        match self {
            Self::Folder(_, archive) => (archive.len(), archive.bytes()),
            Self::Memory(blocks) => (blocks.len(), 0),
        }
    }

    pub(super) fn reader(&self, from: u64, to: u64) -> Reader {
        match self {
            Self::Folder(path, _) => Reader::Folder(path.clone()),
            Self::Memory(blocks) => {
                let is_in = |block: &&Block| block.span.start >= from && block.span.start < to;
                Reader::Memory(blocks.values().filter(is_in).cloned().collect())
            }
        }
    }
}

impl Reader {
    /// Calls `each` with every block of the range. A file that can't be read is logged and left out.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(super) fn read(self, from: u64, to: u64, mut each: impl FnMut(&Block)) -> Result<(), archive::Error> {
        match self {
            Self::Folder(path) => {
                let damaged = archive::read_range(&path, from, to, each)?;
                damaged.iter().for_each(|error| tracing::error!(%error, "a block of the history can't be read"));
            }
            Self::Memory(blocks) => blocks.iter().for_each(&mut each),
        }
        Ok(())
    }
}
