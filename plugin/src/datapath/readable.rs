//! Waits for a file descriptor that the kernel has something to read on.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Tells when there is something to read. It is read elsewhere, by another descriptor of the same file.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Of this file. Inside a runtime.
    pub(super) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let fd = fd.try_clone_to_owned()?;
        // SAFETY: the descriptor is open, it is the same one until it is dropped, and AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?))
    }

    /// Waits until there is something. All of it must be read then: what is there already does not wake again. Can be
    /// dropped at any time.
    ///
    /// # Errors
    /// The runtime is about to end.
    pub async fn ready(&self) -> io::Result<()> {
        // Before it is read: what comes meanwhile wakes once more.
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
