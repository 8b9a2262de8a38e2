//! Runs a controller: opens its ports, starts its parts, watches them, and ends them.

use super::{
    Error,
    history::HistoryRecorder,
    settings::{Settings, TotalsSettings},
    static_table::WatchedStaticTable,
    totals::{Totals, TotalsServices},
};
use crate::{
    allocator,
    api::{CountersService, LeaderCounters, ZonesService},
    cluster::{
        self, AllowAll, Catalogues, Client, EventRecorder, Health, NodeProvider, Notices, Publisher, ReviewTally,
        Tokens,
    },
    counters::CounterSnapshot,
    feed::{Agents, FeedService, Store},
    grpc::{self, AgentServices, ControllerServices},
    historian::{Historian, Recording},
    hubble::{PeerService, PeerSource},
    identity::Index,
    link::{self, Authenticate, Tls},
    metrics::{self, Page, Ready},
    otlp,
    replication::{Copying, HistoryService},
    reports::{ClusterTotals, ReportsService},
    servers::{self, END_TIMEOUT, listen},
    zones::SharedTable,
};
use futures_util::future::select_all;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    select,
    sync::{Notify, watch},
    task::{JoinError, JoinHandle},
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// The interval at which the static table's file is checked.
const TICK: Duration = Duration::from_secs(1);

/// The wait for standby replicas to receive the last message.
const LAST_MESSAGE: Duration = Duration::from_millis(200);

/// A part that runs until the controller ends.
type Part = JoinHandle<Result<(), Error>>;

/// Watches the cluster and serves agents until `shutdown`; reads the static table again on `reload`.
///
/// # Errors
/// A resource is missing, or a part of the controller ended by itself.
pub async fn run(settings: &Settings, reload: &Notify, shutdown: &CancellationToken) -> Result<(), Error> {
    let mut fixed = WatchedStaticTable::read(settings.zones_file.as_deref())?;
    let feed_tls = settings.feed_tls.clone().map(|files| Tls::new("feed", files).map(Arc::new));
    let feed_tls = feed_tls.transpose().map_err(Error::Tls)?;
    let client = cluster::connect(settings.kubeconfig.as_deref()).await?;
    let ports = Ports::take(settings).await?;
    let controller = Controller::new(settings, client);
    let mut parts = controller.start(ports, feed_tls, &fixed)?;
    let result = controller.look_after(&mut parts, &mut fixed, reload, shutdown).await;
    if controller.cluster_totals.close() {
        // Before the Lease is released: the next leader then has every report.
        sleep(LAST_MESSAGE).await;
    }
    controller.ending.cancel();
    parts.end().await;
    result
}

/// The open ports.
struct Ports {
    feed: TcpListener,
    own: TcpListener,
    http: TcpListener,
}

impl Ports {
    async fn take(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            feed: listen(settings.feed, "agents").await?,
            own: listen(settings.listen, "`meridian top`").await?,
            http: listen(settings.http, "metrics").await?,
        })
    }
}

/// State that the parts of a controller share.
struct Controller<'a> {
    settings: &'a Settings,
    client: Client,
    store: Arc<Store>,
    agents: Arc<Agents>,
    health: Arc<Health>,
    table: SharedTable,
    index: Arc<Index>,
    ready: Ready,
    cluster_totals: Arc<ClusterTotals>,
    nodes: watch::Sender<Arc<[NodeProvider]>>,
    reviews: Arc<ReviewTally>,
    ending: CancellationToken,
}

impl<'a> Controller<'a> {
    fn new(settings: &'a Settings, client: Client) -> Self {
        let totals = &settings.totals;
        // Nodes are added and removed: removed ones are remembered for a while.
        let nodes = settings.limits.agents.saturating_mul(4);
        let cluster_totals = ClusterTotals::new(totals.series, totals.pair_log.is_some(), nodes);
        Self {
            settings,
            client,
            store: Arc::default(),
            agents: Arc::default(),
            health: Arc::default(),
            table: SharedTable::default(),
            index: Arc::default(),
            ready: Ready::default(),
            cluster_totals: Arc::new(match settings.history.dir {
                Some(_) => cluster_totals.with_growth(),
                None => cluster_totals,
            }),
            nodes: watch::Sender::new(Arc::from([])),
            reviews: Arc::default(),
            ending: CancellationToken::new(),
        }
    }

