//! The totals of the cluster: which replica sums up, and what it does with the sums.

use crate::{
    cli::{
        Failure,
        config::{PairLogOutput, Seconds, controller, host_name},
        hubble::Cluster,
        process::PATIENCE,
        usage,
    },
    cluster::{Client, Health, Kind, Lease, Notice},
    counters::Counted,
    export::PairLog,
    hubble::{PeerAddress, Peers, node_name, server_name},
    leader::{Holder, Role, Term},
    link::{Authenticate, Settings},
    metrics::{Families, Process},
    proto::v1::FlowServer,
    reports::{HookChange, Ledger, Mirror, Reporting, ReportsService, Tally},
};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// What turns something off.
const OFF: &str = "off";
/// How often the totals are renewed.
const TICK: Duration = Duration::from_secs(1);
/// A holder that has not heard of all nodes yet says so long nothing: a part of the totals would look as if
/// they went backwards. An agent that has lost the holder is back in less.
const WHOLE: Duration = Duration::from_secs(60);
/// An agent that has not reported for so long is announced to hubble-relay no more.
const GONE: Duration = Duration::from_secs(60);
/// Where a pod finds its namespace.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

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
    pub(super) fn replica_account(&self) -> Result<&str, Failure> {
        let account = &self.replica_account;
        if account.split(':').count() != 2 {
            return Err(usage(format!("--replica-account {account}: an account is NAMESPACE:NAME")));
        }
        Ok(account)
    }

    pub(super) const fn families(&self) -> Families {
        Families {
            namespaces: self.metrics_namespaces,
            workloads: self.metrics_workloads,
            pods: self.metrics_pods,
            kubezonnet: self.metrics_kubezonnet,
            opencost: self.metrics_opencost,
        }
    }

    pub(super) fn ledger(&self, agents: usize) -> Ledger {
        // Nodes come and go: those that went stay known for a while.
        Ledger::new(self.metrics_series, self.pair_log.0.is_some(), agents.saturating_mul(4))
    }

    /// Where this replica is reached.
    fn place(&self, feed: SocketAddr, api: SocketAddr) -> Result<Holder, Failure> {
        let ip = match self.advertise {
            Some(ip) => ip,
            None if !feed.ip().is_unspecified() => feed.ip(),
            None => {
                return Err(usage(format!(
                    "--feed-listen {feed}: agents that look for the holder of the Lease need an address: name \
                     --advertise, or --lease off for a single replica"
                )));
            }
        };
        // What only this machine reaches is not elsewhere.
        let api_ip = if api.ip().is_unspecified() { ip } else { api.ip() };
        Ok(Holder {
            name: host_name(),
            feed: SocketAddr::new(ip, feed.port()).to_string(),
            api: SocketAddr::new(api_ip, api.port()).to_string(),
        })
    }

    fn namespace(&self) -> String {
        let own = || fs::read_to_string(NAMESPACE).ok().map(|name| name.trim().to_owned());
        self.lease_namespace.clone().or_else(own).unwrap_or_else(|| "meridian".to_owned())
    }
}

/// What the totals need of the controller.
pub(super) struct Totals<'a> {
    pub(super) args: &'a TotalsArgs,
    pub(super) client: Client,
    pub(super) feed: SocketAddr,
    pub(super) api: SocketAddr,
    pub(super) ledger: Arc<Ledger>,
    pub(super) agents: Arc<dyn Authenticate>,
    pub(super) replicas: Arc<dyn Authenticate>,
    /// Where it is said that a node's hook was changed.
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) health: Arc<Health>,
    pub(super) process: Arc<Process>,
    pub(super) shutdown: CancellationToken,
}

/// The totals, as they are served.
pub(super) struct Served {
    pub(super) service: ReportsService,
    pub(super) totals: watch::Receiver<Arc<[Counted]>>,
    pub(super) peers: watch::Receiver<Arc<Peers>>,
    /// Ends when the Lease is given back.
    pub(super) lease: Option<tokio::task::JoinHandle<()>>,
    /// Ends when the pair log is written.
    pub(super) serving: tokio::task::JoinHandle<Result<(), Failure>>,
}

/// Says in the log and in an Event of the node that its hook was changed.
fn say_hook_change(notices: mpsc::Sender<Notice>) -> impl Fn(HookChange) {
    move |HookChange { node, hook, reason }| {
        tracing::warn!(node, hook, reason, "the hook of a node was changed");
        // Told in the log at least.
        let _ = notices.try_send(Notice::hook_changed(&node, &hook, &reason));
    }
}

