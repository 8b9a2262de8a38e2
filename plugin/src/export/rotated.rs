//! A file that is rotated when it is full, as by Hubble's exporter: `events.log` is renamed to
//! `events-2026-11-24T10-00-00.000.log`, compressed if configured, and the oldest files are removed.

use super::lines::Target;
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

const COMPRESSED: &str = ".gz";
/// The format of the time in a rotated file's name.
const FORMAT: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// The size limit of a file, and the handling of rotated files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rotation {
    pub(super) path: PathBuf,
    /// The size limit in bytes.
    pub(super) size: u64,
    /// The number of rotated files to keep.
    pub(super) backups: usize,
    pub(super) compress: bool,
}

/// The current file.
#[derive(Debug)]
pub(super) struct Rotated {
    rotation: Rotation,
    /// The file and its size; `None` for a device or a pipe, which is never rotated.
    open: Option<(File, Option<u64>)>,
    tidying: Option<JoinHandle<()>>,
}

impl Rotated {
    /// The file is opened at the first write, and its folder is made if it is missing.
    pub(super) const fn new(rotation: Rotation) -> Self {
        Self { rotation, open: None, tidying: None }
    }

    /// Opens the file now.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if let Some(folder) = self.rotation.path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Opening a pipe without a reader must not block; for files the flag has no effect.
        let mut options = OpenOptions::new();
        options.create(true).append(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(&self.rotation.path)?;
        let found = file.metadata()?;
        self.open = Some((file, found.is_file().then_some(found.len())));
        if found.is_file() {
            self.tidy();
        }
        Ok(())
    }

    /// Renames the file and starts a new one.
    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let path = &self.rotation.path;
        if fs::exists(path)? {
            fs::rename(path, free_name(path)?)?;
        }
        self.open()
    }

    /// Compresses rotated files and removes the oldest, in the background.
    fn tidy(&mut self) {
        if self.tidying.as_ref().is_some_and(|before| !before.is_finished()) {
            return;
        }
        let rotation = self.rotation.clone();
        self.tidying = Some(thread::spawn(move || {
            if let Err(error) = rotation.tidy() {
                let path = rotation.path.display();
                tracing::warn!(%path, %error, "rotated files can't be compressed or removed");
            }
        }));
    }
}

impl Drop for Rotated {
    fn drop(&mut self) {
        if let Some(tidying) = self.tidying.take() {
            let _ = tidying.join();
            // Files rotated while it ran are handled now.
            let _ = self.rotation.tidy();
        }
    }
}

impl Write for Rotated {
    /// A line is never split over two files.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let len = line.len() as u64;
        if len > self.rotation.size {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the line is longer than the size limit of a file",
            ));
        }
        let size = self.open.as_ref().and_then(|(_, size)| *size);
        if size.is_some_and(|size| size + len > self.rotation.size) {
            self.rotate()?;
        }
        let Some((file, size)) = &mut self.open else {
            // The file is not open yet, or was just rotated.
            self.open()?;
            return Err(io::ErrorKind::Interrupted.into());
        };
        let written = file.write(line)?;
        if let Some(size) = size {
            *size += written as u64;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target for Rotated {
    fn take_back(&mut self, written: usize) -> bool {
        let Some((file, Some(size))) = &mut self.open else { return false };
        let before = size.saturating_sub(written as u64);
        let is_back = file.set_len(before).is_ok();
        if is_back {
            *size = before;
        }
        is_back
    }
}

impl Rotation {
    fn tidy(&self) -> io::Result<()> {
        let full = full(&self.path)?;
        for path in full.iter().rev().skip(self.backups) {
            fs::remove_file(path)?;
        }
        if !self.compress {
            return Ok(());
        }
        let kept = full.iter().rev().take(self.backups);
        for path in kept.filter(|path| !path.as_os_str().to_string_lossy().ends_with(COMPRESSED)) {
            compress(path)?;
        }
        Ok(())
    }
}

/// The parts of a file's name before and after the time of a rotation.
fn around(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}"));
    (text(path.file_stem()).unwrap_or_default() + "-", extension.unwrap_or_default())
}

/// An unused name for a rotated file: two rotations within a millisecond get different names.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    let (before, after) = around(path);
    let mut time = Timestamp::now();
    loop {
        let named = path.with_file_name(format!("{before}{}{after}", time.strftime(FORMAT)));
        let compressed = PathBuf::from(format!("{}{COMPRESSED}", named.display()));
        if !fs::exists(&named)? && !fs::exists(compressed)? {
            return Ok(named);
        }
        time += Duration::from_millis(1);
    }
}

/// The rotated files, oldest first.
fn full(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (before, after) = around(path);
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let mut full = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bare = name.strip_suffix(COMPRESSED).unwrap_or(&name);
        let time = bare.strip_prefix(&before).and_then(|rest| rest.strip_suffix(&after));
        if time.is_some_and(|time| jiff::civil::DateTime::strptime(FORMAT, time).is_ok()) {
            full.push(entry.path());
        }
    }
    full.sort();
    Ok(full)
}

fn compress(path: &Path) -> io::Result<()> {
    let compressed = PathBuf::from(format!("{}{COMPRESSED}", path.display()));
    // Compressed under another name until it is complete.
    let growing = PathBuf::from(format!("{}.part", compressed.display()));
    let mut encoder = GzEncoder::new(File::create(&growing)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(growing, compressed)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read;

    fn content(path: &Path) -> String {
        let mut text = String::new();
        let file = File::open(path).unwrap();
        if path.extension().unwrap() == "gz" {
            GzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else {
            std::io::BufReader::new(file).read_to_string(&mut text).unwrap();
        }
        text
    }

    #[test]
    fn only_regular_files_are_rotated() {
        let folder = std::env::temp_dir().join(format!("meridian-pipe-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut pipe = Rotated::new(Rotation { path: path.clone(), size: 10, backups: 2, compress: false });
        assert!(pipe.open().is_err(), "nobody reads it, and nobody waits for that");
        let mut reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        (0..4).for_each(|_| pipe.write_all(b"line\n").unwrap());
        let mut got = [0; 20];
        reader.read_exact(&mut got).unwrap();
        assert_eq!((&got[15..], fs::read_dir(&folder).unwrap().count()), (&b"line\n"[..], 1));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_full_file_is_moved_aside_and_the_oldest_go() {
        for compress in [false, true] {
            let folder = std::env::temp_dir().join(format!("meridian-rotated-{compress}-{}", std::process::id()));
            let path = folder.join("sub/events.log");
            let rotation = Rotation { path: path.clone(), size: 10, backups: 2, compress };
            let mut file = Rotated::new(rotation.clone());
            for n in 0..8 {
                file.write_all(format!("{n}...\n").as_bytes()).unwrap();
            }
            assert!(file.write(&[b'x'; 11]).is_err(), "it is in no file");
            drop(file);
            rotation.tidy().unwrap();
            let full = full(&path).unwrap();
            let contents: Vec<String> = full.iter().map(|path| content(path)).collect();
            assert_eq!(contents, ["2...\n3...\n", "4...\n5...\n"], "{compress}: {full:?}");
            assert_eq!(content(&path), "6...\n7...\n");
            assert_eq!(full.iter().all(|path| path.extension().unwrap() == "gz"), compress);
            // An existing file is appended to.
            let mut again = Rotated::new(Rotation { size: 15, ..rotation });
            again.write_all(b"8...\n").unwrap();
            assert_eq!(content(&path), "6...\n7...\n8...\n");
            drop(again);
            fs::remove_dir_all(folder).unwrap();
        }
    }
}
