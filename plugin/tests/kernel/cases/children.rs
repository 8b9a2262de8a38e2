//! Pods whose devices are children of the uplink: their packets pass its traffic control, and no netfilter of
//! the node.

use super::{Outcome, PORT, ip_header};
use crate::network::{
    Both, Network, PEER, VERSIONS,
    traffic::{datagrams, sink},
};
use meridian::{
    datapath::{Hook, devices},
    netlab::links::configure,
};
use meridian_abi::{Counter, zone::PrefixKind};
use rtnetlink::{
    LinkIpVlan, LinkMacVlan,
    packet_route::link::{IpVlanMode, MacVlanMode},
};
use std::{collections::BTreeSet, os::fd::AsRawFd};

/// How a pod shares the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    Macvlan,
    Ipvlan,
}

const CHILD: Both = Both::new([10, 0, 2, 9], [0xfd00, 2, 0, 0, 0, 0, 0, 9]);
const ZONES: [(&str, &str, PrefixKind); 4] = [
    ("10.0.2.0/29", "b", PrefixKind::Cluster),
    ("10.0.2.9/32", "a", PrefixKind::Cluster),
    ("fd00:2::/125", "b", PrefixKind::Cluster),
    ("fd00:2::9/128", "a", PrefixKind::Cluster),
];

pub(super) fn pods_on(child: Child, hook: Hook) -> Outcome {
    let mut network = Network::new(hook);
    network.counting.apply(&ZONES);
    let made = configure(&network.node, "making a child of the uplink", async |links| {
        let lower = links.index("up0").await?;
        let link = match child {
            Child::Macvlan => LinkMacVlan::new("child0", lower, MacVlanMode::Bridge).build(),
            Child::Ipvlan => LinkIpVlan::new("child0", lower, IpVlanMode::L2).build(),
        };
        links.handle().link().add(link).execute().await?;
        let moved = rtnetlink::LinkUnspec::new_with_name("child0").setns_by_fd(network.pod.as_raw_fd());
        links.handle().link().set(moved.build()).execute().await
    });
    if let Err(error) = made {
        return Outcome::Missing(error.to_string());
    }
    configure(&network.pod, "setting up", async |links| {
        links.up("child0", None).await?;
        for (version, len) in VERSIONS.into_iter().zip([24, 64]) {
            links.address("child0", CHILD.of(version), len).await?;
        }
        Ok(())
    })
    .unwrap();
    network.look_again();
    assert_eq!(network.counting(), ["up0"]);
    // By this `auto` takes traffic control.
    let shared = network.node.run(|| devices::find(&["up0".to_owned()]).unwrap().shared).unwrap();
    assert_eq!(shared, BTreeSet::from(["up0".to_owned()]));
    for version in VERSIONS {
        let _sink = sink(&network.peer, PEER.of(version), PORT);
        let ports = std::iter::repeat_n((40_000, PORT), 100);
        let measured = network.measure(|| datagrams(&network.pod, CHILD.of(version), PEER.of(version), 512, ports));
        assert_eq!(measured.wire, Counter { bytes: 100 * (ip_header(version) + 8 + 512), packets: 100 });
        if hook == Hook::Netfilter {
            assert!(measured.cells.is_empty(), "{measured:?}");
        } else {
            measured.is_all_in("a", "b", version);
        }
    }
    if hook == Hook::Netfilter { Outcome::Differs("sees nothing, and `auto` takes tcx") } else { Outcome::Exact }
}
