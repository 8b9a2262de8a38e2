//! A service, as far as it steers traffic, and its ready endpoints by zone.

use std::collections::BTreeMap;

/// Bytes of a name, a value of a selector, or a zone.
pub const MAX_NAME: usize = 253;
/// Bytes of an annotation's value.
pub const MAX_ANNOTATION: usize = 64;
/// Ports of a service.
pub const MAX_PORTS: usize = 32;
/// Labels of a selector.
pub const MAX_SELECTOR: usize = 16;
/// Zones of the endpoints of an object, and zones that they are hinted for.
pub const MAX_ZONES: usize = 64;

/// The type of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// An address in the cluster.
    #[default]
    ClusterIp,
    /// A port of each node, too.
    NodePort,
    /// A load balancer, too.
    LoadBalancer,
    /// Another name.
    ExternalName,
}

impl Kind {
    /// The type of this name; an unknown name is a service inside the cluster.
    pub fn of_name(name: &str) -> Self {
        match name {
            "NodePort" => Self::NodePort,
            "LoadBalancer" => Self::LoadBalancer,
            "ExternalName" => Self::ExternalName,
            _ => Self::ClusterIp,
        }
    }

    /// Whether connections also come through the nodes' ports.
    pub const fn has_node_ports(self) -> bool {
        matches!(self, Self::NodePort | Self::LoadBalancer)
    }
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name.
    pub name: String,
    /// The port that clients use.
    pub port: u16,
    /// The IP protocol.
    pub protocol: u8,
}

/// The ready endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// The number in each zone; the empty name is no known zone.
    pub ready: BTreeMap<String, u32>,
    /// The number with a hint for each zone.
    pub hinted: BTreeMap<String, u32>,
    /// The number without a hint.
    pub unhinted: u32,
}

impl Endpoints {
    /// All of them.
    pub fn count(&self) -> u32 {
        self.ready.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The number in a zone.
    pub fn in_zone(&self, zone: &str) -> u32 {
        self.ready.get(zone).copied().unwrap_or_default()
    }

    /// Adds those of another object of the service.
    pub fn merge(&mut self, other: &Self) {
        for (into, from) in [(&mut self.ready, &other.ready), (&mut self.hinted, &other.hinted)] {
            for (zone, count) in from {
                let sum = into.entry(zone.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        self.unhinted = self.unhinted.saturating_add(other.unhinted);
    }
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its type.
    pub kind: Kind,
    /// Whether it has no address of its own, so that clients choose among the pods' addresses.
    pub is_headless: bool,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `trafficDistribution`.
    pub distribution: Option<String>,
    /// The value of the annotation that asks for topology-aware routing.
    pub topology_mode: Option<String>,
    /// The value of the annotation with which a mesh is asked for the same.
    pub mesh_distribution: Option<String>,
    /// Whether `internalTrafficPolicy` is `Local`.
    pub is_node_local: bool,
    /// Whether a client stays at the endpoint of its first connection.
    pub has_affinity: bool,
    /// The labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// Its ready endpoints. A service of both families has those of the family that has more.
    pub endpoints: Endpoints,
}

impl Service {
    /// The value of the annotation, if it asks for topology-aware routing. Kubernetes reads these two spellings alone.
    pub fn topology_annotation(&self) -> Option<&str> {
        self.topology_mode.as_deref().filter(|mode| matches!(*mode, "Auto" | "auto"))
    }

    /// Whether a zone is preferred, in whatever way.
    pub fn prefers_near(&self) -> bool {
        self.distribution.is_some() || self.topology_annotation().is_some() || self.mesh_distribution.is_some()
    }
}
