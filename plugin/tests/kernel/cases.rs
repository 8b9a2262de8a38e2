//! Every hook on every kind of network that a cluster can have, compared with the wire byte by byte.
//!
//! A case that this kernel does not support reports the reason. `MERIDIAN_CASES=FILE` writes the table to a file.

mod children;
mod tunnels;

use crate::network::{
    Both, CLIENT, DATABASE, Measured, Mtus, NO_TRUTH, NODE, Network, PEER, POD, VERSIONS, ethtool, nft,
    traffic::{Echo, datagrams, requests, sink, tcp},
};
use children::Child;
use meridian::{
    datapath::{Hook, Options},
    netlab::{links::configure, namespace::Namespace},
};
use meridian_abi::{Counter, IpVersion, flow::PacketPath, matrix::Direction, stats::Stat, zone::PrefixKind};
use rtnetlink::{LinkUnspec, LinkVlan, LinkWireguard, RouteMessageBuilder, packet_route::link::LinkAttribute};
use std::{
    any::Any,
    fmt::Write,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, Stdio},
    thread,
};
use tunnels::{INNER_NODE, INNER_PEER};

/// The result of a case at a hook.
enum Outcome {
    /// The matrix equals the wire.
    Exact,
    /// The matrix differs in the expected way, which was checked.
    Differs(&'static str),
    /// This kernel does not support the case.
    Missing(String),
}

type Case = fn(Hook) -> Outcome;

const CASES: [(&str, Case); 20] = [
    ("one connection of UDP", one_connection),
    ("10,000 connections of UDP", ten_thousand_connections),
    ("TCP, segmented before the hook", |hook| tcp_transfer(hook, true)),
    ("TCP, segmented after the hook (GSO)", |hook| tcp_transfer(hook, false)),
    ("BIG TCP", big_tcp),
    ("fragments, made by the node", fragments_of_the_node),
    ("fragments, made by the pod", |hook| fragments_of_the_pod(hook, false)),
    ("fragments, reassembled by conntrack", |hook| fragments_of_the_pod(hook, true)),
    ("pods on macvlan children of the uplink", |hook| children::pods_on(Child::Macvlan, hook)),
    ("pods on ipvlan children of the uplink", |hook| children::pods_on(Child::Ipvlan, hook)),
    ("VXLAN overlay", tunnels::vxlan),
    ("egress gateway at the other end of a tunnel", tunnels::egress_gateway),
    ("egress gateway that is chosen for each packet", tunnels::chosen_gateway),
    ("WireGuard", wireguard),
    ("VLAN, its tag in the packet and beside it", vlan),
    ("ClusterIP by DNAT", cluster_ip),
    ("masquerade", masquerade),
    ("NodePort, the second hop", node_port),
    ("arrivals from an external prefix", arrivals),
    ("arrivals inside an overlay, from a node without an agent", tunnels::arrivals_inside),
];

#[test]
fn every_hook_counts_every_network_as_the_wire_does() {
    let mut table = String::from("| case |");
    Hook::ALL.iter().for_each(|hook| write!(table, " {hook} |").unwrap());
    table.push_str("\n|---|---|---|---|\n");
    let mut failed = Vec::new();
    for (name, case) in CASES {
        write!(table, "| {name} |").unwrap();
        for hook in Hook::ALL {
            if hook.require().is_err() {
                table.push_str(" not available |");
                continue;
            }
            match judge(case, hook) {
                Ok(Outcome::Exact) => table.push_str(" exact |"),
                Ok(Outcome::Differs(how)) => write!(table, " {how} |").unwrap(),
                Ok(Outcome::Missing(what)) => write!(table, " not available: {what} |").unwrap(),
                Err(_) => {
                    table.push_str(" WRONG |");
                    failed.push(format!("{name} at {hook}"));
                }
            }
        }
        table.push('\n');
    }
    println!("{table}");
    if let Some(file) = std::env::var_os("MERIDIAN_CASES") {
        fs::write(file, &table).unwrap();
    }
    assert!(failed.is_empty(), "wrong: {failed:?}");
}

/// Runs a case. It runs again if the wire lost packets, as happens on a busy machine, because then there is nothing to
/// compare with.
fn judge(case: Case, hook: Hook) -> thread::Result<Outcome> {
    let look = || catch_unwind(AssertUnwindSafe(|| case(hook)));
    let is_lost = |why: &Box<dyn Any + Send>| why.downcast_ref::<String>().is_some_and(|why| why.contains(NO_TRUTH));
    (0..2).map(|_| look()).find(|result| !result.as_ref().is_err_and(is_lost)).unwrap_or_else(look)
}

const PORT: u16 = 9000;

fn at(both: Both, version: IpVersion, port: u16) -> SocketAddr {
    SocketAddr::new(both.of(version), port)
}

fn ip_header(version: IpVersion) -> u64 {
    if version == IpVersion::V4 { 20 } else { 40 }
}

fn one_connection(hook: Hook) -> Outcome {
    let network = Network::new(hook);
    for version in VERSIONS {
        let _sink = sink(&network.peer, PEER.of(version), PORT);
        let ports = std::iter::repeat_n((40_000, PORT), 100);
        let measured = network.measure(|| datagrams(&network.pod, POD.of(version), PEER.of(version), 512, ports));
        measured.is_all_in("a", "b", version);
        let one = ip_header(version) + 8 + 512;
        assert_eq!(measured.wire, Counter { bytes: 100 * one, packets: 100 });
    }
    Outcome::Exact
}

fn ten_thousand_connections(hook: Hook) -> Outcome {
    let network = Network::new(hook);
    for version in VERSIONS {
        let _sink = sink(&network.peer, PEER.of(version), PORT);
        let ports = (0..10_000).map(|n| (20_000 + n, PORT));
        let measured = network.measure(|| datagrams(&network.pod, POD.of(version), PEER.of(version), 100, ports));
        measured.is_all_in("a", "b", version);
        assert_eq!(measured.wire.packets, 10_000);
        let mut entries = 0;
        network.counting.datapath.flows(|entry| {
            entries += u32::from(entry.source == POD.of(version) && entry.service_port == PORT);
        });
        assert_eq!(entries, 1, "connections on one service are one entry");
    }
    Outcome::Exact
}

const TRANSFER: usize = 20_000_000;

fn tcp_transfer(hook: Hook, cut: bool) -> Outcome {
    let network = Network::new(hook);
    if cut {
        network.pod.run(|| ethtool::without_segmentation("eth0")).unwrap();
        // Otherwise the node would reassemble the pod's fragments.
        network.node.run(|| ethtool::without_gro("pod0")).unwrap();
    }
    for version in VERSIONS {
        let before = network.counting.stat(Stat::SuperPacket);
        let to = (&network.peer, at(PEER, version, PORT));
        let measured = network.measure(|| tcp((&network.pod, POD.of(version)), to, TRANSFER));
        measured.is_all_in("a", "b", version);
        let super_packets = network.counting.stat(Stat::SuperPacket).packets - before.packets;
        assert_eq!(super_packets == 0, cut, "{super_packets} super-packets");
    }
    Outcome::Exact
}

fn big_tcp(hook: Hook) -> Outcome {
    const SIZE: u32 = 180_000;
    let network = Network::new(hook);
    let raised = configure(&network.node, "raising the sizes", async |links| {
        let raise = LinkUnspec::new_with_name("up0").append_extra_attribute(LinkAttribute::GsoMaxSize(SIZE));
        links.handle().link().set(raise.build()).execute().await?;
        let raise = LinkUnspec::new_with_name("up0").append_extra_attribute(LinkAttribute::GsoIpv4MaxSize(SIZE));
        links.handle().link().set(raise.build()).execute().await
    });
    if let Err(error) = raised {
        return Outcome::Missing(error.to_string());
    }
    let mut seen = Vec::new();
    for version in VERSIONS {
        let before = network.counting.stat(Stat::SuperPacket);
        let to = (&network.peer, at(PEER, version, PORT));
        let measured = network.measure(|| tcp((&network.node, NODE.of(version)), to, 4 * TRANSFER));
        measured.is_all_in("a", "b", version);
        let after = network.counting.stat(Stat::SuperPacket);
        let mean = (after.bytes - before.bytes) / (after.packets - before.packets).max(1);
        seen.push((version, mean));
    }
    // IPv4 has BIG TCP since Linux 6.3.
    if let Some((version, mean)) = seen.iter().find(|(_, mean)| *mean <= 65_536) {
        let is_old = *version == IpVersion::V4 && Hook::Tcx.require().is_err();
        assert!(is_old, "{version:?}: packets of {mean} bytes on average are no BIG TCP");
        return Outcome::Differs("exact, IPv6 only");
    }
    Outcome::Exact
}

/// 200 datagrams of 4,000 bytes are 600 fragments.
const DATAGRAMS: usize = 200;
const PAYLOAD: usize = 4000;

fn fragments_of_the_node(hook: Hook) -> Outcome {
    let network = Network::new(hook);
    for version in VERSIONS {
        let _sink = sink(&network.peer, PEER.of(version), PORT);
        let ports = std::iter::repeat_n((40_000, PORT), DATAGRAMS);
        let measured = network.measure(|| datagrams(&network.node, NODE.of(version), PEER.of(version), PAYLOAD, ports));
        measured.is_all_in("a", "b", version);
        assert_eq!(measured.wire.bytes, if version == IpVersion::V4 { 813_600 } else { 830_400 });
        no_invented_ports(&network, version);
    }
    if hook == Hook::Netfilter {
        assert_eq!(
            network.counting.stat(Stat::Fragmented).packets,
            2 * 3 * DATAGRAMS as u64,
            "all of them by their pieces"
        );
    }
    Outcome::Exact
}

fn fragments_of_the_pod(hook: Hook, conntrack: bool) -> Outcome {
    let network = Network::new(hook);
    let rules = "table inet t { chain c { type filter hook forward priority 0; ct state invalid drop\n }\n }";
    if conntrack && !nft(&network.node, rules) {
        return Outcome::Missing("no nft".into());
    }
    for version in VERSIONS {
        let _sink = sink(&network.peer, PEER.of(version), PORT);
        let ports = std::iter::repeat_n((40_000, PORT), DATAGRAMS);
        let measured = network.measure(|| datagrams(&network.pod, POD.of(version), PEER.of(version), PAYLOAD, ports));
        measured.is_all_in("a", "b", version);
        assert_eq!(measured.wire.bytes, if version == IpVersion::V4 { 813_600 } else { 830_400 });
        no_invented_ports(&network, version);
    }
    Outcome::Exact
}

/// Every entry has the real port, or none.
fn no_invented_ports(network: &Network, version: IpVersion) {
    let mut ports = Vec::new();
    network.counting.datapath.flows(|entry| {
        if entry.source.is_ipv4() == (version == IpVersion::V4) {
            ports.push(entry.service_port);
        }
    });
    assert!(ports.iter().all(|port| [0, PORT].contains(port)), "{ports:?}");
}

/// The private keys of the two ends.
const KEYS: [&str; 2] =
    ["QCQJCAkICAgICAgICAgICAgICAgICAgICAgICAgICEA=", "SCQJCAkICAgICAgICAgICAgICAgICAgICAgICAgICEA="];

/// Runs `wg` of wireguard-tools; `None` if it is not installed.
fn wg(namespace: &Namespace, args: &[&str], input: &str) -> Option<String> {
    let run = || {
        let spawned = Command::new("wg").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut wg = spawned.ok()?;
        std::io::Write::write_all(&mut wg.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = wg.wait_with_output().unwrap();
        assert!(output.status.success(), "wg {args:?}");
        Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    namespace.run(run).unwrap()
}

fn wireguard(hook: Hook) -> Outcome {
    let mut network = Network::new(hook);
    let Some(keys) = KEYS.iter().map(|key| wg(&network.node, &["pubkey"], key)).collect::<Option<Vec<_>>>() else {
        return Outcome::Missing("no wg".into());
    };
    let ends = [(&network.node, PEER, INNER_NODE), (&network.peer, NODE, INNER_PEER)];
    for (end, (namespace, remote, here)) in ends.into_iter().enumerate() {
        let made = configure(namespace, "making the tunnel", async |links| {
            let link = LinkWireguard::new("wg0");
            links.handle().link().add(link.build()).execute().await?;
            for (address, len) in here.into_iter().zip([32, 128]) {
                links.address("wg0", address.parse().unwrap(), len).await?;
            }
            Ok(())
        });
        if let Err(error) = made {
            return Outcome::Missing(error.to_string());
        }
        let config = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51871\n[Peer]\nPublicKey = {}\nEndpoint = {}:51871\nAllowedIPs = 0.0.0.0/0, ::/0\n",
            KEYS[end],
            keys[1 - end],
            remote.of(IpVersion::V4),
        );
        let file = std::env::temp_dir().join(format!("meridian-wg-{}", std::process::id()));
        fs::write(&file, config).unwrap();
        wg(namespace, &["setconf", "wg0", file.to_str().unwrap()], "").unwrap();
        fs::remove_file(&file).unwrap();
    }
    for (namespace, routes) in
        [(&network.node, ["10.1.0.0/24", "fd00:a::/64"]), (&network.peer, ["10.0.1.0/24", "fd00:1::/64"])]
    {
        configure(namespace, "routing", async |links| {
            links.up("wg0", None).await?;
            let index = links.index("wg0").await?;
            for route in routes {
                links.route_on(route.parse().unwrap(), index).await?;
            }
            Ok(())
        })
        .unwrap();
    }
    network.look_again();
    assert_eq!(network.counting(), ["up0", "wg0"]);
    for (version, (from, to)) in VERSIONS.into_iter().zip(INNER_NODE.into_iter().zip(INNER_PEER)) {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let echo = Echo::new(&network.peer, to, PORT + 1, 1);
        requests(&network.node, from, SocketAddr::new(to, PORT + 1), 3, 10);
        drop(echo);
        let _sink = sink(&network.peer, to, PORT);
        let ports = std::iter::repeat_n((40_000, PORT), 100);
        let measured = network.measure(|| datagrams(&network.node, from, to, 512, ports));
        let expected = Counter { bytes: 100 * (ip_header(version) + 8 + 512), packets: 100 };
        // WireGuard adds 32 bytes to each packet, and UDP over IPv4.
        assert!(measured.wire.packets >= 100 && measured.wire.bytes >= expected.bytes + 100 * 60, "{measured:?}");
        Measured { wire: expected, ..measured }.is_all_in("a", "b", version);
    }
    assert!(network.counting.stat(Stat::Overlay).packets >= 200);
    Outcome::Exact
}

/// Addresses in the VLAN.
const VLAN_NODE: Both = Both::new([10, 4, 0, 1], [0xfd00, 4, 0, 0, 0, 0, 0, 1]);
const VLAN_PEER: Both = Both::new([10, 4, 0, 2], [0xfd00, 4, 0, 0, 0, 0, 0, 2]);

const VLAN_ZONES: [(&str, &str, PrefixKind); 8] = [
    ("10.4.0.1/32", "a", PrefixKind::Cluster),
    ("fd00:4::1/128", "a", PrefixKind::Cluster),
    ("10.4.0.2/32", "b", PrefixKind::Cluster),
    ("fd00:4::2/128", "b", PrefixKind::Cluster),
    ("10.0.2.1/32", "a", PrefixKind::Cluster),
    ("fd00:2::1/128", "a", PrefixKind::Cluster),
    ("10.0.2.2/32", "b", PrefixKind::Cluster),
    ("fd00:2::2/128", "b", PrefixKind::Cluster),
];

fn vlan(hook: Hook) -> Outcome {
    let mut network = Network::new(hook);
    network.counting.apply(&VLAN_ZONES);
    for (namespace, lower, address) in [(&network.node, "up0", VLAN_NODE), (&network.peer, "eth0", VLAN_PEER)] {
        let made = configure(namespace, "making a VLAN", async |links| {
            let vlan = LinkVlan::new("vlan7", links.index(lower).await?, 7);
            links.handle().link().add(vlan.up().build()).execute().await?;
            for (version, len) in VERSIONS.into_iter().zip([24, 64]) {
                links.address("vlan7", address.of(version), len).await?;
            }
            Ok(())
        });
        if let Err(error) = made {
            return Outcome::Missing(error.to_string());
        }
    }
    // With its own default route both devices are uplinks, and each packet passes both.
    configure(&network.node, "routing", async |links| {
        let vlan = links.index("vlan7").await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(vlan).table_id(1000);
        links.handle().route().add(route.build()).execute().await
    })
    .unwrap();
    network.look_again();
    assert_eq!(network.counting(), ["up0", "vlan7"]);
    for beside in [true, false] {
        if !beside {
            network.node.run(|| ethtool::without_vlan_offload("up0")).unwrap();
        }
        for version in VERSIONS {
            // Neighbours are resolved first.
            let echo = Echo::new(&network.peer, VLAN_PEER.of(version), PORT + 1, 1);
            requests(&network.node, VLAN_NODE.of(version), at(VLAN_PEER, version, PORT + 1), 2, 10);
            drop(echo);
            let _sinks = [VLAN_PEER, PEER].map(|address| sink(&network.peer, address.of(version), PORT));
            let send = |from: Both, to: Both| {
                let ports = std::iter::repeat_n((40_000, PORT), 100);
                network.measure(|| datagrams(&network.node, from.of(version), to.of(version), 512, ports))
            };
            let tagged = send(VLAN_NODE, VLAN_PEER);
            let expected = Counter { bytes: 100 * (ip_header(version) + 8 + 512), packets: 100 };
            assert_eq!(tagged.wire.packets, 100);
            Measured { wire: expected, ..tagged }.is_all_in("a", "b", version);
            Measured { wire: expected, ..send(NODE, PEER) }.is_all_in("a", "b", version);
        }
    }
    if hook != Hook::Netfilter {
        assert!(network.counting.stat(Stat::Vlan).packets >= 400, "what passed both is noted");
    }
    Outcome::Exact
}

fn cluster_ip(hook: Hook) -> Outcome {
    const RULES: &str = "table inet t { chain c { type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.1 udp dport 80 dnat ip to 10.0.2.2:9000
        ip6 daddr fd00:96::1 udp dport 80 dnat ip6 to [fd00:2::2]:9000
    }
    }";
    let network = Network::new(hook);
    if !nft(&network.node, RULES) {
        return Outcome::Missing("no nft".into());
    }
    for (version, service) in VERSIONS.into_iter().zip(["10.96.0.1:80", "[fd00:96::1]:80"]) {
        let _echo = Echo::new(&network.peer, PEER.of(version), PORT, 100);
        let to = service.parse().unwrap();
        let measured = network.measure(|| requests(&network.pod, POD.of(version), to, 100, 300));
        measured.is_all_in("a", "b", version);
        let mut backends = Vec::new();
        network.counting.datapath.flows(|entry| backends.push((entry.source, entry.destination, entry.service_port)));
        let backend = (POD.of(version), PEER.of(version), PORT);
        assert!(backends.contains(&backend), "the backend, not the service: {backends:?}");
    }
    Outcome::Exact
}

