//! The demo's cluster: four nodes in three zones of two regions, two pods each, and a host that the table does not
//! name. All nodes are connected to one wire, a bridge whose ports can be watched.

use super::Error;
use crate::{
    netlab::{
        links::{self, configure, sysctl},
        namespace::Namespace,
    },
    zones::{Place, Zone},
};
use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    sync::Arc,
};

/// A node of the demo.
#[derive(Debug)]
pub struct NodeSpec {
    /// Its name.
    pub name: &'static str,
    /// Its zone.
    pub zone: &'static str,
    /// The zone's region.
    pub region: &'static str,
    /// The zone's provider.
    pub provider: &'static str,
    /// Its pods.
    pub pods: [PodSpec; 2],
}

/// A pod of the demo.
#[derive(Debug)]
pub struct PodSpec {
    /// The pod's name.
    pub name: &'static str,
    /// Its namespace.
    pub namespace: &'static str,
    /// The kind of the pod's workload.
    pub kind: &'static str,
    /// The name of the pod's workload, also the value of its label `app`.
    pub workload: &'static str,
}

const fn pod(namespace: &'static str, kind: &'static str, workload: &'static str, name: &'static str) -> PodSpec {
    PodSpec { name, namespace, kind, workload }
}

/// The nodes: two in one zone, one in another zone of the region, one in another region.
pub static NODES: [NodeSpec; 4] = [
    NodeSpec {
        name: "node-1",
        zone: "eu-1a",
        region: "eu-1",
        provider: "aws",
        pods: [pod("shop", "Deployment", "web", "web-6d8f7c9b5-x7k2p"), pod("shop", "StatefulSet", "cart", "cart-0")],
    },
    NodeSpec {
        name: "node-2",
        zone: "eu-1a",
        region: "eu-1",
        provider: "aws",
        pods: [
            pod("shop", "Deployment", "web", "web-6d8f7c9b5-m4q9z"),
            pod("shop", "Deployment", "orders", "orders-5c9b8d7f4-t8w6n"),
        ],
    },
    NodeSpec {
        name: "node-3",
        zone: "eu-1b",
        region: "eu-1",
        provider: "aws",
        pods: [
            pod("shop", "StatefulSet", "orders-db", "orders-db-0"),
            pod("monitoring", "StatefulSet", "prometheus", "prometheus-0"),
        ],
    },
    NodeSpec {
        name: "node-4",
        zone: "eu-2a",
        region: "eu-2",
        provider: "aws",
        pods: [
            pod("billing", "StatefulSet", "ledger", "ledger-0"),
            pod("monitoring", "Deployment", "collector", "collector-67c5d9b84-r2f8s"),
        ],
    },
];

/// A private address in no prefix.
pub const OUTSIDER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 99, 0, 9)), IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 9))];
/// The outsider's host number on the wire.
const OUTSIDER_HOST: u8 = 99;

/// The uplink's name on every node.
pub const UPLINK: &str = "eth0";

/// The addresses of a node on the wire; nodes count from 0.
pub fn node_addresses(node: usize) -> [IpAddr; 2] {
    wire_addresses(node as u8 + 1)
}

fn wire_addresses(host: u8) -> [IpAddr; 2] {
    [[192, 168, 50, host].into(), Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, host.into()).into()]
}

/// The addresses of a pod; nodes and pods count from 0.
pub fn pod_addresses(node: usize, pod: usize) -> [IpAddr; 2] {
    pod_network(node, 10 + pod as u8)
}

fn pod_network(node: usize, host: u8) -> [IpAddr; 2] {
    let node = node as u8 + 1;
    [[10, 244, node, host].into(), Ipv6Addr::new(0xfd00, 0x244, node.into(), 0, 0, 0, 0, host.into()).into()]
}

/// The place of a node.
pub fn place(node: usize) -> Place {
    let NodeSpec { zone, region, .. } = NODES[node];
    Place::Zone(Arc::new(Zone { name: zone.into(), region: region.into() }))
}

