//! The counters of nftables on the bridge that joins the nodes, and the zones of the addresses that it sees.

use super::cluster::{Cluster, NODES, OUTSIDE};
use ipnetwork::IpNetwork;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

/// The bytes of VXLAN over IPv4 before a packet: outer IP and UDP headers, its own, and the inner Ethernet's.
pub const VXLAN: u64 = 20 + 8 + 8 + 14;

/// Zones, pods, workloads or namespaces, from and to.
pub type Pair = (String, String);
/// IP bytes by pair.
pub type Sums = BTreeMap<Pair, u64>;

/// Loads a table `bridge truth`, which counts from now on.
pub fn load(cluster: &Cluster, table: &str) {
    let network = format!("--net=/run/netns/{}-{OUTSIDE}", cluster.name);
    let mut nft = Command::new("nsenter").arg(network).args(["nft", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

/// The elements of a set of the table, each with its IP bytes: `header` bytes a packet are not part of them.
pub fn elements(cluster: &Cluster, set: &str, header: u64) -> Vec<(Vec<Value>, u64)> {
    let text = cluster.ask(OUTSIDE, &["nft", "-j", "list", "set", "bridge", "truth", set]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    let sets = answer["nftables"].as_array().unwrap().iter();
    let elements = sets.flat_map(|object| object["set"]["elem"].as_array().into_iter().flatten()).map(|element| {
        let element = &element["elem"];
        let (bytes, packets) = (&element["counter"]["bytes"], &element["counter"]["packets"]);
        let bytes = bytes.as_u64().unwrap() - header * packets.as_u64().unwrap();
        (element["val"]["concat"].as_array().unwrap().clone(), bytes)
    });
    elements.collect()
}

/// An address: text where nft knows that it is one; otherwise a number, in hexadecimal text if it is large.
pub fn address(value: &Value) -> IpAddr {
    let Some(text) = value.as_str() else {
        return Ipv4Addr::from(u32::try_from(value.as_u64().unwrap()).unwrap()).into();
    };
    match text.strip_prefix("0x") {
        Some(bits) => Ipv6Addr::from(u128::from_str_radix(bits, 16).unwrap()).into(),
        None => text.parse().unwrap(),
    }
}

/// The bytes by pair; those without a pair are left out.
pub fn sums<K>(carried: &BTreeMap<K, u64>, pair: impl Fn(&K) -> Option<Pair>) -> Sums {
    let mut sums = BTreeMap::new();
    for (key, bytes) in carried {
        if let Some(pair) = pair(key) {
            *sums.entry(pair).or_default() += bytes;
        }
    }
    sums
}

/// The prefixes of the nodes and their pods, with their zones.
pub struct Zones(Vec<(IpNetwork, String)>);

impl Zones {
    /// The nodes' addresses, and the prefixes of their pods.
    pub fn of(cluster: &Cluster) -> Self {
        let mut zones = Vec::new();
        let nodes = cluster.get(&["nodes"]);
        for (name, _) in NODES {
            let node = nodes.iter().find(|node| node["metadata"]["name"] == name).unwrap();
            let zone = node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str().unwrap().to_owned();
            let list = |value: &Value, path: &str| -> Vec<Value> {
                value.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default()
            };
            let addresses = list(node, "/status/addresses");
            let mut prefixes: Vec<Value> = addresses.iter().map(|address| address["address"].clone()).collect();
            if cluster.has_cilium {
                let of_node = cluster.get(&["ciliumnodes", &format!("--field-selector=metadata.name={name}")]);
                let pools = list(&of_node[0], "/spec/ipam/pools/allocated");
                prefixes.extend(pools.iter().flat_map(|pool| list(pool, "/cidrs")));
                prefixes.extend(list(&of_node[0], "/spec/ipam/podCIDRs"));
            } else {
                prefixes.extend(list(node, "/spec/podCIDRs"));
            }
            // A node's name is among its addresses.
            let prefixes = prefixes.iter().filter_map(|prefix| prefix.as_str()?.parse().ok());
            zones.extend(prefixes.map(|prefix| (prefix, zone.clone())));
        }
        Self(zones)
    }

    /// The zone of an address.
    pub fn of_address(&self, address: IpAddr) -> Option<String> {
        let (_, zone) = self.0.iter().find(|(prefix, _)| prefix.contains(address))?;
        Some(zone.clone())
    }

    /// Whether a node is in the zone.
    pub fn contain(&self, zone: &str) -> bool {
        self.0.iter().any(|(_, name)| name == zone)
    }
}
