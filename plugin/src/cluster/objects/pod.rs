//! Pod: its addresses and node, its owner, its labels.

use super::{
    super::facts::{Fact, Pod},
    owner::owner,
    reading::Reading,
    seen::{LabelKeys, Seen},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::Object;
use serde::Deserialize;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in super::super) struct PodSpec {
    node_name: String,
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in super::super) struct PodStatus {
    phase: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    start_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

pub(in super::super) fn read(object: &Object<PodSpec, PodStatus>, labels: &LabelKeys) -> Seen {
    let mut reading = Reading::default();
    let meta = &object.metadata;
    let status = object.status.clone().unwrap_or_default();
    let has_ended = matches!(&*status.phase, "Succeeded" | "Failed");
    let addresses = if object.spec.host_network || has_ended { &[][..] } else { &status.pod_ips[..] };
    let time = |time: &Time| {
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
