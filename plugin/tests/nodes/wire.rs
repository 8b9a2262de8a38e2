//! What the nodes put on the wire: nftables counts on the bridge that joins them, each packet once, whoever takes it, by
//! its addresses, and in a tunnel by those of the packet inside, without what the tunnel puts before it.

use super::cluster::{Cluster, NODES, OUTSIDE};
use ipnetwork::IpNetwork;
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
};

/// What VXLAN over IPv4 puts before a packet: outer IP and UDP headers, its own, and the inner Ethernet's.
const VXLAN: u64 = 20 + 8 + 8 + 14;

/// The inner addresses lie 42 and 46 bytes behind the outer UDP header's start. Neighbour discovery is the link's.
const TABLE: &str = "table bridge truth {
  set plain { type ipv4_addr . ipv4_addr; flags dynamic; size 65535; counter
  }
  set plain6 { type ipv6_addr . ipv6_addr; flags dynamic; size 65535; counter
  }
  set inside { typeof @th,336,32 . @th,368,32; flags dynamic; size 65535; counter
  }
  chain wire {
    ether type ip udp dport 8472 update @inside { @th,336,32 . @th,368,32 } return
    ether type ip update @plain { ip saddr . ip daddr } return
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } return
    ether type ip6 update @plain6 { ip6 saddr . ip6 daddr }
  }
  chain sent { type filter hook prerouting priority 0; jump wire; }
}
";

/// Source and destination.
pub type Addresses = (IpAddr, IpAddr);
/// IP bytes by source and destination.
pub type Carried = BTreeMap<Addresses, u64>;
/// Zones, pods, workloads or namespaces, from and to.
pub type Pair = (String, String);
/// IP bytes by pair.
pub type Sums = BTreeMap<Pair, u64>;

/// A pod of the tests.
#[derive(Clone, Debug)]
struct Pod {
    namespace: String,
    name: String,
    workload: String,
}

/// By which of their ends bytes are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    Pod,
    Workload,
    Namespace,
}

impl By {
    pub const ALL: [Self; 3] = [Self::Pod, Self::Workload, Self::Namespace];
}

/// The nftables table, and who has which address.
pub struct Wire<'c> {
    cluster: &'c Cluster,
    zones: Vec<(IpNetwork, String)>,
    pods: RefCell<BTreeMap<IpAddr, Pod>>,
}

impl<'c> Wire<'c> {
    /// Counts from now on. Pods are those that run now.
    pub fn tap(cluster: &'c Cluster) -> Self {
        let network = format!("--net=/run/netns/{}-{OUTSIDE}", cluster.name);
        let mut nft =
            Command::new("nsenter").arg(network).args(["nft", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(TABLE.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
        Self { cluster, zones: zones(cluster), pods: RefCell::new(pods(cluster)) }
    }

    /// Looks for pods that have come since. Those that went keep their addresses until others have them.
    pub fn look_for_pods(&self) {
        self.pods.borrow_mut().extend(pods(self.cluster));
    }

    pub fn carried(&self) -> Carried {
        let mut carried = Carried::new();
        for (set, header) in [("plain", 0), ("plain6", 0), ("inside", VXLAN)] {
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
    pub fn by_zones(&self, carried: &Carried) -> Sums {
        sums(carried, |(from, to)| Some((self.zone(*from)?, self.zone(*to).unwrap_or_else(|| "unknown".into()))))
    }

    /// Between pods of the tests.
    pub fn by(&self, by: By, carried: &Carried) -> Sums {
        let pods = self.pods.borrow();
        let end = |address: &IpAddr| {
            let Pod { namespace, name, workload } = pods.get(address)?;
            Some(match by {
                By::Pod => format!("{namespace}/{name}"),
                By::Workload => format!("{namespace}/{workload}"),
                By::Namespace => namespace.clone(),
            })
        };
        sums(carried, |(from, to)| Some((end(from)?, end(to)?)))
    }

    fn zone(&self, address: IpAddr) -> Option<String> {
        let holds = |(prefix, _): &&(IpNetwork, String)| prefix.contains(address);
        self.zones.iter().find(holds).map(|(_, zone)| zone.clone())
    }
}

fn sums(carried: &Carried, key: impl Fn(&Addresses) -> Option<Pair>) -> Sums {
    let mut sums = BTreeMap::new();
    for (addresses, bytes) in carried {
        if let Some(pair) = key(addresses) {
            *sums.entry(pair).or_default() += bytes;
        }
    }
    sums
}

/// nft writes addresses that it knows for such as text, and others as numbers.
fn address(value: &Value) -> IpAddr {
    match value.as_u64() {
        Some(bits) => Ipv4Addr::from(u32::try_from(bits).unwrap()).into(),
        None => value.as_str().unwrap().parse().unwrap(),
    }
}

/// The nodes' addresses, and the prefixes of their pods.
fn zones(cluster: &Cluster) -> Vec<(IpNetwork, String)> {
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
    zones
}

fn pods(cluster: &Cluster) -> BTreeMap<IpAddr, Pod> {
    let mut pods = BTreeMap::new();
    for namespace in ["shop", "billing"] {
        for pod in cluster.get(&["pods", "--namespace", namespace]) {
            // A pod on the node's own network is the node.
            if pod["spec"]["hostNetwork"] == true || pod["status"]["phase"] != "Running" {
                continue;
            }
            let holder = Pod {
                namespace: namespace.to_owned(),
                name: pod["metadata"]["name"].as_str().unwrap().to_owned(),
                workload: pod["metadata"]["labels"]["app"].as_str().unwrap().to_owned(),
            };
            for ip in pod["status"]["podIPs"].as_array().into_iter().flatten() {
                pods.insert(ip["ip"].as_str().unwrap().parse().unwrap(), holder.clone());
            }
        }
    }
    pods
}
