//! The sources of the zone table, and their order where two of them have the same addresses.

use super::facts::Kind;
use std::{fmt, str::FromStr};

/// A source that can be ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The addresses of running pods.
    Pods,
    /// `status.addresses` of Nodes.
    NodeAddresses,
    /// Subnets and tunnel addresses that CNIs write into annotations of Nodes.
    NodeAnnotations,
    /// CiliumEndpoint and CiliumEndpointSlice.
    CiliumEndpoints,
    /// CiliumNode.
    CiliumNodes,
    /// Calico's BlockAffinity, of both groups.
    CalicoBlocks,
    /// `spec.podCIDRs` of Nodes.
    NodePodCidrs,
}

/// A name that is not a source.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is not a source; the sources are {}", Source::ALL.map(Source::name).join(", "))]
pub struct UnknownSource {
    /// The name.
    name: String,
}

impl Source {
    /// All sources.
    pub const ALL: [Self; 7] = [
        Self::Pods,
        Self::NodeAddresses,
        Self::NodeAnnotations,
        Self::CiliumEndpoints,
        Self::CiliumNodes,
        Self::CalicoBlocks,
        Self::NodePodCidrs,
    ];

    /// The name in flags and values.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::NodeAddresses => "node-addresses",
            Self::NodeAnnotations => "node-annotations",
            Self::CiliumEndpoints => "cilium-endpoints",
            Self::CiliumNodes => "cilium-nodes",
            Self::CalicoBlocks => "calico-blocks",
            Self::NodePodCidrs => "node-pod-cidrs",
        }
    }

    /// The source of a CNI's kind of object.
    pub(super) const fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::CiliumNode => Some(Self::CiliumNodes),
            Kind::CiliumEndpoint | Kind::CiliumEndpointSlice => Some(Self::CiliumEndpoints),
            Kind::BlockAffinity | Kind::BlockAffinityV3 => Some(Self::CalicoBlocks),
            Kind::Node
            | Kind::Pod
            | Kind::ReplicaSet
            | Kind::Job
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::Namespace => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Source {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|source| source.name() == text)
            .ok_or_else(|| UnknownSource { name: text.to_owned() })
    }
}

/// The rank of a claim, the highest first. Claims of one rank that differ are a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// A prefix that the static table puts into a zone as ours.
    Fixed,
    /// A running pod.
    Pod,
    /// An address of a Node's status.
    NodeAddress,
    /// An address that a CNI assigned to a node: a tunnel, a management port.
    CniNodeAddress,
    /// A pod that is being deleted.
    EndingPod,
    /// A CiliumEndpoint, which may outlive its pod.
    Endpoint,
    /// A range from which a CNI assigns addresses to a node's pods.
    CniRange,
    /// `spec.podCIDRs`, which a CNI may ignore.
    PodCidr,
    /// A prefix that the static table has as external, or without a zone.
    Outside,
}

impl Rank {
    /// Whether the claim is about a range that may be unused: a wider prefix of a higher rank overrides it.
    pub(super) fn is_range(self) -> bool {
        self >= Self::CniRange
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_found_by_its_name_and_no_other_is() {
        for source in Source::ALL {
            assert_eq!(source.name().parse::<Source>().unwrap(), source);
        }
        for wrong in ["", "pod", "Pods", "pod-cidrs"] {
            let error = wrong.parse::<Source>().unwrap_err().to_string();
            assert!(error.ends_with("node-pod-cidrs"), "{error}");
        }
    }
}
