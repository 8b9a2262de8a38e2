//! Pod: its addresses and node, its owner, its labels.

use super::{
    super::facts::{Fact, Pod},
    nullable::or_default,
    owner::owner,
    read_object::{LabelKeys, ReadObject, time},
    reading::Reading,
};
use crate::identity::{LABEL_BYTES, LABELS, NAMESPACE_LABEL, bounded_labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::Object;
use serde::Deserialize;
use std::{net::IpAddr, sync::Arc};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in super::super) struct PodSpec {
    #[serde(deserialize_with = "or_default")]
    node_name: String,
    #[serde(deserialize_with = "or_default")]
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in super::super) struct PodStatus {
    #[serde(deserialize_with = "or_default")]
    phase: String,
    #[serde(rename = "podIP", deserialize_with = "or_default")]
    pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pod_ips: Vec<PodIp>,
    start_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    #[serde(deserialize_with = "or_default")]
    ip: String,
}

/// A Pod in the API server's form.
pub(in super::super) type PodObject = Object<Option<PodSpec>, PodStatus>;

pub(in super::super) fn read(object: &PodObject, labels: &LabelKeys) -> ReadObject {
    let mut reading = Reading::default();
    let (meta, spec) = (&object.metadata, object.spec.clone().unwrap_or_default());
    let status = object.status.clone().unwrap_or_default();
    let has_ended = matches!(&*status.phase, "Succeeded" | "Failed");
    let texts = status.pod_ips.iter().map(|ip| &*ip.ip).chain([&*status.pod_ip]);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in texts.filter_map(|text| reading.address(text, "status.podIPs")) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if spec.host_network || has_ended {
        addresses.clear();
    }
    // The owner reference of a static pod is its node; we count it as its own workload.
    let owner = owner(meta.owner_references.as_deref(), &mut reading).filter(|owner| owner.kind != "Node");
    let chosen = |key: &str| {
        // A pod can't take the place of its namespace.
        !key.starts_with(NAMESPACE_LABEL)
            && labels
                .pod
                .iter()
                .any(|wanted| wanted.strip_suffix('*').map_or(wanted == key, |start| key.starts_with(start)))
    };
    let (own, cut) = bounded_labels(meta.labels.iter().flatten().filter(|(key, _)| chosen(key)));
    if cut > 0 {
        reading.problem(format_args!(
            "metadata.labels: {cut} of them are too many (at most {LABELS}, {LABEL_BYTES} bytes)"
        ));
    }
    let fact = Fact::Pod(Arc::new(Pod {
        node: spec.node_name.into(),
        addresses: addresses.into(),
        is_ending: meta.deletion_timestamp.is_some(),
        created: meta.creation_timestamp.as_ref().and_then(time),
        started: status.start_time.as_ref().and_then(time),
        owner,
        labels: Arc::new(own),
    }));
    ReadObject::new(meta, fact, reading.problems())
}
