//! How a zone is preferred, and patches of services.

use crate::{
    advice::patch::{Merge, Patch},
    catalogue::{Catalogue, CiliumVersion, DataPlane, Kubernetes},
};
use serde_json::{Value, json};

/// The annotation of topology-aware routing.
pub(super) const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

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

/// A patch of a service.
pub(super) fn service_patch(name: &str, body: Value) -> Option<Patch> {
    let (namespace, name) = name.split_once('/')?;
    Patch::object("service", (namespace, name), Merge::Merge, body)
}
