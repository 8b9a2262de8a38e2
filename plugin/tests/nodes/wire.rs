//! The nodes' traffic on the wire: nftables counts on the bridge that joins them, each packet once, by
//! its addresses, and in a tunnel by those of the packet inside, without what the tunnel puts before it.

use super::{
    bridge::{self, VXLAN, Zones, address, sums},
    cluster::Cluster,
    offsets::Sides,
    pages,
};
use std::{cell::RefCell, collections::BTreeMap, net::IpAddr, time::Duration};

pub use super::bridge::{Pair, Sums};

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
    zones: Zones,
    pods: RefCell<BTreeMap<IpAddr, Pod>>,
}

impl<'c> Wire<'c> {
    /// Counts from now on. Pods are those that run now.
    pub fn tap(cluster: &'c Cluster) -> Self {
        bridge::load(cluster, TABLE);
        Self { cluster, zones: Zones::of(cluster), pods: RefCell::new(pods(cluster)) }
    }

    /// Looks for pods that have come since. Those that went keep their addresses until others have them.
    pub fn look_for_pods(&self) {
        self.pods.borrow_mut().extend(pods(self.cluster));
    }

    pub fn carried(&self) -> Carried {
        let mut carried = Carried::new();
        for (set, header) in [("plain", 0), ("plain6", 0), ("inside", VXLAN)] {
            for (ends, bytes) in bridge::elements(self.cluster, set, header) {
                *carried.entry((address(&ends[0]), address(&ends[1]))).or_default() += bytes;
            }
        }
        carried
    }

    /// By zones: what nodes sent, whatever its destination.
    pub fn by_zones(&self, carried: &Carried) -> Sums {
        sums(carried, |(from, to)| {
            Some((self.zones.of_address(*from)?, self.zones.of_address(*to).unwrap_or_else(|| "unknown".into())))
        })
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
}

impl Sides for Wire<'_> {
    type Key = (By, Pair);
    const ZONES: Duration = Duration::from_secs(30);

    fn zones_carried(&self) -> Sums {
        self.by_zones(&self.carried())
    }

    fn zones_reported(&self) -> Sums {
        pages::by_zones(self.cluster)
    }

    fn others_carried(&self) -> BTreeMap<(By, Pair), u64> {
        let carried = self.carried();
        let by = |by| self.by(by, &carried).into_iter().map(move |(pair, bytes)| ((by, pair), bytes));
        By::ALL.into_iter().flat_map(by).collect()
    }

    fn others_reported(&self) -> BTreeMap<(By, Pair), u64> {
        let all = pages::by_all(self.cluster).into_iter();
        all.flat_map(|(by, sums)| sums.into_iter().map(move |(pair, bytes)| ((by, pair), bytes))).collect()
    }
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