    fn start(&self, ports: Ports, feed_tls: Option<Arc<Tls>>, fixed: &WatchedStaticTable) -> Result<Parts, Error> {
        let (watching, notices, catalogues) = self.watch(fixed);
        let [tokens, replicas] = self.tokens();
        let for_history = Arc::clone(&replicas);
        let served = Totals {
            settings: &self.settings.totals,
            client: self.client.clone(),
            feed: ports.feed.local_addr().map_err(Error::Address)?,
            api: ports.own.local_addr().map_err(Error::Address)?,
            cluster_totals: Arc::clone(&self.cluster_totals),
            agents: Arc::clone(&tokens),
            replicas,
            notices,
            health: Arc::clone(&self.health),
            store: Arc::clone(&self.store),
            index: Arc::clone(&self.index),
            shutdown: self.ending.clone(),
        }
        .start()?;
        let hubble_tls = servers::tls(self.settings.hubble_tls.clone(), self.settings.listen);
        let tls: Vec<Arc<Tls>> = [&feed_tls, &hubble_tls].into_iter().flatten().cloned().collect();
        let page = self.page(&served, fixed).with(tls);
        let has_tls = feed_tls.is_some();
        let peers = PeerService::new(PeerSource::Local(served.peers), self.ending.clone());
        let exported = served.totals.clone();
        let counters = LeaderCounters {
            counters: CountersService::new(served.totals, self.ending.clone()),
            role: served.service.role.clone(),
        };
        let mut page = page.with(counters.counters.missed());
        page.access = self.settings.access.clone();
        let exporting = self.settings.otlp.clone().map(|otlp| self.export(otlp, exported, &mut page));
        let historian = self.settings.history.open();
        let mut copying = None;
        if let Some(historian) = &historian {
            copying = served.replicas.clone().map(|settings| self.copy_history(historian, settings, &served.service));
            page.add_history(Arc::clone(historian));
            page.add_catalogue(catalogues);
        }
        let feed = self.feed(tokens);
        let zones = ZonesService { table: self.table.clone(), index: Arc::clone(&self.index) };
        let history = historian.clone().map(|historian| HistoryService { historian, replicas: for_history });
        let agent_services =
            AgentServices { feed: feed.clone(), reports: served.service, peers: peers.clone(), history };
        let backlog = grpc::backlog();
        page.add(Arc::clone(&backlog));
        let requests = grpc::requests();
        page.add(Arc::clone(&requests));
        let own_services = ControllerServices { controller: feed, counters, peers, zones, backlog, requests };
        let serving_agents = async move {
            grpc::serve_agents(agent_services, ports.feed, feed_tls).await;
            Ok(())
        };
        let serving_own = grpc::serve_controller(own_services, ports.own, hubble_tls, self.ending.clone());
        let serving_page = metrics::serve(page, ports.http, self.ending.clone());
        let mut parts = vec![
            tokio::spawn(serving_agents),
            tokio::spawn(async move { serving_own.await.map_err(Error::Failed) }),
            tokio::spawn(async move { serving_page.await.map_err(Error::Failed) }),
            served.serving,
        ];
        let shutdown = self.ending.clone();
        parts.push(tokio::spawn(async move {
            allocator::keep_trimmed(shutdown).await;
            Ok(())
        }));
        parts.extend(exporting);
        parts.extend(copying);
        parts.extend(historian.map(|historian| self.keep_history(historian, fixed)));
        let Settings { feed, http, .. } = self.settings;
        tracing::info!(%feed, tls = has_tls, %http, "watching the cluster");
        Ok(Parts { serving: parts, watching, lease: served.lease })
    }

    /// Exports the totals to a collector, while this replica is the leader.
    fn export(
        &self,
        settings: otlp::Settings,
        counters: watch::Receiver<Arc<[CounterSnapshot]>>,
        page: &mut Page,
    ) -> Part {
        let tally = Arc::new(otlp::Tally::default());
        page.add(Arc::clone(&tally));
        let TotalsSettings { cluster_name, families, .. } = &self.settings.totals;
        let exporter = otlp::Exporter {
            settings,
            program: otlp::Program { name: "meridian-controller", cluster: cluster_name.clone() },
            content: (*families).into(),
            counters,
            tally,
            shutdown: self.ending.clone(),
        };
        tokio::spawn(async move {
            exporter.run().await;
            Ok(())
        })
    }

    /// Copies from the leader the hours of the history that this replica lacks.
    fn copy_history(&self, historian: &Arc<Historian>, settings: link::Settings, reports: &ReportsService) -> Part {
        let copying = Copying { settings, role: reports.role.clone(), historian: Arc::clone(historian) };
        let shutdown = self.ending.clone();
        tokio::spawn(async move {
            copying.run(shutdown).await;
            Ok(())
        })
    }

    /// Keeps the history.
    fn keep_history(&self, historian: Arc<Historian>, fixed: &WatchedStaticTable) -> Part {
        let keeping = HistoryRecorder {
            recording: Recording::new(historian),
            cluster_totals: Arc::clone(&self.cluster_totals),
            nodes: self.nodes.subscribe(),
            fixed: fixed.table(),
        };
        tokio::spawn(keeping.run(self.ending.clone()))
    }

