//! Ensures one agent for a node, and one for the pinned counters: two would count every packet twice.
//!
//! The claims are locks on files and folders that only root can open, so no other process can hold them. They go with
//! the process, and nothing waits for them.

use super::pins::Pins;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Tries to lock a file that others remove meanwhile.
const TRIES: usize = 10;
/// The longest part of a node's name in a file name, which has 255 bytes at most.
const NAME_BYTES: usize = 200;

/// Proof that this agent is the only one, for as long as it is held.
#[derive(Debug)]
pub struct Only {
    #[expect(dead_code, reason = "it is the lock as long as it is open")]
    locked: File,
    /// The file to remove at the end, if it is not part of anything else.
    file: Option<PathBuf>,
}

/// Another agent runs, or it is unknown whether one does.
#[derive(Debug, thiserror::Error)]
pub enum NotAlone {
    /// Another agent runs.
    #[error("another agent counts here already{}", process(*.pid))]
    Another {
        /// Its process, if it is known.
        pid: Option<u32>,
    },
    /// It is unknown whether another agent runs.
    #[error("whether another agent counts here: {0}")]
    Unknown(#[from] io::Error),
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl Only {
    /// Claims the place of the one agent of a node of this name in the calling thread's network namespace. `folder` is
    /// made if it is missing.
    ///
    /// # Errors
    /// Another agent has it, or the folder can't be used.
    pub fn of_node(folder: &Path, node: &str) -> Result<Self, NotAlone> {
        fs::create_dir_all(folder)?;
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let name: String = node.chars().map(|c| if c == '/' || c == '\0' { '_' } else { c }).collect();
        // A longer name keeps its end, where names of nodes differ.
        let end = name.ceil_char_boundary(name.len().saturating_sub(NAME_BYTES));
        let path = folder.join(format!("agent-{namespace}-{}.lock", &name[end..]));
        for _ in 0..TRIES {
            let open = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)?;
            let locked = lock(open)?;
            // An agent that ended meanwhile has removed the file that is locked here.
            let inode = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|metadata| metadata.ino());
            if inode(fs::metadata(&path)) == inode(locked.metadata()) {
                return Ok(Self { locked, file: Some(path) });
            }
        }
        Err(io::Error::other(format!("{}: others make and remove it", path.display())).into())
    }

    /// Claims the pinned counters.
    ///
    /// # Errors
    /// Another agent writes to them.
    pub fn of_pins(pins: &Pins) -> Result<Self, NotAlone> {
        Ok(Self { locked: lock(File::open(pins.folder())?)?, file: None })
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        if let Some(path) = &self.file {
            // Before the lock is released, so that no other process holds it yet.
            let _ = fs::remove_file(path);
        }
    }
}

fn lock(file: File) -> Result<File, NotAlone> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(NotAlone::Another { pid: holder(&file) }),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// The process that has locked a file, as far as this one may know.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let at = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK ADVISORY WRITE 1234 00:1b:5678 0 EOF`
    let fields = |line: &str| Some((line.split_whitespace().nth(4)?.to_owned(), line.split_whitespace().nth(5)? == at));
    let pid = locks.lines().filter_map(fields).find(|(_, is_it)| *is_it)?.0;
    pid.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_one_agents_and_a_stranger_can_not_hold_it() {
        let folder = std::env::temp_dir().join(format!("meridian-only-{}", std::process::id()));
        let claim = |node: &str| Only::of_node(&folder, node);
        let first = claim("node-a").unwrap();
        let error = claim("node-a").unwrap_err();
        assert_eq!(error.to_string(), format!("another agent counts here already (process {})", std::process::id()));
        let other = claim("node/../b").unwrap();
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|file| file.metadata().unwrap().mode() & 0o77 == 0), "only the owner may open it");
        drop((first, other));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        // A link, or a pipe without a reader, in the place of the file is no trap.
        let again = claim("node-a").unwrap();
        let path = again.file.clone().unwrap();
        drop(again);
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(claim("node-a"), Err(NotAlone::Unknown(_))));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(claim("node-a"), Err(NotAlone::Unknown(_))));
        let long = claim(&"ä".repeat(1000));
        assert!(long.is_ok(), "{long:?}");
        drop(long);
        fs::remove_dir_all(&folder).unwrap();
    }
}
