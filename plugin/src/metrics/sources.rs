//! What the pages are made of.

use crate::{
    api::Missed,
    counters::Samples,
    export::{FlowLogOutputs, PairLogTally},
    flows::Ring,
    hubble::metrics::FlowMetrics,
    link::Tls,
};
use prometheus_client::collector::Collector;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64},
};

/// What this process did for its clients and could not do.
#[derive(Debug, Default)]
pub struct Process {
    /// Whether it does its work: attached and read for the first time, or loaded.
    pub ready: AtomicBool,
    /// The pair log.
    pub pair_log: Arc<PairLogTally>,
    /// Answers of `Counters.Watch` that were not sent.
    pub missed: Arc<Missed>,
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
    pub metrics: Option<Arc<FlowMetrics>>,
    /// Flow logs.
    pub logs: Option<Arc<FlowLogOutputs>>,
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
