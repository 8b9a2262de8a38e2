//! What a run of ours could leave behind on the machine. Whatever else the machine runs, another Meridian
//! among it, is left out: objects of other names, and those that a process outside this test holds.

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Where the names of our programs begin, as the kernel keeps them.
const PROGRAMS: [&str; 9] = [
    "postrouting_v4",
    "postrouting_v6",
    "core_v4",
    "core_v6",
    "tc_egress",
    "tc_ingress",
    "accept_all",
    "redirect",
    "next",
];
/// Some of our maps: the others come and go with them.
const MAPS: [&str; 6] = ["ZONE_MATRIX", "FLOWS_V4", "FLOWS_V6", "ZONES_0", "ZONES_1", "CONTROL"];

/// Ids of all that the kernel holds of ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
    devices: BTreeSet<String>,
    /// Those that processes of this test are in.
    namespaces: BTreeSet<u64>,
}

impl Machine {
    /// As it is now.
    pub(crate) fn now() -> Self {
        let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let devices = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let (ours, others): (Vec<u32>, Vec<u32>) = processes().into_iter().partition(|pid| is_of_this_test(*pid));
        let held: BTreeMap<&str, BTreeSet<u32>> = ["prog_id", "map_id", "link_id"]
            .map(|key| (key, others.iter().flat_map(|pid| ids(*pid, key)).collect()))
            .into();
        let is_ours = |key: &str, id: &u32| !held[key].contains(id);
        let programs = loaded_programs().flatten().filter(|program| {
            program.name_as_str().is_some_and(|name| PROGRAMS.iter().any(|ours| name.starts_with(ours)))
        });
        let programs: BTreeSet<u32> =
            programs.map(|program| program.id()).filter(|id| is_ours("prog_id", id)).collect();
        let maps = loaded_maps().flatten().filter(|map| map.name_as_str().is_some_and(|name| MAPS.contains(&name)));
        let links = loaded_links().flatten().filter(|link| programs.contains(&link.program_id()));
        Self {
            maps: maps.map(|map| map.id()).filter(|id| is_ours("map_id", id)).collect(),
            links: links.map(|link| link.id()).filter(|id| is_ours("link_id", id)).collect(),
            programs,
            devices,
            namespaces: ours
                .iter()
                .filter_map(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|meta| meta.ino()))
                .collect(),
        }
    }

    /// Waits until nothing is there that was not there before: the kernel frees programs and maps a moment
    /// after their last user has gone.
    pub(crate) fn is_restored(&self) {
        let mut left = Self::default();
        for _ in 0..200 {
            left = Self::now().less(self);
            if left == Self::default() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("left behind: {left:?}");
    }

    fn less(self, before: &Self) -> Self {
        Self {
            programs: &self.programs - &before.programs,
            maps: &self.maps - &before.maps,
            links: &self.links - &before.links,
            devices: &self.devices - &before.devices,
            namespaces: &self.namespaces - &before.namespaces,
        }
    }
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process is this one, or was started by it or by one that was.
fn is_of_this_test(mut pid: u32) -> bool {
    while pid > 1 {
        if pid == std::process::id() {
            return true;
        }
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        pid = parent.and_then(|parent| parent.trim().parse().ok()).unwrap_or_default();
    }
    false
}

/// The objects of eBPF that a process has descriptors of.
pub(crate) fn ids(pid: u32, key: &str) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let id = |text: String| {
        text.lines().find_map(|line| line.strip_prefix(key)?.trim_start_matches(':').trim().parse().ok())
    };
    texts.filter_map(id).collect()
}