fn masquerade(hook: Hook) -> Outcome {
    const RULES: &str = "table inet t { chain c { type nat hook postrouting priority srcnat;
        oifname \"up0\" masquerade
    }
    }";
    let network = Network::new(hook);
    if !nft(&network.node, RULES) {
        return Outcome::Missing("no nft".into());
    }
    let mut hides = false;
    for version in VERSIONS {
        let _echo = Echo::new(&network.peer, PEER.of(version), PORT, 100);
        let to = at(PEER, version, PORT);
        let measured = network.measure(|| requests(&network.pod, POD.of(version), to, 100, 300));
        measured.is_all_in("a", "b", version);
        let mut sources = Vec::new();
        network.counting.datapath.flows(|entry| sources.push(entry.source));
        hides |= !sources.contains(&POD.of(version));
        assert!(hides != sources.contains(&POD.of(version)), "{sources:?}");
    }
    // Traffic control runs after source NAT.
    assert_eq!(hides, hook != Hook::Netfilter);
    if hides { Outcome::Differs("exact; the node instead of the pod") } else { Outcome::Exact }
}

fn node_port(hook: Hook) -> Outcome {
    const RULES: &str = "table inet t {
        chain d { type nat hook prerouting priority dstnat;
            ip daddr 10.0.2.1 udp dport 30080 dnat ip to 10.0.2.2:9000
            ip6 daddr fd00:2::1 udp dport 30080 dnat ip6 to [fd00:2::2]:9000
        }
        chain s { type nat hook postrouting priority srcnat; udp dport 9000 masquerade; }
    }";
    let network = Network::new(hook);
    if !nft(&network.node, RULES) {
        return Outcome::Missing("no nft".into());
    }
    for version in VERSIONS {
        let _echo = Echo::new(&network.peer, PEER.of(version), PORT, 700);
        let to = at(NODE, version, 30_080);
        let measured = network.measure(|| requests(&network.peer, CLIENT.of(version), to, 100, 300));
        let header = ip_header(version) + 8;
        let cell = |to: &str| ("a".to_owned(), to.to_owned(), version as u8, Direction::Egress);
        // The request continues to the backend and its answer to the client, both from this node.
        let expected = [
            (cell("b"), Counter { bytes: 100 * (header + 300), packets: 100 }),
            (cell("internet"), Counter { bytes: 100 * (header + 700), packets: 100 }),
        ];
        assert_eq!(measured.cells, expected.into());
        assert_eq!(measured.wire, measured.sent());
        let mut ways = Vec::new();
        network.counting.datapath.flows(|entry| ways.push(entry.path));
        assert!(ways.iter().all(|way| *way == PacketPath::Forwarded));
    }
    Outcome::Exact
}

