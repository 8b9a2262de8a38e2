//! Kernel objects that a run of ours could leave behind on the machine: those that a process of this test has held.
//! Objects of other programs, another Meridian included, are left out.

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
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

/// The devices that tests and the demo make, each in a network namespace of its own.
const DEVICES: [&str; 8] = ["br0", "cni0", "w99", "up0", "up1", "pod0", "pod1", "pod2"];

/// Ids of kernel objects, and devices of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Objects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
    devices: BTreeSet<String>,
    /// The network namespaces of this test's processes.
    namespaces: BTreeSet<u64>,
}

impl Objects {
    /// The objects that this process and its descendants hold now.
    fn held() -> Self {
        let processes = processes();
        let held = |key| processes.iter().flat_map(|pid| ids(*pid, key)).collect();
        let namespace = |pid: &u32| fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|meta| meta.ino());
        Self {
            programs: held("prog_id"),
            maps: held("map_id"),
            links: held("link_id"),
            devices: devices(),
            namespaces: processes.iter().filter_map(namespace).collect(),
        }
    }

    /// Our objects that exist, whatever holds them.
    fn existing() -> Self {
        let is_ours = |name: &str| PROGRAMS.iter().any(|ours| name.starts_with(ours));
        let programs = loaded_programs().flatten().filter(|program| program.name_as_str().is_some_and(is_ours));
        let programs: BTreeSet<u32> = programs.map(|program| program.id()).collect();
        let maps = loaded_maps().flatten().filter(|map| map.name_as_str().is_some_and(|name| MAPS.contains(&name)));
        let links = loaded_links().flatten().filter(|link| programs.contains(&link.program_id()));
        Self {
            maps: maps.map(|map| map.id()).collect(),
            links: links.map(|link| link.id()).collect(),
            programs,
            devices: devices(),
            namespaces: Self::held().namespaces,
        }
    }

    fn add(&mut self, other: Self) {
        self.programs.extend(other.programs);
        self.maps.extend(other.maps);
        self.links.extend(other.links);
        self.devices.extend(other.devices);
        self.namespaces.extend(other.namespaces);
    }

    fn both(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs & &other.programs,
            maps: &self.maps & &other.maps,
            links: &self.links & &other.links,
            devices: &self.devices & &other.devices,
            namespaces: &self.namespaces & &other.namespaces,
        }
    }

    fn less(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs - &other.programs,
            maps: &self.maps - &other.maps,
            links: &self.links - &other.links,
            devices: &self.devices - &other.devices,
            namespaces: &self.namespaces - &other.namespaces,
        }
    }
}

/// Watches which objects the processes of this test hold.
pub(crate) struct Machine {
    before: Objects,
    held: Arc<Mutex<Objects>>,
    ends: Arc<AtomicBool>,
    watch: Option<JoinHandle<()>>,
}

impl Machine {
    /// Watches from now on.
    pub(crate) fn now() -> Self {
        let (held, ends) = (Arc::new(Mutex::new(Objects::default())), Arc::new(AtomicBool::new(false)));
        let (all, is_over) = (Arc::clone(&held), Arc::clone(&ends));
        let watch = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let now = Objects::held();
                all.lock().unwrap().add(now);
                thread::sleep(Duration::from_millis(10));
            }
        });
        Self { before: Objects::held(), held, ends, watch: Some(watch) }
    }

    /// Waits until none of the objects exists that a process of this test has held since: the kernel frees programs and
    /// maps after their last user, on a busy machine seconds after.
    pub(crate) fn is_restored(&self) {
        let mut left = Objects::default();
        for _ in 0..1200 {
            let held = self.held.lock().unwrap().clone();
            left = held.both(&Objects::existing()).less(&self.before);
            if left == Objects::default() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("left behind: {left:?}\nprograms and maps by name: {:?}", named(&left));
    }

    /// The numbers of programs, maps and links that were held.
    pub(crate) fn held(&self) -> [usize; 3] {
        let held = self.held.lock().unwrap();
        [held.programs.len(), held.maps.len(), held.links.len()]
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
    }
}

/// The names of those programs and maps, each with the processes that hold it.
fn named(objects: &Objects) -> Vec<(u32, String, Vec<String>)> {
    let programs = loaded_programs().flatten().map(|program| (program.id(), program.name_as_str().map(str::to_owned)));
    let maps = loaded_maps().flatten().map(|map| (map.id(), map.name_as_str().map(str::to_owned)));
    let programs = programs.filter(|(id, _)| objects.programs.contains(id)).map(|it| (it, "prog_id"));
    let maps = maps.filter(|(id, _)| objects.maps.contains(id)).map(|it| (it, "map_id"));
    let pids =
        || fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|of| of.file_name().to_str()?.parse().ok());
    let holders = |id: u32, key: &str| {
        let holders = pids().filter(|pid| ids(*pid, key).contains(&id));
        holders
            .map(|pid: u32| format!("{pid} {}", fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()))
            .collect()
    };
    programs.chain(maps).map(|((id, name), key)| (id, name.unwrap_or_default(), holders(id, key))).collect()
}

fn devices() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| DEVICES.contains(&name.as_str())).collect()
}

/// This process and its descendants.
fn processes() -> Vec<u32> {
    let mut all = vec![std::process::id()];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> =
            children.flat_map(|text| text.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
        all.extend(children);
        next += 1;
    }
    all
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
