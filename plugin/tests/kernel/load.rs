//! Under load no packet is lost or counted twice, while tables are swapped, entries retired, maps full, or CPUs race.

use crate::{
    before_others,
    network::{
        BpfFs, Counting, Mtus, NODE, Network, PEER, POD, VERSIONS,
        traffic::{datagrams, sink},
    },
    times,
};
use meridian::{
    datapath::{Datapath, Hook, Options, Pins, sys},
    netlab::{links::configure, namespace::Namespace},
};
use meridian_abi::{Counter, IpVersion, control, share, stats::Stat, zone::PrefixKind};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

const PORT: u16 = 9000;
const PAYLOAD: usize = 100;
/// A datagram of [`PAYLOAD`] bytes over IPv4.
const DATAGRAM: u64 = 28 + PAYLOAD as u64;

fn of(packets: u64) -> Counter {
    Counter { bytes: packets * DATAGRAM, packets }
}

/// Sends datagrams from the node on every CPU until `work` has ended, to this many ports: each is a flow entry, and
/// all are in one cell of the matrix. Returns the traffic sent.
fn flooded(node: &Namespace, peer: &Namespace, ports: u16, work: impl FnOnce(&AtomicU64)) -> Counter {
    let _sink = sink(peer, PEER.of(IpVersion::V4), PORT);
    let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let cpus = thread::available_parallelism().unwrap().get();
    let send = |cpu: usize| {
        let mut only = CpuSet::new();
        only.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &only).unwrap();
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::new(NODE.of(IpVersion::V4), 40_000).into()).unwrap();
        let socket = UdpSocket::from(socket);
        while !done.load(Ordering::Relaxed) {
            for n in 0..100 {
                socket.send_to(&[0; PAYLOAD], (PEER.of(IpVersion::V4), PORT + n % ports)).unwrap();
            }
            sent.fetch_add(100, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for cpu in 0..cpus {
            let send = &send;
            scope.spawn(move || node.run(|| send(cpu)).unwrap());
        }
        before_others(|| work(&sent));
        done.store(true, Ordering::Relaxed);
    });
    of(sent.into_inner())
}

