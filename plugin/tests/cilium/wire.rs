//! What the wire between the nodes carries: nftables counts on the bridge that joins them, each packet by the node
//! that sent it and by its addresses, and in a tunnel by those of the packet inside, without what the tunnel puts
//! before it.

use crate::{
    cluster::{Cluster, NODES, OUTSIDE},
    outside,
};
use ipnetwork::IpNetwork;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

/// What VXLAN over IPv4 puts before a packet: outer IP and UDP headers, its own, and the inner Ethernet's.
const VXLAN: u64 = 20 + 8 + 8 + 14;

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
/// Zones, or pods by namespace and name, from and to.
pub type Pair = (String, String);

/// The nftables table, and who has which address.
pub struct Wire<'c> {
    cluster: &'c Cluster,
    zones: Vec<(IpNetwork, String)>,
    pods: BTreeMap<IpAddr, String>,
    /// The client of each node.
    clients: BTreeMap<String, String>,
    /// Whether the hook sees packets to outside when they have their node's address already.
    pub masqueraded: bool,
}

impl<'c> Wire<'c> {
    /// Counts from now on. Pods are those that run now.
    pub fn tap(cluster: &'c Cluster) -> Self {
        let network = format!("--net=/run/netns/{}-{OUTSIDE}", crate::NAME);
        let mut nft =
            Command::new("nsenter").arg(network).args(["nft", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(TABLE.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
        let (pods, clients) = pods(cluster);
        Self { cluster, zones: zones(cluster), pods, clients, masqueraded: false }
    }

    pub fn carried(&self) -> Carried {
        let mut carried = Carried::new();
        for (set, header) in SETS {
            let text = self.cluster.ask(OUTSIDE, &["nft", "-j", "list", "set", "bridge", "truth", set]);
            let answer: Value = serde_json::from_str(&text).unwrap();
            let sets = answer["nftables"].as_array().unwrap().iter();
            for element in sets.flat_map(|object| object["set"]["elem"].as_array().into_iter().flatten()) {
                let element = &element["elem"];
                let (bytes, packets) = (&element["counter"]["bytes"], &element["counter"]["packets"]);
                let bytes = bytes.as_u64().unwrap() - header * packets.as_u64().unwrap();
                let words = &element["val"]["concat"];
                let sent = (words[0].as_str().unwrap().to_owned(), address(&words[1]), address(&words[2]));
                *carried.entry(sent).or_default() += bytes;
            }
        }
        carried
    }

    /// By zones: what nodes sent, from where they are, whatever its destination.
    pub fn by_zones(&self, carried: &Carried) -> BTreeMap<Pair, u64> {
        sums(carried, |(node, _, to)| Some((self.zone_of(node)?, self.zone(*to).unwrap_or_else(|| nowhere(*to)))))
    }

    /// By pods of the tests, and from them to outside: each node has one client, which sent that, or whose zone did.
    pub fn by_pods(&self, carried: &Carried) -> BTreeMap<Pair, u64> {
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
        end == OUTSIDE || self.pods.values().any(|name| name == end) || self.zones.iter().any(|(_, zone)| zone == end)
    }

    fn zone_of(&self, node: &str) -> Option<String> {
        let (_, address) = NODES.iter().find(|(name, _)| *name == node)?;
        self.zone(address.parse().ok()?)
    }

    fn zone(&self, address: IpAddr) -> Option<String> {
        let holds = |(prefix, _): &&(IpNetwork, String)| prefix.contains(address);
        self.zones.iter().find(holds).map(|(_, zone)| zone.clone())
    }
}

/// Where an address is that no node has.
fn nowhere(address: IpAddr) -> String {
    if outside::is(address) { "internet" } else { "unknown" }.to_owned()
}

fn sums(carried: &Carried, key: impl Fn(&Sent) -> Option<Pair>) -> BTreeMap<Pair, u64> {
    let mut sums = BTreeMap::new();
    for (sent, bytes) in carried {
        if let Some(pair) = key(sent) {
            *sums.entry(pair).or_default() += bytes;
        }
    }
    sums
}

/// nft writes addresses that it knows for such as text; others as numbers, in hexadecimal text if they are large.
fn address(value: &Value) -> IpAddr {
    let Some(text) = value.as_str() else {
        return Ipv4Addr::from(u32::try_from(value.as_u64().unwrap()).unwrap()).into();
    };
    match text.strip_prefix("0x") {
        Some(bits) => Ipv6Addr::from(u128::from_str_radix(bits, 16).unwrap()).into(),
        None => text.parse().unwrap(),
    }
}

/// The nodes' addresses, and what Cilium gave them for their pods.
fn zones(cluster: &Cluster) -> Vec<(IpNetwork, String)> {
    let mut zones = Vec::new();
    let nodes = cluster.get(&["nodes"]);
    for (name, _) in NODES {
        let node = nodes.iter().find(|node| node["metadata"]["name"] == name).unwrap();
        let zone = node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str().unwrap().to_owned();
        let addresses = node["status"]["addresses"].as_array().unwrap().iter();
        let addresses = addresses.filter(|address| address["type"] == "InternalIP").map(|address| &address["address"]);
        let ipam = &cluster.get(&["ciliumnodes", &format!("--field-selector=metadata.name={name}")])[0]["spec"]["ipam"];
        let pools = ipam["pools"]["allocated"].as_array().into_iter().flatten();
        let prefixes = pools.flat_map(|pool| pool["cidrs"].as_array()).chain(ipam["podCIDRs"].as_array()).flatten();
        let all = addresses.chain(prefixes);
        zones.extend(all.map(|prefix| (prefix.as_str().unwrap().parse().unwrap(), zone.clone())));
    }
    zones
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