fn arrivals(hook: Hook) -> Outcome {
    let network = Network::with(Options { hook, ..Options::default() }, Mtus(1500, 1500));
    // The peer segments its answers before the wire.
    network.peer.run(|| ethtool::without_segmentation("eth0")).unwrap();
    for version in VERSIONS {
        let echo = Echo::new(&network.peer, DATABASE.of(version), PORT, 1000);
        let to = at(DATABASE, version, PORT);
        let measured = network.measure(|| requests(&network.pod, POD.of(version), to, 100, 300));
        drop(echo);
        let header = ip_header(version) + 8;
        let cell = |from: &str, to: &str, way| (from.to_owned(), to.to_owned(), version as u8, way);
        let expected = [
            (cell("a", "c", Direction::Egress), Counter { bytes: 100 * (header + 300), packets: 100 }),
            (cell("c", "a", Direction::Ingress), Counter { bytes: 100 * (header + 1000), packets: 100 }),
        ];
        assert_eq!(measured.cells, expected.into());
        // Traffic from inside the cluster is counted at its sender.
        let _echo = Echo::new(&network.peer, PEER.of(version), PORT, 1000);
        let measured = network.measure(|| requests(&network.pod, POD.of(version), at(PEER, version, PORT), 100, 300));
        measured.is_all_in("a", "b", version);
    }
    Outcome::Exact
}
