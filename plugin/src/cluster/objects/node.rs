//! Node: its zone, the prefixes of its pods, its addresses.

use super::{
    super::{
        claims::truncate,
        facts::{AgentExpectation, Fact, Node, ZoneLabelState},
    },
    nullable::or_default,
    read_object::{LabelKeys, ReadObject, time},
    reading::Reading,
};
use crate::{
    catalogue::Kubernetes,
    zones::{NodeSigns, Provider, Zone},
};
use ipnetwork::IpNetwork;
use kube::core::Object;
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Annotations with addresses that CNIs assign to the node itself: tunnels, and the source of its own packets to pods.
const ADDRESSES: [&str; 14] = [
    "projectcalico.org/IPv4Address",
    "projectcalico.org/IPv6Address",
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "projectcalico.org/IPv6WireguardInterfaceAddr",
    "network.cilium.io/ipv4-cilium-host",
    "network.cilium.io/ipv6-cilium-host",
    // Before Cilium 1.14.
    "io.cilium.network.ipv4-cilium-host",
    "io.cilium.network.ipv6-cilium-host",
    "flannel.alpha.coreos.com/public-ip",
    "flannel.alpha.coreos.com/public-ipv6",
    "ovn.kubernetes.io/ip_address",
];
/// OVN-Kubernetes' addresses of a node's gateway router, from which it reaches pods of other nodes, as JSON by family.
const OVN_ROUTER: [&str; 2] =
    ["k8s.ovn.org/node-gateway-router-lrp-ifaddr", "k8s.ovn.org/node-transit-switch-port-ifaddr"];
