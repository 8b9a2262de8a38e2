//! Calico's objects: BlockAffinity, in both of its groups.

use super::{
    super::facts::{Fact, NodeName, Range},
    read_object::ReadObject,
    reading::Reading,
};
use kube::core::DynamicObject;
use serde_json::Value;

/// BlockAffinity: a block of addresses and its node.
pub(in super::super) fn block_affinity(object: &DynamicObject) -> ReadObject {
    let mut reading = Reading::default();
    let none = |reading: Reading| ReadObject::new(&object.metadata, Fact::Ranges(Vec::new()), reading.problems());
    let at = &object.data;
    // A string in one version, a boolean in the other.
    let is_deleted = matches!(at.pointer("/spec/deleted"), Some(Value::Bool(true)))
        || at.pointer("/spec/deleted").and_then(Value::as_str) == Some("true");
    let is_confirmed = reading.text(at, "/spec/state").is_none_or(|state| state == "confirmed" || state.is_empty());
    let is_virtual = reading.text(at, "/spec/type").is_some_and(|kind| kind == "virtual");
    let (node, cidr) = (reading.text(at, "/spec/node"), reading.text(at, "/spec/cidr"));
    let (Some(node), Some(cidr)) = (node, cidr) else {
        reading.problem("it needs spec.node and spec.cidr");
        return none(reading);
    };
    let prefix = reading.prefix(cidr, "spec.cidr");
    if is_deleted || !is_confirmed || is_virtual {
        return none(reading);
    }
    let node = NodeName::Name(node.into());
    let range = Range { node, prefixes: prefix.into_iter().collect(), addresses: Vec::new(), own: Vec::new() };
    ReadObject::new(&object.metadata, Fact::Ranges(vec![range]), reading.problems())
}
