//! Metrics of the nodes that this process measures, for Prometheus.
//!
//! The page is made of a sample that the agent takes once a second: whoever asks, however often or
//! slowly, disturbs nothing. The number of series is bounded, whatever the cluster does.

mod connections;
mod controller;
mod http;
pub mod hubble;
mod outputs;
mod page;
mod text;
mod traffic;

pub use controller::Controller;
pub use http::{Listen, serve};

use crate::{accounting::Totals, export::KnownFlowLogs, flows::Ring, tls::Tls, zones::Matrix};
use meridian_abi::{Counter, stats::Stat};
use prometheus_client::collector::Collector;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::SystemTime,
};
use tokio::sync::watch;

/// Whose packets were counted.
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

/// What was counted since the programs were loaded.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Whose packets these are.
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

/// What is known of a node at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its counters.
    pub counted: Counted,
    /// Which counters these are: what was counted by others began at zero.
    pub boot_id: [u8; 16],
    /// Where its packets are counted.
    pub hook: &'static str,
    /// Why there.
    pub why: Arc<str>,
    /// How often the hook was changed because it was blind.
    pub hook_changes: u64,
    /// What its devices sent and what of it the hook saw, if that is compared.
    pub seen: Option<Seen>,
    /// Filters of others that run before ours and may end the chain.
    pub preceded: u64,
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
pub struct Seen {
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

/// How an agent's reports to its controller go.
#[derive(Debug, Default)]
pub struct ReportState {
    /// Whether the last one was taken.
    pub is_connected: AtomicBool,
    /// Reports that were taken.
    pub taken: AtomicU64,
    /// Streams that failed or broke.
    pub failures: AtomicU64,
}

/// The samples of all nodes, renewed once a second.
pub type Samples = watch::Receiver<Arc<[Sample]>>;

/// What this process did for its clients and could not do.
#[derive(Debug, Default)]
pub struct Process {
    /// Whether it does its work: attached and read for the first time, or loaded.
    pub ready: AtomicBool,
    /// Lines of the pair log that were written.
    pub pair_log_lines: AtomicU64,
    /// Lines that were not.
    pub pair_log_lost_lines: AtomicU64,
    /// The traffic that those tell of.
    pub pair_log_lost_bytes: AtomicU64,
    /// Intervals without an answer to a client of `Counters.Watch` that was too slow.
    pub counters_missed: AtomicU64,
    /// Connections to the HTTP port that were closed because there were too many.
    pub http_refused: AtomicU64,
}

/// Families of series by pod and by workload, each with its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// `meridian_namespace_*`.
    pub namespaces: bool,
    /// `meridian_workload_*`.
    pub workloads: bool,
    /// `meridian_pod_*`.
    pub pods: bool,
    /// kubezonnet's name.
    pub kubezonnet: bool,
    /// OpenCost's name.
    pub opencost: bool,
}

impl Families {
    /// None of them.
    pub const NONE: Self =
        Self { namespaces: false, workloads: false, pods: false, kubezonnet: false, opencost: false };
}

impl Default for Families {
    fn default() -> Self {
        Self { namespaces: true, workloads: true, pods: false, kubezonnet: true, opencost: true }
    }
}

/// What the page is made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The nodes.
    pub samples: Samples,
    /// The flows.
    pub ring: Arc<Ring>,
    /// The process.
    pub process: Arc<Process>,
    /// What is shown of pods and workloads.
    pub families: Families,
    /// Servers with TLS.
    pub tls: Vec<Arc<Tls>>,
    /// What is made of flows beside their streams.
    pub outputs: Outputs,
}

/// What is made of flows beside their streams.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// Hubble's own metrics.
    pub metrics: Option<Arc<hubble::FlowMetrics>>,
    /// Flow logs.
    pub logs: Option<Arc<KnownFlowLogs>>,
    /// Files that say which, read after the first time.
    pub reloads: Arc<Reloads>,
}

/// Files that were taken and that were refused.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Those of metrics.
    pub metrics: [AtomicU64; 2],
    /// Those of flow logs.
    pub logs: [AtomicU64; 2],
}

/// Who has a page.
pub trait Measured: Send + Sync + 'static {
    /// Writes it as it is now.
    fn collector(&self) -> Box<dyn Collector>;
    /// The process.
    fn process(&self) -> &Arc<Process>;
}

impl Measured for Sources {
    fn collector(&self) -> Box<dyn Collector> {
        Box::new(page::Page(self.clone()))
    }

    fn process(&self) -> &Arc<Process> {
        &self.process
    }
}
