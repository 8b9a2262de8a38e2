//! A file that is read again when it changes.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A file that may be replaced, also by a link to another one.
pub(super) struct Watched {
    pub(super) path: PathBuf,
    known: Option<(u64, u64, i64, i64)>,
    /// Whether what it said the last time is in force.
    pub(super) is_taken: bool,
}

/// What has become of it.
pub(super) enum Look {
    Same,
    Changed,
    Gone,
}

impl Watched {
    pub(super) fn new(path: &Path) -> Self {
        let mut watched = Self { path: path.to_owned(), known: None, is_taken: true };
        watched.look();
        watched
    }

    /// Whether it is another file than the last time, or its content was written since.
    pub(super) fn look(&mut self) -> Look {
        let Ok(meta) = fs::metadata(&self.path) else { return Look::Gone };
        let found = Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        if found == self.known {
            return Look::Same;
        }
        self.known = found;
        Look::Changed
    }
}
