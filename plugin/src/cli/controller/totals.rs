//! Flags of the totals of the cluster.

use crate::{
    cli::{
        Failure,
        config::{PairLogOutput, Seconds, host_name},
        hubble::Cluster,
        usage,
    },
    controller::{LeaseSettings, TotalsSettings},
    link,
    metrics::Families,
};
use std::{fs, net::IpAddr, path::PathBuf};

/// What turns something off.
pub(super) const OFF: &str = "off";
/// Where a pod finds its namespace.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// How the totals are summed up, and what is made of them.
#[derive(Debug, clap::Args)]
pub(super) struct TotalsArgs {
    /// The Lease of which the holder takes the agents' reports and sums them up; `off`: this replica does, and is
    /// the only one.
    #[arg(long, env = "MERIDIAN_LEASE", value_name = "NAME", default_value = "meridian-controller")]
    lease: String,
    /// The Lease's namespace; by default this pod's, or meridian.
    #[arg(long, env = "MERIDIAN_LEASE_NAMESPACE", value_name = "NAME")]
    lease_namespace: Option<String>,
    /// The address at which agents and other replicas reach this one; by default that of --feed-listen.
    #[arg(long, env = "MERIDIAN_ADVERTISE", value_name = "IP")]
    advertise: Option<IpAddr>,
    /// The service account of the replicas, as NAMESPACE:NAME.
    #[arg(
        long,
        env = "MERIDIAN_REPLICA_ACCOUNT",
        value_name = "ACCOUNT",
        default_value = "meridian:meridian-controller"
    )]
    replica_account: String,
    /// The token that this replica shows to others; it is read again for every connection.
    #[arg(long, env = "MERIDIAN_REPLICA_TOKEN", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    replica_token: Option<PathBuf>,
    /// The authority that signed the replicas' certificates, as PEM; without it there is no TLS between them.
    #[arg(long, env = "MERIDIAN_REPLICA_CA", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    replica_ca: Option<PathBuf>,
    /// The name in the replicas' certificates; by default the address.
    #[arg(long, env = "MERIDIAN_REPLICA_NAME", value_name = "NAME")]
    replica_name: Option<String>,
    /// The cluster's name, as the agents have it.
    #[arg(long, env = "MERIDIAN_CLUSTER_NAME", value_name = "NAME", default_value_t = Cluster::default())]
    cluster_name: Cluster,
    /// Where cilium-agent serves flows on every node, 4244 mostly: hubble-relay is told of those servers, too, so that
    /// one relay has both. Agents need other names then: --hubble-node-name.
    #[arg(long, env = "MERIDIAN_HUBBLE_CILIUM_PORT", value_name = "PORT")]
    hubble_cilium_port: Option<u16>,
    /// Where the pair log of the cluster goes, a JSON line for each pair that crossed zones in an interval: `stdout`,
    /// `off` or a file.
    #[arg(long, env = "MERIDIAN_PAIR_LOG", value_name = "OUTPUT", default_value = "stdout", value_hint = clap::ValueHint::FilePath)]
    pair_log: PairLogOutput,
    /// The interval of the pair log, at least 1s.
    #[arg(long, env = "MERIDIAN_PAIR_LOG_INTERVAL", value_name = "TIME", default_value = "10s")]
    pair_log_interval: Seconds,
    /// Whether there are series by pair of namespaces (`meridian_namespace_*`).
    #[arg(long, env = "MERIDIAN_METRICS_NAMESPACES", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    metrics_namespaces: bool,
    /// Whether there are series by pair of workloads (`meridian_workload_*`).
    #[arg(long, env = "MERIDIAN_METRICS_WORKLOADS", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    metrics_workloads: bool,
    /// Whether there are series by pair of pods (`meridian_pod_*`).
    #[arg(long, env = "MERIDIAN_METRICS_PODS", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    metrics_pods: bool,
    /// Whether kubezonnet's series by pod are there (`pod_cross_zone_network_traffic_bytes_total`).
    #[arg(long, env = "MERIDIAN_METRICS_KUBEZONNET", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    metrics_kubezonnet: bool,
    /// Whether OpenCost's series by pod are there (`kubecost_pod_network_egress_bytes_total`).
    #[arg(long, env = "MERIDIAN_METRICS_OPENCOST", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    metrics_opencost: bool,
    /// Pods, and pairs of namespaces, workloads or pods, that have a series of their own at most; the rest is `other`.
    #[arg(long, env = "MERIDIAN_METRICS_SERIES", value_name = "NUMBER", default_value_t = 10_000)]
    metrics_series: usize,
}

impl TotalsArgs {
    /// The service account of the replicas.
    pub(super) fn replica_account(&self) -> Result<&str, Failure> {
        let account = &self.replica_account;
        if account.split(':').count() != 2 {
            return Err(usage(format!("--replica-account {account}: an account is NAMESPACE:NAME")));
        }
        Ok(account)
    }

    pub(super) fn settings(&self) -> TotalsSettings {
        TotalsSettings {
            lease: (self.lease != OFF).then(|| self.lease()),
            cluster_name: self.cluster_name.0.clone(),
            cilium_port: self.hubble_cilium_port,
            pair_log: self.pair_log.0.clone(),
            pair_log_interval: self.pair_log_interval.0,
            families: Families {
                namespaces: self.metrics_namespaces,
                workloads: self.metrics_workloads,
                pods: self.metrics_pods,
                kubezonnet: self.metrics_kubezonnet,
                opencost: self.metrics_opencost,
            },
            series: self.metrics_series,
        }
    }

    fn lease(&self) -> LeaseSettings {
        let own = || fs::read_to_string(NAMESPACE).ok().map(|name| name.trim().to_owned());
        LeaseSettings {
            name: self.lease.clone(),
            namespace: self.lease_namespace.clone().or_else(own).unwrap_or_else(|| "meridian".to_owned()),
            replica: host_name(),
            advertise: self.advertise,
            link: link::Settings {
                node: String::new(),
                server: String::new(),
                authority: self.replica_ca.clone(),
                server_name: self.replica_name.clone(),
                token: self.replica_token.clone(),
            },
        }
    }
}