    /// Watches the cluster, and applies its state. Returns the way of further notices, and the catalogues.
    fn watch(&self, fixed: &WatchedStaticTable) -> (Part, Notices, Catalogues) {
        let (catalogues, requests) = Catalogues::new(self.client.clone());
        let (notices, to_report) = Notices::new(Arc::clone(&self.health));
        let messages = cluster::watch(&self.client, &self.settings.labels, &self.settings.timing, &self.health);
        let publisher = Publisher {
            store: Arc::clone(&self.store),
            table: self.table.clone(),
            index: Arc::clone(&self.index),
            health: Arc::clone(&self.health),
            notices: notices.clone(),
            ignored: self.settings.ignored.clone(),
            fixed: fixed.table(),
            nodes: self.nodes.clone(),
            catalogues: requests,
        };
        tokio::spawn(EventRecorder { client: self.client.clone(), notices: to_report }.run());
        let watching = async move {
            publisher.follow(messages).await;
            Ok(())
        };
        (tokio::spawn(watching), notices, catalogues)
    }

    /// The service accounts that may follow and report, and those that may stand by.
    fn tokens(&self) -> [Arc<dyn Authenticate>; 2] {
        let Some(accounts) = &self.settings.accounts else { return [Arc::new(AllowAll), Arc::new(AllowAll)] };
        let of = |accounts_of: BTreeSet<String>| {
            let (client, audience) = (self.client.clone(), accounts.audience.clone());
            Tokens::new(client, audience, accounts_of, Arc::clone(&self.reviews))
        };
        let (agents, replicas) = (of(accounts.agents.clone()), of([accounts.replica.clone()].into()));
        [Arc::new(agents), Arc::new(replicas.without_nodes())]
    }

    fn feed(&self, tokens: Arc<dyn Authenticate>) -> FeedService {
        FeedService {
            store: Arc::clone(&self.store),
            agents: Arc::clone(&self.agents),
            tokens,
            watches: Arc::clone(&self.health) as _,
            limits: self.settings.limits,
            shutdown: self.ending.clone(),
        }
    }

    fn page(&self, served: &TotalsServices, fixed: &WatchedStaticTable) -> Page {
        let own = Arc::new(metrics::Controller {
            health: Arc::clone(&self.health),
            store: Arc::clone(&self.store),
            agents: Arc::clone(&self.agents),
            reloads: Arc::clone(&fixed.reloads),
            cluster_totals: Arc::clone(&self.cluster_totals),
            tally: Arc::clone(&served.service.tally),
            role: served.service.role.clone(),
            totals: served.totals.clone(),
            families: self.settings.totals.families,
            reviews: Arc::clone(&self.reviews),
        });
        let mut page = Page::new(self.ready.clone()).with(Arc::clone(&own));
        page.add_source(own);
        if self.settings.totals.pair_log.is_some() { page.with(Arc::clone(&served.pair_log)) } else { page }
    }

    /// Checks the static table and the parts until `shutdown` or the end of a part.
    async fn look_after(
        &self,
        parts: &mut Parts,
        fixed: &mut WatchedStaticTable,
        reload: &Notify,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let mut ticks = interval(TICK);
        loop {
            let is_asked = select! {
                () = shutdown.cancelled() => return Ok(()),
                error = parts.ended() => return Err(error),
                () = reload.notified() => true,
                _ = ticks.tick() => false,
            };
            self.ready.set(self.store.version() > 0);
            fixed.look(is_asked);
        }
    }
}

/// The running parts of a controller.
struct Parts {
    serving: Vec<Part>,
    watching: Part,
    /// Ends when the Lease is released.
    lease: Option<JoinHandle<()>>,
}

impl Parts {
    /// Waits until a part ends by itself. Cancel safe.
    async fn ended(&mut self) -> Error {
        let parts = self.serving.iter_mut().chain([&mut self.watching]);
        let (ended, at, _): (Result<_, JoinError>, _, _) = select_all(parts).await;
        if at < self.serving.len() {
            // A finished part can't be awaited again.
            drop(self.serving.swap_remove(at));
        }
        match ended {
            Ok(Ok(())) => Error::Ended,
            Ok(Err(error)) => error,
            Err(error) => Error::Panicked(error),
        }
    }

    /// Waits a short time for the parts to end. Streams get an error, servers end, watches are cancelled.
    async fn end(self) {
        self.watching.abort();
        if let Some(lease) = self.lease {
            let _ = timeout(END_TIMEOUT * 2, lease).await;
        }
        for part in self.serving {
            let _ = timeout(END_TIMEOUT, part).await;
        }
    }
}
