//! Network namespaces without a name: the kernel removes them with the last descriptor and the last thread, even if
//! this process is killed.

use super::Error;
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    thread,
};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    fd: OwnedFd,
}

impl Namespace {
    /// A new namespace; `name` is for errors.
    ///
    /// # Errors
    /// This process may not make namespaces.
    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        // On its own thread, because a namespace belongs to a thread.
        let made = thread::scope(|scope| {
            let make = || {
                unshare(CloneFlags::CLONE_NEWNET)?;
                File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
            };
            scope.spawn(make).join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        });
        match made {
            Ok(fd) => Ok(Self { name: name.into(), fd }),
            Err(source) if source.raw_os_error() == Some(libc::EPERM) => Err(Error::NotPermitted { source }),
            Err(source) => Err(Error::Namespace { name: name.into(), what: "making it", source }),
        }
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn current(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        match File::open("/proc/thread-self/ns/net") {
            Ok(file) => Ok(Self { name, fd: file.into() }),
            Err(source) => Err(Error::Namespace { name, what: "finding it", source }),
        }
    }

    /// Runs `work` inside, on its own thread, and waits for it.
    ///
    /// # Errors
    /// The namespace can't be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        thread::scope(|scope| {
            let inside = || setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET).map(|()| work());
            match scope.spawn(inside).join() {
                Ok(entered) => entered.map_err(io::Error::from),
                Err(_) => Err(io::Error::other("the thread panicked")),
            }
        })
        .map_err(|source| self.failed("entering it", source))
    }

    /// Runs `work` inside, on its own thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<io::Result<T>>, Error> {
        let fd = self.fd.try_clone().map_err(|source| self.failed("copying its descriptor", source))?;
        let inside = move || {
            setns(fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
            // From here on only the thread keeps the namespace, for as long as it works.
            drop(fd);
            Ok(work())
        };
        let thread = thread::Builder::new().name(self.name.clone());
        thread.spawn(inside).map_err(|source| self.failed("starting a thread", source))
    }

    /// An error of an operation in this namespace.
    pub fn failed(&self, what: &'static str, source: io::Error) -> Error {
        Error::Namespace { name: self.name.clone(), what, source }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
