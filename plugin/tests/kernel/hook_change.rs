//! The hook changes while packets pass: no packet is lost or counted twice.

use crate::{
    network::{
        BpfFs, Counting, Mtus, NO_TRUTH, NODE, Network, PEER, POD, VERSIONS,
        traffic::{datagrams, sink, tcp},
    },
    privileges, times,
};
use meridian::{
    datapath::{self, Datapath, Hook, Options, Pins},
    netlab::namespace::Namespace,
};
use meridian_abi::{Counter, IpVersion};
use std::{
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const PORT: u16 = 9000;
/// Shorter than an agent's, because no packet here waits for a neighbour's address.
const GRACE: Duration = Duration::from_millis(150);

/// Changes the hook as an agent does.
fn change(node: &Namespace, datapath: &mut Datapath, to: Hook) {
    node.run(|| datapath.begin_hook_change(to)).unwrap().unwrap();
    let mut done = None;
    while done.is_none() {
        assert!(datapath.is_changing());
        thread::sleep(GRACE);
        done = node.run(|| datapath.continue_hook_change()).unwrap().unwrap();
    }
    assert_eq!((done, datapath.hook(), datapath.is_changing()), (Some(to), to, false));
}

/// Datagrams from pod and node, small ones and ones that are fragmented, and TCP, until `done`.
fn traffic([pod, node, peer]: [&Namespace; 3], version: IpVersion, done: &AtomicBool) {
    let ports = |n| std::iter::repeat_n((0, PORT), n);
    while !done.load(Ordering::Relaxed) {
        datagrams(pod, POD.of(version), PEER.of(version), 100, ports(20));
        datagrams(node, NODE.of(version), PEER.of(version), 1200, ports(20));
        tcp((pod, POD.of(version)), (peer, SocketAddr::new(PEER.of(version), PORT + 1)), 100_000);
        // A pause: packets dropped at the receiver's backlog would be missing on the wire.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the traffic when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends while the hook changes, and compares with the wire. Returns false if the wire lost packets.
fn change_under_traffic(network: &mut Network, to: Hook, version: IpVersion) -> bool {
    let _sink = sink(&network.peer, PEER.of(version), PORT);
    let (wire, counted) = (network.wire(), network.counting.all());
    let done = AtomicBool::new(false);
    let Network { pod, node, peer, counting: Counting { datapath, .. }, .. } = &mut *network;
    thread::scope(|scope| {
        scope.spawn(|| traffic([pod, node, peer], version, &done));
        // Also after a failure, which would wait for the traffic otherwise.
        let _end = End(&done);
        thread::sleep(GRACE);
        change(node, datapath, to);
        thread::sleep(GRACE);
    });
    let less = |a: Counter, b: Counter| Counter { bytes: a.bytes - b.bytes, packets: a.packets - b.packets };
    for last in [false; 50].into_iter().chain([true]) {
        if network.has_lost() {
            return false;
        }
        let (counted, wire) = (less(network.counting.all(), counted), less(network.wire(), wire));
        if counted == wire {
            assert!(wire.packets > 200, "too little was sent");
            return true;
        }
        assert!(!last, "to {to}, {version:?}: the matrix says {counted:?}, the wire {wire:?}");
        thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn a_change_of_the_hook_loses_and_doubles_nothing() {
    for device_hook in [Hook::Tcx, Hook::Clsact] {
        let mut network = Network::new(Hook::Netfilter);
        for version in VERSIONS {
            let (mut exact, wanted) = (0, times(2));
            let rounds = 20 * wanted;
            for round in 0..rounds {
                let to = if network.counting.datapath.hook() == device_hook { Hook::Netfilter } else { device_hook };
                exact += usize::from(change_under_traffic(&mut network, to, version));
                // As many changes in each direction.
                if exact >= wanted && round % 2 == 1 {
                    break;
                }
            }
            assert!(exact >= wanted, "{NO_TRUTH}, {rounds} times");
        }
    }
}

/// The programs of another agent over the same pins, attached at the hook of the earlier agent.
fn next(network: &mut Network, pins: &Pins, hook: Hook) {
    let before = std::mem::replace(
        &mut network.counting.datapath,
        Datapath::load_pinned(Options { hook, ..Options::default() }, Some(pins.clone())).unwrap(),
    );
    // As after a kill: nothing of the earlier agent is removed.
    std::mem::forget(before);
    network.counting.apply_again();
    network.attach();
}

#[test]
fn an_agent_that_is_killed_while_the_hook_changes_is_followed_by_one_that_counts() {
    let bpf = BpfFs::temporary("hook-change");
    let mut network = Network::unattached(Options::default(), Mtus(1500, 1500));
    let pins = network.node.run(|| Pins::open(&bpf.0)).unwrap().unwrap();
    assert_eq!(pins.hook(), None);
    for steps in 0..3 {
        next(&mut network, &pins, Hook::Netfilter);
        assert_eq!(pins.hook(), Some(Hook::Netfilter));
        let Network { node, counting: Counting { datapath, .. }, .. } = &mut network;
        node.run(|| datapath.begin_hook_change(Hook::Tcx)).unwrap().unwrap();
        for _ in 0..steps {
            thread::sleep(GRACE);
            node.run(|| datapath.continue_hook_change()).unwrap().unwrap();
        }
        assert_eq!(pins.hook(), Some(Hook::Tcx), "after {steps} steps");
        next(&mut network, &pins, Hook::Tcx);
        for version in VERSIONS {
            let _sink = sink(&network.peer, PEER.of(version), PORT);
            let ports = std::iter::repeat_n((0, PORT), 20);
            let work = || datagrams(&network.pod, POD.of(version), PEER.of(version), 100, ports);
            network.measure(work).is_all_in("a", "b", version);
        }
    }
    network.node.run(|| meridian::datapath::unload(&pins)).unwrap().unwrap();
}

/// Sends a little, and asserts that the count equals the wire's.
fn is_counted(network: &Network) {
    for version in VERSIONS {
        let _sink = sink(&network.peer, PEER.of(version), PORT);
        let ports = std::iter::repeat_n((0, PORT), 20);
        let work = || datagrams(&network.pod, POD.of(version), PEER.of(version), 100, ports);
        network.measure(work).is_all_in("a", "b", version);
    }
}

/// Filters of others at clsact, for packets of another protocol than ours, which have each priority that we try.
struct Others;

impl Others {
    fn take_all_places(node: &Namespace) -> Self {
        tc(node, &["qdisc", "add", "dev", "up0", "clsact"]);
        for priority in 1..=8 {
            let priority = priority.to_string();
            let place = ["filter", "add", "dev", "up0", "egress", "prio", &priority, "protocol", "802_2"];
            // It matches nothing.
            tc(node, &[&place[..], &["bpf", "bytecode", "1,6 0 0 0,"]].concat());
        }
        Self
    }

    fn leave(self, node: &Namespace) {
        tc(node, &["filter", "del", "dev", "up0", "egress"]);
    }
}

/// `tc` of iproute2.
#[track_caller]
fn tc(node: &Namespace, args: &[&str]) {
    let output = node.run(|| Command::new("tc").args(args).output()).unwrap().unwrap();
    assert!(output.status.success(), "tc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `work` on a thread in the node that may not change its network.
fn unprivileged<T: Send>(node: &Namespace, work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        // The thread ends with its rights.
        privileges::drop_net_admin().unwrap();
        work()
    };
    node.run(inside).unwrap()
}

#[test]
fn a_refused_step_of_a_change_counts_each_packet_once_and_is_tried_again() {
    let mut network = Network::new(Hook::Netfilter);
    for to in [Hook::Clsact, Hook::Netfilter] {
        let from = network.counting.datapath.hook();
        let refused = {
            let Network { node, counting: Counting { datapath, .. }, .. } = &mut network;
            // Others have all places, or we have no right.
            let others = (to == Hook::Clsact).then(|| Others::take_all_places(node));
            let refused = if others.is_some() {
                node.run(|| datapath.begin_hook_change(to)).unwrap()
            } else {
                unprivileged(node, || datapath.begin_hook_change(to))
            };
            others.into_iter().for_each(|others| others.leave(node));
            refused
        };
        assert!(refused.is_err(), "a change that can't begin");
        assert_eq!((network.counting.datapath.hook(), network.counting.datapath.is_changing()), (from, false));
        is_counted(&network);
        let datapath = &mut network.counting.datapath;
        network.node.run(|| datapath.begin_hook_change(to)).unwrap().unwrap();
        let mut steps = 0;
        while network.counting.datapath.is_changing() {
            thread::sleep(GRACE);
            let Network { node, counting: Counting { datapath, .. }, .. } = &mut network;
            unprivileged(node, || datapath.continue_hook_change()).unwrap_err();
            assert!(datapath.is_changing());
            is_counted(&network);
            let datapath = &mut network.counting.datapath;
            network.node.run(|| datapath.continue_hook_change()).unwrap().unwrap();
            is_counted(&network);
            steps += 1;
        }
        assert_eq!((network.counting.datapath.hook(), steps), (to, if to == Hook::Clsact { 2 } else { 1 }));
    }
}

#[test]
fn a_refused_removal_of_a_clsact_filter_is_an_error_until_it_succeeds() {
    let network = Network::new(Hook::Clsact);
    let bpf = BpfFs::temporary("refused-removal");
    let unload = || datapath::unload(&Pins::open(&bpf.0).unwrap());
    let refused = unprivileged(&network.node, unload).unwrap_err();
    assert!(refused.to_string().contains("clsact of device"), "{refused}");
    let filters = |side| {
        let output = network.node.run(|| Command::new("tc").args(["filter", "show", "dev", "up0", side]).output());
        String::from_utf8(output.unwrap().unwrap().stdout).unwrap().matches("meridian").count()
    };
    assert_eq!([filters("egress"), filters("ingress")], [1, 1], "they count on");
    network.node.run(unload).unwrap().unwrap();
    assert_eq!([filters("egress"), filters("ingress")], [0, 0]);
}
