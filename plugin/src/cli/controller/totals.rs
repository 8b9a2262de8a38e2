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

/// How the totals are summed up, and what is made of them.
#[derive(Debug, clap::Args)]
pub(super) struct TotalsArgs {
    /// The Lease of which the holder takes the agents' reports and sums them up; `off`: this replica does, and is
    /// the only one.
    #[arg(
        id = "lease.name",
        long = "lease",
        env = "MERIDIAN_LEASE",
        value_name = "NAME",
        default_value = "meridian-controller"
    )]
    lease: String,
    /// The Lease's namespace; by default this pod's, or meridian.
    #[arg(id = "lease.namespace", long = "lease-namespace", env = "MERIDIAN_LEASE_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    replica: ReplicaArgs,
    /// The cluster's name, as the agents have it.
    #[arg(
        id = "cluster_name",
        long = "cluster-name",
        env = "MERIDIAN_CLUSTER_NAME",
        value_name = "NAME",
        default_value = DEFAULT_CLUSTER
    )]
    cluster_name: Cluster,
    /// Where cilium-agent serves flows on every node, 4244 mostly: hubble-relay is told of those servers, too, so that
    /// one relay has both. Agents need other names then: --hubble-node-name.
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
    /// Pods, and pairs of namespaces, workloads or pods, that have a series of their own at most; the rest is `other`.
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
    /// The address at which agents and other replicas reach this one; by default that of --feed-listen.
    #[arg(id = "replica.advertise", long = "advertise", env = "MERIDIAN_ADVERTISE", value_name = "IP")]
    advertise: Option<IpAddr>,
    /// The service account of the replicas, as NAMESPACE:NAME.
    #[arg(
        id = "replica.account",
        long = "replica-account",
        env = "MERIDIAN_REPLICA_ACCOUNT",
        value_name = "ACCOUNT",
        default_value = "meridian:meridian-controller"
    )]
    account: Account,
    /// The token that this replica shows to others; it is read again for every connection.
    #[arg(
        id = "replica.token_file",
        long = "replica-token",
        env = "MERIDIAN_REPLICA_TOKEN",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    token: Option<PathBuf>,
    /// The authority that signed the replicas' certificates, as PEM; without it there is no TLS between them.
    #[arg(
        id = "replica.ca_file",
        long = "replica-ca",
        env = "MERIDIAN_REPLICA_CA",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    ca: Option<PathBuf>,
    /// The name in the replicas' certificates; by default the address.
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
