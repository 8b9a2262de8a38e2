//! The settings of a controller.

use crate::{
    cluster::{LabelKeys, Source, Timing},
    export::Output,
    feed::Limits,
    link::{self, Files},
    metrics::Families,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// The configuration in force.
#[derive(Debug)]
pub struct Settings {
    /// How the API server is reached; `None`: as the environment says.
    pub kubeconfig: Option<PathBuf>,
    /// Where agents are served.
    pub feed: SocketAddr,
    /// The certificate that they are shown.
    pub feed_tls: Option<Files>,
    /// The service accounts that are let in; `None` lets everybody in.
    pub accounts: Option<Accounts>,
    /// The static table.
    pub zones_file: Option<PathBuf>,
    /// The labels that are read of objects.
    pub labels: LabelKeys,
    /// Sources of zones that count for nothing.
    pub ignored: Vec<Source>,
    /// The times of watches.
    pub timing: Timing,
    /// Where `meridian top`, `meridian zones` and hubble-relay are answered.
    pub listen: SocketAddr,
    /// The certificate that they are shown.
    pub hubble_tls: Option<Files>,
    /// Where metrics and health are served.
    pub http: SocketAddr,
    /// The agents that may follow.
    pub limits: Limits,
    /// The totals of the cluster.
    pub totals: TotalsSettings,
}

/// Service accounts, as NAMESPACE:NAME.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// The audience that tokens are made for.
    pub audience: String,
    /// Of agents.
    pub agents: BTreeSet<String>,
    /// Of the controller's replicas.
    pub replica: String,
}

/// How the totals are summed up, and what is made of them.
#[derive(Debug)]
pub struct TotalsSettings {
    /// How the replicas agree on the one that sums up; `None`: this one is the only one.
    pub lease: Option<LeaseSettings>,
    /// The cluster's name.
    pub cluster_name: String,
    /// The port on which cilium-agent serves flows on every node, if hubble-relay is to be told.
    pub cilium_port: Option<u16>,
    /// Where the pair log goes, if anywhere.
    pub pair_log: Option<Output>,
    /// Its interval.
    pub pair_log_interval: Duration,
    /// Families of series.
    pub families: Families,
    /// Series of each family.
    pub series: usize,
}

/// The Lease, and how the replicas reach each other.
#[derive(Debug)]
pub struct LeaseSettings {
    /// The Lease.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// This replica, for people.
    pub replica: String,
    /// The address at which this replica is reached; by default that of its port for agents.
    pub advertise: Option<IpAddr>,
    /// How others are reached. The server is the leader's.
    pub link: link::Settings,
}
