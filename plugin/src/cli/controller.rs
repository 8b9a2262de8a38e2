//! `meridian controller`.

mod history;
mod totals;

use super::{Failure, config::Seconds, hubble::TlsArgs, signals::signals, usage};
use crate::{
    cluster::{Agentless, LabelKeys, NodeLabel, Source, Timing},
    controller::{self, Accounts, Settings},
    feed::Limits,
    link::Files,
    metrics::Listen,
    servers::END_TIMEOUT,
};
use history::HistoryArgs;
use std::path::PathBuf;
use tokio::runtime::Runtime;
use totals::{OFF, TotalsArgs};

/// The controller's configuration. A flag counts before a variable.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How the API server is reached; by default the service account of the pod, or KUBECONFIG.
    #[arg(long, env = "MERIDIAN_KUBECONFIG", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    kubeconfig: Option<PathBuf>,
    /// Where agents follow.
    #[arg(long, env = "MERIDIAN_FEED_LISTEN", value_name = "ADDRESS", default_value = ":4345")]
    feed_listen: Listen,
    /// The certificate that agents are shown, as PEM; it is read again when it changes. Needed beyond loopback.
    #[arg(long, env = "MERIDIAN_TLS_CERT", value_name = "FILE", requires = "tls_key", value_hint = clap::ValueHint::FilePath)]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate, as PEM.
    #[arg(long, env = "MERIDIAN_TLS_KEY", value_name = "FILE", requires = "tls_cert", value_hint = clap::ValueHint::FilePath)]
    tls_key: Option<PathBuf>,
    /// The service accounts of agents, as NAMESPACE:NAME; `off` lets everybody in, on loopback only.
    #[arg(
        long,
        env = "MERIDIAN_AGENT_ACCOUNTS",
        value_name = "ACCOUNT",
        value_delimiter = ',',
        default_value = "meridian:meridian-agent"
    )]
    agent_accounts: Vec<String>,
    /// The audience that agents' tokens are made for.
    #[arg(long, env = "MERIDIAN_TOKEN_AUDIENCE", value_name = "NAME", default_value = "meridian-controller")]
    token_audience: String,
    /// A static table for what the cluster does not know; it is read again when it changes and on SIGHUP.
    #[arg(long, env = "MERIDIAN_ZONES_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    zones_file: Option<PathBuf>,
    /// The node label with the zone's name.
    #[arg(long, env = "MERIDIAN_ZONE_LABEL", value_name = "LABEL", default_value = "topology.kubernetes.io/zone")]
    zone_label: String,
    /// The node label with the region's name.
    #[arg(long, env = "MERIDIAN_REGION_LABEL", value_name = "LABEL", default_value = "topology.kubernetes.io/region")]
    region_label: String,
    /// Labels of pods that are told with their flows; one that ends in `*` stands for all that begin so.
    #[arg(
        long,
        env = "MERIDIAN_POD_LABELS",
        value_name = "LABEL",
        value_delimiter = ',',
        default_value = "app,k8s-app,name,app.kubernetes.io/*"
    )]
    pod_labels: Vec<String>,
    /// Sources of the zone table that count for nothing: `pods`, `node-addresses`, `node-annotations`,
    /// `cilium-endpoints`, `cilium-nodes`, `calico-blocks` and `node-pod-cidrs`.
    #[arg(long = "ignore-source", env = "MERIDIAN_IGNORE_SOURCES", value_name = "SOURCE", value_delimiter = ',')]
    ignored: Vec<Source>,
    /// Labels of nodes that have no agent, as KEY=VALUE: what such a node sends is counted where it arrives. Nodes of
    /// another system than Linux, and of a virtual kubelet's taint, have none whatever their labels. `off` is no label.
    #[arg(
        long,
        env = "MERIDIAN_AGENTLESS_LABELS",
        value_name = "LABEL",
        value_delimiter = ',',
        default_values = Agentless::LABELS,
    )]
    agentless_labels: Vec<String>,
    /// Labels of the nodes that have agents, as KEY=VALUE, all of them: other nodes have none.
    #[arg(long, env = "MERIDIAN_AGENT_NODE_LABELS", value_name = "LABEL", value_delimiter = ',')]
    agent_node_labels: Vec<NodeLabel>,
    /// Where `meridian top`, `meridian zones` and hubble-relay are answered; beyond loopback with TLS.
    #[arg(long, env = "MERIDIAN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:4344")]
    listen: Listen,
    #[command(flatten)]
    hubble_tls: TlsArgs,
    /// Where metrics and health are served over HTTP.
    #[arg(long, env = "MERIDIAN_HTTP_LISTEN", value_name = "ADDRESS", default_value = ":9981")]
    http_listen: Listen,
    /// After which time the API server ends a watch and it goes on with a new one.
    #[arg(long, env = "MERIDIAN_WATCH_TIMEOUT", value_name = "TIME", default_value = "290s")]
    watch_timeout: Seconds,
    /// How often a kind of object that the cluster lacks is looked for.
    #[arg(long, env = "MERIDIAN_ABSENT_INTERVAL", value_name = "TIME", default_value = "30s")]
    absent_interval: Seconds,
    /// Agents that may follow this replica.
    #[arg(long, env = "MERIDIAN_MAX_AGENTS", value_name = "NUMBER", default_value_t = Limits::default().agents)]
    max_agents: usize,
    /// After which time an agent is sent away, so that agents spread over the replicas; half of it at the earliest.
    #[arg(long, env = "MERIDIAN_STREAM_AGE", value_name = "TIME", default_value = "1h")]
    stream_age: Seconds,
    #[command(flatten)]
    totals: TotalsArgs,
    #[command(flatten)]
    history: HistoryArgs,
}

