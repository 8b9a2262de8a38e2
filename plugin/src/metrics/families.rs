//! Which series by pod, workload and namespace there are.

use crate::otlp::Content;

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

impl From<Families> for Content {
    fn from(Families { namespaces, workloads, pods, .. }: Families) -> Self {
        Self { namespaces, workloads, pods }
    }
}

impl Default for Families {
    fn default() -> Self {
        Self { namespaces: true, workloads: true, pods: false, kubezonnet: true, opencost: true }
    }
}
