//! The folder and its files.

use crate::{
    atomic_file::{self, UNFINISHED},
    bounded_file,
    history::{Block, Damaged, MAX_ENCODED, Span},
};
use jiff::{Timestamp, tz::TimeZone};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Why the folder or a file of it can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system.
    #[error(transparent)]
    File(#[from] atomic_file::Error),
    /// There is no such folder.
    #[error("{}: there is no history here: name the folder that the controller or agent writes", .0.display())]
    Missing(PathBuf),
    /// Another process writes it.
    #[error("{}: another process writes this history: each needs a folder of its own", .0.display())]
    Locked(PathBuf),
    /// A file is not a block.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        reason: Damaged,
    },
    /// A file is a block of another span.
    #[error("{}: it is a block of another time", .0.display())]
    Misplaced(PathBuf),
}

/// Holds the folder for one writer.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "it is the lock as long as it is open")] File);

/// A folder.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

/// Ends of names: blocks, and those that can't be read.
const BLOCK: &str = "block";
const DAMAGED: &str = "damaged";
const LOCK: &str = "lock";

impl Folder {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(failed_at(path))?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() { Ok(Self(path.to_owned())) } else { Err(Error::Missing(path.to_owned())) }
    }

    fn failed(&self, source: io::Error) -> Error {
        failed_at(&self.0)(source)
    }

    pub(super) fn lock(&self) -> Result<Lock, Error> {
        let path = self.0.join(LOCK);
        let file = File::create(&path).map_err(failed_at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Locked(self.0.clone())),
            Err(fs::TryLockError::Error(source)) => Err(self.failed(source)),
        }
    }

    /// The blocks, with the bytes of their files. Files with other names are not ours.
    pub(super) fn list(&self) -> Result<Vec<(Span, u64)>, Error> {
        let mut blocks = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(|source| self.failed(source))? {
            let entry = entry.map_err(|source| self.failed(source))?;
            let span = entry.file_name().to_str().and_then(span);
            if let (Some(span), Ok(metadata)) = (span, entry.metadata()) {
                blocks.push((span, metadata.len()));
            }
        }
        blocks.sort_unstable();
        Ok(blocks)
    }

    /// Removes the temporary files of a killed process.
    pub(super) fn remove_unfinished(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.0).map_err(|source| self.failed(source))?.flatten() {
            if entry.path().extension().is_some_and(|end| end == UNFINISHED) {
                fs::remove_file(entry.path()).map_err(|source| self.failed(source))?;
            }
        }
        Ok(())
    }

    fn path(&self, span: Span) -> PathBuf {
        self.0.join(name(span)).with_extension(BLOCK)
    }

    pub(super) fn write(&self, span: Span, bytes: &[u8]) -> Result<(), Error> {
        Ok(atomic_file::replace(&self.path(span), &[bytes], true)?)
    }

    /// The bytes of a span's file; `None` if there is none.
    pub(super) fn encoded(&self, span: Span) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(span);
        match bounded_file::read(&path, MAX_ENCODED as u64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(Error::Damaged { path, reason: Damaged::TooLarge(MAX_ENCODED) })
            }
            Err(source) => Err(failed_at(&path)(source)),
        }
    }

    /// The block of a span; `None` if there is none.
    pub(super) fn read(&self, span: Span) -> Result<Option<Block>, Error> {
        let Some(bytes) = self.encoded(span)? else { return Ok(None) };
        let path = self.path(span);
        match Block::decode(&bytes) {
            Ok(block) if block.span == span => Ok(Some(block)),
            Ok(_) => Err(Error::Misplaced(path)),
            Err(reason) => Err(Error::Damaged { path, reason }),
        }
    }

    /// Renames an unreadable file, so that an operator can examine it.
    pub(super) fn set_aside(&self, span: Span) {
        let path = self.path(span);
        let aside = path.with_extension(DAMAGED);
        if let Err(error) = fs::rename(&path, &aside) {
            tracing::warn!(path = %path.display(), %error, "it can't be set aside");
        }
    }

    pub(super) fn remove(&self, span: Span) -> Result<(), Error> {
        Ok(atomic_file::remove(&self.path(span))?)
    }
}

fn failed_at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| atomic_file::Error::Io { path, source }.into()
}

/// The name of a span: 2026-11-25T13 for an hour and 2026-11-25 for a day, in UTC.
fn name(span: Span) -> String {
    let start = i64::try_from(span.start).ok().and_then(|start| Timestamp::from_second(start).ok()).unwrap_or_default();
    let form = if span.seconds == Span::DAY { "%Y-%m-%d" } else { "%Y-%m-%dT%H" };
    start.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

/// The span of a name.
fn span(file: &str) -> Option<Span> {
    let stem = file.strip_suffix(BLOCK)?.strip_suffix('.')?;
    let (date, hour) = match stem.split_once('T') {
        Some((date, hour)) if hour.len() == 2 => (date, Some(hour.parse::<i8>().ok()?)),
        Some(_) => return None,
        None => (stem, None),
    };
    let date: jiff::civil::Date = date.parse().ok()?;
    let time = jiff::civil::Time::new(hour.unwrap_or_default(), 0, 0, 0).ok()?;
    let start = date.to_datetime(time).to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    let start = u64::try_from(start).ok()?;
    let span = Span { start, seconds: if hour.is_some() { Span::HOUR } else { Span::DAY } };
    // A name that we would not give is not ours.
    (name(span) == stem).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_its_span_and_of_no_other() {
        for span_of in [Span::hour_of(1_764_000_000), Span::day_of(1_764_000_000), Span::hour_of(0)] {
            assert_eq!(span(&format!("{}.block", name(span_of))), Some(span_of));
        }
        assert_eq!(name(Span::hour_of(1_764_000_000)), "2025-11-24T16");
        for other in [
            "lock",
            "2025-11-24",
            "2025-11-24T16.new",
            "2025-11-24T24.block",
            "2025-11-24T-1.block",
            "20251124.block",
            "2025-13-01.block",
            "é.block",
        ] {
            assert_eq!(span(other), None, "{other}");
        }
    }
}
