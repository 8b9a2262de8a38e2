//! A block and its parts. Rows name workloads, sites and services by their index in the block's own lists.

use crate::zones::Location;
use meridian_abi::Counter;
use std::collections::BTreeMap;

/// A time that a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first second, since 1970 in UTC.
    pub start: u64,
    /// How many seconds.
    pub seconds: u32,
}

impl Span {
    /// The seconds of an hour.
    pub const HOUR: u32 = 3600;
    /// The seconds of a day.
    pub const DAY: u32 = 24 * Self::HOUR;

    /// The hour of a second.
    pub const fn hour_of(second: u64) -> Self {
        Self { start: second - second % Self::HOUR as u64, seconds: Self::HOUR }
    }

    /// The day, in UTC, of a second.
    pub const fn day_of(second: u64) -> Self {
        Self { start: second - second % Self::DAY as u64, seconds: Self::DAY }
    }

    /// The second after the last one.
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.seconds as u64)
    }

    /// Whether it is a whole hour or day.
    pub const fn is_whole(self) -> bool {
        (self.seconds == Self::HOUR || self.seconds == Self::DAY) && self.start.is_multiple_of(self.seconds as u64)
    }
}

/// A workload, a node, an external prefix, or the sum of all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// The namespace; empty for nodes and external prefixes.
    pub namespace: String,
    /// Deployment, StatefulSet, Node …, or the class of an external prefix; empty where nothing is known of the workload.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The labels that were chosen to be kept.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// Whether nothing is known of it.
    pub const fn is_other(&self) -> bool {
        self.kind.is_empty()
    }
}

/// The end of a transfer that serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    /// It is not known.
    #[default]
    Unknown,
    /// The one that sent: these are answers.
    Source,
    /// The one that received: these are requests.
    Destination,
}

impl Server {
    /// All of them, by their number.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::Source, Self::Destination];
}

/// The key of a sum. Numbers are indexes of the block's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferKey {
    /// Workloads: the sender and the receiver.
    pub workloads: [u32; 2],
    /// Sites: the sender's and the receiver's.
    pub sites: [u32; 2],
    /// The service that is used, in `services`.
    pub service: u32,
    /// The service's port; 0 where it is not known.
    pub port: u16,
    /// The IP protocol; 0 where it is not known.
    pub protocol: u8,
    /// The end that serves.
    pub server: Server,
}

/// Traffic from one workload to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Between whom.
    pub key: TransferKey,
    /// How much.
    pub counter: Counter,
}

/// Traffic that a node sent or received, from one site to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTransfer {
    /// The node, in `coverage.nodes`; the one without a name is any that is not known.
    pub node: u32,
    /// Whether the node is the receiver.
    pub is_receiver: bool,
    /// Sites: the sender's and the receiver's.
    pub sites: [u32; 2],
    /// How much.
    pub counter: Counter,
}

/// How much of a block's time was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Recorded seconds.
    pub recorded_seconds: u32,
    /// The nodes that were known, by name and provider ID: another machine may have had the name before.
    pub nodes: Vec<NodeCoverage>,
}

/// The share of time in which a node reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeCoverage {
    /// The node's name.
    pub name: String,
    /// Its `spec.providerID`, or nothing.
    pub provider_id: String,
    /// Seconds that its reports cover.
    pub reported_seconds: u32,
}

/// Traffic of one span. Lists and rows are sorted, so that equal content is equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// When.
    pub span: Span,
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// The sites.
    pub sites: Vec<Location>,
    /// The services, as `namespace/name`; the empty one is no service.
    pub services: Vec<String>,
    /// Traffic between workloads.
    pub transfers: Vec<Transfer>,
    /// Traffic sent by nodes, and received by nodes: each is the sum of `transfers`.
    pub nodes: Vec<NodeTransfer>,
    /// How much of the time was seen.
    pub coverage: Coverage,
}

impl Block {
    /// How much of its time was seen, to compare blocks of one span: the recorded seconds, then those of all nodes.
    /// Seconds beyond the span do not count.
    pub fn seen(&self) -> (u32, u64) {
        let Self { span, coverage, .. } = self;
        let of_nodes = coverage.nodes.iter().map(|node| u64::from(node.reported_seconds.min(span.seconds)));
        (coverage.recorded_seconds.min(span.seconds), of_nodes.sum())
    }

    /// Everything that was sent.
    pub fn total(&self) -> Counter {
        self.transfers.iter().map(|transfer| transfer.counter).sum()
    }
}
