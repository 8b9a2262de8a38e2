//! The counters of a node, or of a cluster, at one moment.

use crate::{accounting::Totals, zones::Matrix};
use meridian_abi::{Counter, stats::Stat};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;
use uuid::Uuid;

/// The node or cluster whose packets were counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CounterScope {
    /// One node.
    Node(String),
    /// All nodes of a cluster whose agents have reported.
    Cluster(Vec<String>),
}

impl CounterScope {
    /// The names of the nodes.
    pub fn nodes(&self) -> &[String] {
        match self {
            Self::Node(name) => std::slice::from_ref(name),
            Self::Cluster(names) => names,
        }
    }

    /// The name of the node, if it is one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Node(name) => Some(name),
            Self::Cluster(_) => None,
        }
    }
}

/// Counters since the programs were loaded.
#[derive(Clone, Debug)]
pub struct CounterSnapshot {
    /// The node or cluster that sent the packets.
    pub whose: CounterScope,
    /// When the counters were read.
    pub time: SystemTime,
    /// When the first of them began, if that is known.
    pub began: Option<SystemTime>,
    /// Counts how often this process began to serve the sums. Another process may have served them in between, with
    /// counts that these lack. 0 for a node.
    pub epoch: u64,
    /// By zone pair.
    pub matrix: Matrix,
    /// By reason.
    pub stats: Vec<(Stat, Counter)>,
    /// By pod and workload.
    pub totals: Totals,
}

impl AsRef<Self> for CounterSnapshot {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// When counters with this boot id began: an id is a UUID of version 7, which holds a time. `None` for the ids of earlier
/// versions, and for times that can't be.
pub fn began(boot_id: [u8; 16]) -> Option<SystemTime> {
    let id = Uuid::from_bytes(boot_id);
    let (seconds, nanoseconds) = id.get_timestamp().filter(|_| id.get_version_num() == 7)?.to_unix();
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

/// The counters and state of a node at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The node's counters.
    pub counted: CounterSnapshot,
    /// Identifies the counters: counters with another boot id began at zero.
    pub boot_id: [u8; 16],
    /// The hook that counts the node's packets.
    pub hook: &'static str,
    /// The reason for this hook.
    pub hook_reason: Arc<str>,
    /// How often the agent changed a hook that missed traffic.
    pub hook_changes: u64,
    /// Steps of such changes that the kernel refused.
    pub refused_hook_steps: u64,
    /// Bytes sent by the node's devices and bytes seen by the hook, where they are compared.
    pub device_bytes: Option<DeviceBytes>,
    /// Filters of other programs that run before ours and may end the chain.
    pub foreign_filters: u64,
    /// How often clsact filters were attached again, because another program had removed them.
    pub restored_filters: u64,
    /// Entries of the flow maps, and their capacity.
    pub flow_entries: (u64, u64),
    /// The state of the zone table.
    pub table: TableState,
    /// Seconds that the last drain of the maps took.
    pub drain_seconds: f64,
}

impl AsRef<CounterSnapshot> for Sample {
    fn as_ref(&self) -> &CounterSnapshot {
        &self.counted
    }
}

/// IP bytes that left through a node's devices since the comparison began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceBytes {
    /// By the devices' own counters, without link headers and without the outer packets of overlays.
    pub sent: u64,
    /// By the hook's counters.
    pub seen: u64,
}

/// The state of the zone table in force.
#[derive(Clone, Debug)]
pub struct TableState {
    /// The number of prefixes, public and private address space included, and the capacity of the kernel's maps.
    pub prefixes: (u64, u64),
    /// The number of zones named since the start, and the room for zones.
    pub zones: (u64, u64),
    /// When the table was last read.
    pub loaded: SystemTime,
    /// When the table last agreed with its source.
    pub confirmed: SystemTime,
    /// Tables accepted and tables refused since the start.
    pub reloads: (u64, u64),
    /// Addresses with a known endpoint.
    pub addresses: u64,
    /// The connection to the controller, if the table comes from a controller.
    pub feed: Option<FeedState>,
}

/// An agent's connection to its controller.
#[derive(Clone, Copy, Debug)]
pub struct FeedState {
    /// Whether the connection is up and the table is the controller's.
    pub is_connected: bool,
    /// Connections since the start.
    pub connects: u64,
    /// Connections that failed to open or broke.
    pub failures: u64,
    /// Whether the controller accepted the last report.
    pub is_reported: bool,
    /// Reports that the controller accepted.
    pub reports: u64,
    /// Streams of reports that failed to open or broke.
    pub report_failures: u64,
}

/// The samples of all nodes, renewed every second.
pub type Samples = watch::Receiver<Arc<[Sample]>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_counters_has_the_time_at_which_they_began() {
        let before = SystemTime::now() - Duration::from_millis(1);
        let began = began(Uuid::now_v7().into_bytes()).unwrap();
        assert!(began >= before && began <= SystemTime::now());
        for other in [Uuid::new_v4(), Uuid::nil(), Uuid::max()] {
            assert_eq!(super::began(other.into_bytes()), None);
        }
    }
}
