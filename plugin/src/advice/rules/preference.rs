//! How a zone is preferred, and patches of services.

use crate::{
    advice::patch::{Merge, Patch},
    catalogue::{Catalogue, CiliumVersion, DataPlane, Kubernetes, ServiceTopology},
};
use serde_json::{Value, json};

/// The annotation of topology-aware routing.
pub(super) const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
/// Its deprecated name, which Kubernetes reads first.
pub(super) const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// How a zone is preferred in this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preference {
    /// By an annotation, because the field is not on by default.
    Annotation,
    /// By the value that old versions support.
    Close,
    /// By the field that sets it.
    SameZone,
}

impl Preference {
    pub(super) fn of(catalogue: &Catalogue) -> Self {
        let knows_same_zone = match catalogue.data_plane {
            DataPlane::Cilium { version, .. } => version.is_some_and(|version| version >= CiliumVersion::SAME_ZONE),
            DataPlane::KubeProxy | DataPlane::Unknown => true,
        };
        match catalogue.kubernetes {
            Some(version) if version < Kubernetes::DISTRIBUTION => Self::Annotation,
            Some(version) if version >= Kubernetes::SAME_ZONE && knows_same_zone => Self::SameZone,
            Some(_) | None => Self::Close,
        }
    }

    /// The patch of a service that does not prefer it yet.
    pub(super) fn body(self) -> Value {
        match self {
            Self::Annotation => json!({"metadata": {"annotations": {TOPOLOGY_MODE: "Auto"}}}),
            Self::Close => json!({"spec": {"trafficDistribution": "PreferClose"}}),
            Self::SameZone => json!({"spec": {"trafficDistribution": "PreferSameZone"}}),
        }
    }
}

/// Why the data plane may not follow a preference, if so.
pub(super) fn data_plane_risk(catalogue: &Catalogue) -> Option<&'static str> {
    match catalogue.data_plane {
        DataPlane::Cilium { topology: ServiceTopology::Off, .. } => {
            Some("Cilium ignores it until its service topology is on: set loadBalancer.serviceTopology=true first")
        }
        DataPlane::Cilium { topology: ServiceTopology::Unknown, .. } => {
            Some("Cilium follows it only with loadBalancer.serviceTopology=true, which is off by default")
        }
        DataPlane::Cilium { version: Some(CiliumVersion { major: 1, minor: 18 }), .. } => {
            Some("Cilium 1.18.0 refuses connections while a zone has no endpoint: use a later one")
        }
        DataPlane::Cilium { .. } | DataPlane::KubeProxy | DataPlane::Unknown => None,
    }
}

/// Whether the data plane is known to follow preferences.
pub(super) const fn is_followed(catalogue: &Catalogue) -> bool {
    matches!(catalogue.data_plane, DataPlane::KubeProxy | DataPlane::Cilium { topology: ServiceTopology::On, .. })
}

/// A patch of a service.
pub(super) fn service_patch(name: &str, body: Value) -> Option<Patch> {
    let (namespace, name) = name.split_once('/')?;
    Patch::object("service", (namespace, name), Merge::Merge, body)
}