impl Args {
    fn settings(&self) -> Result<Settings, Failure> {
        Ok(Settings {
            kubeconfig: self.kubeconfig.clone(),
            feed: self.feed_listen.0,
            feed_tls: self.feed_tls()?,
            accounts: self.accounts()?,
            zones_file: self.zones_file.clone(),
            labels: LabelKeys {
                zone: self.zone_label.clone(),
                region: self.region_label.clone(),
                pod: self.pod_labels.clone(),
                agentless: self.agentless()?,
            },
            timing: Timing { watch: self.watch_timeout.0, absent: self.absent_interval.0, ..Timing::default() },
            ignored: self.ignored.clone(),
            listen: self.listen.0,
            hubble_tls: self.hubble_tls.files(self.listen.0, "--listen")?,
            http: self.http_listen.0,
            limits: Limits { agents: self.max_agents, age: self.stream_age.0 },
            totals: self.totals.settings(),
            history: self.history.settings()?,
        })
    }

    /// The nodes that have no agent.
    fn agentless(&self) -> Result<Agentless, Failure> {
        let named = self.agentless_labels.iter().filter(|label| *label != OFF);
        let labels = named.map(|label| label.parse().map_err(|error| usage(format!("--agentless-labels: {error}"))));
        Ok(Agentless { labels: labels.collect::<Result<_, _>>()?, selector: self.agent_node_labels.clone() })
    }

    fn feed_tls(&self) -> Result<Option<Files>, Failure> {
        if let (Some(certificate), Some(key)) = (self.tls_cert.clone(), self.tls_key.clone()) {
            return Ok(Some(Files { certificate, key, client_authorities: Vec::new() }));
        }
        if !self.feed_listen.0.ip().is_loopback() {
            return Err(usage(format!(
                "--feed-listen {}: agents beyond this machine need TLS: name --tls-cert and --tls-key",
                self.feed_listen.0
            )));
        }
        Ok(None)
    }

    /// Who may follow and report, and who may stand by; `None` is everybody.
    fn accounts(&self) -> Result<Option<Accounts>, Failure> {
        if self.agent_accounts == [OFF] {
            if !self.feed_listen.0.ip().is_loopback() {
                return Err(usage("--agent-accounts off: only for a feed that listens on loopback"));
            }
            return Ok(None);
        }
        if let Some(bad) = self.agent_accounts.iter().find(|account| account.split(':').count() != 2) {
            return Err(usage(format!("--agent-accounts {bad}: an account is NAMESPACE:NAME")));
        }
        Ok(Some(Accounts {
            audience: self.token_audience.clone(),
            agents: self.agent_accounts.iter().cloned().collect(),
            replica: self.totals.replica_account()?.to_owned(),
        }))
    }
}

/// `meridian controller`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let settings = args.settings()?;
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let result = runtime.block_on(async {
        let asked = signals()?;
        Ok(controller::run(&settings, &asked.reload, &asked.end).await?)
    });
    runtime.shutdown_timeout(END_TIMEOUT);
    result
}
