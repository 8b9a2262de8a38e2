//! Files that are read again when they change.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What tells two contents of a file apart without reading it; another file of the same name is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of the file as it is now; `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self { inode: meta.ino(), len: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()) })
    }
}

/// A file that may be replaced, also by a link to another one.
pub struct Watched {
    /// Where it is.
    pub path: PathBuf,
    known: Option<Stamp>,
    /// Whether what it said the last time is in force.
    pub is_taken: bool,
}

/// What has become of a file.
pub enum Look {
    /// It is as it was.
    Same,
    /// It is another one, or was written.
    Changed,
    /// It is not there.
    Gone,
}

impl Watched {
    /// The file as it is now.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), known: Stamp::of(path), is_taken: true }
    }

    /// Whether it is another file than the last time, or its content was written since.
    pub fn look(&mut self) -> Look {
        let Some(found) = Stamp::of(&self.path) else { return Look::Gone };
        match self.known.replace(found) {
            Some(known) if known == found => Look::Same,
            _ => Look::Changed,
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
        assert!(matches!(file.look(), Look::Gone));
        fs::write(&path, "a").unwrap();
        assert!(matches!(file.look(), Look::Changed));
        assert!(matches!(file.look(), Look::Same));
        fs::write(&path, "ab").unwrap();
        assert!(matches!(file.look(), Look::Changed));
        fs::write(&other, "ab").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(matches!(file.look(), Look::Changed));
        assert!(matches!(file.look(), Look::Same));
        fs::remove_dir_all(folder).unwrap();
    }
}
