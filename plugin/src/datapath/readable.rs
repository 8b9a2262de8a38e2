//! Waits until a file descriptor is readable.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Waits until a file is readable. Another descriptor of the same file reads it.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Waits on this file. Must be called inside a runtime.
    pub(super) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let fd = fd.try_clone_to_owned()?;
        // SAFETY: the descriptor is open and stays the same until it is dropped, and AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?))
    }

    /// Waits until the file is readable. The caller must then read everything: data that is there already does not
    /// wake it again. Cancel safe.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn ready(&self) -> io::Result<()> {
        // Cleared before reading, so that data that arrives in between wakes the caller again.
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
