//! Overlays: what is inside counts, in the zones between which the tunnel goes.

use super::{Outcome, PORT, TRANSFER, ip_header};
use crate::network::{
    CLIENT, Measured, NODE, Network, PEER, POD, VERSIONS,
    traffic::{Echo, datagrams, requests, sink, tcp},
};
use meridian::{
    datapath::Hook,
    netlab::{links::configure, namespace::Namespace},
};
use meridian_abi::{Counter, IpVersion, flow::PacketPath, matrix::Direction, stats::Stat, zone::PrefixKind};
use rtnetlink::LinkVxlan;
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
};

pub(super) const INNER_NODE: [&str; 2] = ["10.0.1.65", "fd00:1::65"];
pub(super) const INNER_PEER: [&str; 2] = ["10.1.0.2", "fd00:a::2"];
const OVERLAY_PORT: u16 = 8472;

/// Joins the node and its peer by an overlay, in which each has an address.
fn join(network: &mut Network) -> Result<(), Outcome> {
    for (namespace, remote, here) in [(&network.node, PEER, INNER_NODE), (&network.peer, NODE, INNER_PEER)] {
        let made = configure(namespace, "making the overlay", async |links| {
            let IpAddr::V4(remote) = remote.of(IpVersion::V4) else { unreachable!() };
            let vxlan = LinkVxlan::new("vxlan0", 42).port(OVERLAY_PORT).remote(remote).learning(false);
            links.handle().link().add(vxlan.up().build()).execute().await?;
            // The inner packet fits into the wire's packets.
            links.mtu("vxlan0", 1450).await?;
            for (address, len) in here.into_iter().zip([32, 128]) {
                links.address("vxlan0", address.parse().unwrap(), len).await?;
            }
            Ok(())
        });
        made.map_err(|error| Outcome::Missing(error.to_string()))?;
    }
    for (namespace, routes) in
        [(&network.node, ["10.1.0.0/24", "fd00:a::/64"]), (&network.peer, ["10.0.1.0/24", "fd00:1::/64"])]
    {
        configure(namespace, "routing", async |links| {
            let index = links.index("vxlan0").await?;
            for route in routes {
                links.route_on(route.parse().unwrap(), index).await?;
            }
            Ok(())
        })
        .unwrap();
    }
    network.look_again();
    assert_eq!(network.counting(), ["up0", "vxlan0"]);
    for version in VERSIONS {
        meet(network, version);
    }
    Ok(())
}

/// The neighbours find each other.
fn meet(network: &Network, version: IpVersion) {
    let (from, to) = inside(version);
    let _echo = Echo::new(&network.peer, to, PORT + 1, 1);
    requests(&network.node, from, SocketAddr::new(to, PORT + 1), 3, 10);
}

/// The addresses of node and peer in the overlay.
fn inside(version: IpVersion) -> (IpAddr, IpAddr) {
    let place = usize::from(version == IpVersion::V6);
    (INNER_NODE[place].parse().unwrap(), INNER_PEER[place].parse().unwrap())
}

pub(super) fn vxlan(hook: Hook) -> Outcome {
    let mut network = Network::new(hook);
    if let Err(missing) = join(&mut network) {
        return missing;
    }
    for version in VERSIONS {
        let (from, to) = inside(version);
        let (before, outer) = (inside_and_around(&network), network.counting.stat(Stat::Overlay));
        let server = (&network.peer, SocketAddr::new(to, PORT));
        let measured = network.measure(|| tcp((&network.node, from), server, TRANSFER));
        let after = inside_and_around(&network);
        let less = |after: Counter, before: Counter| Counter {
            bytes: after.bytes - before.bytes,
            packets: after.packets - before.packets,
        };
        let (carried, wire) = (less(after.0, before.0), less(after.1, before.1));
        let outer_headers = 20 + 8 + 8 + 14;
        let around = Counter { bytes: carried.bytes + outer_headers * carried.packets, packets: carried.packets };
        assert_eq!(wire, around, "on the wire (left) and what was inside with its headers (right)");
        let sent = measured.sent();
        let link_scoped = Counter { bytes: carried.bytes - sent.bytes, packets: carried.packets - sent.packets };
        assert!(link_scoped.packets < 8 && link_scoped.bytes < 8 * 100, "{link_scoped:?}");
        Measured { wire: measured.sent(), ..measured.clone() }.is_all_in("a", "b", version);
        assert!(measured.sent().bytes > TRANSFER as u64);
        assert!(
            network.counting.stat(Stat::Overlay).bytes > outer.bytes + TRANSFER as u64,
            "the outer packets are noted"
        );
    }
    // A pod that uses the overlay's port hides nothing.
    for version in VERSIONS {
        let _sink = sink(&network.peer, PEER.of(version), OVERLAY_PORT + 1);
        let ports = std::iter::repeat_n((40_000, OVERLAY_PORT), 10);
        let measured = network.measure(|| datagrams(&network.pod, POD.of(version), PEER.of(version), 100, ports));
        // The overlay's own housekeeping may be on the wire, too.
        let expected = Counter { bytes: 10 * (ip_header(version) + 108), packets: 10 };
        Measured { wire: expected, ..measured }.is_all_in("a", "b", version);
    }
    Outcome::Exact
}

