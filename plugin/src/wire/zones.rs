//! Prefixes and endpoints as messages.

use crate::{identity::Endpoint, proto::v1, zones::Placement};
use ipnetwork::IpNetwork;
use meridian_abi::zone::PrefixKind;
use std::net::IpAddr;

/// A prefix as a message.
pub fn prefix(prefix: &IpNetwork, placement: &Placement) -> v1::Prefix {
    let kind = match placement.kind {
        PrefixKind::Default => "default",
        PrefixKind::Cluster => "cluster",
        PrefixKind::External => "external",
    };
    v1::Prefix {
        cidr: prefix.to_string(),
        zone: placement.place.to_string(),
        region: placement.place.zone().map_or_else(String::new, |zone| zone.region.clone()),
        kind: kind.to_owned(),
        origin: placement.origin.to_string(),
    }
}

/// The endpoint behind an address as a message.
pub fn endpoint_message(address: IpAddr, endpoint: &Endpoint) -> v1::Endpoint {
    let (workload_kind, workload) = endpoint
        .workload
        .as_ref()
        .map_or_else(Default::default, |workload| (workload.kind.clone(), workload.name.clone()));
    v1::Endpoint {
        address: address.to_string(),
        namespace: endpoint.namespace.to_string(),
        pod: endpoint.pod.to_string(),
        workload_kind,
        workload,
        labels: endpoint.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        services: endpoint.services.to_vec(),
        node: endpoint.node.to_string(),
        since: endpoint.since.map(Into::into),
    }
}
