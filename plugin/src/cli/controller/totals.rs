//! The settings of the totals of the cluster.

use crate::{
    cli::{
        families::FamilyArgs,
        host::host_name,
        hubble::Cluster,
        pair_log::PairLogArgs,
        values::{Account, OFF},
    },
    controller::{LeaseSettings, TotalsSettings},
    hubble::DEFAULT_CLUSTER,
    link,
};
use clap::ValueHint;
use std::{fs, net::IpAddr, path::PathBuf};

/// Where a pod finds its namespace.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Settings of the cluster's totals.
#[derive(Debug, clap::Args)]
pub(super) struct TotalsArgs {
    /// Lease of the leader, which accepts the agents' reports and sums them up. `off`: this replica is the only one.
    #[arg(
        id = "lease.name",
        long = "lease",
        env = "MERIDIAN_LEASE",
        value_name = "NAME",
        default_value = "meridian-controller"
    )]
    lease: String,
    /// Namespace of the Lease. Default: this pod's, or meridian.
    #[arg(id = "lease.namespace", long = "lease-namespace", env = "MERIDIAN_LEASE_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    replica: ReplicaArgs,
    /// Name of the cluster, the same as at the agents.
    #[arg(
        id = "cluster_name",
        long = "cluster-name",
        env = "MERIDIAN_CLUSTER_NAME",
        value_name = "NAME",
        default_value = DEFAULT_CLUSTER
    )]
    cluster_name: Cluster,
    /// Port of cilium-agent's flow server on every node, usually 4244, to announce to hubble-relay, so that one relay
    /// serves both. Agents then need other names: --hubble-node-name.
    #[arg(
        id = "hubble.cilium_port",
        long = "hubble-cilium-port",
        env = "MERIDIAN_HUBBLE_CILIUM_PORT",
        value_name = "PORT"
    )]
    cilium_port: Option<u16>,
    #[command(flatten)]
    pair_log: PairLogArgs,
    #[command(flatten)]
    families: FamilyArgs,
    /// Maximum number of pods, and of pairs of namespaces, workloads or pods, with a series of their own. The rest is
    /// in `other`.
    #[arg(
        id = "metrics.series",
        long = "metrics-series",
        env = "MERIDIAN_METRICS_SERIES",
        value_name = "NUMBER",
        default_value_t = 10_000
    )]
    series: usize,
}

/// How the replicas reach each other.
#[derive(Debug, clap::Args)]
struct ReplicaArgs {
    /// Address at which agents and other replicas reach this one. Default: that of --feed-listen.
    #[arg(id = "replica.advertise", long = "advertise", env = "MERIDIAN_ADVERTISE", value_name = "IP")]
    advertise: Option<IpAddr>,
    /// Service account of the replicas, as NAMESPACE:NAME.
    #[arg(
        id = "replica.account",
        long = "replica-account",
        env = "MERIDIAN_REPLICA_ACCOUNT",
        value_name = "ACCOUNT",
        default_value = "meridian:meridian-controller"
    )]
    account: Account,
    /// File with this replica's token for other replicas, read again for every connection.
    #[arg(
        id = "replica.token_file",
        long = "replica-token",
        env = "MERIDIAN_REPLICA_TOKEN",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    token: Option<PathBuf>,
    /// PEM file with the authority of the replicas' certificates. Without it, replicas connect without TLS.
    #[arg(
        id = "replica.ca_file",
        long = "replica-ca",
        env = "MERIDIAN_REPLICA_CA",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    ca: Option<PathBuf>,
    /// Name in the replicas' certificates. Default: the address.
    #[arg(id = "replica.server_name", long = "replica-name", env = "MERIDIAN_REPLICA_NAME", value_name = "NAME")]
    name: Option<String>,
}

impl TotalsArgs {
    /// The service account of the replicas.
    pub(super) const fn replica_account(&self) -> &Account {
        &self.replica.account
    }

    /// The settings in force.
    pub(super) fn settings(self) -> TotalsSettings {
        let own = || fs::read_to_string(NAMESPACE).ok().map(|name| name.trim().to_owned());
        let namespace = || self.namespace.or_else(own).unwrap_or_else(|| "meridian".to_owned());
        let replica = self.replica;
        TotalsSettings {
            lease: (self.lease != OFF).then(|| LeaseSettings {
                namespace: namespace(),
                replica: host_name(),
                advertise: replica.advertise,
                link: link::Settings {
                    node: String::new(),
                    server: String::new(),
                    authority: replica.ca,
                    server_name: replica.name,
                    token: replica.token,
                },
                name: self.lease,
            }),
            cluster_name: self.cluster_name.0,
            cilium_port: self.cilium_port,
            pair_log: self.pair_log.output.0,
            pair_log_interval: self.pair_log.interval.0,
            families: self.families.families(),
            series: self.series,
        }
    }
}