/// Prefixes of a node's pods that kube-router uses in place of `spec.podCIDRs`.
const KUBE_ROUTER: [&str; 2] = ["kube-router.io/pod-cidr", "kube-router.io/pod-cidrs"];
/// The beginning of Antrea's annotations.
const ANTREA: &str = "node.antrea.io/";
/// OVN-Kubernetes' subnets of a node, by network, as JSON.
const OVN_SUBNETS: &str = "k8s.ovn.org/node-subnets";
/// The annotation with flannel's backend.
const FLANNEL: &str = "flannel.alpha.coreos.com/backend-type";
/// Labels and their former names, which nodes of old clusters and by hand have.
const FORMER_LABELS: [(&str, &str); 2] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
];
/// KWOK's nodes: nothing runs there.
const KWOK: &str = "kwok.x-k8s.io/node";
/// A node that stands for another system that runs pods.
const VIRTUAL: &str = "virtual-kubelet.io/provider";
/// Characters of a provider ID that are kept.
const PROVIDER_ID: usize = 512;
/// The taint of a node that the cloud provider has not initialized yet.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in super::super) struct NodeSpec {
    #[serde(rename = "podCIDRs", deserialize_with = "or_default")]
    pod_cidrs: Vec<String>,
    #[serde(rename = "podCIDR", deserialize_with = "or_default")]
    pod_cidr: String,
    #[serde(rename = "providerID", deserialize_with = "or_default")]
    provider_id: String,
    #[serde(deserialize_with = "or_default")]
    taints: Vec<Taint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Taint {
    key: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct NodeStatus {
    #[serde(deserialize_with = "or_default")]
    addresses: Vec<NodeAddress>,
    #[serde(rename = "nodeInfo", deserialize_with = "or_default")]
    info: NodeInfo,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeInfo {
    operating_system: String,
    kubelet_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    r#type: String,
    address: String,
}

type Texts = BTreeMap<String, String>;

/// A Node in the API server's form.
pub(in super::super) type NodeObject = Object<Option<NodeSpec>, NodeStatus>;

pub(in super::super) fn read(object: &NodeObject, keys: &LabelKeys) -> ReadObject {
    let mut reading = Reading::default();
    let (meta, spec) = (&object.metadata, &object.spec.clone().unwrap_or_default());
    let none = Texts::new();
    let (labels, notes) = (meta.labels.as_ref().unwrap_or(&none), meta.annotations.as_ref().unwrap_or(&none));
    let status = object.status.clone().unwrap_or_default();
    let of_node = status.addresses.iter().filter(|address| matches!(&*address.r#type, "InternalIP" | "ExternalIP"));
    let addresses = of_node.filter_map(|address| reading.address(&address.address, "status.addresses")).collect();
    let one = Some(&spec.pod_cidr).filter(|one| spec.pod_cidrs.is_empty() && !one.is_empty());
    let prefixes: Vec<IpNetwork> =
        spec.pod_cidrs.iter().chain(one).filter_map(|text| reading.prefix(text, "spec.podCIDRs")).collect();
    let subnets = subnets(notes, &mut reading);
    let cni_addresses = cni_addresses(notes, &prefixes, &subnets, &mut reading);
    let zoneless = zoneless(spec, labels, notes, keys);
    let is_virtual = zoneless == ZoneLabelState::Virtual;
    let kubelet_version = &status.info.kubelet_version;
    let signs = NodeSigns { provider_id: &spec.provider_id, labels, kubelet_version };
    let fact = Fact::Node(Box::new(Node {
        uid: meta.uid.as_deref().unwrap_or_default().into(),
        zone: zone(labels, keys, is_azure(&spec.provider_id)).map(Arc::new),
        zoneless,
        agency: agency((spec, &status.info), labels, notes, keys),
        created: meta.creation_timestamp.as_ref().and_then(time),
        prefixes,
        subnets,
        // A virtual node has the address of the process behind it.
        addresses: if is_virtual { Vec::new() } else { unique(addresses) },
        cni_addresses,
        provider: Provider::of_node(&signs),
        provider_id: spec.provider_id.chars().filter(|c| !c.is_control()).take(PROVIDER_ID).collect::<String>().into(),
        kubernetes: Kubernetes::parse(kubelet_version),
    }));
    ReadObject::new(meta, fact, reading.problems())
}

fn unique(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn is_azure(provider: &str) -> bool {
    provider.trim().split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("azure"))
}

/// The zone in a node's labels. For nodes without a zone Azure uses the region with `-0`, or the number of the fault
/// domain, which is a part of one data centre; names of Azure's zones begin with the region.
fn zone(labels: &Texts, keys: &LabelKeys, is_azure: bool) -> Option<Zone> {
    let (name, region) = (label(labels, &keys.zone), label(labels, &keys.region));
    let is_number = || name.parse::<i32>().is_ok();
    let is_none = matches!(name, "" | "unknown" | "internet")
        || (is_azure && (is_number() || name.strip_prefix(region) == Some("-0")));
    (!is_none).then(|| Zone { name: name.to_owned(), region: region.to_owned() })
}

/// The value of a label, or else of the one that had its meaning before Kubernetes 1.17; empty if there is none.
fn label<'l>(labels: &'l Texts, key: &str) -> &'l str {
    let value = |key: &str| labels.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
    let former = || FORMER_LABELS.into_iter().find(|(now, _)| *now == key).and_then(|(_, former)| value(former));
    value(key).or_else(former).unwrap_or_default()
}

/// The agent of a node. It runs on Linux only, and only where a kubelet runs containers.
fn agency((spec, info): (&NodeSpec, &NodeInfo), labels: &Texts, notes: &Texts, keys: &LabelKeys) -> AgentExpectation {
    let agentless = &keys.agentless;
    let system = labels.get("kubernetes.io/os").filter(|system| !system.is_empty()).unwrap_or(&info.operating_system);
    if notes.contains_key(KWOK) || labels.get("type").is_some_and(|kind| kind == "kwok") {
        AgentExpectation::Simulated
    } else if !matches!(system.as_str(), "" | "linux")
        || spec.taints.iter().any(|taint| taint.key == VIRTUAL)
        || agentless.labels.iter().any(|label| label.is_in(labels))
        || !agentless.selector.iter().all(|label| label.is_in(labels))
    {
        AgentExpectation::None
    } else {
        AgentExpectation::Agent
    }
}

/// The state of a node without a zone.
fn zoneless(spec: &NodeSpec, labels: &Texts, notes: &Texts, keys: &LabelKeys) -> ZoneLabelState {
    let is_tainted = |key: &str| spec.taints.iter().any(|taint| taint.key == key);
    let kind = labels.get("type").map_or("", String::as_str);
    if matches!(kind, "virtual-kubelet" | "kwok") || notes.contains_key(KWOK) || is_tainted(VIRTUAL) {
        ZoneLabelState::Virtual
    } else if is_tainted(UNINITIALIZED) {
        ZoneLabelState::Uninitialized
    } else if label(labels, &keys.zone).is_empty() {
        ZoneLabelState::Unlabelled
    } else {
        ZoneLabelState::Labelled
    }
}

/// The prefixes of a node's pods in annotations.
fn subnets(notes: &Texts, reading: &mut Reading) -> Vec<IpNetwork> {
    let mut subnets = ovn_subnets(notes, reading);
    for key in KUBE_ROUTER {
        let texts = notes.get(key).into_iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty());
        subnets.extend(texts.filter_map(|text| reading.prefix(text.trim(), key)));
    }
    subnets.sort_unstable();
    subnets.dedup();
    subnets
}

/// OVN-Kubernetes' subnets of the cluster's default network, as a string or a list. Networks of users can overlap.
fn ovn_subnets(notes: &Texts, reading: &mut Reading) -> Vec<IpNetwork> {
    let Some(text) = notes.get(OVN_SUBNETS) else { return Vec::new() };
    let Ok(networks) = serde_json::from_str::<Value>(text) else {
        reading.problem(format_args!("{OVN_SUBNETS}: not JSON"));
        return Vec::new();
    };
    let texts = match networks.get("default") {
        Some(Value::String(one)) => vec![&**one],
        Some(_) => reading.texts(&networks, "/default"),
        None => Vec::new(),
    };
    texts.into_iter().filter_map(|text| reading.prefix(text, OVN_SUBNETS)).collect()
}

fn cni_addresses(notes: &Texts, prefixes: &[IpNetwork], subnets: &[IpNetwork], reading: &mut Reading) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for key in ADDRESSES {
        for text in notes.get(key).into_iter().flat_map(|text| text.split(',')) {
            // Some addresses have the prefix length of their network.
            let text = text.split_once('/').map_or(text, |(address, _)| address);
            addresses.extend(reading.address(text, key));
        }
    }
    for key in OVN_ROUTER {
        addresses.extend(by_family(notes, key, reading));
    }
    // OVN-Kubernetes' management port has the second address of each subnet.
    if notes.contains_key(OVN_SUBNETS) {
        addresses.extend(subnets.iter().filter_map(|subnet| nth(subnet, 2)));
    }
    // Antrea's gateway has the first address of each prefix.
    if notes.keys().any(|key| key.starts_with(ANTREA)) {
        addresses.extend(prefixes.iter().filter_map(|prefix| nth(prefix, 1)));
    }
    // Flannel's device has the network's own address. Backends that only route have no device.
    if notes.get(FLANNEL).is_some_and(|backend| !matches!(backend.as_str(), "host-gw" | "alloc")) {
        addresses.extend(prefixes.iter().filter_map(|prefix| nth(prefix, 0)));
    }
    unique(addresses)
}

/// The addresses in `{"ipv4":"10.0.0.2/16","ipv6":"fd00::2/64"}`.
fn by_family(notes: &Texts, key: &str, reading: &mut Reading) -> Vec<IpAddr> {
    let Some(text) = notes.get(key) else { return Vec::new() };
    let Ok(Value::Object(families)) = serde_json::from_str(text) else {
        reading.problem(format_args!("{key}: not a JSON object"));
        return Vec::new();
    };
    let texts = ["ipv4", "ipv6"].into_iter().filter_map(|family| families.get(family).and_then(Value::as_str));
    let addresses = texts.map(|text| text.split_once('/').map_or(text, |(address, _)| address));
    addresses.filter_map(|address| reading.address(address, key)).collect()
}

/// The address with this number in a prefix.
fn nth(prefix: &IpNetwork, number: u8) -> Option<IpAddr> {
    let address = match prefix.network() {
        IpAddr::V4(first) => IpAddr::from(u32::from(first).checked_add(number.into())?.to_be_bytes()),
        IpAddr::V6(first) => IpAddr::from(u128::from(first).checked_add(number.into())?.to_be_bytes()),
    };
    let is_within = truncate(address, prefix.prefix()) == Some(*prefix);
    is_within.then_some(address)
}
