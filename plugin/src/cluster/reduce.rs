//! From an object as the API server sends it to what is needed of it. What can't be understood is said
//! and left out; the rest counts.

use super::facts::{Fact, Key, Kind, Node, NodeName, Owner, Pod, Range, Service, Slice};
use crate::zones::Zone;
use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::{DynamicObject, NotUsed, Object, PartialObjectMeta};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// What is read of labels.
#[derive(Clone, Debug)]
pub struct LabelKeys {
    /// The node label with the zone's name.
    pub zone: String,
    /// The node label with the region's name.
    pub region: String,
    /// Labels of pods that are told with their flows; one that ends in `*` stands for all that begin so.
    pub pod: Vec<String>,
}

impl Default for LabelKeys {
    fn default() -> Self {
        Self {
            zone: "topology.kubernetes.io/zone".into(),
            region: "topology.kubernetes.io/region".into(),
            pod: ["app", "k8s-app", "name", "app.kubernetes.io/*"].map(str::to_owned).into(),
        }
    }
}

/// An object as the API server sends it, reduced to what is needed.
///
/// # Errors
/// It is no object of this kind.
pub fn read(kind: Kind, json: &[u8], labels: &LabelKeys) -> serde_json::Result<Seen> {
    Ok(match kind {
        Kind::Node => node(&serde_json::from_slice(json)?, labels),
        Kind::Pod => pod(&serde_json::from_slice(json)?, labels),
        Kind::Service => service(&serde_json::from_slice(json)?),
        Kind::ReplicaSet | Kind::Job => owned(&serde_json::from_slice(json)?),
        _ => custom(kind, &serde_json::from_slice(json)?),
    })
}

/// An object that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub(super) key: Key,
    pub(super) resource_version: String,
    pub(super) fact: Fact,
    /// What could not be understood.
    pub(super) problems: Vec<String>,
}

impl Seen {
    /// The object's name.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    fn new(meta: &ObjectMeta, fact: Fact, problems: Vec<String>) -> Self {
        Self { key: key(meta), resource_version: meta.resource_version.clone().unwrap_or_default(), fact, problems }
    }
}

fn key(meta: &ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    Key { namespace: text(&meta.namespace), name: text(&meta.name) }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NodeSpec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatus {
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    r#type: String,
    address: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    node_name: String,
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    phase: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    start_time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
}

/// Collects what could not be understood.
#[derive(Default)]
struct Reading(Vec<String>);

impl Reading {
    fn prefix(&mut self, text: &str, what: &str) -> Option<IpNetwork> {
        let parsed: Option<IpNetwork> = text.parse().ok();
        let network = parsed.and_then(|prefix| super::claims::truncate(prefix.ip(), prefix.prefix()));
        if network.is_none() {
            self.0.push(format!("{what}: `{text}` is no prefix"));
        }
        network
    }

    fn address(&mut self, text: &str, what: &str) -> Option<IpAddr> {
        let parsed: Option<IpAddr> = text.parse().ok();
        if parsed.is_none() {
            self.0.push(format!("{what}: `{text}` is no address"));
        }
        parsed
    }

    /// A text at a place of a custom resource; anything else there is a problem.
    fn text<'a>(&mut self, at: &'a Value, path: &str) -> Option<&'a str> {
        match at.pointer(path) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.0.push(format!("{path}: it is no text"));
                None
            }
        }
    }

    /// A list at a place of a custom resource.
    fn list<'a>(&mut self, at: &'a Value, path: &str) -> &'a [Value] {
        match at.pointer(path) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.0.push(format!("{path}: it is no list"));
                &[]
            }
        }
    }

    fn texts<'a>(&mut self, at: &'a Value, path: &str) -> Vec<&'a str> {
        let list = self.list(at, path);
        let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        if texts.len() < list.len() {
            self.0.push(format!("{path}: not all of it is text"));
        }
        texts
    }
}

