//! What is on the machine that a run could leave behind.

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Held by whoever runs a demo or compares the machine: one after the other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ids and names of all that the kernel holds of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
    devices: BTreeSet<String>,
    /// Named ones, and those that a process is in.
    namespaces: BTreeSet<String>,
}

impl Machine {
    /// As it is now.
    pub(crate) fn now() -> Self {
        let names = |folder: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let of_process =
            |pid: &String| fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|meta| meta.ino().to_string());
        let mut namespaces: BTreeSet<String> = names("/proc").iter().filter_map(of_process).collect();
        namespaces.extend(names("/run/netns"));
        Self {
            programs: loaded_programs().flatten().map(|program| program.id()).collect(),
            maps: loaded_maps().flatten().map(|map| map.id()).collect(),
            links: loaded_links().flatten().map(|link| link.id()).collect(),
            devices: names("/sys/class/net"),
            namespaces,
        }
    }

    /// Waits until the machine is as it was: the kernel frees programs and maps a moment after
    /// their last user has gone.
    pub(crate) fn is_restored(&self) {
        for _ in 0..200 {
            if Self::now() == *self {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(Self::now(), *self, "left behind (left) and before (right)");
    }
}
