//! The settings of the controller.

use super::{
    super::{
        Failure,
        access::TokenFileArgs,
        hubble::TlsArgs,
        named_file::NamedFile,
        otlp::OtlpArgs,
        usage,
        values::{Account, Admitted, LabelOrNone, Seconds},
    },
    history::HistoryArgs,
    totals::TotalsArgs,
};
use crate::{
    cluster::{Agentless, LabelKeys, NodeLabel, Source, Timing},
    controller::{Accounts, Settings},
    feed::Limits,
    link::Files,
    metrics::Listen,
};
use clap::ValueHint;
use std::{collections::BTreeSet, path::PathBuf};

/// The controller's settings. A flag counts before a variable, a variable before the file. The ids are the keys of the
/// file.
#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// The configuration file.
    #[arg(long, env = "MERIDIAN_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Kubeconfig file for the API server. Default: the pod's service account, or KUBECONFIG.
    #[arg(
        id = "kubeconfig",
        long = "kubeconfig",
        env = "MERIDIAN_KUBECONFIG",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    kubeconfig: Option<NamedFile>,
    #[command(flatten)]
    feed: FeedArgs,
    /// File with a static table for zones that the cluster does not know, read again when it changes and on SIGHUP.
    #[arg(
        id = "zones_file",
        long = "zones-file",
        env = "MERIDIAN_ZONES_FILE",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    zones_file: Option<NamedFile>,
    #[command(flatten)]
    watch: WatchArgs,
    /// Address of the server for `meridian top`, `meridian zones` and hubble-relay. Beyond loopback it needs TLS.
    #[arg(
        id = "hubble.listen",
        long = "listen",
        env = "MERIDIAN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:4344"
    )]
    listen: Listen,
    #[command(flatten)]
    hubble_tls: TlsArgs,
    /// Address of the HTTP server for metrics, health, the page and its API.
    #[arg(
        id = "http.listen",
        long = "http-listen",
        env = "MERIDIAN_HTTP_LISTEN",
        value_name = "ADDRESS",
        default_value = ":9981"
    )]
    http_listen: Listen,
    #[command(flatten)]
    access: TokenFileArgs,
    #[command(flatten)]
    totals: TotalsArgs,
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
}

/// The port for agents.
#[derive(Debug, clap::Args)]
struct FeedArgs {
    /// Address of the server for agents.
    #[arg(
        id = "feed.listen",
        long = "feed-listen",
        env = "MERIDIAN_FEED_LISTEN",
        value_name = "ADDRESS",
        default_value = ":4345"
    )]
    listen: Listen,
    /// PEM file with the certificate of the server for agents, read again when it changes. Required beyond loopback.
    #[arg(
        id = "feed.cert_file",
        long = "tls-cert",
        env = "MERIDIAN_TLS_CERT",
        value_name = "FILE",
        requires = "feed.key_file",
        value_hint = ValueHint::FilePath
    )]
    cert: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[arg(
        id = "feed.key_file",
        long = "tls-key",
        env = "MERIDIAN_TLS_KEY",
        value_name = "FILE",
        requires = "feed.cert_file",
        value_hint = ValueHint::FilePath
    )]
    key: Option<PathBuf>,
    /// Service accounts of agents, as NAMESPACE:NAME. `off` admits every client, on loopback only.
    #[arg(
        id = "feed.agent_accounts",
        long = "agent-accounts",
        env = "MERIDIAN_AGENT_ACCOUNTS",
        value_name = "ACCOUNT",
        value_delimiter = ',',
        default_value = "meridian:meridian-agent"
    )]
    accounts: Vec<Admitted>,
    /// Audience of the agents' tokens.
    #[arg(
        id = "feed.token_audience",
        long = "token-audience",
        env = "MERIDIAN_TOKEN_AUDIENCE",
        value_name = "NAME",
        default_value = "meridian-controller"
    )]
    audience: String,
    /// Maximum number of agents at this replica.
    #[arg(
        id = "feed.max_agents",
        long = "max-agents",
        env = "MERIDIAN_MAX_AGENTS",
        value_name = "NUMBER",
        default_value_t = Limits::default().agents
    )]
    max_agents: usize,
    /// Maximum age of an agent's stream, so that agents spread over the replicas. Streams end after half of it at the
    /// earliest.
    #[arg(
        id = "feed.stream_age",
        long = "stream-age",
        env = "MERIDIAN_STREAM_AGE",
        value_name = "TIME",
        default_value = "1h"
    )]
    stream_age: Seconds,
}

