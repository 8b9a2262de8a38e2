//! Lines that are written completely or not at all.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Writes lines. A partly written line is removed, or the next line starts on a new line.
pub(super) struct Lines<T> {
    pub(super) to: T,
    /// Whether the last line is incomplete and could not be removed.
    torn: bool,
}

impl<T: Target> Lines<T> {
    pub(super) const fn new(to: T) -> Self {
        Self { to, torn: false }
    }

    /// Writes a line, line break included.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let torn;
        let line = if self.torn {
            torn = [b"\n", line].concat();
            &torn
        } else {
            line
        };
        let mut written = 0;
        while written < line.len() {
            match self.to.write(&line[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn |= written > 0 && !self.to.take_back(written);
                    return Err(error);
                }
            }
        }
        self.torn = false;
        self.to.flush()
    }
}

/// A destination for lines.
pub(super) trait Target: Write {
    /// Called before each batch of lines.
    fn prepare(&mut self) {}

    /// Removes the last `written` bytes. Returns whether it could.
    fn take_back(&mut self, _written: usize) -> bool {
        false
    }
}

impl Target for io::Stdout {}

/// A log file that is opened again after it was renamed by log rotation.
pub(super) struct Reopened {
    path: PathBuf,
    file: File,
}

impl Reopened {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn is_there(&self) -> bool {
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let named = std::fs::metadata(&self.path).map(id);
        let open = self.file.metadata().map(id);
        matches!((named, open), (Ok(named), Ok(open)) if named == open)
    }
}

impl Write for Reopened {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Target for Reopened {
    fn prepare(&mut self) {
        if !self.is_there()
            && let Ok(opened) = Self::new(&self.path)
        {
            *self = opened;
        }
    }

    fn take_back(&mut self, written: usize) -> bool {
        let shorter = self.file.metadata().and_then(|meta| match meta.len().checked_sub(written as u64) {
            Some(len) if meta.is_file() => self.file.set_len(len),
            _ => Err(io::ErrorKind::Unsupported.into()),
        });
        shorter.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_removed() {
        let file = std::env::temp_dir().join(format!("meridian-torn-{}", std::process::id()));
        let mut target = Reopened::new(&file).unwrap();
        target.write_all(b"whole\nha").unwrap();
        assert!(target.take_back(2));
        assert_eq!(std::fs::read(&file).unwrap(), b"whole\n");
        std::fs::remove_file(file).unwrap();
        assert!(!Reopened::new(Path::new("/dev/null")).unwrap().take_back(2));
    }

    /// A target with room for a few bytes, which can't remove any.
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.1 - self.0.len());
            self.0.extend_from_slice(&bytes[..n]);
            if n > 0 { Ok(n) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Target for Full {}

    #[test]
    fn after_half_a_line_the_next_one_begins_anew() {
        let mut lines = Lines::new(Full(Vec::new(), 9));
        lines.write(b"whole\n").unwrap();
        assert!(lines.write(b"torn\n").is_err());
        lines.to.1 = 100;
        lines.write(b"next\n").unwrap();
        assert_eq!(lines.to.0, b"whole\ntor\nnext\n");
    }
}
