//! `meridian controller`: watches the cluster, tells the agents, and sums up what they report.

mod totals;

use super::{
    Failure,
    config::Seconds,
    hubble::{self, TlsArgs},
    process::{PATIENCE, Signal, signals},
    usage,
};
use crate::{
    api::{CountersService, HolderCounters, ZonesService},
    cluster::{self, Anybody, Client, Health, LabelKeys, Publisher, Reporter, Source, Timing, Tokens},
    feed::{Agents, FeedService, Limits, Store},
    grpc::{self, AgentServices, ControllerServices},
    hubble::{KnownPeers, PeerService},
    identity::Index,
    link::{Authenticate, Files, Tls},
    metrics::{self, Controller, Listen, Process},
    watched::{Look, Watched},
    zones::{SharedTable, StaticTable},
};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use totals::{Totals, TotalsArgs};

/// How often the static table's file is looked at.
const TICK: Duration = Duration::from_secs(1);
/// What turns the tokens off.
const OFF: &str = "off";

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
}

impl Args {
    fn tls(&self) -> Result<Option<Arc<Tls>>, Failure> {
        let (Some(certificate), Some(key)) = (self.tls_cert.clone(), self.tls_key.clone()) else {
            if !self.feed_listen.0.ip().is_loopback() {
                return Err(usage(format!(
                    "--feed-listen {}: agents beyond this machine need TLS: name --tls-cert and --tls-key",
                    self.feed_listen.0
                )));
            }
            return Ok(None);
        };
        let files = Files { certificate, key, client_authorities: Vec::new() };
        Tls::new("feed", files).map(|tls| Some(Arc::new(tls))).map_err(usage)
    }

    /// Who may follow and report, and who may stand by.
    fn tokens(&self, client: Client) -> Result<[Arc<dyn Authenticate>; 2], Failure> {
        if self.agent_accounts == [OFF] {
            if !self.feed_listen.0.ip().is_loopback() {
                return Err(usage("--agent-accounts off: only for a feed that listens on loopback"));
            }
            return Ok([Arc::new(Anybody), Arc::new(Anybody)]);
        }
        if let Some(bad) = self.agent_accounts.iter().find(|account| account.split(':').count() != 2) {
            return Err(usage(format!("--agent-accounts {bad}: an account is NAMESPACE:NAME")));
        }
        let of = |accounts| {
            Arc::new(Tokens { client: client.clone(), audience: self.token_audience.clone(), accounts }) as Arc<_>
        };
        let replicas = self.totals.replica_account()?.to_owned();
        Ok([of(self.agent_accounts.iter().cloned().collect()), of([replicas].into())])
    }
}

