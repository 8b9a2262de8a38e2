//! The choice of devices and of the hook, found by examining the node and kept up to date.

use crate::network::{
    Both, BpfFs, GATEWAY, Mtus, NODE, Network, PEER, POD, VERSIONS,
    programs::{instruction, redirect_neigh},
    traffic::{datagrams, sink},
};
use meridian::{
    datapath::{
        Hook, Options, auto,
        devices::{self, Watch},
        sys::{self, ProgramKind, Side},
    },
    netlab::{links::configure, namespace::Namespace},
};
use meridian_abi::{Counter, IpVersion, stats::Stat};
use rtnetlink::LinkUnspec;
use std::{
    os::fd::{AsFd, AsRawFd},
    path::Path,
    process::Command,
};

const PORT: u16 = 9000;

#[test]
fn traffic_forwarded_past_netfilter_is_counted_at_the_automatic_hook() {
    let network = Network::unattached(Options::default(), Mtus(1500, 1500));
    let choose = |network: &Network| {
        let devices = network.node.run(|| devices::find(&[])).unwrap().unwrap();
        auto::choose(&devices, Path::new("/nonexistent"), None).unwrap()
    };
    // The node's own packets have the addresses of uplinks, not of other devices.
    let addresses = network.node.run(|| devices::find(&[])).unwrap().unwrap().addresses;
    for version in VERSIONS {
        assert!(addresses.contains(&NODE.of(version)) && !addresses.contains(&GATEWAY.of(version)), "{addresses:?}");
    }
    let choice = choose(&network);
    assert_eq!((choice.hook, choice.why.as_str()), (Hook::Netfilter, "no data path on this node bypasses netfilter"));
    let redirects = redirect_neigh(&network);
    let choice = choose(&network);
    assert_eq!((choice.hook, choice.why.as_str()), (Hook::Tcx, "an eBPF program on pod0 may forward past netfilter"));
    drop((redirects, network));

    for (hook, sees) in [(Hook::Netfilter, false), (Hook::Tcx, true), (Hook::Clsact, true)] {
        let network = Network::new(hook);
        let _redirects = redirect_neigh(&network);
        for version in VERSIONS {
            let _sink = sink(&network.peer, PEER.of(version), PORT);
            let ports = std::iter::repeat_n((40_000, PORT), 1000);
            let work = || datagrams(&network.pod, POD.of(version), PEER.of(version), 1000, ports);
            let measured = network.measure(work);
            assert_eq!(measured.wire.packets, 1000);
            if sees {
                measured.is_all_in("a", "b", version);
            } else {
                assert!(measured.cells.is_empty(), "netfilter sees nothing of it: {measured:?}");
            }
        }
    }
}

/// A third end behind another uplink of the node.
const SECOND: Both = Both::new([10, 0, 3, 1], [0xfd00, 3, 0, 0, 0, 0, 0, 1]);
const BEHIND: Both = Both::new([10, 0, 3, 2], [0xfd00, 3, 0, 0, 0, 0, 0, 2]);

#[test]
fn uplinks_are_followed_as_they_come_go_and_change_their_names() {
    for hook in Hook::ALL {
        let mut network = Network::new(hook);
        let other = Namespace::new("other").unwrap();
        let watch = network.node.run(Watch::new).unwrap().unwrap();
        assert!(!network.node.run(|| watch.changed()).unwrap());
        let follow = |network: &mut Network| {
            // The kernel notifies at the moment of the change.
            assert!(watch.changed(), "{hook}: no change was reported");
            network.look_again();
        };
        let sent = |network: &Network, count: usize| {
            let before = network.counting.all();
            let ports = std::iter::repeat_n((40_000, PORT), count);
            datagrams(&network.node, SECOND.of(IpVersion::V4), BEHIND.of(IpVersion::V4), 72, ports);
            let after = network.counting.all();
            Counter { bytes: after.bytes - before.bytes, packets: after.packets - before.packets }
        };

        // A device is added with a route through it: like the second interface of a cloud machine, its default route
        // is in a routing table of its own.
        configure(&network.node, "adding a device", async |links| {
            links.veth("up1", "eth0", other.as_raw_fd()).await?;
            links.up("up1", None).await?;
            links.address("up1", SECOND.of(IpVersion::V4), 24).await?;
            let index = links.index("up1").await?;
            let route =
                rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new().output_interface(index).table_id(1000);
            links.handle().route().add(route.build()).execute().await
        })
        .unwrap();
        configure(&other, "setting up", async |links| {
            links.up("eth0", None).await?;
            links.address("eth0", BEHIND.of(IpVersion::V4), 24).await
        })
        .unwrap();
        let _sink = sink(&other, BEHIND.of(IpVersion::V4), PORT);
        // The first datagram waits for the neighbour's address.
        sent(&network, 1);
        follow(&mut network);
        assert_eq!(network.counting(), ["up0", "up1"], "{hook}");
        assert_eq!(sent(&network, 10), Counter { bytes: 1000, packets: 10 }, "{hook}");

        // The device is renamed.
        configure(&network.node, "renaming", async |links| {
            links.handle().link().set(LinkUnspec::new_with_name("up1").down().build()).execute().await?;
            let index = links.index("up1").await?;
            let rename = LinkUnspec::new_with_index(index).name("renamed".to_owned());
            links.handle().link().set(rename.build()).execute().await?;
            links.up("renamed", None).await?;
            let route =
                rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new().output_interface(index).table_id(1000);
            links.handle().route().add(route.build()).replace().execute().await
        })
        .unwrap();
        follow(&mut network);
        assert_eq!(network.counting(), ["up0", "renamed"], "{hook}");
        sent(&network, 1);
        assert_eq!(sent(&network, 10), Counter { bytes: 1000, packets: 10 }, "{hook}");

        // The device moves to another namespace; the programs do not stay attached to it.
        configure(&network.node, "moving", async |links| {
            let moved = LinkUnspec::new_with_name("renamed").setns_by_fd(network.pod.as_raw_fd());
            links.handle().link().set(moved.build()).execute().await
        })
        .unwrap();
        follow(&mut network);
        assert_eq!(network.counting(), ["up0"], "{hook}");
        let index = configure(&network.pod, "finding it", async |links| links.index("renamed").await).unwrap();
        for side in [Side::Ingress, Side::Egress] {
            let programs = network.pod.run(|| sys::query_tcx(index, side)).unwrap().unwrap();
            assert_eq!(programs, 0, "{hook} {side:?}");
        }
        // The remaining device is counted as before.
        let _sink = sink(&network.peer, PEER.of(IpVersion::V4), PORT);
        let ports = std::iter::repeat_n((40_000, PORT), 10);
        let work = || datagrams(&network.node, NODE.of(IpVersion::V4), PEER.of(IpVersion::V4), 72, ports);
        network.measure(work).is_all_in("a", "b", IpVersion::V4);
    }
}

