//! R2: why a preference is not honoured. The first cause that holds is the one to fix first.

use super::preference::{TOPOLOGY_HINTS, TOPOLOGY_MODE, service_patch};
use crate::{
    advice::{finding::Confidence, patch::Patch},
    catalogue::{Catalogue, CiliumVersion, DataPlane, Service, ServiceTopology},
};
use serde_json::json;

/// Ports through which meshes send between their proxies.
pub(super) const MESH_PORTS: [u16; 3] = [15_008, 15_443, 4143];

/// A cause with its remedy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) reason: String,
    pub(super) action: &'static str,
    pub(super) risk: Option<&'static str>,
    pub(super) patch: Option<Patch>,
    pub(super) confidence: Confidence,
}

impl Cause {
    fn sure(reason: impl Into<String>, action: &'static str) -> Self {
        Self { reason: reason.into(), action, risk: None, patch: None, confidence: Confidence::High }
    }
}

/// A service whose preference is not honoured.
pub(super) struct IgnoredPreference<'a> {
    pub(super) name: &'a str,
    pub(super) service: &'a Service,
    pub(super) catalogue: &'a Catalogue,
    /// The zones whose clients cross though they have a ready endpoint.
    pub(super) zones: &'a [&'a str],
    pub(super) ports: &'a [u16],
    /// Whether some clients are nodes or load balancers.
    pub(super) has_outside_clients: bool,
}

/// The cause.
pub(super) fn cause(of: &IgnoredPreference<'_>) -> Cause {
    let IgnoredPreference { service, .. } = of;
    if service.is_headless {
        return Cause::sure(
            "the service is headless: clients choose among the pods' addresses themselves",
            "Give the service an address of its own, or choose by zone in the client",
        );
    }
    annotation(of)
        .or_else(|| cilium(of))
        .or_else(|| mesh(of))
        .or_else(|| hints(of))
        .or_else(|| clients(of))
        .unwrap_or_else(|| Cause {
            reason: "every ready endpoint has a hint and the data plane follows hints: the connections are older than \
                     the change, or clients choose among the pods' addresses themselves"
                .to_owned(),
            action: "Restart the clients, or let them make their connections anew now and then",
            risk: None,
            patch: None,
            confidence: Confidence::Medium,
        })
}

/// The annotation has precedence over the field.
fn annotation(of: &IgnoredPreference<'_>) -> Option<Cause> {
    let IgnoredPreference { name, service, .. } = of;
    service.topology_annotation()?;
    let reason = if service.distribution.is_some() {
        format!("the annotation {TOPOLOGY_MODE} is set, too, and has precedence over trafficDistribution")
    } else if service.endpoints.unhinted > 0 {
        format!("{TOPOLOGY_MODE} gives no hints where its even split would overload a zone by more than 20 %")
    } else {
        return None;
    };
    let spec = service.distribution.is_none().then(|| json!({"trafficDistribution": "PreferClose"}));
    let mut body = json!({"metadata": {"annotations": {TOPOLOGY_HINTS: null, TOPOLOGY_MODE: null}}});
    if let Some(spec) = spec {
        body["spec"] = spec;
    }
    Some(Cause {
        risk: Some("without the annotation no limit of 20 % keeps a zone from being overloaded"),
        patch: service_patch(name, body),
        ..Cause::sure(reason, "Remove the annotation, and prefer the zone by trafficDistribution")
    })
}

fn cilium(of: &IgnoredPreference<'_>) -> Option<Cause> {
    let DataPlane::Cilium { version, topology } = of.catalogue.data_plane else { return None };
    let values = "loadBalancer:\n  serviceTopology: true";
    if topology == ServiceTopology::Off {
        return Some(Cause {
            risk: Some("all services with a preference follow it from then on; Cilium's agents restart"),
            patch: Some(Patch::configuration("Cilium (values of its chart)", values)),
            ..Cause::sure(
                "Cilium replaces kube-proxy, and its service topology is off",
                "Switch Cilium's service topology on",
            )
        });
    }
    let is_new_value = matches!(of.service.distribution.as_deref(), Some("PreferSameZone" | "PreferSameNode"));
    if is_new_value && version.is_some_and(|version| version < CiliumVersion::SAME_ZONE) {
        let (known, value) = (CiliumVersion::SAME_ZONE, of.service.distribution.as_deref().unwrap_or_default());
        return Some(Cause {
            patch: service_patch(of.name, json!({"spec": {"trafficDistribution": "PreferClose"}})),
            ..Cause::sure(
                format!("{} does not know the value {value}: {known} is the first that does", of.catalogue.data_plane),
                "Set the value that this version knows, which means the same",
            )
        });
    }
    (topology == ServiceTopology::Unknown).then(|| Cause {
        confidence: Confidence::Medium,
        patch: Some(Patch::configuration("Cilium (values of its chart)", values)),
        ..Cause::sure(
            "Cilium replaces kube-proxy; whether its service topology is on can't be read, and by default it is off",
            "Look whether Cilium's service topology is on",
        )
    })
}

fn mesh(of: &IgnoredPreference<'_>) -> Option<Cause> {
    let is_meshed = of.service.mesh_distribution.is_some() || of.ports.iter().any(|port| MESH_PORTS.contains(port));
    is_meshed.then(|| Cause {
        patch: Some(Patch::configuration(
            "the mesh",
            "Istio with sidecars: a DestinationRule with outlierDetection, without which locality is ignored",
        )),
        confidence: Confidence::Medium,
        ..Cause::sure("a mesh's proxies choose the endpoints", "Let the mesh prefer the zone")
    })
}

/// kube-proxy follows hints only if every ready endpoint has one, and one is for the zone.
fn hints(of: &IgnoredPreference<'_>) -> Option<Cause> {
    let endpoints = &of.service.endpoints;
    if endpoints.unhinted > 0 {
        let nowhere = endpoints.in_zone("");
        let (count, unhinted) = (endpoints.count(), endpoints.unhinted);
        let why = if nowhere > 0 { format!(": {nowhere} have no zone") } else { String::new() };
        return Some(Cause::sure(
            format!("{unhinted} of {count} ready endpoints have no hint{why}; then all hints are ignored"),
            "Let every endpoint have a zone: label the nodes, and let the control plane write the EndpointSlices",
        ));
    }
    let without: Vec<&str> = of.zones.iter().copied().filter(|zone| !endpoints.hinted.contains_key(*zone)).collect();
    (!without.is_empty()).then(|| {
        Cause::sure(
            format!("no endpoint is hinted for {}, so clients there use all", without.join(", ")),
            "Look at the EndpointSlices: something else writes hints, or the endpoints' zones are not the nodes'",
        )
    })
}

fn clients(of: &IgnoredPreference<'_>) -> Option<Cause> {
    if of.service.has_affinity {
        return Some(Cause {
            risk: Some("clients that depend on their session's endpoint lose it"),
            patch: service_patch(of.name, json!({"spec": {"sessionAffinity": "None"}})),
            confidence: Confidence::Medium,
            ..Cause::sure(
                "session affinity keeps clients at the endpoint that they had before",
                "Do without session affinity, if clients do not need it",
            )
        });
    }
    (of.service.kind.has_node_ports() && of.has_outside_clients).then(|| Cause {
        risk: Some("with externalTrafficPolicy Local only nodes with an endpoint take traffic"),
        patch: service_patch(of.name, json!({"spec": {"externalTrafficPolicy": "Local"}})),
        confidence: Confidence::Medium,
        ..Cause::sure(
            "traffic comes through the nodes' ports: the node that it arrives at may be in another zone",
            "Let the load balancer send to nodes that have an endpoint",
        )
    })
}