/// Prices of the demo's own: its two regions are none of the provider's, so they are priced as two that are.
pub const PRICES: &str = r#"rules:
  - id: demo-regions
    provider: aws
    between: regions
    from: [eu-1, eu-2]
    to: [eu-1, eu-2]
    sender: "0.02"
    receiver: "0"
    unit: GB
    as_of: 2024-09-01
    source: "as between eu-west-1 and eu-central-1: AWS price list, usage types REGION-REGION-AWS-Out-Bytes"
"#;

/// The static table of the cluster, as a user would write it.
pub fn zones_yaml() -> String {
    let mut yaml = String::from("zones:\n");
    // Writing to a string can't fail.
    for (index, node) in NODES.iter().enumerate() {
        let [v4, v6] = pod_network(index, 0);
        let [node_v4, node_v6] = node_addresses(index);
        let cidrs = format!("[{v4}/24, \"{v6}/64\", {node_v4}/32, \"{node_v6}/128\"]");
        let _ = writeln!(
            yaml,
            "  - {{name: {}, region: {}, provider: {}, cidrs: {cidrs}}}",
            node.zone, node.region, node.provider
        );
    }
    yaml.push_str("endpoints:\n");
    for (index, node) in NODES.iter().enumerate() {
        for (number, PodSpec { name, namespace, kind, workload }) in node.pods.iter().enumerate() {
            for ip in pod_addresses(index, number) {
                let workload_entry =
                    format!("workload: {{kind: {kind}, name: {workload}}}, labels: {{app: {workload}}}");
                let _ = writeln!(yaml, "  - {{ip: \"{ip}\", namespace: {namespace}, pod: {name}, {workload_entry}}}");
            }
        }
    }
    yaml
}

/// The namespaces of the cluster. Dropping it removes them and everything inside.
#[derive(Debug)]
pub struct Topology {
    /// The nodes, in the order of [`NODES`].
    pub nodes: Vec<NodeNet>,
    /// The host that the table does not name.
    pub outsider: Namespace,
    /// The wire.
    pub wire: Namespace,
}

/// The namespaces of one node.
#[derive(Debug)]
pub struct NodeNet {
    /// The node's own namespace.
    pub namespace: Namespace,
    /// The pods' namespaces, in the order of the specification.
    pub pods: Vec<Namespace>,
    /// The index of the uplink.
    pub uplink: u32,
}

/// The name of the wire's port to a node.
pub fn port(node: usize) -> String {
    format!("w{}", node + 1)
}

impl Topology {
    /// Makes namespaces and devices. They are still down, so that a tap misses no packet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> Result<Self, Error> {
        let wire = host("wire")?;
        configure(&wire, "making the bridge", async |links| links.bridge("br0").await)?;
        let outsider = host("outsider")?;
        let fd = outsider.as_raw_fd();
        configure(&wire, "making the outsider's port", async |links| links.veth("w99", UPLINK, fd).await)?;
        let nodes = NODES.iter().enumerate().map(|(index, spec)| NodeNet::new(&wire, index, spec));
        Ok(Self { nodes: nodes.collect::<Result<_, _>>()?, outsider, wire })
    }

    /// Sets everything up, then adds addresses and routes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn start(&mut self) -> Result<(), Error> {
        configure(&self.wire, "setting the wire up", async |links| {
            links.up("w99", Some("br0")).await?;
            for node in 0..NODES.len() {
                links.up(&port(node), Some("br0")).await?;
            }
            Ok(())
        })?;
        configure(&self.outsider, "setting the outsider up", async |links| {
            links.up("lo", None).await?;
            links.up(UPLINK, None).await?;
            for (address, len) in OUTSIDER.into_iter().zip([32, 128]) {
                links.address("lo", address, len).await?;
            }
            for (address, len) in wire_addresses(OUTSIDER_HOST).into_iter().zip([24, 64]) {
                links.address(UPLINK, address, len).await?;
            }
            for node in 0..NODES.len() {
                pod_routes(links, node).await?;
            }
            Ok(())
        })?;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.start(index)?;
        }
        Ok(())
    }
}

