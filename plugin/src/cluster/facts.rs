//! Objects of the API server, reduced to what zones and identities follow from.

use crate::{identity::Labels, zones::Zone};
use ipnetwork::IpNetwork;
use std::{fmt, net::IpAddr, sync::Arc, time::SystemTime};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1.
    Node,
    /// v1.
    Pod,
    /// apps/v1: owners of pods.
    ReplicaSet,
    /// batch/v1: owners of pods.
    Job,
    /// v1.
    Service,
    /// discovery.k8s.io/v1.
    EndpointSlice,
    /// cilium.io/v2.
    CiliumNode,
    /// cilium.io/v2.
    CiliumEndpoint,
    /// cilium.io/v2alpha1.
    CiliumEndpointSlice,
    /// crd.projectcalico.org/v1.
    BlockAffinity,
    /// projectcalico.org/v3, the same objects by another way.
    BlockAffinityV3,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Node,
        Self::Pod,
        Self::ReplicaSet,
        Self::Job,
        Self::Service,
        Self::EndpointSlice,
        Self::CiliumNode,
        Self::CiliumEndpoint,
        Self::CiliumEndpointSlice,
        Self::BlockAffinity,
        Self::BlockAffinityV3,
    ];

    /// Group, version, kind and plural.
    pub(super) const fn resource(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Node => ("", "v1", "Node", "nodes"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet", "replicasets"),
            Self::Job => ("batch", "v1", "Job", "jobs"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
            Self::CiliumNode => ("cilium.io", "v2", "CiliumNode", "ciliumnodes"),
            Self::CiliumEndpoint => ("cilium.io", "v2", "CiliumEndpoint", "ciliumendpoints"),
            Self::CiliumEndpointSlice => ("cilium.io", "v2alpha1", "CiliumEndpointSlice", "ciliumendpointslices"),
            Self::BlockAffinity => ("crd.projectcalico.org", "v1", "BlockAffinity", "blockaffinities"),
            Self::BlockAffinityV3 => ("projectcalico.org", "v3", "BlockAffinity", "blockaffinities"),
        }
    }

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BlockAffinityV3 => "BlockAffinity (v3)",
            Self::Node
            | Self::Pod
            | Self::ReplicaSet
            | Self::Job
            | Self::Service
            | Self::EndpointSlice
            | Self::CiliumNode
            | Self::CiliumEndpoint
            | Self::CiliumEndpointSlice
            | Self::BlockAffinity => self.resource().2,
        }
    }

    /// Whether a cluster may lack it.
    pub const fn is_optional(self) -> bool {
        match self {
            Self::Node | Self::Pod | Self::ReplicaSet | Self::Job | Self::Service | Self::EndpointSlice => false,
            Self::CiliumNode
            | Self::CiliumEndpoint
            | Self::CiliumEndpointSlice
            | Self::BlockAffinity
            | Self::BlockAffinityV3 => true,
        }
    }
}

/// The name of an object among those of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Empty where there is none.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// An object, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `None` for an entry of the static table.
    pub kind: Option<Kind>,
    /// Its name, or that of the entry.
    pub key: Key,
}

impl ObjectRef {
    pub(super) const fn new(kind: Kind, key: Key) -> Self {
        Self { kind: Some(kind), key }
    }

    /// An entry of the static table.
    pub(super) fn fixed(origin: &Arc<str>) -> Self {
        Self { kind: None, key: Key { namespace: Arc::default(), name: Arc::clone(origin) } }
    }

    pub(super) fn is_node(&self) -> bool {
        self.kind == Some(Kind::Node)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { namespace, name } = &self.key;
        match self.kind {
            None => write!(f, "static table, {name}"),
            Some(kind) if namespace.is_empty() => write!(f, "{} {name}", kind.resource().2),
            Some(kind) => write!(f, "{} {namespace}/{name}", kind.resource().2),
        }
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Node(Box<Node>),
    Pod(Arc<Pod>),
    /// A ReplicaSet or Job: what it belongs to.
    Owner {
        uid: Arc<str>,
        owner: Option<Arc<Owner>>,
    },
    Service(Service),
    Slice(Slice),
    /// Whose prefixes and addresses are on which nodes.
    Ranges(Vec<Range>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) uid: Arc<str>,
    /// As its labels say: the region can be missing.
    pub(super) zone: Option<Arc<Zone>>,
    /// Whether somebody may still say its zone, or never will: nobody need know that it has none.
    pub(super) zoneless: Zoneless,
    pub(super) created: Option<SystemTime>,
    /// `spec.podCIDRs`.
    pub(super) prefixes: Vec<IpNetwork>,
    /// Subnets that a CNI has noted.
    pub(super) subnets: Vec<IpNetwork>,
    pub(super) addresses: Vec<IpAddr>,
    /// Addresses that a CNI has given to the node itself.
    pub(super) cni_addresses: Vec<IpAddr>,
}

impl Node {
    /// Whether an address is the node's own.
    pub(super) fn has(&self, address: &IpAddr) -> bool {
        self.addresses.contains(address) || self.cni_addresses.contains(address)
    }
}

/// The consequence of a node without a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Zoneless {
    /// Its labels say so.
    #[default]
    Labelled,
    /// There is no label: there may be one soon.
    Unlabelled,
    /// The cloud has not looked at it yet.
    Uninitialized,
    /// It is no machine: no traffic leaves it.
    Virtual,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Empty until it is scheduled.
    pub(super) node: Arc<str>,
    /// None if it is on the node's own network, or has ended.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether it has been told to go.
    pub(super) is_ending: bool,
    /// When it was made, and since when it can have had an address.
    pub(super) created: Option<SystemTime>,
    pub(super) started: Option<SystemTime>,
    pub(super) owner: Option<Arc<Owner>>,
    /// Those that were chosen.
    pub(super) labels: Arc<Labels>,
}

/// The controlling owner of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Whether it has no address of its own.
    pub(super) is_headless: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) service: Arc<str>,
    /// Each with the name of the pod that is meant, where that is said.
    pub(super) addresses: Vec<(IpAddr, Option<Arc<str>>)>,
}

/// Prefixes and addresses of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) node: NodeName,
    pub(super) prefixes: Vec<IpNetwork>,
    pub(super) addresses: Vec<IpAddr>,
    /// Addresses that are the node itself.
    pub(super) own: Vec<IpAddr>,
}

/// How an object names a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeName {
    Name(Arc<str>),
    /// By one of its addresses.
    Address(IpAddr),
}
