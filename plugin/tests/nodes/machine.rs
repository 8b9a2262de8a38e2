//! Objects that a cluster could leave behind on the machine: namespaces, mounts, groups, processes, programs, and
//! settings that are the whole kernel's.

use super::cluster::until;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Settings that say how the machine is, not how it is to be.
const MOVING: [&str; 12] = [
    "/proc/sys/fs/aio-nr",
    "/proc/sys/fs/dentry-state",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inode-nr",
    "/proc/sys/fs/inode-state",
    "/proc/sys/fs/quota",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/perf_event_max_sample_rate",
    "/proc/sys/kernel/pty/nr",
    "/proc/sys/kernel/random",
    "/proc/sys/kernel/tainted",
    "/proc/sys/net/netfilter/nf_conntrack_count",
];

/// The machine at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    cluster: &'static str,
    settings: BTreeMap<String, String>,
    left: BTreeSet<String>,
}

impl Machine {
    pub fn look(cluster: &'static str) -> Self {
        let mut settings = BTreeMap::new();
        read_settings(Path::new("/proc/sys"), &mut settings);
        Self { cluster, settings, left: left(cluster) }
    }

    /// Waits until the machine is as it was: what the kernel takes away, it takes away later.
    pub fn must_be_as_before(&self) {
        until("nothing of the cluster left", || left(self.cluster).is_subset(&self.left).then_some(()));
        let now = Self::look(self.cluster);
        for (setting, value) in &self.settings {
            assert_eq!(now.settings.get(setting), Some(value), "{setting}");
        }
    }
}

fn read_settings(folder: &Path, settings: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.to_string_lossy().into_owned();
        if MOVING.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            read_settings(&path, settings);
        } else if let Ok(value) = fs::read_to_string(&path) {
            // Some can only be written.
            settings.insert(name, value);
        }
    }
}

/// The objects with the cluster's name.
fn left(cluster: &str) -> BTreeSet<String> {
    let mut left = BTreeSet::new();
    let ours = |text: &str| text.contains(cluster);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| ours(line)).map(|line| format!("mount {line}")));
    let mut folders = vec!["/run/netns".to_owned(), "/sys/fs/cgroup".to_owned()];
    folders.extend(fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path().display().to_string()));
    for folder in folders {
        let names =
            fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path().display().to_string());
        left.extend(names.filter(|path| ours(path)));
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default().replace('\0', " ");
        if ours(&command) && process.file_name().to_string_lossy().parse::<u32>().is_ok() {
            left.insert(format!("process {command}"));
        }
    }
    left
}
