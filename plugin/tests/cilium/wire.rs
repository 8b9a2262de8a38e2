//! What the wire between the nodes carries: nftables counts on the bridge that joins them, each packet by its
//! addresses, and in a tunnel by those of the packet inside, without what the tunnel puts before it.

use crate::cluster::{Cluster, NODES, OUTSIDE};
use ipnetwork::{IpNetwork, Ipv4Network};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::Write,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

/// What VXLAN over IPv4 puts before a packet: outer IP and UDP headers, its own, and the inner Ethernet's.
const VXLAN: u64 = 20 + 8 + 8 + 14;

/// The inner addresses lie 42 and 46 bytes behind the outer UDP header's start.
const TABLE: &str = "table bridge truth {
  set plain { type ipv4_addr . ipv4_addr; flags dynamic; size 65535; counter
  }
  set inside { typeof @th,336,32 . @th,368,32; flags dynamic; size 65535; counter
  }
  chain wire {
    ether type ip udp dport 8472 update @inside { @th,336,32 . @th,368,32 } return
    ether type ip update @plain { ip saddr . ip daddr }
  }
  chain between { type filter hook forward priority 0; jump wire; }
  chain outside { type filter hook input priority 0; jump wire; }
}
";

/// Source and destination.
pub type Addresses = (Ipv4Addr, Ipv4Addr);
/// IP bytes by source and destination.
pub type Carried = BTreeMap<Addresses, u64>;
/// Zones, or pods by namespace and name, from and to.
pub type Pair = (String, String);

/// The nftables table, and who has which address.
pub struct Wire<'c> {
    cluster: &'c Cluster,
    zones: Vec<(IpNetwork, String)>,
    pods: BTreeMap<Ipv4Addr, String>,
}

impl<'c> Wire<'c> {
    /// Counts from now on. Pods are those that run now.
    pub fn tap(cluster: &'c Cluster) -> Self {
        let network = format!("--net=/run/netns/{}-{OUTSIDE}", crate::cluster::NAME);
        let mut nft =
            Command::new("nsenter").arg(network).args(["nft", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(TABLE.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
        Self { cluster, zones: zones(cluster), pods: pods(cluster) }
    }

    pub fn carried(&self) -> Carried {
        let mut carried = Carried::new();
        for (set, header) in [("plain", 0), ("inside", VXLAN)] {
            let text = self.cluster.ask(OUTSIDE, &["nft", "-j", "list", "set", "bridge", "truth", set]);
            let answer: Value = serde_json::from_str(&text).unwrap();
            let sets = answer["nftables"].as_array().unwrap().iter();
            for element in sets.flat_map(|object| object["set"]["elem"].as_array().into_iter().flatten()) {
                let element = &element["elem"];
                let (bytes, packets) = (&element["counter"]["bytes"], &element["counter"]["packets"]);
                let bytes = bytes.as_u64().unwrap() - header * packets.as_u64().unwrap();
                let ends = &element["val"]["concat"];
                *carried.entry((address(&ends[0]), address(&ends[1]))).or_default() += bytes;
            }
        }
        carried
    }

    /// By zones: what nodes sent, whatever its destination.
    pub fn by_zones(&self, carried: &Carried) -> BTreeMap<Pair, u64> {
        sums(carried, |(from, to)| Some((self.zone(*from)?, self.zone(*to).unwrap_or_else(|| "unknown".into()))))
    }

    /// By pods of the tests.
    pub fn by_pods(&self, carried: &Carried) -> BTreeMap<Pair, u64> {
        sums(carried, |(from, to)| Some((self.pods.get(from)?.clone(), self.pods.get(to)?.clone())))
    }

    /// Whether the pod is one of the tests'.
    pub fn has(&self, pod: &str) -> bool {
        self.pods.values().any(|name| name == pod)
    }

    fn zone(&self, address: Ipv4Addr) -> Option<String> {
        let holds = |(prefix, _): &&(IpNetwork, String)| prefix.contains(address.into());
        self.zones.iter().find(holds).map(|(_, zone)| zone.clone())
    }
}

fn sums(carried: &Carried, key: impl Fn(&Addresses) -> Option<Pair>) -> BTreeMap<Pair, u64> {
    let mut sums = BTreeMap::new();
    for (addresses, bytes) in carried {
        if let Some(pair) = key(addresses) {
            *sums.entry(pair).or_default() += bytes;
        }
    }
    sums
}

/// nft writes addresses that it knows for such as text, and others as numbers.
fn address(value: &Value) -> Ipv4Addr {
    match value.as_u64() {
        Some(bits) => Ipv4Addr::from(u32::try_from(bits).unwrap()),
        None => value.as_str().unwrap().parse().unwrap(),
    }
}

/// The nodes' addresses, and what Cilium gave them for their pods.
fn zones(cluster: &Cluster) -> Vec<(IpNetwork, String)> {
    let mut zones = Vec::new();
    let nodes = cluster.get(&["nodes"]);
    for (name, address) in NODES {
        let node = nodes.iter().find(|node| node["metadata"]["name"] == name).unwrap();
        let zone = node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str().unwrap().to_owned();
        let address: Ipv4Addr = address.parse().unwrap();
        zones.push((IpNetwork::V4(Ipv4Network::from(address)), zone.clone()));
        let ipam = &cluster.get(&["ciliumnodes", &format!("--field-selector=metadata.name={name}")])[0]["spec"]["ipam"];
        let pools = ipam["pools"]["allocated"].as_array().into_iter().flatten();
        let prefixes = pools.flat_map(|pool| pool["cidrs"].as_array()).chain(ipam["podCIDRs"].as_array()).flatten();
        zones.extend(prefixes.map(|prefix| (prefix.as_str().unwrap().parse().unwrap(), zone.clone())));
    }
    zones
}

fn pods(cluster: &Cluster) -> BTreeMap<Ipv4Addr, String> {
    let mut pods = BTreeMap::new();
    for namespace in ["shop", "billing"] {
        for pod in cluster.get(&["pods", "--namespace", namespace]) {
            let address = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
            pods.insert(address, format!("{namespace}/{}", pod["metadata"]["name"].as_str().unwrap()));
        }
    }
    pods
}
