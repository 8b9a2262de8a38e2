//! Objects of the API server, reduced to the facts that determine zones and endpoints.

use crate::{
    catalogue::{self, Endpoints, Kubernetes},
    identity::Labels,
    zones::{Provider, Zone},
};
use ipnetwork::IpNetwork;
use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::SystemTime,
};

/// The kinds of objects that are watched.
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
    /// v1: the labels that the history keeps. Watched only if it keeps some.
    Namespace,
    /// cilium.io/v2.
    CiliumNode,
    /// cilium.io/v2.
    CiliumEndpoint,
    /// cilium.io/v2alpha1.
    CiliumEndpointSlice,
    /// crd.projectcalico.org/v1.
    BlockAffinity,
    /// projectcalico.org/v3: the same objects through Calico's API server.
    BlockAffinityV3,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Node,
        Self::Pod,
        Self::ReplicaSet,
        Self::Job,
        Self::Service,
        Self::EndpointSlice,
        Self::Namespace,
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
            Self::Namespace => ("", "v1", "Namespace", "namespaces"),
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
            | Self::Namespace
            | Self::CiliumNode
            | Self::CiliumEndpoint
            | Self::CiliumEndpointSlice
            | Self::BlockAffinity => self.resource().2,
        }
    }

    /// Whether a cluster may lack the kind.
    pub const fn is_optional(self) -> bool {
        match self {
            Self::Node
            | Self::Pod
            | Self::ReplicaSet
            | Self::Job
            | Self::Service
            | Self::EndpointSlice
            | Self::Namespace => false,
            Self::CiliumNode
            | Self::CiliumEndpoint
            | Self::CiliumEndpointSlice
            | Self::BlockAffinity
            | Self::BlockAffinityV3 => true,
        }
    }
}

/// The name of an object within its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A reference to an object, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `None` for an entry of the static table.
    pub kind: Option<Kind>,
    /// The name of the object or of the entry.
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

/// The facts of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Node(Box<Node>),
    Pod(Arc<Pod>),
    /// The owner of a ReplicaSet or Job.
    Owner {
        uid: Arc<str>,
        owner: Option<Arc<Owner>>,
    },
    Service(Arc<catalogue::Service>),
    Slice(Arc<Slice>),
    /// The chosen labels of a namespace.
    Namespace(Arc<Labels>),
    /// The prefixes and addresses of nodes.
    Ranges(Vec<Range>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) uid: Arc<str>,
    /// The zone in the labels; its region can be missing.
    pub(super) zone: Option<Arc<Zone>>,
    /// The expectation for a node without a zone: it may still get one, or never needs one.
    pub(super) zoneless: ZoneLabelState,
    pub(super) agency: AgentExpectation,
    pub(super) created: Option<SystemTime>,
    /// `spec.podCIDRs`.
    pub(super) prefixes: Vec<IpNetwork>,
    /// Subnets in a CNI's annotations.
    pub(super) subnets: Vec<IpNetwork>,
    pub(super) addresses: Vec<IpAddr>,
    /// Addresses that a CNI has assigned to the node itself.
    pub(super) cni_addresses: Vec<IpAddr>,
    /// The cloud provider, if it is known.
    pub(super) provider: Option<Provider>,
    /// `spec.providerID`, or nothing.
    pub(super) provider_id: Arc<str>,
    /// The kubelet's version.
    pub(super) kubernetes: Option<Kubernetes>,
}

impl Node {
    /// Whether an address is the node's own.
    pub(super) fn has(&self, address: &IpAddr) -> bool {
        self.addresses.contains(address) || self.cni_addresses.contains(address)
    }
}

/// The agent of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AgentExpectation {
    /// An agent runs there, or will.
    #[default]
    Agent,
    /// No agent can run there: the receiving nodes count its traffic.
    None,
    /// The node is simulated and sends nothing.
    Simulated,
}

/// The state of a node without a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ZoneLabelState {
    /// The labels are final.
    #[default]
    Labelled,
    /// There is no label yet: there may be one soon.
    Unlabelled,
    /// The cloud provider has not initialized the node yet.
    Uninitialized,
    /// The node is not a machine: no traffic leaves it.
    Virtual,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Empty until the pod is scheduled.
    pub(super) node: Arc<str>,
    /// Empty for a pod on the host network, or one that has ended.
    pub(super) addresses: Box<[IpAddr]>,
    /// Whether the pod is being deleted.
    pub(super) is_ending: bool,
    /// The creation time, before which it had no address.
    pub(super) created: Option<SystemTime>,
    pub(super) started: Option<SystemTime>,
    pub(super) owner: Option<Arc<Owner>>,
    /// The selected labels.
    pub(super) labels: Arc<Labels>,
}

/// A pod with its name. There are more of them than of all other objects, so whatever knows a pod shares this.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedPod {
    pub(super) key: Key,
    pub(super) pod: Pod,
}

/// A pod in a set, found by its name.
#[derive(Debug)]
pub(super) struct PodByKey(pub(super) Arc<NamedPod>);

impl Borrow<Key> for PodByKey {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl PartialEq for PodByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for PodByKey {}

impl Hash for PodByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

/// The controlling owner of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) service: Arc<str>,
    /// The addresses, with the name of the pod where the object has it.
    pub(super) addresses: Vec<(IpAddr, Option<Arc<str>>)>,
    /// Whether the addresses are of IPv6.
    pub(super) is_ipv6: bool,
    /// The ready endpoints.
    pub(super) ready: Arc<Endpoints>,
}

impl Slice {
    /// The names of the pods that are meant at an address.
    pub(super) fn pods_at(&self, address: IpAddr) -> impl Iterator<Item = &Option<Arc<str>>> {
        let first = self.addresses.partition_point(|(other, _)| *other < address);
        self.addresses[first..].iter().take_while(move |(other, _)| *other == address).map(|(_, name)| name)
    }
}

/// Prefixes and addresses of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) node: NodeName,
    pub(super) prefixes: Vec<IpNetwork>,
    pub(super) addresses: Vec<IpAddr>,
    /// Addresses of the node itself.
    pub(super) own: Vec<IpAddr>,
}

/// The way in which an object names a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeName {
    Name(Arc<str>),
    /// By one of the node's addresses.
    Address(IpAddr),
}
