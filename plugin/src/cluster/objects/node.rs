//! Node: its zone, the prefixes of its pods, its addresses.

use super::{
    super::facts::{Fact, Node},
    reading::Reading,
    seen::{LabelKeys, Seen},
};
use crate::zones::Zone;
use kube::core::Object;
use serde::Deserialize;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in super::super) struct NodeSpec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct NodeStatus {
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    r#type: String,
    address: String,
}

pub(in super::super) fn read(object: &Object<NodeSpec, NodeStatus>, labels: &LabelKeys) -> Seen {
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
