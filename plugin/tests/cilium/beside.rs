//! Cilium's and Meridian's objects on the nodes, in the kernel and served: neither touches the other's.

use crate::{
    NAME,
    cluster::{Cluster, NODES, OUTSIDE},
};
use meridian::datapath::sys::{Side, query_tcx};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    thread,
};

/// A map that cilium-agent takes away by itself, some time after it has started again.
const MOVING: &str = "/cilium_l2_responder_";

/// The objects of all nodes at one moment.
#[derive(Debug)]
pub struct Objects {
    /// Programs at tcx, by node, device and side.
    programs: BTreeMap<String, u32>,
    /// Queueing disciplines, clsact's among them, by node and device.
    qdiscs: BTreeSet<String>,
    /// Cilium's maps, programs and links in the nodes' bpf file systems.
    pins: BTreeSet<String>,
    /// Ports on which its processes listen, and the names of the metrics that its agents serve.
    served: BTreeSet<String>,
    /// Pins and ports of Meridian.
    ours: BTreeSet<String>,
}

impl Objects {
    pub fn look(cluster: &Cluster) -> Self {
        let (mut programs, mut qdiscs, mut paths) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let mut listeners = BTreeSet::new();
        for (node, address) in NODES {
            programs.extend(attached(cluster, node));
            let list = cluster.ask(node, &["tc", "qdisc", "show"]);
            qdiscs.extend(list.lines().map(|line| format!("{node}: {}", line.trim_end())));
            let list = cluster.script(&["on", node, "find", "/sys/fs/bpf"]);
            let list = list.lines().filter(|path| !path.contains(MOVING));
            paths.extend(list.map(|path| format!("{node}: {path}")));
            listeners.extend(ports(cluster, node));
            let page = cluster.ask(OUTSIDE, &["curl", "--silent", "--fail", &format!("http://{address}:9962/metrics")]);
            let names = page.lines().filter(|line| line.starts_with("# TYPE "));
            listeners.extend(names.map(|line| format!("{node}: {line}")));
        }
        let is_ours = |text: &String| text.contains("meridian");
        let (mut ours, pins): (BTreeSet<_>, _) = paths.into_iter().partition(is_ours);
        let (our_ports, served): (BTreeSet<_>, _) = listeners.into_iter().partition(is_ours);
        ours.extend(our_ports);
        Self { programs, qdiscs, pins, served, ours }
    }

    /// The same after cilium-agent has started again: it may then take away what it has no use for.
    pub fn after_restart(self, cluster: &Cluster) -> Self {
        let now = Self::look(cluster);
        let both = |then: &BTreeSet<String>, now: &BTreeSet<String>| then.intersection(now).cloned().collect();
        let (qdiscs, pins) = (both(&self.qdiscs, &now.qdiscs), both(&self.pins, &now.pins));
        Self { qdiscs, pins, served: both(&self.served, &now.served), ..self }
    }

    /// Fails if something that was there is not, or if something of Meridian's is.
    pub fn must_be_as_before(&self, cluster: &Cluster) {
        let now = self.must_still_be(cluster);
        // Programs of ours can stay only by a pin. More of Cilium's than before may have come: it was still attaching
        // them when it was first looked at.
        assert!(now.ours.is_empty(), "Meridian's here, though it is uninstalled: {:?}", now.ours);
    }

    /// Fails if something is not there any more.
    pub fn must_still_be(&self, cluster: &Cluster) -> Self {
        let now = Self::look(cluster);
        let pairs = [(&self.pins, &now.pins), (&self.qdiscs, &now.qdiscs), (&self.served, &now.served)];
        let gone: Vec<_> = pairs.into_iter().flat_map(|(before, now)| before.difference(now)).collect();
        assert!(gone.is_empty(), "Cilium's before, and not now: {gone:#?}");
        for (device, programs) in &self.programs {
            let here = now.programs.get(device);
            assert!(here >= Some(programs), "programs at {device}: {programs} before, and {here:?}");
        }
        now
    }
}

/// Where processes of Cilium's and of ours listen.
fn ports(cluster: &Cluster, node: &str) -> BTreeSet<String> {
    let list = ["ss", "--no-header", "--listening", "--numeric", "--tcp", "--udp", "--processes"];
    let list = cluster.ask(node, &list);
    let port = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let process = words.get(6)?.split('"').nth(1)?;
        let name = format!("{node}: {process} {} {}", words[0], words[4]);
        (process.starts_with("cilium") || process.starts_with("meridian")).then_some(name)
    };
    list.lines().filter_map(port).collect()
}

/// How many programs are at tcx of each device of the node.
fn attached(cluster: &Cluster, node: &str) -> BTreeMap<String, u32> {
    let links: Value = serde_json::from_str(&cluster.ask(node, &["ip", "-json", "link"])).unwrap();
    let links = links.as_array().unwrap();
    let network = File::open(format!("/run/netns/{NAME}-{node}")).unwrap();
    let inside = || {
        // A thread of its own, since the namespace is the thread's.
        setns(&network, CloneFlags::CLONE_NEWNET).unwrap();
        let mut programs = BTreeMap::new();
        for link in links {
            let index = u32::try_from(link["ifindex"].as_u64().unwrap()).unwrap();
            for (name, side) in [("ingress", Side::Ingress), ("egress", Side::Egress)] {
                // A pod's device may go after it was listed.
                if let Ok(count) = query_tcx(index, side) {
                    programs.insert(format!("{node}: {} {name}", link["ifname"].as_str().unwrap()), count);
                }
            }
        }
        programs
    };
    thread::scope(|scope| scope.spawn(inside).join().unwrap())
}
