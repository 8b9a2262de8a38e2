//! The sources of the metrics pages.

use crate::{
    api::Missed,
    counters::Samples,
    export::{FlowLogOutputs, PairLogTally},
    flows::Ring,
    historian::Historian,
    hubble::metrics::FlowMetrics,
    link::{Admission, Tls},
};
use prometheus_client::collector::Collector;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64},
};

/// The state of this process towards its clients.
#[derive(Debug, Default)]
pub struct Process {
    /// Whether the process is fully started: attached and drained for the first time, or loaded.
    pub ready: AtomicBool,
    /// The pair log.
    pub pair_log: Arc<PairLogTally>,
    /// Responses of `Counters.Watch` that were skipped.
    pub missed: Arc<Missed>,
    /// Places for connections to the HTTP port.
    pub http: HttpPlaces,
    /// The history, if it is kept.
    pub history: OnceLock<Arc<Historian>>,
}

/// Places for connections to the HTTP port. A node has a handful of scrapers and probes.
#[derive(Clone, Debug)]
pub struct HttpPlaces(pub Arc<Admission>);

impl Default for HttpPlaces {
    fn default() -> Self {
        Self(Arc::new(Admission::new(64, 32)))
    }
}

/// The families of series by pod and by workload, each of which can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// `meridian_namespace_*`.
    pub namespaces: bool,
    /// `meridian_workload_*`.
    pub workloads: bool,
    /// `meridian_pod_*`.
    pub pods: bool,
    /// kubezonnet's series.
    pub kubezonnet: bool,
    /// OpenCost's series.
    pub opencost: bool,
}

impl Families {
    /// All families off.
    pub const NONE: Self =
        Self { namespaces: false, workloads: false, pods: false, kubezonnet: false, opencost: false };
}

impl Default for Families {
    fn default() -> Self {
        Self { namespaces: true, workloads: true, pods: false, kubezonnet: true, opencost: true }
    }
}

/// The sources of the page.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The nodes.
    pub samples: Samples,
    /// The flows.
    pub ring: Arc<Ring>,
    /// The process.
    pub process: Arc<Process>,
    /// The families of series by pod and workload.
    pub families: Families,
    /// Servers with TLS.
    pub tls: Vec<Arc<Tls>>,
    /// Hubble's metrics and flow logs.
    pub outputs: Outputs,
}

/// Hubble's metrics and flow logs.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// Hubble's own metrics.
    pub metrics: Option<Arc<FlowMetrics>>,
    /// Flow logs.
    pub logs: Option<Arc<FlowLogOutputs>>,
    /// Reloads of their configuration files, after the first.
    pub reloads: Arc<Reloads>,
}

/// Files accepted and files refused.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Files of metrics.
    pub metrics: [AtomicU64; 2],
    /// Files of flow logs.
    pub logs: [AtomicU64; 2],
}

/// A process with a metrics page.
pub trait Measured: Send + Sync + 'static {
    /// Collects the current metrics.
    fn collector(&self) -> Box<dyn Collector>;
    /// The process.
    fn process(&self) -> &Arc<Process>;
}
