//! Files that are either complete or absent: a magic word, the SHA-256 of the rest, the rest. A file is written
//! under another name and then renamed, so it is never half written.

use crate::bounded_file;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// The largest file that is read: the table of a million addresses is a third of it.
const MAX_BYTES: u64 = 1 << 30;

/// The kind of a file and the version of its format.
pub type Magic = [u8; 8];

/// The reason why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The contents are damaged.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        reason: String,
    },
}

/// How often a file was written, and could not be.
#[derive(Debug, Default)]
pub struct Saves {
    /// Times that it was written.
    pub written: AtomicU64,
    /// Times that it could not be written.
    pub failed: AtomicU64,
}

impl Saves {
    /// Counts a write.
    pub fn count(&self, written: &Result<(), Error>) {
        let counter = if written.is_ok() { &self.written } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The extension of a file that is being written.
pub const UNFINISHED: &str = "new";

/// Writes a file, and makes its folder if it is missing. With `sync` the file survives a crash of the machine.
///
/// # Errors
/// The file can't be written.
pub fn write(path: &Path, magic: &Magic, body: &[u8], sync: bool) -> Result<(), Error> {
    replace(path, &[magic, digest(&SHA256, body).as_ref(), body], sync)
}

/// Writes these parts as a file without a checksum of its own, as [`write`] does.
///
/// # Errors
/// The file can't be written; the one before it is still there.
pub fn replace(path: &Path, parts: &[&[u8]], sync: bool) -> Result<(), Error> {
    let new = path.with_extension(UNFINISHED);
    let folder = path.parent();
    let write = || {
        folder.map_or(Ok(()), fs::create_dir_all)?;
        let mut file = File::create(&new)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&new, path)?;
        // The new name is in the folder, which has a cache of its own.
        folder.filter(|_| sync).map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|source| {
        // A full disk has no room for half a file.
        let _ = fs::remove_file(&new);
        Error::Io { path: path.to_owned(), source }
    })
}

/// Removes a file, if it is there.
///
/// # Errors
/// The file is still there.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| Error::Io { path: path.to_owned(), source }),
    }
}

/// Reads the body of a file; `None` if the file does not exist.
///
/// # Errors
/// The file can't be read, or is damaged.
pub fn read(path: &Path, magic: &Magic) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = match bounded_file::read(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path: path.to_owned(), source }),
    };
    let rest = bytes.strip_prefix(magic).ok_or_else(|| damaged(path, "the file is of another version"))?;
    let (sum, body) =
        rest.split_at_checked(SHA256_OUTPUT_LEN).ok_or_else(|| damaged(path, "the file ends before its checksum"))?;
    if digest(&SHA256, body).as_ref() != sum {
        return Err(damaged(path, "its checksum is wrong"));
    }
    bytes.drain(..magic.len() + SHA256_OUTPUT_LEN);
    Ok(Some(bytes))
}

/// The error for a file with invalid contents.
pub fn damaged(path: &Path, reason: impl ToString) -> Error {
    Error::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &Magic = b"mrdntest";

    #[test]
    fn each_flipped_bit_and_each_cut_is_found_and_a_failed_write_leaves_the_file_before() {
        let folder = std::env::temp_dir().join(format!("meridian-atomic-{}", std::process::id()));
        let path = folder.join("sub/file");
        assert!(read(&path, MAGIC).unwrap().is_none());
        write(&path, MAGIC, b"body", true).unwrap();
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(read(&path, MAGIC), Err(Error::Damaged { .. })), "bit {bit}");
            fs::write(&path, &whole[..bit / 8]).unwrap();
            assert!(matches!(read(&path, MAGIC), Err(Error::Damaged { .. })), "{} bytes", bit / 8);
        }
        fs::write(&path, &whole).unwrap();
        // Nothing can be written where a folder has the name of the unfinished file.
        fs::create_dir(path.with_extension(UNFINISHED)).unwrap();
        assert!(write(&path, MAGIC, b"other", true).is_err());
        assert_eq!(read(&path, MAGIC).unwrap().unwrap(), b"body");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(read(&path, MAGIC).unwrap().is_none());
        fs::remove_dir_all(folder).unwrap();
    }
}