/// What has come out of the overlay, and what the wire had carried then: nothing came in between.
fn inside_and_around(network: &Network) -> (Counter, Counter) {
    loop {
        let (before, wire) = (inner(network), network.wire());
        if inner(network) == before && network.wire() == wire {
            return (before, wire);
        }
    }
}

/// Traffic that came out of the overlay at its other end. The device counts without the link's header.
fn inner(network: &Network) -> Counter {
    let counters = configure(&network.peer, "reading the counters", async |links| links.counters("vxlan0").await);
    let counters = counters.unwrap();
    Counter { bytes: counters.rx_bytes, packets: counters.rx_packets }
}

/// Runs iproute2's `ip` in a namespace, for what our own netlink calls do not have. An error is its message.
fn ip(namespace: &Namespace, args: &str) -> Result<(), String> {
    let output = namespace.run(|| Command::new("ip").args(args.split(' ')).output()).unwrap();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
    if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {stderr}")) }
}

const DATAGRAMS: u64 = 100;

/// So many of 512 bytes.
fn expected(version: IpVersion) -> Counter {
    Counter { bytes: DATAGRAMS * (ip_header(version) + 8 + 512), packets: DATAGRAMS }
}

/// Sends from the pod to a client on the internet, and returns the zones of the traffic.
fn to_the_internet(network: &Network, version: IpVersion, gateway: &str) {
    let _sink = sink(&network.peer, CLIENT.of(version), PORT);
    let ports = std::iter::repeat_n((40_000, PORT), DATAGRAMS as usize);
    let measured = network.measure(|| datagrams(&network.pod, POD.of(version), CLIENT.of(version), 512, ports));
    Measured { wire: expected(version), ..measured }.is_all_in("a", gateway, version);
}

/// A gateway for what leaves the cluster, at the other end of a tunnel.
pub(super) fn egress_gateway(hook: Hook) -> Outcome {
    let mut network = Network::new(hook);
    if let Err(missing) = join(&mut network) {
        return missing;
    }
    for version in VERSIONS {
        // Traffic to it without a tunnel is the internet, before and after.
        to_the_internet(&network, version, "internet");
        let route = format!("route add {} via {} dev vxlan0 onlink", CLIENT.of(version), inside(version).1);
        ip(&network.node, &route).unwrap();
        to_the_internet(&network, version, "b");
        let mut paths = Vec::new();
        network.counting.datapath.flows(|entry| {
            if entry.destination == CLIENT.of(version) && entry.source == POD.of(version) {
                paths.push(entry.path);
            }
        });
        paths.sort_unstable_by_key(|path| *path as u8);
        assert_eq!(paths, [PacketPath::Sent, PacketPath::Tunnelled], "what was counted before stays where it is");
        be_the_gateway(&network, version);
    }
    Outcome::Exact
}

