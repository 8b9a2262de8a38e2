//! Files that are either complete or absent: a magic word, the SHA-256 of the rest, the rest. A file is written
//! under another name and then renamed, so it is never half written.

use crate::bounded_file;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
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

/// Writes a file, and makes its folder if it is missing. With `sync` the file survives a crash of the machine.
///
/// # Errors
/// The file can't be written.
pub fn write(path: &Path, magic: &Magic, body: &[u8], sync: bool) -> Result<(), Error> {
    let new = path.with_extension("new");
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = File::create(&new)?;
        file.write_all(magic)?;
        file.write_all(digest(&SHA256, body).as_ref())?;
        file.write_all(body)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&new, path)
    };
    write().map_err(|source| Error::Io { path: path.to_owned(), source })
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
