//! Files that are read again when they change.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Identifies the contents of a file without reading it. A new file of the same name has another stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The stamp of the file now; `None` if the file does not exist.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self { inode: meta.ino(), len: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()) })
    }
}

/// A file that may be replaced, also by way of a symbolic link.
pub struct Watched {
    /// The file's path.
    pub path: PathBuf,
    known: Option<Stamp>,
    /// Whether the last contents read are in force.
    pub is_applied: bool,
}

/// The change of a file since the last look.
pub enum FileChange {
    /// The file is unchanged.
    Same,
    /// The file was replaced or written.
    Changed,
    /// The file does not exist.
    Gone,
}

impl Watched {
    /// Watches a file from its state now.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), known: Stamp::of(path), is_applied: true }
    }

    /// Compares the file with the last look: replaced, written, gone or the same.
    pub fn look(&mut self) -> FileChange {
        let Some(found) = Stamp::of(&self.path) else { return FileChange::Gone };
        match self.known.replace(found) {
            Some(known) if known == found => FileChange::Same,
            _ => FileChange::Changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_changed_if_it_was_written_or_replaced() {
        let folder = std::env::temp_dir().join(format!("meridian-watched-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, other) = (folder.join("file"), folder.join("other"));
        let mut file = Watched::new(&path);
        assert!(matches!(file.look(), FileChange::Gone));
        fs::write(&path, "a").unwrap();
        assert!(matches!(file.look(), FileChange::Changed));
        assert!(matches!(file.look(), FileChange::Same));
        fs::write(&path, "ab").unwrap();
        assert!(matches!(file.look(), FileChange::Changed));
        fs::write(&other, "ab").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(matches!(file.look(), FileChange::Changed));
        assert!(matches!(file.look(), FileChange::Same));
        fs::remove_dir_all(folder).unwrap();
    }
}