/// Labels, sources and watches of the cluster's objects.
#[derive(Debug, clap::Args)]
struct WatchArgs {
    /// Node label with the name of the zone.
    #[arg(
        id = "zone_label",
        long = "zone-label",
        env = "MERIDIAN_ZONE_LABEL",
        value_name = "LABEL",
        default_value = "topology.kubernetes.io/zone"
    )]
    zone_label: String,
    /// Node label with the name of the region.
    #[arg(
        id = "region_label",
        long = "region-label",
        env = "MERIDIAN_REGION_LABEL",
        value_name = "LABEL",
        default_value = "topology.kubernetes.io/region"
    )]
    region_label: String,
    /// Pod labels to include in flows. A final `*` selects all labels with that prefix.
    #[arg(
        id = "pod_labels",
        long = "pod-labels",
        env = "MERIDIAN_POD_LABELS",
        value_name = "LABEL",
        value_delimiter = ',',
        default_value = "app,k8s-app,name,app.kubernetes.io/*"
    )]
    pod_labels: Vec<String>,
    /// Sources of the zone table to ignore: `pods`, `node-addresses`, `node-annotations`, `cilium-endpoints`,
    /// `cilium-nodes`, `calico-blocks` and `node-pod-cidrs`.
    #[arg(
        id = "ignore_sources",
        long = "ignore-source",
        env = "MERIDIAN_IGNORE_SOURCES",
        value_name = "SOURCE",
        value_delimiter = ','
    )]
    ignored: Vec<Source>,
    /// Labels of nodes without an agent, as KEY=VALUE: the receiving node counts their traffic. Nodes with another
    /// system than Linux, or with a virtual kubelet's taint, never have an agent. `off` means no label.
    #[arg(
        id = "agentless_labels",
        long = "agentless-labels",
        env = "MERIDIAN_AGENTLESS_LABELS",
        value_name = "LABEL",
        value_delimiter = ',',
        default_values = Agentless::LABELS
    )]
    agentless_labels: Vec<LabelOrNone>,
    /// Labels of the nodes that have agents, as KEY=VALUE, all of them: other nodes have none.
    #[arg(
        id = "agent_node_labels",
        long = "agent-node-labels",
        env = "MERIDIAN_AGENT_NODE_LABELS",
        value_name = "LABEL",
        value_delimiter = ','
    )]
    agent_node_labels: Vec<NodeLabel>,
    /// Time after which the API server ends a watch and the controller starts a new one.
    #[arg(
        id = "watch.timeout",
        long = "watch-timeout",
        env = "MERIDIAN_WATCH_TIMEOUT",
        value_name = "TIME",
        default_value = "290s"
    )]
    timeout: Seconds,
    /// Interval of checks for kinds of objects that the cluster lacks.
    #[arg(
        id = "watch.absent_interval",
        long = "absent-interval",
        env = "MERIDIAN_ABSENT_INTERVAL",
        value_name = "TIME",
        default_value = "30s"
    )]
    absent_interval: Seconds,
}

impl Args {
    /// The settings in force.
    pub(in super::super) fn settings(self) -> Result<Settings, Failure> {
        let Self { feed, watch, .. } = self;
        let history = self.history.settings()?;
        // A label that the history keeps has to be read of the pods and of their namespaces.
        let kept = history.labels.iter().map(String::as_str).chain(history.budgets.label_keys());
        let kept: BTreeSet<String> = kept.map(str::to_owned).collect();
        let mut pod_labels = watch.pod_labels.clone();
        pod_labels.extend(kept.iter().filter(|key| !watch.pod_labels.contains(key)).cloned());
        Ok(Settings {
            kubeconfig: self.kubeconfig.map(|NamedFile(path)| path),
            feed: feed.listen.0,
            feed_tls: feed.tls()?,
            accounts: feed.accounts(self.totals.replica_account())?,
            zones_file: self.zones_file.map(|NamedFile(path)| path),
            labels: LabelKeys {
                zone: watch.zone_label,
                region: watch.region_label,
                pod: pod_labels,
                namespace: kept.into_iter().collect(),
                agentless: Agentless {
                    labels: watch.agentless_labels.into_iter().filter_map(|LabelOrNone(label)| label).collect(),
                    selector: watch.agent_node_labels,
                },
            },
            timing: Timing { watch: watch.timeout.0, absent: watch.absent_interval.0, ..Timing::default() },
            ignored: watch.ignored,
            listen: self.listen.0,
            hubble_tls: self.hubble_tls.files(self.listen.0, "--listen")?,
            http: self.http_listen.0,
            access: self.access.access()?,
            limits: Limits { agents: feed.max_agents, age: feed.stream_age.0 },
            totals: self.totals.settings(),
            history,
            otlp: self.otlp.settings()?,
        })
    }
}

impl FeedArgs {
    fn tls(&self) -> Result<Option<Files>, Failure> {
        if let (Some(certificate), Some(key)) = (self.cert.clone(), self.key.clone()) {
            return Ok(Some(Files { certificate, key, client_authorities: Vec::new() }));
        }
        if !self.listen.0.ip().is_loopback() {
            return Err(usage(format!(
                "--feed-listen {}: agents beyond this machine need TLS: name --tls-cert and --tls-key",
                self.listen.0
            )));
        }
        Ok(None)
    }

    /// The accounts that may follow and report, and the one that may stand by; `None` is everybody.
    fn accounts(&self, replica: &Account) -> Result<Option<Accounts>, Failure> {
        if self.accounts == [Admitted::All] {
            if !self.listen.0.ip().is_loopback() {
                return Err(usage("--agent-accounts off: only for a feed that listens on loopback"));
            }
            return Ok(None);
        }
        let account = |admitted: &Admitted| match admitted {
            Admitted::Account(Account(account)) => Ok(account.clone()),
            Admitted::All => Err(usage("--agent-accounts off: name no account beside it")),
        };
        Ok(Some(Accounts {
            audience: self.audience.clone(),
            agents: self.accounts.iter().map(account).collect::<Result<_, _>>()?,
            replica: replica.0.clone(),
        }))
    }
}