/// A packet that has come through the tunnel leaves for the internet from this node's zone, once.
fn be_the_gateway(network: &Network, version: IpVersion) {
    let (to_here, far) = inside(version);
    let internet: IpAddr = if version == IpVersion::V4 { "8.8.8.8" } else { "2001:4860::8" }.parse().unwrap();
    ip(&network.peer, &format!("route add {internet} via {to_here} dev vxlan0 onlink")).unwrap();
    let send = || {
        // To the node and back, where it ends.
        let socket = UdpSocket::bind((far, 0)).unwrap();
        let socket = socket2::Socket::from(socket);
        if far.is_ipv4() { socket.set_ttl_v4(2) } else { socket.set_unicast_hops_v6(2) }.unwrap();
        let socket = UdpSocket::from(socket);
        (0..DATAGRAMS).for_each(|_| assert_eq!(socket.send_to(&[0; 512], (internet, PORT)).unwrap(), 512));
    };
    let measured = network.measure(|| network.peer.run(send).unwrap());
    Measured { wire: expected(version), ..measured }.is_all_in("a", "internet", version);
}

/// The same where the gateway is chosen for each packet, as Cilium and Open vSwitch do.
pub(super) fn chosen_gateway(hook: Hook) -> Outcome {
    let mut network = Network::new(hook);
    if let Err(missing) = join(&mut network) {
        return missing;
    }
    let commands = [
        "link add vxlan1 up type vxlan external dstport 8473",
        "route add 9.9.9.9/32 encap ip id 42 dst 10.0.2.2 dev vxlan1",
        "-6 route add 2620:fe::9/128 encap ip id 42 dst 10.0.2.2 dev vxlan1",
    ];
    if let Err(missing) = commands.into_iter().try_for_each(|command| ip(&network.node, command)) {
        return Outcome::Missing(missing);
    }
    // The other end has no listener: arriving packets have no effect.
    for address in ["9.9.9.9", "2620:fe::9"] {
        ip(&network.node, &format!("neigh add {address} lladdr 02:00:00:00:00:01 dev vxlan1")).unwrap();
    }
    network.look_again();
    let gateway = if hook == Hook::Netfilter { "internet" } else { "b" };
    for version in VERSIONS {
        to_the_internet(&network, version, gateway);
    }
    if hook == Hook::Netfilter { Outcome::Differs("exact; the gateway is the internet") } else { Outcome::Exact }
}

/// A node without an agent sends through an overlay: what is inside counts where it arrives, once.
pub(super) fn arrivals_inside(hook: Hook) -> Outcome {
    const ZONES: [(&str, &str, PrefixKind); 6] = [
        ("10.0.1.0/24", "a", PrefixKind::Cluster),
        ("10.0.2.1/32", "a", PrefixKind::Cluster),
        ("fd00:1::/64", "a", PrefixKind::Cluster),
        ("10.0.2.2/32", "b", PrefixKind::External),
        ("10.1.0.0/24", "b", PrefixKind::External),
        ("fd00:a::/64", "b", PrefixKind::External),
    ];
    let mut network = Network::new(hook);
    if let Err(missing) = join(&mut network) {
        return missing;
    }
    network.counting.apply(&ZONES);
    for version in VERSIONS {
        let (to, from) = inside(version);
        let _sink = sink(&network.node, to, PORT);
        let before = network.counting.stat(Stat::Overlay);
        let ports = std::iter::repeat_n((40_000, PORT), DATAGRAMS as usize);
        let measured = network.measure(|| datagrams(&network.peer, from, to, 512, ports));
        let cell = ("b".to_owned(), "a".to_owned(), version as u8, Direction::Ingress);
        assert_eq!(measured.cells, [(cell, expected(version))].into());
        let around = network.counting.stat(Stat::Overlay).packets - before.packets;
        assert!(around >= DATAGRAMS, "{around} packets around them are outside the sums");
        // An overlay's port hides nothing that is not for the node itself.
        if version == IpVersion::V4 {
            ip(&network.peer, "route add 10.0.1.2/32 via 10.0.2.1").unwrap();
            let _sink = sink(&network.pod, POD.of(version), OVERLAY_PORT);
            let ports = std::iter::repeat_n((40_000, OVERLAY_PORT), DATAGRAMS as usize);
            let measured = network.measure(|| datagrams(&network.peer, PEER.of(version), POD.of(version), 512, ports));
            let cell = ("b".to_owned(), "a".to_owned(), version as u8, Direction::Ingress);
            assert_eq!(measured.cells, [(cell, expected(version))].into());
        }
    }
    Outcome::Exact
}