impl Totals<'_> {
    /// Begins to look for the Lease. Inside a runtime.
    pub(super) fn start(self) -> Result<Served, Failure> {
        let Self { args, ledger, shutdown, .. } = &self;
        let (role, lease) = if args.lease == OFF {
            (watch::Sender::new(Role::Holder(Term::default())).subscribe(), None)
        } else {
            let place = args.place(self.feed, self.api)?;
            let server = place.feed.clone();
            let settings = controller(Settings {
                node: String::new(),
                server,
                authority: args.replica_ca.clone(),
                server_name: args.replica_name.clone(),
                token: args.replica_token.clone(),
            })?;
            let role = watch::Sender::new(Role::Standby(None));
            let receiver = role.subscribe();
            tokio::spawn(Mirror { settings, ledger: Arc::clone(ledger), role: receiver.clone() }.run());
            let known = Arc::clone(ledger);
            let is_blank = move || known.is_blank();
            let lease = Lease::new(self.client.clone(), args.namespace(), args.lease.clone(), place, is_blank);
            (receiver, Some(tokio::spawn(lease.run(role, shutdown.clone()))))
        };
        let service = ReportsService {
            ledger: Arc::clone(ledger),
            role: role.clone(),
            agents: Arc::clone(&self.agents),
            replicas: Arc::clone(&self.replicas),
            tally: Arc::new(Tally::default()),
            hook_changed: Arc::new(say_hook_change(self.notices.clone())),
            shutdown: shutdown.clone(),
        };
        let (sender, peers) = (watch::Sender::new(Arc::from([])), watch::Sender::new(Arc::default()));
        let (totals, announced) = (sender.subscribe(), peers.subscribe());
        let serving = Serving {
            pair_log: (args.pair_log.clone(), args.pair_log_interval.0),
            log: None,
            ledger: Arc::clone(ledger),
            health: Arc::clone(&self.health),
            process: Arc::clone(&self.process),
            role,
            cluster: args.cluster_name.0.clone(),
            cilium_port: args.hubble_cilium_port,
            totals: sender,
            peers,
        };
        let serving = tokio::spawn(serving.run(shutdown.clone()));
        Ok(Served { service, totals, peers: announced, lease, serving })
    }
}

/// Serves the totals while this replica is the holder.
struct Serving {
    pair_log: (PairLogOutput, Duration),
    log: Option<PairLog>,
    ledger: Arc<Ledger>,
    health: Arc<Health>,
    process: Arc<Process>,
    role: watch::Receiver<Role>,
    cluster: String,
    cilium_port: Option<u16>,
    totals: watch::Sender<Arc<[Counted]>>,
    peers: watch::Sender<Arc<Peers>>,
}

impl Serving {
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Failure> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut held, mut expected, mut is_whole) = (None, 0, false);
        // A moment before the end: with it those that stand by go, too.
        let mut is_mirrored = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = self.role.changed() => {}
                () = shutdown.cancelled() => break,
            }
            let now = Instant::now();
            self.ledger.turn(now);
            self.announce(now);
            if !self.role.borrow_and_update().is_holder() {
                if held.take().is_some() {
                    is_whole = false;
                    self.totals.send_replace(Arc::from([]));
                    // What was not logged is known to the one that takes over, if one stands by.
                    self.end_log(shutdown.is_cancelled() && !is_mirrored);
                }
                continue;
            }
            let since = *held.get_or_insert_with(|| {
                expected = self.reporting(now, GONE);
                now
            });
            is_whole |= self.is_whole(expected, now.duration_since(since));
            is_mirrored = self.ledger.is_mirrored();
            if is_whole {
                self.totals.send_replace(Arc::from([self.ledger.counted()]));
                self.log()?;
            }
        }
        self.end_log(held.is_some() && !is_mirrored);
        Ok(())
    }

    /// Announces the agents that report and serve flows, here or at the holder.
    fn announce(&self, now: Instant) {
        let nodes = self.ledger.nodes(now).into_iter();
        let mut peers = Peers::new();
        for Reporting { node, flow_server, .. } in nodes.filter(|node| node.age < GONE) {
            let Some(FlowServer { name, address, tls_server_name }) = flow_server else { continue };
            // A relay knows one peer service: here it hears of Cilium's servers, too.
            if let Some((port, ip)) = self.cilium_port.zip(address.parse::<SocketAddr>().ok().map(|at| at.ip())) {
                let server_name = (!tls_server_name.is_empty()).then(|| server_name(&self.cluster, &node));
                let address = SocketAddr::new(ip, port).to_string();
                peers.insert(node_name(&self.cluster, &node), PeerAddress { address, server_name });
            }
            let server_name = Some(tls_server_name).filter(|name| !name.is_empty());
            peers.insert(name, PeerAddress { address, server_name });
        }
        self.peers.send_if_modified(|known| {
            let is_news = **known != peers;
            if is_news {
                *known = Arc::new(peers);
            }
            is_news
        });
    }

    /// Nodes that have reported in this time.
    fn reporting(&self, now: Instant, within: Duration) -> usize {
        self.ledger.nodes(now).iter().filter(|node| node.age <= within).count()
    }

    /// Whether all nodes were heard of in the time in which this replica is the holder: as many as have reported
    /// to the one before, or, where nothing is known of that, as the cluster has.
    fn is_whole(&self, expected: usize, held: Duration) -> bool {
        let nodes = || self.health.all().get(&Kind::Node).map_or(0, |nodes| nodes.objects);
        let expected = if expected > 0 { expected } else { nodes() };
        expected > 0 && self.reporting(Instant::now(), held) >= expected || held >= WHOLE
    }

    fn log(&mut self) -> Result<(), Failure> {
        let (PairLogOutput(Some(output)), every) = &self.pair_log else { return Ok(()) };
        if self.log.is_none() {
            let log = PairLog::start(output, *every, Arc::clone(&self.process.pair_log));
            self.log = Some(log.map_err(|error| Failure::failed(format!("the pair log {output}: {error}")))?);
        }
        if let Some(log) = &mut self.log {
            log.tick(|| vec![(String::new(), self.ledger.take_interval())]);
        }
        Ok(())
    }

    fn end_log(&mut self, with_the_rest: bool) {
        let Some(log) = self.log.take() else { return };
        let rest = if with_the_rest { self.ledger.take_interval() } else { Vec::new() };
        if !log.finish(vec![(String::new(), rest)], PATIENCE) {
            tracing::warn!("the pair log can't be written in time: its last lines are lost");
        }
    }
}