impl NodeNet {
    fn new(wire: &Namespace, index: usize, spec: &NodeSpec) -> Result<Self, Error> {
        let namespace = host(spec.name)?;
        for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            sysctl(&namespace, family, "1")?;
        }
        let fd = namespace.as_raw_fd();
        configure(wire, "making a port", async |links| links.veth(&port(index), UPLINK, fd).await)?;
        let pods: Vec<Namespace> = spec.pods.iter().map(|pod| host(pod.name)).collect::<Result<_, _>>()?;
        let uplink = configure(&namespace, "making the pods' devices", async |links| {
            links.bridge("cni0").await?;
            for (number, pod) in pods.iter().enumerate() {
                links.veth(&format!("pod{number}"), "eth0", pod.as_raw_fd()).await?;
            }
            links.without_offloads(UPLINK).await?;
            links.index(UPLINK).await
        })?;
        Ok(Self { namespace, pods, uplink })
    }

    fn start(&self, index: usize) -> Result<(), Error> {
        let gateway = pod_network(index, 1);
        configure(&self.namespace, "setting the node up", async |links| {
            links.up("lo", None).await?;
            links.up(UPLINK, None).await?;
            for number in 0..self.pods.len() {
                links.up(&format!("pod{number}"), Some("cni0")).await?;
            }
            for (address, len) in node_addresses(index).into_iter().zip([24, 64]) {
                links.address(UPLINK, address, len).await?;
            }
            for (address, len) in gateway.into_iter().zip([24, 64]) {
                links.address("cni0", address, len).await?;
            }
            for node in (0..NODES.len()).filter(|node| *node != index) {
                pod_routes(links, node).await?;
            }
            for (address, via) in OUTSIDER.into_iter().zip(wire_addresses(OUTSIDER_HOST)) {
                links.route(address.into(), via).await?;
            }
            Ok(())
        })?;
        for (number, pod) in self.pods.iter().enumerate() {
            configure(pod, "setting the pod up", async |links| {
                links.up("lo", None).await?;
                links.up("eth0", None).await?;
                for (address, len) in pod_addresses(index, number).into_iter().zip([24, 64]) {
                    links.address("eth0", address, len).await?;
                }
                for (default, via) in DEFAULT_ROUTES.into_iter().zip(gateway) {
                    links.route(default.parse().map_err(links::invalid)?, via).await?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

const DEFAULT_ROUTES: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// A namespace whose IPv6 addresses are usable at once, without duplicate address detection.
fn host(name: &str) -> Result<Namespace, Error> {
    let namespace = Namespace::new(name)?;
    for scope in ["all", "default"] {
        sysctl(&namespace, &format!("ipv6/conf/{scope}/accept_dad"), "0")?;
    }
    Ok(namespace)
}

/// Routes to a node's pods.
async fn pod_routes(links: &links::Links, node: usize) -> Result<(), rtnetlink::Error> {
    for ((network, len), via) in pod_network(node, 0).into_iter().zip([24, 64]).zip(node_addresses(node)) {
        let prefix = ipnetwork::IpNetwork::new(network, len).map_err(links::invalid)?;
        links.route(prefix, via).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::{Locality, StaticTable};
    use std::path::Path;

    #[test]
    fn the_table_places_every_pod_and_not_the_outsider() {
        let table = StaticTable::parse(Path::new("demo"), zones_yaml().as_bytes()).unwrap();
        for node in 0..NODES.len() {
            for address in (0..2).flat_map(|pod| pod_addresses(node, pod)).chain(node_addresses(node)) {
                assert_eq!(table.zones.lookup(address).unwrap().1.place, place(node), "{address}");
            }
        }
        for address in OUTSIDER {
            assert_eq!(table.zones.lookup(address).unwrap().1.place, Place::Unknown, "{address}");
        }
        assert_eq!(table.endpoints.len(), 16);
    }

    #[test]
    fn the_nodes_are_same_zone_cross_zone_and_cross_region() {
        let to = |node| Locality::between(&place(0), &place(node));
        assert_eq!([to(1), to(2), to(3)], [Locality::SameZone, Locality::CrossZone, Locality::CrossRegion]);
    }
}