pub(super) fn node(object: &Object<NodeSpec, NodeStatus>, labels: &LabelKeys) -> Seen {
    let mut reading = Reading::default();
    let meta = &object.metadata;
    let status = object.status.clone().unwrap_or_default();
    let of_node = status.addresses.iter().filter(|address| matches!(&*address.r#type, "InternalIP" | "ExternalIP"));
    let mut addresses: Vec<IpAddr> =
        of_node.filter_map(|address| reading.address(&address.address, "status.addresses")).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let fact = Fact::Node(Box::new(Node {
        uid: meta.uid.as_deref().unwrap_or_default().into(),
        zone: zone(meta.labels.as_ref(), labels).map(Arc::new),
        prefixes: object.spec.pod_cidrs.iter().filter_map(|text| reading.prefix(text, "spec.podCIDRs")).collect(),
        addresses,
    }));
    Seen::new(meta, fact, reading.0)
}

/// The zone that a node's labels name. Azure gives nodes that are in no zone the zone `0`, or the region with `-0`.
fn zone(labels: Option<&BTreeMap<String, String>>, keys: &LabelKeys) -> Option<Zone> {
    let value = |key: &str| labels.and_then(|labels| labels.get(key)).map_or("", String::as_str);
    let (name, region) = (value(&keys.zone), value(&keys.region));
    let is_none = matches!(name, "" | "0" | "unknown" | "internet") || name.strip_prefix(region) == Some("-0");
    (!is_none).then(|| Zone { name: name.to_owned(), region: region.to_owned() })
}

pub(super) fn pod(object: &Object<PodSpec, PodStatus>, labels: &LabelKeys) -> Seen {
    let mut reading = Reading::default();
    let meta = &object.metadata;
    let status = object.status.clone().unwrap_or_default();
    let has_ended = matches!(&*status.phase, "Succeeded" | "Failed");
    let addresses = if object.spec.host_network || has_ended { &[][..] } else { &status.pod_ips[..] };
    let time = |time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time| {
        let seconds = u64::try_from(time.0.as_second()).ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    };
    let chosen = |key: &str| {
        labels.pod.iter().any(|wanted| wanted.strip_suffix('*').map_or(wanted == key, |start| key.starts_with(start)))
    };
    let own = meta.labels.iter().flatten().filter(|(key, _)| chosen(key));
    let fact = Fact::Pod(Arc::new(Pod {
        node: object.spec.node_name.as_str().into(),
        addresses: addresses.iter().filter_map(|ip| reading.address(&ip.ip, "status.podIPs")).collect(),
        is_ending: meta.deletion_timestamp.is_some(),
        created: meta.creation_timestamp.as_ref().and_then(time),
        started: status.start_time.as_ref().and_then(time),
        owner: owner(meta.owner_references.as_deref()),
        labels: Arc::new(own.map(|(key, value)| (key.clone(), value.clone())).collect()),
    }));
    Seen::new(meta, fact, reading.0)
}

fn owner(references: Option<&[OwnerReference]>) -> Option<Arc<Owner>> {
    let controller = references?.iter().find(|reference| reference.controller == Some(true))?;
    let OwnerReference { kind, name, uid, .. } = controller;
    Some(Arc::new(Owner { kind: kind.clone(), name: name.clone(), uid: uid.as_str().into() }))
}

/// A ReplicaSet or a Job.
pub(super) fn owned(object: &PartialObjectMeta<DynamicObject>) -> Seen {
    let meta = &object.metadata;
    let uid = meta.uid.as_deref().unwrap_or_default().into();
    Seen::new(meta, Fact::Owner { uid, owner: owner(meta.owner_references.as_deref()) }, Vec::new())
}

pub(super) fn service(object: &Object<ServiceSpec, NotUsed>) -> Seen {
    let is_headless = object.spec.cluster_ip.is_empty() || object.spec.cluster_ip == "None";
    Seen::new(&object.metadata, Fact::Service(Service { is_headless }), Vec::new())
}

/// A custom resource, or a kind of which little is read.
pub(super) fn custom(kind: Kind, object: &DynamicObject) -> Seen {
    let mut reading = Reading::default();
    let fact = match kind {
        Kind::EndpointSlice => slice(object, &mut reading),
        Kind::CiliumNode => cilium_node(object, &mut reading),
        Kind::CiliumEndpoint => {
            Fact::Ranges(cilium_endpoint(&object.data, "/status/networking", &mut reading).into_iter().collect())
        }
        Kind::CiliumEndpointSlice => {
            let endpoints = reading.list(&object.data, "/endpoints").iter();
            Fact::Ranges(endpoints.flat_map(|one| cilium_endpoint(one, "/networking", &mut reading)).collect())
        }
        _ => block(object, &mut reading),
    };
    Seen::new(&object.metadata, fact, reading.0)
}

fn slice(object: &DynamicObject, reading: &mut Reading) -> Fact {
    let service = object.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
    let mut addresses = BTreeSet::new();
    // Names are not resolved.
    if reading.text(&object.data, "/addressType") != Some("FQDN") {
        for endpoint in reading.list(&object.data, "/endpoints") {
            for text in reading.texts(endpoint, "/addresses") {
                addresses.extend(reading.address(text, "endpoints[].addresses"));
            }
        }
    }
    let service = service.map_or("", String::as_str).into();
    Fact::Slice(Slice { service, addresses: addresses.into_iter().collect() })
}

fn cilium_node(object: &DynamicObject, reading: &mut Reading) -> Fact {
    let at = &object.data;
    let mut prefixes = BTreeSet::new();
    for text in reading.texts(at, "/spec/ipam/podCIDRs") {
        prefixes.extend(reading.prefix(text, "spec.ipam.podCIDRs"));
    }
    for pool in reading.list(at, "/spec/ipam/pools/allocated") {
        for text in reading.texts(pool, "/cidrs") {
            prefixes.extend(reading.prefix(text, "spec.ipam.pools.allocated[].cidrs"));
        }
    }
    let mut addresses = BTreeSet::new();
    // An address and who uses it.
    if let Some(Value::Object(pool)) = at.pointer("/spec/ipam/pool") {
        for text in pool.keys() {
            addresses.extend(reading.address(text, "spec.ipam.pool"));
        }
    }
    if let Some(Value::Object(interfaces)) = at.pointer("/status/eni/enis") {
        for interface in interfaces.values() {
            for text in reading.texts(interface, "/prefixes") {
                prefixes.extend(reading.prefix(text, "status.eni.enis[].prefixes"));
            }
            for text in reading.texts(interface, "/addresses") {
                addresses.extend(reading.address(text, "status.eni.enis[].addresses"));
            }
        }
    }
    let mut own = BTreeSet::new();
    for entry in reading.list(at, "/spec/addresses") {
        if let Some(text) = reading.text(entry, "/ip") {
            own.extend(reading.address(text, "spec.addresses[].ip"));
        }
    }
    let name = object.metadata.name.as_deref().unwrap_or_default().into();
    Fact::Ranges(vec![Range {
        node: NodeName::Name(name),
        prefixes: prefixes.into_iter().collect(),
        addresses: addresses.into_iter().collect(),
        own: own.into_iter().collect(),
    }])
}

fn cilium_endpoint(at: &Value, path: &str, reading: &mut Reading) -> Option<Range> {
    let networking = at.pointer(path)?;
    let node = reading.text(networking, "/node")?;
    let node = NodeName::Address(reading.address(node, "networking.node")?);
    let mut addresses = Vec::new();
    for pair in reading.list(networking, "/addressing") {
        for family in ["/ipv4", "/ipv6"] {
            if let Some(text) = reading.text(pair, family).filter(|text| !text.is_empty()) {
                addresses.extend(reading.address(text, "networking.addressing[]"));
            }
        }
    }
    Some(Range { node, prefixes: Vec::new(), addresses, own: Vec::new() })
}

fn block(object: &DynamicObject, reading: &mut Reading) -> Fact {
    let at = &object.data;
    // A text in one version, a truth value in the other.
    let is_deleted = matches!(at.pointer("/spec/deleted"), Some(Value::Bool(true)))
        || at.pointer("/spec/deleted").and_then(Value::as_str) == Some("true");
    let is_confirmed = reading.text(at, "/spec/state").is_none_or(|state| state == "confirmed" || state.is_empty());
    let is_virtual = reading.text(at, "/spec/type").is_some_and(|kind| kind == "virtual");
    let (node, cidr) = (reading.text(at, "/spec/node"), reading.text(at, "/spec/cidr"));
    let (Some(node), Some(cidr)) = (node, cidr) else {
        reading.0.push("it needs spec.node and spec.cidr".into());
        return Fact::Ranges(Vec::new());
    };
    let prefix = reading.prefix(cidr, "spec.cidr");
    if is_deleted || !is_confirmed || is_virtual {
        return Fact::Ranges(Vec::new());
    }
    let node = NodeName::Name(node.into());
    Fact::Ranges(vec![Range { node, prefixes: prefix.into_iter().collect(), addresses: Vec::new(), own: Vec::new() }])
}