/// The filters of other programs that run before ours.
fn foreign_filters(network: &mut Network) -> Vec<String> {
    let Network { node, counting, .. } = network;
    // For the thread's namespace; two threads must not run it at once.
    let counting = &mut *counting;
    node.run(move || counting.datapath.foreign_filters()).unwrap().unwrap()
}

/// `tc` of iproute2, in the node.
#[track_caller]
fn tc(network: &Network, args: &str) {
    let output = network.node.run(|| Command::new("tc").args(args.split_whitespace()).output()).unwrap().unwrap();
    assert!(output.status.success(), "tc {args}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn at_clsact_others_stay_and_one_that_comes_first_is_found() {
    let mut network = Network::unattached(Options { hook: Hook::Clsact, ..Options::default() }, Mtus(1500, 1500));
    if Command::new("tc").arg("-V").output().is_err() {
        println!("skipped: there is no tc");
        return;
    }
    // A program that accepts every packet and ends the chain, as Cilium's does.
    let bpf = BpfFs::temporary("clsact");
    let pass = [instruction(0xb7, 0, 0), instruction(0x95, 0, 0)];
    let pass = sys::load_program(ProgramKind::TrafficControl, "theirs", &pass).unwrap();
    let pinned = bpf.0.join("theirs");
    sys::pin(pass.as_fd(), &pinned).unwrap();
    let theirs = |network: &Network, command: &str, priority: u32| {
        let program = if command == "del" { String::new() } else { format!("da pinned {}", pinned.display()) };
        let filter = format!("filter {command} dev up0 egress prio {priority} handle 1 protocol all bpf {program}");
        tc(network, &filter);
    };
    // Another program is attached first, with the first priority: ours must run before it.
    tc(&network, "qdisc add dev up0 clsact");
    theirs(&network, "add", 1);
    network.attach();
    assert!(foreign_filters(&mut network).is_empty());
    let send = |network: &Network| {
        for version in VERSIONS {
            let _sink = sink(&network.peer, PEER.of(version), PORT);
            let ports = std::iter::repeat_n((40_000, PORT), 10);
            let work = || datagrams(&network.pod, POD.of(version), PEER.of(version), 72, ports);
            let measured = network.measure(work);
            if !measured.cells.is_empty() {
                measured.is_all_in("a", "b", version);
            }
            assert_eq!(measured.wire.packets, 10);
        }
    };
    let seen = |network: &Network| network.counting.all().packets;
    send(&network);
    assert_eq!(seen(&network), 20);
    // The other program is attached again: of filters with the same priority, the kernel runs the newest first.
    theirs(&network, "del", 1);
    theirs(&network, "add", 1);
    assert_eq!(foreign_filters(&mut network), ["theirs:[*fsobj] (priority 1) on up0"]);
    send(&network);
    assert_eq!(seen(&network), 20, "the other program keeps all of them from ours");
    // The remedy: another priority.
    theirs(&network, "del", 1);
    theirs(&network, "add", 2);
    assert!(foreign_filters(&mut network).is_empty());
    send(&network);
    assert_eq!(seen(&network), 40);
    // The other program removes every filter, as Cilium's agent does at an egress that it does not use.
    let watch = network.node.run(Watch::new).unwrap().unwrap();
    tc(&network, "filter del dev up0 egress");
    assert!(watch.changed());
    send(&network);
    assert_eq!(seen(&network), 40, "ours is gone, too");
    let restored = network.node.run(|| network.counting.datapath.restore_filters()).unwrap().unwrap();
    assert_eq!(restored, ["clsact egress of up0"]);
    assert!(network.node.run(|| network.counting.datapath.restore_filters()).unwrap().unwrap().is_empty());
    send(&network);
    assert_eq!((seen(&network), network.counting.datapath.restored_filters()), (60, 1));
    theirs(&network, "add", 2);
    // Filters of other programs stay when ours are detached.
    network.node.run(|| network.counting.datapath.detach()).unwrap();
    let shown = network.node.run(|| Command::new("tc").args(["filter", "show", "dev", "up0", "egress"]).output());
    let shown = String::from_utf8(shown.unwrap().unwrap().stdout).unwrap();
    assert!(shown.contains("theirs") && !shown.contains("meridian"), "{shown}");
    assert_eq!(network.counting.stat(Stat::Unattributed), Counter::default());
}