/// Waits until this many more were sent.
fn until_more(sent: &AtomicU64, more: u64) {
    let count = sent.load(Ordering::Relaxed);
    while sent.load(Ordering::Relaxed) < count + more {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Checks that attributed and unattributed traffic together equal the matrix.
#[track_caller]
fn attributed_is_exact(counting: &Counting) {
    let mut sum = counting.datapath.attributed();
    sum += counting.stat(Stat::Unattributed);
    assert_eq!(sum, counting.all(), "attributed and unattributed (left), the matrix (right)");
}

#[test]
fn all_cpus_on_one_entry_and_one_cell_lose_no_update() {
    for hook in [Hook::Netfilter, Hook::Tcx] {
        let network = Network::new(hook);
        let before = network.counting.all();
        let mut sent = flooded(&network.node, &network.peer, 1, |sent| until_more(sent, 200_000));
        sent += before;
        assert_eq!(network.counting.all(), sent);
        attributed_is_exact(&network.counting);
    }
}

#[test]
fn a_prefix_that_moves_all_the_time_is_in_one_zone_or_the_other() {
    let mut network = Network::new(Hook::Netfilter);
    let table = |zone| [("10.0.2.1/32", "a", PrefixKind::Cluster), ("10.0.2.2/32", zone, PrefixKind::Cluster)];
    network.counting.apply(&table("d"));
    let before = network.counting.all();
    let Network { counting, node, peer, .. } = &mut network;
    let mut sent = flooded(node, peer, 1, |sent| {
        for n in 0..times(250) {
            counting.apply(&table(if n % 2 == 0 { "b" } else { "d" }));
        }
        // After the last change every byte counts in the last zone.
        let other = counting.to("b");
        until_more(sent, 20_000);
        assert_eq!(counting.to("b"), other);
    });
    sent += before;
    let (b, d) = (network.counting.to("b"), network.counting.to("d"));
    assert_eq!(network.counting.all(), sent);
    assert_eq!(b.bytes + d.bytes, sent.bytes, "no other zone has any");
    assert!(b.packets > 0 && d.packets > 0);
    attributed_is_exact(&network.counting);
}

#[test]
fn retiring_entries_a_thousand_times_a_second_loses_nothing() {
    for hook in [Hook::Netfilter, Hook::Tcx] {
        let network = Network::new(hook);
        let before = network.counting.all();
        let (mut retired, mut back, mut summed) = (0, 0, Counter::default());
        let datapath = &network.counting.datapath;
        let mut sent = flooded(&network.node, &network.peer, 100, |sent| {
            for _ in 0..100 {
                until_more(sent, 200);
                let mut entries = Vec::new();
                datapath.flows(|entry| entries.push(entry));
                let retiring: Vec<_> = entries.iter().filter_map(|entry| datapath.retire(entry)).collect();
                let count = retiring.len();
                let last = datapath.retired(retiring);
                back += count - last.len();
                retired += last.len();
                last.iter().for_each(|entry| summed += entry.counter);
                datapath.empty(last.into_iter().map(|entry| entry.slot));
            }
            until_more(sent, 1000);
        });
        sent += before;
        assert_eq!(network.counting.all(), sent);
        attributed_is_exact(&network.counting);
        // The last read of each retired entry has its final counts.
        let mut live = Counter::default();
        datapath.flows(|entry| live += entry.counter);
        live += summed;
        assert_eq!(live, datapath.attributed());
        assert!(retired > 5000, "{retired} were retired, {back} came back");
    }
}

/// The address of the pod with this number; the first ones are the network's own.
fn pod_address(version: IpVersion, n: u8) -> IpAddr {
    match POD.of(version) {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 100 + n).into()
        }
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() + 0x100 + u128::from(n)).into(),
    }
}

