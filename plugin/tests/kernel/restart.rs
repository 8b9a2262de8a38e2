//! Idle entries are removed, and the next agent's sums contain their counters.

use crate::{
    load::find,
    network::{
        BpfFs, Mtus, NODE, Network, PEER,
        traffic::{datagrams, sink},
    },
};
use meridian::{
    accounting::Accounting,
    datapath::{Datapath, Devices, Options, Pins, sys},
    flows::{Node, Ring, Sink},
    identity::Index,
    meter::{HookState, Meter},
    zones::{Place, StaticTable},
};
use meridian_abi::{Counter, IpVersion, stats};
use std::{
    os::fd::AsFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

const PORT: u16 = 9000;
const ZONES: &str =
    "zones:\n- {name: a, region: r, cidrs: [10.0.2.1/32]}\n- {name: b, region: r, cidrs: [10.0.2.2/32]}\n";

/// An agent over the pins, attached in the node. Returns whether it restored the sums of an earlier agent.
fn agent(network: &Network, pins: &Pins, state: &Path) -> (Meter, bool) {
    let sink = Sink::new(Arc::new(Ring::new(1023)));
    let identity = Node::new("node", Place::Unknown);
    let datapath = Datapath::load_pinned(Options::default(), Some(pins.clone())).unwrap();
    let mut agent = Meter::new(identity, datapath, Arc::new(Index::default()), Accounting::new(100, true), sink);
    let devices: Devices = network.node.run(|| meridian::datapath::devices::find(&[])).unwrap().unwrap();
    let start = || {
        agent.datapath().set_devices(devices).unwrap();
        let table = StaticTable::parse(Path::new("zones.yaml"), ZONES.as_bytes()).unwrap();
        agent.apply_zones(&table.zones, SystemTime::now()).unwrap();
        let is_restored = agent.restore_sums(state, Instant::now()).unwrap();
        agent.datapath().attach().unwrap();
        is_restored
    };
    let is_restored = network.node.run(start).unwrap();
    (agent, is_restored)
}

/// The agent's sum over all pods.
fn summed(agent: &Meter) -> Counter {
    let totals = agent.sample(&HookState::default(), None).unwrap().counted.totals;
    totals.pods.series().flat_map(|(_, total)| total.iter()).map(|(_, counter)| counter).sum()
}

fn send(network: &Network, port: u16, count: usize) {
    let _sink = sink(&network.peer, PEER.of(IpVersion::V4), port);
    let ports = std::iter::repeat_n((40_000, port), count);
    datagrams(&network.node, NODE.of(IpVersion::V4), PEER.of(IpVersion::V4), 72, ports);
}

#[test]
fn idle_entries_are_removed_and_their_counters_stay() {
    let bpf = BpfFs::temporary("idle");
    let state = bpf.0.with_extension("state");
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let pins = network.node.run(|| Pins::open(&bpf.0)).unwrap().unwrap();
    let (mut first, is_restored) = agent(&network, &pins, &state);
    assert!(!is_restored, "it is the first one");
    send(&network, PORT, 10);
    send(&network, PORT + 1, 20);
    let start = Instant::now();
    let drain = |agent: &mut Meter, seconds: u64| {
        agent.drain(start + Duration::from_secs(seconds), SystemTime::now()).unwrap();
    };
    drain(&mut first, 0);
    assert_eq!(summed(&first), Counter { bytes: 3000, packets: 30 });
    // One entry is idle; the other one is used while it is being removed.
    drain(&mut first, 299);
    drain(&mut first, 301);
    send(&network, PORT + 1, 1);
    drain(&mut first, 302);
    let entries = |agent: &mut Meter| {
        let mut entries = Vec::new();
        agent.datapath().flows(|entry| entries.push((entry.service_port, entry.counter.packets)));
        entries.sort_unstable();
        entries
    };
    assert_eq!(entries(&mut first), [(PORT + 1, 1)], "the packet has made an entry of its own");
    assert_eq!(summed(&first), Counter { bytes: 3100, packets: 31 });

    // A kill before the sums are saved: slots that the agent had started to empty are in use again.
    std::mem::forget(std::mem::replace(&mut first, agent_after(&network, &pins, &state, false)));
    drain(&mut first, 310);
    assert_eq!(entries(&mut first), [(PORT, 10), (PORT + 1, 1), (PORT + 1, 20)]);
    assert_eq!(summed(&first), Counter { bytes: 3100, packets: 31 }, "nothing is lost");

    // This agent saves its sums and then empties the slots.
    drain(&mut first, 700);
    drain(&mut first, 701);
    first.keep(&state, start + Duration::from_secs(702), false).unwrap().unwrap();
    assert_eq!(entries(&mut first), []);
    assert_eq!(first.attribution().unwrap().attributed, Counter { bytes: 3100, packets: 31 });
    // The same keys again, then a kill.
    send(&network, PORT, 5);
    drain(&mut first, 703);
    assert_eq!(summed(&first), Counter { bytes: 3600, packets: 36 });
    std::mem::forget(std::mem::replace(&mut first, agent_after(&network, &pins, &state, true)));
    drain(&mut first, 704);
    assert_eq!(summed(&first), Counter { bytes: 3600, packets: 36 }, "nothing is lost, nothing counted twice");
    assert_eq!(first.attribution().unwrap().attributed, Counter { bytes: 3600, packets: 36 });

    // Batch reads and single reads, as on a kernel without batches, must agree.
    let stats = sys::get_pinned(&find(&bpf.0, "STATS")).unwrap();
    let cpus = aya::util::nr_cpus().unwrap();
    let (mut batches, mut singly) = (Vec::new(), Vec::new());
    sys::read_all(stats.as_fd(), 4, cpus, |key: &u32, values: &[Counter]| batches.push((*key, values.to_vec())))
        .unwrap();
    sys::read_one_by_one(stats.as_fd(), cpus, |key: &u32, values: &[Counter]| singly.push((*key, values.to_vec())))
        .unwrap();
    assert_eq!(batches, singly);
    assert_eq!(singly.len(), stats::ROOM as usize);

    drop((first, network));
    pins.remove().unwrap();
    std::fs::remove_file(&state).unwrap();
}

fn agent_after(network: &Network, pins: &Pins, state: &Path, kept: bool) -> Meter {
    let (agent, is_restored) = agent(network, pins, state);
    assert_eq!(is_restored, kept);
    agent
}

#[test]
fn pins_of_another_shape_are_refused_and_another_layout_ends() {
    let bpf = BpfFs::temporary("shape");
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let pins = network.node.run(|| Pins::open(&bpf.0)).unwrap().unwrap();
    drop(Datapath::load_pinned(Options::default(), Some(pins.clone())).unwrap());
    let other = Options { flow_slots: 1024, ..Options::default() };
    let error = Datapath::load_pinned(other, Some(pins.clone())).err().unwrap().to_string();
    assert!(error.contains("has another layout than this version's: `meridian agent --unload`"), "{error}");
    // A folder of a layout that this version does not have.
    let folder = std::fs::read_dir(&bpf.0).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap().path();
    for part in ["maps", "links"] {
        std::fs::create_dir_all(folder.join("v0").join(part)).unwrap();
    }
    drop(Datapath::load_pinned(Options::default(), Some(pins.clone())).unwrap());
    assert!(!folder.join("v0").exists());
    pins.remove().unwrap();
    assert!(!folder.exists());
    drop(network);
}
