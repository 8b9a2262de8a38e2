//! Kernel objects that a run of ours could leave behind on the machine. Objects of other programs, another Meridian
//! included, are left out: those with other names, and those held by processes outside this test.

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

/// A lock for tests that run a demo or compare the machine, so that they run one after another.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The prefixes of our programs' names, as the kernel stores them.
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
/// Some of our maps; the others exist and go together with them.
const MAPS: [&str; 6] = ["ZONE_MATRIX", "FLOWS_V4", "FLOWS_V6", "ZONES_0", "ZONES_1", "CONTROL"];

/// The ids of our kernel objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
    devices: BTreeSet<String>,
    /// The network namespaces of this test's processes.
    namespaces: BTreeSet<u64>,
}

impl Machine {
    /// The objects that exist now.
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

    /// Waits until no object exists that did not exist before: the kernel frees programs and maps a moment after their
    /// last user.
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

/// Whether a process is this one or a descendant of it.
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

/// The ids of the eBPF objects that a process holds.
pub(crate) fn ids(pid: u32, key: &str) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let id = |text: String| {
        text.lines().find_map(|line| line.strip_prefix(key)?.trim_start_matches(':').trim().parse().ok())
    };
    texts.filter_map(id).collect()
}