#[test]
fn full_flow_maps_lose_no_byte() {
    const SOURCES: u8 = 16;
    for hook in [Hook::Netfilter, Hook::Tcx] {
        let network = Network::with(Options { hook, flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
        configure(&network.pod, "adding addresses", async |links| {
            for n in 0..SOURCES {
                links.address("eth0", pod_address(IpVersion::V4, n), 32).await?;
                links.address("eth0", pod_address(IpVersion::V6, n), 128).await?;
            }
            Ok(())
        })
        .unwrap();
        for version in VERSIONS {
            // These ports have no listener: the peer's ICMP answers are not the node's.
            let measured = network.measure(|| {
                for n in 0..SOURCES {
                    let ports = (0..625).map(|port| (40_000, 10_000 + port));
                    datagrams(&network.pod, pod_address(version, n), PEER.of(version), PAYLOAD, ports);
                }
            });
            measured.is_all_in("a", "b", version);
            assert_eq!(measured.wire.packets, 10_000);
        }
        attributed_is_exact(&network.counting);
        let mut entries = 0;
        network.counting.datapath.flows(|_| entries += 1);
        assert_eq!(entries, 2 * 64);
        assert_eq!(network.counting.stat(Stat::Unattributed).packets, 2 * (10_000 - 64));
        // Where there is no room, no share is used up: only the sources that filled the maps are over theirs.
        let over = network.counting.stat(Stat::OverShare).packets;
        assert!(over < 10_000, "{hook:?}: {over} packets over their share");
    }
}

#[test]
fn a_source_that_scans_ports_leaves_room_in_the_flow_maps_and_loses_no_byte() {
    const SLOTS: u32 = 1024;
    const SCANNED: u64 = 10_000;
    for hook in [Hook::Netfilter, Hook::Tcx] {
        let network = Network::with(Options { hook, flow_slots: SLOTS, ..Options::default() }, Mtus(1500, 1500));
        let entries_of = |source: IpAddr| {
            let mut entries = 0;
            network.counting.datapath.flows(|entry| entries += u64::from(entry.source == source));
            entries
        };
        for version in VERSIONS {
            let before = network.counting.stat(Stat::OverShare).packets;
            let ports = (0..SCANNED as u16).map(|port| (40_000, 10_000 + port));
            let measured =
                network.measure(|| datagrams(&network.pod, POD.of(version), PEER.of(version), PAYLOAD, ports));
            measured.is_all_in("a", "b", version);
            assert_eq!(measured.wire.packets, SCANNED);
            let scanned = entries_of(POD.of(version));
            let share = u64::from(SLOTS / share::PART);
            assert!((share..=2 * share).contains(&scanned), "{hook:?}: {scanned} entries of the scan");
            let over = network.counting.stat(Stat::OverShare).packets - before;
            assert_eq!(over, SCANNED - scanned, "{hook:?}");
            // Another source has as much room as it needs.
            let others = (0..100).map(|port| (40_000, 30_000 + port));
            network.measure(|| datagrams(&network.node, NODE.of(version), PEER.of(version), PAYLOAD, others));
            assert_eq!(entries_of(NODE.of(version)), 100, "{hook:?}");
        }
        assert_eq!(network.counting.stat(Stat::Unattributed), network.counting.stat(Stat::OverShare));
        attributed_is_exact(&network.counting);
    }
}

#[test]
fn thirty_thousand_swaps_of_the_program_lose_nothing() {
    let bpf = BpfFs::temporary("swaps");
    let mut network = Network::unattached(Options::default(), Mtus(1500, 1500));
    let pins = network.node.run(|| Pins::open(&bpf.0)).unwrap().unwrap();
    // The programs of two agents over the same counters: the second takes over, then both take turns.
    let mut first = Datapath::load_pinned(Options::default(), Some(pins.clone())).unwrap();
    let second = Datapath::load_pinned(Options::default(), Some(pins.clone())).unwrap();
    std::mem::swap(&mut network.counting.datapath, &mut first);
    network.attach();
    let cores = sys::get_pinned(&network.node.run(|| find(&bpf.0, "CORES")).unwrap()).unwrap();
    let of = |datapath: &Datapath| [datapath.programs()[0], datapath.cores().unwrap()[0]].map(|fd| fd.as_raw_fd());
    let [a, b] = [of(&network.counting.datapath), of(&second)];
    // The straight path of one may leave packets to the core of the other.
    let take = |program: usize, of: [i32; 2]| {
        let place = [control::straight(IpVersion::V4), control::core(IpVersion::V4)][program];
        sys::update(cores.as_fd(), &place, &of[program]).unwrap();
    };
    // The second agent has its own tables and devices.
    let sent = flooded(&network.node, &network.peer, 1, |sent| {
        // The straight path, then the core.
        for n in 0..times(30_000) {
            take(n % 2, if n % 4 < 2 { b } else { a });
        }
        until_more(sent, 1000);
    });
    let mut counted = network.counting.all();
    // Without devices the second one counts as same-node what the first one counts as sent.
    counted += network.counting.stat(Stat::SameNode);
    let of_link = Counter { bytes: counted.bytes - sent.bytes, packets: counted.packets - sent.packets };
    assert_eq!(of_link, Counter::default(), "difference");
    assert!(network.counting.all().packets > 1000 && network.counting.stat(Stat::SameNode).packets > 1000);
    attributed_is_exact(&network.counting);
    drop(network);
    pins.remove().unwrap();
    let left = fs::read_dir(&bpf.0).unwrap().flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(left.count(), 0);
}

/// A file of this name below a folder.
pub fn find(folder: &std::path::Path, name: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let found = entries.flat_map(|path| {
        if path.is_dir() {
            Some(find(&path, name)).filter(|path| path.exists())
        } else {
            path.ends_with(name).then_some(path)
        }
    });
    found.into_iter().next().unwrap_or_default()
}