/// `meridian controller`.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut file = args.zones_file.as_deref().map(Watched::new);
    let fixed = args.zones_file.as_deref().map(StaticTable::read).transpose().map_err(usage)?.unwrap_or_default();
    let (tls, files) = (args.tls()?, args.hubble_tls.files(args.listen.0, "--listen")?);
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let received = signals(&runtime)?;
    let _inside = runtime.enter();
    let client = runtime.block_on(cluster::connect(args.kubeconfig.as_deref())).map_err(usage)?;
    let [tokens, replicas] = args.tokens(client.clone())?;

    let (store, agents, health): (Arc<Store>, Arc<Agents>, Arc<Health>) = Default::default();
    let (table, index): (SharedTable, Arc<Index>) = Default::default();
    let (process, reloads): (Arc<Process>, Arc<[AtomicU64; 2]>) = Default::default();
    let shutdown = CancellationToken::new();
    let listen = |at: Listen, what: &str| {
        let failed = |error: io::Error| Failure::failed(format!("listening on {} for {what}: {error}", at.0));
        runtime.block_on(TcpListener::bind(at.0)).map_err(failed)
    };
    let (feed_at, own_at) = (listen(args.feed_listen, "agents")?, listen(args.listen, "`meridian top`")?);
    let http_at = listen(args.http_listen, "metrics")?;

    let fixed = watch::Sender::new(Arc::new(fixed));
    let (notices, to_report) = Publisher::notices();
    let labels =
        LabelKeys { zone: args.zone_label.clone(), region: args.region_label.clone(), pod: args.pod_labels.clone() };
    let timing = Timing { watch: args.watch_timeout.0, absent: args.absent_interval.0, ..Timing::default() };
    let messages = cluster::watch(&client, &labels, &timing, &health);
    let publisher = Publisher {
        store: Arc::clone(&store),
        table: table.clone(),
        index: Arc::clone(&index),
        health: Arc::clone(&health),
        notices: notices.clone(),
        ignored: args.ignored.clone(),
        fixed: fixed.subscribe(),
    };
    let ledger = Arc::new(args.totals.ledger(args.max_agents));
    let totals = Totals {
        args: &args.totals,
        client: client.clone(),
        feed: feed_at.local_addr().map_err(Failure::failed)?,
        api: own_at.local_addr().map_err(Failure::failed)?,
        ledger: Arc::clone(&ledger),
        agents: Arc::clone(&tokens),
        replicas,
        notices: notices.clone(),
        health: Arc::clone(&health),
        process: Arc::clone(&process),
        shutdown: shutdown.clone(),
    };
    let totals::Served { service: reports, totals, peers, lease, serving } = totals.start()?;
    let peers = PeerService::new(KnownPeers::Here(peers), shutdown.clone());
    let hubble_tls = hubble::tls(files, args.listen.0);
    let counters = HolderCounters {
        counters: CountersService::new(totals.clone(), Arc::clone(&process.missed), shutdown.clone()),
        role: reports.role.clone(),
    };
    let feed = FeedService {
        store: Arc::clone(&store),
        agents: Arc::clone(&agents),
        tokens,
        watches: Arc::clone(&health) as _,
        limits: Limits { agents: args.max_agents, age: args.stream_age.0 },
        shutdown: shutdown.clone(),
    };
    let zones = ZonesService { table, index };
    let measured = Controller {
        health,
        store: Arc::clone(&store),
        agents,
        reloads: Arc::clone(&reloads),
        process: Arc::clone(&process),
        ledger,
        tally: Arc::clone(&reports.tally),
        role: reports.role.clone(),
        totals,
        families: args.totals.families(),
        tls: tls.iter().chain(&hubble_tls).cloned().collect(),
    };
    let served = |result: io::Result<()>| result.map_err(Failure::failed);
    let mut tasks = vec![
        runtime.spawn({
            let tls = tls.clone();
            let services = AgentServices { feed: feed.clone(), reports, peers: peers.clone() };
            async move {
                grpc::serve_agents(services, feed_at, tls).await;
                Ok(())
            }
        }),
        runtime.spawn({
            let shutdown = shutdown.clone();
            let services = ControllerServices { controller: feed, counters, peers, zones };
            async move { served(grpc::serve_controller(services, own_at, hubble_tls, shutdown).await) }
        }),
        runtime.spawn({
            let shutdown = shutdown.clone();
            async move { served(metrics::serve(measured, http_at, shutdown).await) }
        }),
        serving,
        runtime.spawn(async move {
            publisher.follow(messages).await;
            Ok(())
        }),
    ];
    runtime.spawn(Reporter { client, notices: to_report }.run());
    tracing::info!(feed = %args.feed_listen.0, tls = tls.is_some(), http = %args.http_listen.0, "watching the cluster");

    let result = follow(&received, |reload| {
        process.ready.store(store.version() > 0, Ordering::Relaxed);
        if let Some(file) = &mut file {
            look(file, reload, &fixed, &reloads);
        }
        ended(&runtime, &mut tasks)
    });
    shutdown.cancel();
    // Streams are told, servers end; the watches end with the process.
    tasks.pop();
    if let Some(lease) = lease {
        let _ = runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, lease).await });
    }
    for task in tasks {
        let _ = runtime.block_on(async { tokio::time::timeout(PATIENCE, task).await });
    }
    runtime.shutdown_timeout(PATIENCE);
    result
}

/// Looks after things until a signal asks to end or something has ended by itself.
fn follow(received: &Receiver<Signal>, mut look_after: impl FnMut(bool) -> Option<String>) -> Result<(), Failure> {
    loop {
        let reload = match received.recv_timeout(TICK) {
            Ok(Signal::End) => return Ok(()),
            Ok(Signal::Reload) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::failed("signals can't be received")),
        };
        if let Some(error) = look_after(reload) {
            return Err(Failure::failed(error));
        }
    }
}

/// Takes the static table again if its file has changed. One with an error is refused, and the old one
/// stays.
fn look(file: &mut Watched, reload: bool, fixed: &watch::Sender<Arc<StaticTable>>, reloads: &[AtomicU64; 2]) {
    if !matches!(file.look(), Look::Changed) && !reload {
        return;
    }
    match StaticTable::read(&file.path) {
        Ok(table) => {
            fixed.send_replace(Arc::new(table));
            reloads[0].fetch_add(1, Ordering::Relaxed);
            tracing::info!(file = %file.path.display(), "a new static table is in force");
        }
        Err(reason) => {
            reloads[1].fetch_add(1, Ordering::Relaxed);
            tracing::error!(%reason, "the new static table is refused; the old one stays in force");
        }
    }
}

/// The error of a task that has ended by itself.
fn ended(runtime: &Runtime, tasks: &mut Vec<JoinHandle<Result<(), Failure>>>) -> Option<String> {
    let ended = tasks.iter().position(JoinHandle::is_finished)?;
    Some(match runtime.block_on(tasks.remove(ended)) {
        Ok(Ok(())) => "a part of the controller has ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    })
}
