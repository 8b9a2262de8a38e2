//! An end of a flow as Hubble's endpoint message: labels, identity, workloads.

use super::node::Node;
use crate::{
    fnv::fnv1a,
    identity::Endpoint,
    proto::flow,
    zones::{Locality, Place},
};

/// The identity of addresses that belong to no pod and no node of the cluster.
const IDENTITY_WORLD: u32 = 2;
/// The identities of the observing node and of other nodes.
const IDENTITY_HOST: u32 = 1;
const IDENTITY_REMOTE_NODE: u32 = 6;
/// The first identity of ours: above the ranges that Cilium uses for the cluster, for prefixes and for nodes.
const IDENTITY_BASE: u32 = 3 << 24;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// The label's source is `k8s`, because hubble-ui can filter only by labels of that source.
const LOCALITY_LABEL: &str = "k8s:meridian.io/locality";

/// The service of an endpoint, if it has exactly one: with several, the one that was used is unknown.
pub(super) fn service(endpoint: &Endpoint) -> Option<flow::Service> {
    let [name] = &*endpoint.services else { return None };
    Some(flow::Service { name: name.clone(), namespace: endpoint.namespace.to_string() })
}

/// An end of a flow as this node describes it. An end without an endpoint belongs to `reserved:world`.
pub(super) fn flow_endpoint(
    node: &Node,
    endpoint: Option<&Endpoint>,
    place: &Place,
    locality: Locality,
) -> flow::Endpoint {
    let mut labels: Vec<String> = topology(place).map(|(key, value)| format!("k8s:{key}={value}")).collect();
    labels.push(format!("{LOCALITY_LABEL}={locality}"));
    let mut end = match endpoint {
        Some(endpoint) if endpoint.is_node() => {
            let is_this = *endpoint.node == *node.name;
            labels.push(format!("reserved:{}", if is_this { "host" } else { "remote-node" }));
            let identity = if is_this { IDENTITY_HOST } else { IDENTITY_REMOTE_NODE };
            let (workloads, cluster_name) = (workloads(endpoint), node.cluster.clone());
            flow::Endpoint { identity, workloads, cluster_name, ..flow::Endpoint::default() }
        }
        Some(endpoint) => {
            labels.push(format!("k8s:io.kubernetes.pod.namespace={}", endpoint.namespace));
            labels.extend(endpoint.labels.iter().map(|(key, value)| format!("k8s:{key}={value}")));
            owned(endpoint, &node.cluster)
        }
        // Cilium uses this label for every address without a pod or node, and hubble-ui has no other word for it.
        None => {
            labels.push("reserved:world".into());
            flow::Endpoint { identity: IDENTITY_WORLD, ..flow::Endpoint::default() }
        }
    };
    labels.sort_unstable();
    end.labels = labels;
    end
}

fn owned(endpoint: &Endpoint, cluster: &str) -> flow::Endpoint {
    flow::Endpoint {
        identity: synthetic_identity(endpoint),
        namespace: endpoint.namespace.to_string(),
        pod_name: endpoint.pod.to_string(),
        workloads: workloads(endpoint),
        cluster_name: cluster.to_owned(),
        ..flow::Endpoint::default()
    }
}

fn workloads(endpoint: &Endpoint) -> Vec<flow::Workload> {
    let workload = endpoint.workload.as_ref();
    let workload = workload.map(|workload| flow::Workload { name: workload.name.clone(), kind: workload.kind.clone() });
    workload.into_iter().collect()
}

/// A number for the workload that is the same on every node and after every restart. hubble-ui draws one card for
/// each identity, so workloads of one name in two namespaces would be merged without it.
fn synthetic_identity(endpoint: &Endpoint) -> u32 {
    let (namespace, kind, name) = endpoint.workload_id();
    // The hash covers the parts, each ended by a byte that no part contains.
    let hash = fnv1a([namespace, kind, name].into_iter().flat_map(|part| part.bytes().chain([0xff])));
    IDENTITY_BASE | (hash >> 24 ^ hash & 0x00ff_ffff)
}

/// The Kubernetes topology labels of a place.
pub(super) fn topology(place: &Place) -> impl Iterator<Item = (&'static str, &str)> {
    let zone = place.zone();
    // In the alphabetical order of the labels' names.
    zone.map(|zone| (REGION_LABEL, zone.region.as_str()))
        .into_iter()
        .chain(zone.map(|zone| (ZONE_LABEL, zone.name.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn identities_are_stable_and_outside_ciliums_ranges() {
        let identity = |namespace: &str, name: &str| {
            let workload = crate::identity::Workload { kind: "Deployment".into(), name: name.into() };
            synthetic_identity(&Endpoint {
                namespace: namespace.into(),
                pod: "p".into(),
                workload: Some(Arc::new(workload)),
                ..Endpoint::default()
            })
        };
        assert_eq!(identity("shop", "cart"), identity("shop", "cart"));
        assert_ne!(identity("shop", "cart"), identity("staging", "cart"));
        assert_ne!(identity("a", "bc"), identity("ab", "c"));
        for n in 0..1000 {
            assert!((IDENTITY_BASE..IDENTITY_BASE + (1 << 24)).contains(&identity("n", &n.to_string())));
        }
    }
}
