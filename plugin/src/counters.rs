//! The counters of a node, or of a cluster, at one moment.

use crate::{accounting::Totals, zones::Matrix};
use meridian_abi::{Counter, stats::Stat};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::watch;

/// The node or cluster whose packets were counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A node's.
    Node(String),
    /// Those of all nodes of a cluster that have been heard of.
    Cluster(Vec<String>),
}

impl Whose {
    /// The nodes' names.
    pub fn nodes(&self) -> &[String] {
        match self {
            Self::Node(name) => std::slice::from_ref(name),
            Self::Cluster(names) => names,
        }
    }
}

/// Counters since the programs were loaded.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The node or cluster that sent these packets.
    pub whose: Whose,
    /// When the counters were read.
    pub time: SystemTime,
    /// By zone pair.
    pub matrix: Matrix,
    /// By reason.
    pub stats: Vec<(Stat, Counter)>,
    /// By pod and workload.
    pub totals: Totals,
}

impl AsRef<Self> for Counted {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A node's counters and state at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its counters.
    pub counted: Counted,
    /// Which counters these are: what was counted by others began at zero.
    pub boot_id: [u8; 16],
    /// Where its packets are counted.
    pub hook: &'static str,
    /// Why there.
    pub hook_reason: Arc<str>,
    /// How often the hook was changed because it was blind.
    pub hook_changes: u64,
    /// Bytes sent by its devices and seen by the hook, if they are compared.
    pub device_bytes: Option<DeviceBytes>,
    /// Filters of others that run before ours and may end the chain.
    pub foreign_filters: u64,
    /// Entries of the flow maps, and how many they hold.
    pub flow_entries: (u64, u64),
    /// The zone table.
    pub table: TableState,
    /// Seconds that the last drain took.
    pub drain_seconds: f64,
}

impl AsRef<Counted> for Sample {
    fn as_ref(&self) -> &Counted {
        &self.counted
    }
}

/// IP bytes that left through a node's devices since they are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceBytes {
    /// By the devices' own counters, less link headers and the outer packets of overlays.
    pub sent: u64,
    /// By the hook's.
    pub seen: u64,
}

/// The zone table that is in force.
#[derive(Clone, Debug)]
pub struct TableState {
    /// Its prefixes, those of public and private address space included, and how many the kernel's maps
    /// hold.
    pub prefixes: (u64, u64),
    /// The zones that were named since the start, and how many there is room for.
    pub zones: (u64, u64),
    /// When it was read.
    pub loaded: SystemTime,
    /// When it was last known to be what its source says.
    pub confirmed: SystemTime,
    /// Tables that were taken and tables that were refused since the start.
    pub reloads: (u64, u64),
    /// Addresses of which it is known who has them.
    pub addresses: u64,
    /// The connection to the controller, where the table comes from one.
    pub feed: Option<FeedState>,
}

/// An agent's connection to its controller.
#[derive(Clone, Copy, Debug)]
pub struct FeedState {
    /// Whether the table is the controller's.
    pub is_connected: bool,
    /// Connections since the start.
    pub connects: u64,
    /// Connections that failed or broke.
    pub failures: u64,
    /// Whether the last report was taken.
    pub is_reported: bool,
    /// Reports that were taken.
    pub reports: u64,
    /// Streams of reports that failed or broke.
    pub report_failures: u64,
}

/// The samples of all nodes, renewed once a second.
pub type Samples = watch::Receiver<Arc<[Sample]>>;
