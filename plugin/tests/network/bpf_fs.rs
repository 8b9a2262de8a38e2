//! A bpf file system for one test.

use nix::mount::{MsFlags, mount, umount};
use std::{fs, path::PathBuf};

/// Mounted until it is dropped.
pub struct BpfFs(pub PathBuf);

impl BpfFs {
    /// Mounts at a folder, which is made.
    pub fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        mount(Some("bpf"), &folder, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(folder)
    }

    /// Mounts at a temporary folder.
    pub fn temporary(name: &str) -> Self {
        Self::new(std::env::temp_dir().join(format!("meridian-bpf-{name}-{}", std::process::id())))
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = umount(&self.0);
        let _ = fs::remove_dir(&self.0);
    }
}
