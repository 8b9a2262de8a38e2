//! Cilium's objects: CiliumNode, CiliumEndpoint, CiliumEndpointSlice.

use super::{
    super::facts::{Fact, NodeName, Range},
    read_object::ReadObject,
    reading::Reading,
};
use kube::core::DynamicObject;
use serde_json::Value;
use std::collections::BTreeSet;

/// CiliumNode: the address ranges of the node's pods, and the node's own addresses.
pub(in super::super) fn node(object: &DynamicObject) -> ReadObject {
    let mut reading = Reading::default();
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
    for path in ["/spec/ipam/pool", "/spec/ipam/ipv6-pool"] {
        // The map's keys are addresses, the values their users.
        if let Some(Value::Object(pool)) = at.pointer(path) {
            for text in pool.keys() {
                addresses.extend(reading.address(text, path));
            }
        }
    }
    if let Some(Value::Object(interfaces)) = at.pointer("/status/eni/enis") {
        for interface in interfaces.values() {
            for path in ["/prefixes", "/ipv6-prefixes"] {
                for text in reading.texts(interface, path) {
                    prefixes.extend(reading.prefix(text, "status.eni.enis[].prefixes"));
                }
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
    let fact = Fact::Ranges(vec![Range {
        node: NodeName::Name(name),
        prefixes: prefixes.into_iter().collect(),
        addresses: addresses.into_iter().collect(),
        own: own.into_iter().collect(),
    }]);
    ReadObject::new(&object.metadata, fact, reading.problems())
}

/// CiliumEndpoint: the addresses of a pod.
pub(in super::super) fn endpoint(object: &DynamicObject) -> ReadObject {
    let mut reading = Reading::default();
    let range = range(&object.data, "/status/networking", &mut reading);
    ReadObject::new(&object.metadata, Fact::Ranges(range.into_iter().collect()), reading.problems())
}

/// CiliumEndpointSlice: the addresses of many pods.
pub(in super::super) fn endpoint_slice(object: &DynamicObject) -> ReadObject {
    let mut reading = Reading::default();
    let endpoints = reading.list(&object.data, "/endpoints").iter();
    let ranges = endpoints.flat_map(|one| range(one, "/networking", &mut reading)).collect();
    ReadObject::new(&object.metadata, Fact::Ranges(ranges), reading.problems())
}

fn range(at: &Value, path: &str, reading: &mut Reading) -> Option<Range> {
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
