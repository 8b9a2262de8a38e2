//! The progress on files, on a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::Path,
};

/// The progress on several files: bytes read of all bytes. Shown on stderr if that is a terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(paths: &[impl AsRef<Path>]) -> Self {
        let sizes = paths.iter().filter_map(|path| path.as_ref().metadata().ok()).map(|metadata| metadata.len());
        let bar = if io::stderr().is_terminal() { ProgressBar::new(sizes.sum()) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta} {wide_msg}");
        Self(style.map(|style| bar.clone().with_style(style)).unwrap_or(bar))
    }

    /// A file whose bytes count as they are read.
    pub(super) fn open(&self, path: &Path) -> io::Result<impl Read> {
        self.0.set_message(super::plain::plain(&path.display().to_string()));
        Ok(self.0.wrap_read(File::open(path)?))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
