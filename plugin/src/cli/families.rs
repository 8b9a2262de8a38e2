//! Which series by pod, workload and namespace there are. The controller has those of the cluster, and an agent that
//! follows one has none by default: each series would count twice.

use crate::metrics::Families;
use clap::{
    ArgAction,
    builder::{ArgPredicate, BoolishValueParser},
};

/// The setting that an agent follows a controller by.
pub(super) const CONTROLLER: &str = "controller.address";

/// Families of series.
#[derive(Debug, clap::Args)]
pub(super) struct FamilyArgs {
    /// Serve series by pair of namespaces (`meridian_namespace_*`). Off by default for an agent with a controller,
    /// which serves them.
    #[arg(
        id = "metrics.namespaces",
        long = "metrics-namespaces",
        env = "MERIDIAN_METRICS_NAMESPACES",
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        default_value_if(CONTROLLER, ArgPredicate::IsPresent, "false"),
        default_value = "true"
    )]
    namespaces: bool,
    /// Serve series by pair of workloads (`meridian_workload_*`). Off by default for an agent with a controller.
    #[arg(
        id = "metrics.workloads",
        long = "metrics-workloads",
        env = "MERIDIAN_METRICS_WORKLOADS",
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        default_value_if(CONTROLLER, ArgPredicate::IsPresent, "false"),
        default_value = "true"
    )]
    workloads: bool,
    /// Serve series by pair of pods (`meridian_pod_*`).
    #[arg(
        id = "metrics.pods",
        long = "metrics-pods",
        env = "MERIDIAN_METRICS_PODS",
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        default_value = "false"
    )]
    pods: bool,
    /// Serve kubezonnet's series by pod (`pod_cross_zone_network_traffic_bytes_total`). Off by default for an agent
    /// with a controller.
    #[arg(
        id = "metrics.kubezonnet",
        long = "metrics-kubezonnet",
        env = "MERIDIAN_METRICS_KUBEZONNET",
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        default_value_if(CONTROLLER, ArgPredicate::IsPresent, "false"),
        default_value = "true"
    )]
    kubezonnet: bool,
    /// Serve OpenCost's series by pod (`kubecost_pod_network_egress_bytes_total`). Off by default for an agent with a
    /// controller.
    #[arg(
        id = "metrics.opencost",
        long = "metrics-opencost",
        env = "MERIDIAN_METRICS_OPENCOST",
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        default_value_if(CONTROLLER, ArgPredicate::IsPresent, "false"),
        default_value = "true"
    )]
    opencost: bool,
}

impl FamilyArgs {
    pub(super) const fn families(&self) -> Families {
        Families {
            namespaces: self.namespaces,
            workloads: self.workloads,
            pods: self.pods,
            kubezonnet: self.kubezonnet,
            opencost: self.opencost,
        }
    }
}
