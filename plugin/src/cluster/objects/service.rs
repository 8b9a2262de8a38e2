//! Service: whether it has a cluster address, and what steers its traffic.

use super::{super::facts::Fact, nullable::or_default, read_object::ReadObject, reading::Reading};
use crate::catalogue::{self, Kind, MAX_ANNOTATION, MAX_NAME, MAX_PORTS, MAX_SELECTOR, ServicePort};
use kube::core::{NotUsed, Object};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// Annotations that ask for topology-aware routing: the deprecated name, which Kubernetes reads first, and that of 1.27.
const TOPOLOGY_MODES: [&str; 2] = ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"];
/// The annotation that asks a mesh for the same.
const MESH_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(in super::super) struct ServiceSpec {
    #[serde(rename = "clusterIP", deserialize_with = "or_default")]
    cluster_ip: String,
    #[serde(deserialize_with = "or_default")]
    r#type: String,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<Port>,
    #[serde(deserialize_with = "or_default")]
    selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    session_affinity: String,
    #[serde(deserialize_with = "or_default")]
    internal_traffic_policy: String,
    #[serde(deserialize_with = "or_default")]
    traffic_distribution: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    #[serde(deserialize_with = "or_default")]
    name: String,
    port: u16,
    #[serde(deserialize_with = "or_default")]
    protocol: String,
}

/// A Service in the API server's form.
pub(in super::super) type ServiceObject = Object<Option<ServiceSpec>, NotUsed>;

pub(in super::super) fn read(object: &ServiceObject) -> ReadObject {
    let mut reading = Reading::default();
    let spec = &object.spec.clone().unwrap_or_default();
    let notes = object.metadata.annotations.as_ref();
    let mut note = |key: &str| {
        let value = notes.and_then(|notes| notes.get(key));
        value.and_then(|value| bounded(&mut reading, value, MAX_ANNOTATION, key))
    };
    let topology_mode = TOPOLOGY_MODES.into_iter().find_map(&mut note);
    let mesh_distribution = note(MESH_DISTRIBUTION);
    let distribution = bounded(&mut reading, &spec.traffic_distribution, MAX_ANNOTATION, "spec.trafficDistribution");
    let service = catalogue::Service {
        kind: Kind::of_name(&spec.r#type),
        is_headless: spec.cluster_ip.is_empty() || spec.cluster_ip == "None",
        ports: ports(&mut reading, &spec.ports),
        distribution: distribution.filter(|value| !value.is_empty()),
        topology_mode,
        mesh_distribution,
        is_node_local: spec.internal_traffic_policy == "Local",
        has_affinity: spec.session_affinity == "ClientIP",
        selector: selector(&mut reading, &spec.selector),
        endpoints: catalogue::Endpoints::default(),
    };
    ReadObject::new(&object.metadata, Fact::Service(Arc::new(service)), reading.problems())
}

fn bounded(reading: &mut Reading, text: &str, most: usize, what: &str) -> Option<String> {
    if text.len() > most {
        reading.problem(format_args!("{what}: more than {most} bytes"));
        return None;
    }
    Some(text.to_owned())
}

fn ports(reading: &mut Reading, ports: &[Port]) -> Vec<ServicePort> {
    if ports.len() > MAX_PORTS {
        reading.problem(format_args!("spec.ports: {} of them are too many (at most {MAX_PORTS})", ports.len()));
    }
    let mut port = |port: &Port| {
        let protocol = match port.protocol.as_str() {
            "UDP" => 17,
            "SCTP" => 132,
            _ => 6,
        };
        Some(ServicePort {
            name: bounded(reading, &port.name, MAX_NAME, "spec.ports[].name")?,
            port: port.port,
            protocol,
        })
    };
    ports.iter().take(MAX_PORTS).filter_map(&mut port).collect()
}

/// The selector: all of it or nothing, because a part selects other pods.
fn selector(reading: &mut Reading, selector: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_short = |(key, value): (&String, &String)| key.len() <= 2 * MAX_NAME && value.len() <= MAX_NAME;
    if selector.len() > MAX_SELECTOR || !selector.iter().all(is_short) {
        reading.problem(format_args!("spec.selector: more than {MAX_SELECTOR} labels, or too long ones"));
        return BTreeMap::new();
    }
    selector.clone()
}
