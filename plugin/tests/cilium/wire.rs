//! Traffic on the wire between the nodes: nftables counts on the bridge that joins them, each packet by the node
//! that sent it and by its addresses, and in a tunnel by those of the packet inside, without what the tunnel puts
//! before it.

use crate::{
    cluster::{Cluster, NODES, OUTSIDE},
    nodes::{
        bridge::{self, VXLAN, Zones, address, sums},
        offsets::Sides,
        pages,
    },
    outside, reported,
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

pub use crate::nodes::bridge::{Pair, Sums};

/// Offsets are bits behind the start of the outer UDP header.
const TABLE: &str = "table bridge truth {
  set plain4 { type ifname . ipv4_addr . ipv4_addr; flags dynamic; size 65535; counter
  }
  set plain6 { type ifname . ipv6_addr . ipv6_addr; flags dynamic; size 65535; counter
  }
  set inside4 { typeof meta iifname . @th,336,32 . @th,368,32; flags dynamic; size 65535; counter
  }
  set inside6 { typeof meta iifname . @th,304,128 . @th,432,128; flags dynamic; size 65535; counter
  }
  chain tunnel {
    @th,224,16 0x0800 update @inside4 { meta iifname . @th,336,32 . @th,368,32 }
    @th,224,16 0x86dd update @inside6 { meta iifname . @th,304,128 . @th,432,128 }
  }
  chain wire {
    ether type ip udp dport 8472 goto tunnel
    ether type ip update @plain4 { meta iifname . ip saddr . ip daddr }
    ether type ip6 update @plain6 { meta iifname . ip6 saddr . ip6 daddr }
  }
  chain between { type filter hook forward priority 0; jump wire; }
  chain outside { type filter hook input priority 0; jump wire; }
}
";
/// Its sets, and what is before the packets that they count.
const SETS: [(&str, u64); 4] = [("plain4", 0), ("plain6", 0), ("inside4", VXLAN), ("inside6", VXLAN)];

/// The node that sent it, source and destination.
pub type Sent = (String, IpAddr, IpAddr);
/// IP bytes by sender and addresses.
pub type Carried = BTreeMap<Sent, u64>;

/// The nftables table, and who has which address.
pub struct Wire<'c> {
    cluster: &'c Cluster,
    zones: Zones,
    pods: BTreeMap<IpAddr, String>,
    /// The client of each node.
    clients: BTreeMap<String, String>,
    /// Whether the hook sees packets to outside when they have their node's address already.
    pub masqueraded: bool,
}

impl<'c> Wire<'c> {
    /// Counts from now on. Pods are those that run now.
    pub fn tap(cluster: &'c Cluster) -> Self {
        bridge::load(cluster, TABLE);
        let (pods, clients) = pods(cluster);
        Self { cluster, zones: Zones::of(cluster), pods, clients, masqueraded: false }
    }

    pub fn carried(&self) -> Carried {
        let mut carried = Carried::new();
        for (set, header) in SETS {
            for (words, bytes) in bridge::elements(self.cluster, set, header) {
                let sent = (words[0].as_str().unwrap().to_owned(), address(&words[1]), address(&words[2]));
                *carried.entry(sent).or_default() += bytes;
            }
        }
        carried
    }

    /// By zones: what nodes sent, from where they are, whatever its destination.
    pub fn by_zones(&self, carried: &Carried) -> Sums {
        sums(carried, |(node, _, to)| {
            Some((self.zone_of(node)?, self.zones.of_address(*to).unwrap_or_else(|| nowhere(*to))))
        })
    }

    /// By pods of the tests, and from them to outside: each node has one client, which sent that, or whose zone did.
    pub fn by_pods(&self, carried: &Carried) -> Sums {
        let pod = |address: &IpAddr| self.pods.get(address).cloned();
        sums(carried, |(node, from, to)| {
            if !outside::is(*to) {
                return Some((pod(from)?, pod(to)?));
            }
            let sender = if self.masqueraded { self.zone_of(node)? } else { self.clients.get(node)?.clone() };
            Some((sender, OUTSIDE.to_owned()))
        })
    }

    /// Whether it is one of the tests' pods, outside, or a node's zone.
    pub fn has(&self, end: &str) -> bool {
        end == OUTSIDE || self.pods.values().any(|name| name == end) || self.zones.contain(end)
    }

    fn zone_of(&self, node: &str) -> Option<String> {
        let (_, address) = NODES.iter().find(|(name, _)| *name == node)?;
        self.zones.of_address(address.parse().ok()?)
    }
}

impl Sides for Wire<'_> {
    type Key = Pair;
    const ZONES: Duration = Duration::MAX;

    fn zones_carried(&self) -> Sums {
        self.by_zones(&self.carried())
    }

    fn zones_reported(&self) -> Sums {
        pages::by_zones(self.cluster)
    }

    fn others_carried(&self) -> Sums {
        self.by_pods(&self.carried())
    }

    fn others_reported(&self) -> Sums {
        let mut reported = reported::by_pods(self.cluster);
        reported.retain(|(from, to), _| self.has(from) && self.has(to));
        reported
    }
}

/// Where an address is that no node has.
fn nowhere(address: IpAddr) -> String {
    if outside::is(address) { "internet" } else { "unknown" }.to_owned()
}

/// The tests' pods by address, and the clients by node.
fn pods(cluster: &Cluster) -> (BTreeMap<IpAddr, String>, BTreeMap<String, String>) {
    let (mut pods, mut clients) = (BTreeMap::new(), BTreeMap::new());
    for namespace in ["shop", "billing"] {
        for pod in cluster.get(&["pods", "--namespace", namespace]) {
            let name = format!("{namespace}/{}", pod["metadata"]["name"].as_str().unwrap());
            for address in pod["status"]["podIPs"].as_array().unwrap() {
                pods.insert(address["ip"].as_str().unwrap().parse().unwrap(), name.clone());
            }
            if namespace == "billing" {
                clients.insert(pod["spec"]["nodeName"].as_str().unwrap().to_owned(), name);
            }
        }
    }
    (pods, clients)
}
