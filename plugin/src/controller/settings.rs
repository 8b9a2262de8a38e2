//! The settings of a controller.

use crate::{
    cluster::{LabelKeys, Source, Timing},
    export::Output,
    feed::Limits,
    historian,
    link::{self, Files},
    metrics::{Access, Families},
    otlp,
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
    /// The kubeconfig for the API server; `None` uses the environment.
    pub kubeconfig: Option<PathBuf>,
    /// The address for agents.
    pub feed: SocketAddr,
    /// The certificate for agents.
    pub feed_tls: Option<Files>,
    /// The service accounts that are accepted; `None` accepts everyone.
    pub accounts: Option<Accounts>,
    /// The static table.
    pub zones_file: Option<PathBuf>,
    /// The labels that are read from objects.
    pub labels: LabelKeys,
    /// Sources of zones to ignore.
    pub ignored: Vec<Source>,
    /// The timing of watches.
    pub timing: Timing,
    /// The address for `meridian top`, `meridian zones` and hubble-relay.
    pub listen: SocketAddr,
    /// The certificate for these clients.
    pub hubble_tls: Option<Files>,
    /// The address for metrics and health.
    pub http: SocketAddr,
    /// Who may read the page and its API there.
    pub access: Access,
    /// The limits for agents.
    pub limits: Limits,
    /// The totals of the cluster.
    pub totals: TotalsSettings,
    /// The history.
    pub history: historian::Settings,
    /// The OpenTelemetry collector, if there is one.
    pub otlp: Option<otlp::Settings>,
}

/// Service accounts, as NAMESPACE:NAME.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// The audience of the tokens.
    pub audience: String,
    /// The accounts of agents.
    pub agents: BTreeSet<String>,
    /// The account of the controller's replicas.
    pub replica: String,
}

/// The settings of the totals and their outputs.
#[derive(Debug)]
pub struct TotalsSettings {
    /// The Lease that decides the leader; `None`: this is the only replica.
    pub lease: Option<LeaseSettings>,
    /// The cluster's name.
    pub cluster_name: String,
    /// The port of cilium-agent's flow server on every node, if it is announced to hubble-relay.
    pub cilium_port: Option<u16>,
    /// The output of the pair log, if there is one.
    pub pair_log: Option<Output>,
    /// The interval of the pair log.
    pub pair_log_interval: Duration,
    /// The families of series.
    pub families: Families,
    /// The limit of series in each family.
    pub series: usize,
}

/// The Lease, and the connections between replicas.
#[derive(Debug)]
pub struct LeaseSettings {
    /// The Lease's name.
    pub name: String,
    /// The Lease's namespace.
    pub namespace: String,
    /// The name of this replica, for people.
    pub replica: String,
    /// The address at which this replica is reached; by default that of its port for agents.
    pub advertise: Option<IpAddr>,
    /// The settings of connections to other replicas. The leader's address replaces the server.
    pub link: link::Settings,
}
