//! The controller's process: the parts of a controller that agents use, without an API server.

use crate::{
    agents::{Agents, Results, SERVER},
    certificates::Authority,
    cpu, many_files, memory, now,
    objects::{Objects, PODS_OF_NODE, list, pod_key},
};
use meridian::{
    allocator,
    cluster::{AllowAll, CatalogueRequests, Health, Kind, LabelKeys, Message, Notices, Publisher, messages},
    cost::PriceTable,
    datapath::{Datapath, Options},
    feed::{FeedService, Limits, Store, Watches as _},
    grpc::{self, AgentServices},
    historian::{Historian, Recording},
    hubble::{PeerService, PeerSource},
    identity::Index,
    leader::{Role, Term},
    link::{Files, Tls},
    replication::HistoryService,
    reports::{ClusterTotals, ReportsService, ZoneNames},
    zones::{SharedTable, Slots, StaticTable},
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

/// Pods deleted and pods created, a second.
pub const CHANGES: usize = 50;
pub const SECONDS: usize = 20;
/// The series of each sum: the default.
const SERIES: usize = 1000;

/// The cluster of a run.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Whether each pod's address is a prefix.
    pub addresses: bool,
    pub nodes: usize,
    /// As many as nodes, or none.
    pub agents: usize,
}

/// The results of one run of a controller.
#[derive(Serialize, Deserialize)]
pub struct Shown {
    pub load_seconds: f64,
    pub loaded_kib: u64,
    pub prefixes: usize,
    pub addresses: usize,
    /// Without agents none of the rest.
    pub following: Option<Following>,
}

/// The results with agents.
#[derive(Serialize, Deserialize)]
pub struct Following {
    pub connect_seconds: f64,
    pub flood_cpu: f64,
    pub flood_agents_cpu: f64,
    pub agent_bytes: f64,
    pub retries: u64,
    /// After the flood, and with all reports.
    pub followed_kib: u64,
    pub reported_kib: u64,
    pub most_kib: u64,
    pub cpu: f64,
    pub agents_cpu: f64,
    pub zone_ms: [f64; 3],
    pub bytes_a_second: f64,
    pub kernel: Option<(f64, f64)>,
}

/// Every zone is known.
struct AllZones;

impl ZoneNames for AllZones {
    fn is_whole(&self) -> bool {
        true
    }

    fn contains(&self, _: &str, _: &str) -> bool {
        true
    }
}

/// Runs a controller, and prints its results.
pub fn run(shape: Shape) {
    many_files();
    allocator::set();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shown = runtime.block_on(measure(shape));
    println!("{}", serde_json::to_string(&shown).unwrap());
}

/// The parts that this bench looks into.
#[derive(Default)]
struct Parts {
    store: Arc<Store>,
    health: Arc<Health>,
    table: SharedTable,
    index: Arc<Index>,
}

/// A folder of a run.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn measure(shape: Shape) -> Shown {
    let parts = Parts::default();
    tokio::spawn(allocator::keep_trimmed(CancellationToken::new()));
    let (sender, receiver) = messages();
    tokio::spawn(parts.publisher().follow(receiver));
    let mut objects =
        Objects { addresses: shape.addresses, version: 0, nodes: shape.nodes, labels: LabelKeys::default() };
    let start = Instant::now();
    list(&mut objects, &sender).await;
    while parts.store.version() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let load_seconds = start.elapsed().as_secs_f64();
    // What the first publication leaves is freed soon.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (prefixes, addresses) = parts.store.sizes();
    let loaded_kib = memory("VmRSS:");
    eprintln!("loaded: {load_seconds:.1} s, {} MiB, at most {} MiB", loaded_kib >> 10, memory("VmHWM:") >> 10);
    let following = match shape.agents {
        0 => None,
        count => Some(parts.follow(count, shape, &mut objects, &sender).await),
    };
    Shown { load_seconds, loaded_kib, prefixes, addresses, following }
}

impl Parts {
    fn publisher(&self) -> Publisher {
        let fixed = watch::Sender::new(Arc::new(StaticTable::default()));
        let (notices, _queue) = Notices::new(Arc::clone(&self.health));
        Publisher {
            store: Arc::clone(&self.store),
            table: self.table.clone(),
            index: Arc::clone(&self.index),
            health: Arc::clone(&self.health),
            notices,
            ignored: Vec::new(),
            fixed: fixed.subscribe(),
            nodes: watch::Sender::default(),
            catalogues: CatalogueRequests::default(),
        }
    }

    /// Serves agents with TLS, and keeps a history of their reports in a folder.
    async fn serve(&self, folder: &Path) -> (String, PathBuf) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let authority = Authority::new(folder, "authority");
        let issued = authority.issue("controller", SERVER);
        let files = Files { certificate: issued.certificate, key: issued.key, client_authorities: Vec::new() };
        let tls = Arc::new(Tls::new("feed", files).unwrap());
        let limits = meridian::archive::Limits::default();
        let time = now() as u64 / 1000;
        let historian = Historian::open(&folder.join("history"), limits, PriceTable::default(), time).unwrap();
        let historian = Arc::new(historian);
        let cluster_totals = Arc::new(ClusterTotals::new(SERIES, false, 40_000).with_growth());
        tokio::spawn(record(Arc::clone(&cluster_totals), Arc::clone(&historian)));
        tokio::spawn(grpc::serve_agents(self.services(cluster_totals, historian), listener, Some(tls)));
        (at, authority.file)
    }

    fn services(&self, cluster_totals: Arc<ClusterTotals>, historian: Arc<Historian>) -> AgentServices {
        let feed = FeedService {
            store: Arc::clone(&self.store),
            agents: Arc::default(),
            tokens: Arc::new(AllowAll),
            watches: Arc::clone(&self.health) as _,
            limits: Limits { agents: 40_000, ..Limits::default() },
            shutdown: CancellationToken::new(),
        };
        let reports = ReportsService {
            cluster_totals,
            role: watch::Sender::new(Role::Leader(Term::default())).subscribe(),
            agents: Arc::new(AllowAll),
            replicas: Arc::new(AllowAll),
            tally: Arc::default(),
            zones: Arc::new(AllZones),
            streams: Arc::default(),
            hook_changed: Arc::new(drop),
            shutdown: CancellationToken::new(),
        };
        let nobody = PeerSource::Local(watch::Sender::new(Arc::default()).subscribe());
        let peers = PeerService::new(nobody, CancellationToken::new());
        let history = Some(HistoryService { historian, replicas: Arc::new(AllowAll) });
        AgentServices { feed, reports, peers, history }
    }

    async fn follow(
        &self,
        count: usize,
        shape: Shape,
        objects: &mut Objects,
        sender: &mpsc::Sender<Message>,
    ) -> Following {
        let folder = Folder(std::env::temp_dir().join(format!("meridian-bench-{}", std::process::id())));
        fs::create_dir_all(&folder.0).unwrap();
        let (at, authority) = self.serve(&folder.0).await;
        let flood_begin = cpu();
        let mut agents = Agents::start(&at, count, Some(&authority));
        let flood = tokio::task::block_in_place(|| agents.flood());
        let flood_cpu = (cpu() - flood_begin).as_secs_f64();
        let followed_kib = memory("VmRSS:");
        eprintln!(
            "told: {:.1} s, CPU {flood_cpu:.1} s and {:.1} s, {:.0} KiB each, {} retries, {} MiB, at most {} MiB",
            flood.seconds,
            flood.agents_cpu,
            flood.agent_bytes / 1024.0,
            flood.retries,
            followed_kib >> 10,
            memory("VmHWM:") >> 10
        );
        tokio::task::block_in_place(|| agents.reported());
        let reported_kib = memory("VmRSS:");
        eprintln!("reported: {} MiB, at most {} MiB", reported_kib >> 10, memory("VmHWM:") >> 10);
        let (before, begin) = (cpu(), Instant::now());
        let sent = self.change(shape.nodes, objects, sender).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let took = begin.elapsed().as_secs_f64();
        let used = (cpu() - before).as_secs_f64();
        let most_kib = memory("VmHWM:");
        eprintln!("at the end: {} MiB, at most {} MiB", memory("VmRSS:") >> 10, most_kib >> 10);
        let results = agents.end();
        Following {
            connect_seconds: flood.seconds,
            flood_cpu,
            flood_agents_cpu: flood.agents_cpu,
            agent_bytes: flood.agent_bytes,
            retries: flood.retries,
            followed_kib,
            reported_kib,
            most_kib,
            cpu: used / took,
            agents_cpu: results.cpu / took,
            zone_ms: waits(&sent, &results),
            bytes_a_second: results.bytes / took / count as f64,
            kernel: shape.addresses.then(|| into_kernel(&self.table)),
        }
    }

    /// Deletes and creates pods, and changes the zone of a node once a second. Returns the versions of the table that
    /// include these, with their times.
    async fn change(&self, nodes: usize, objects: &mut Objects, sender: &mpsc::Sender<Message>) -> Vec<(u64, f64)> {
        let mut sent: Vec<(u64, f64)> = Vec::new();
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for n in 0..SECONDS * CHANGES {
            tick.tick().await;
            let pod = n * 149 % (nodes * PODS_OF_NODE);
            let version = format!("{}", objects.version + 1);
            sender.send(Message::Gone(Kind::Pod, pod_key(pod, 0), version)).await.unwrap();
            sender.send(objects.pod(pod, 1)).await.unwrap();
            if n % CHANGES == CHANGES / 2 {
                let message = objects.node(n, (n / CHANGES + 1) % 3 + 3);
                let (wanted, at) = (objects.version, now());
                sender.send(message).await.unwrap();
                sent.push((self.published(wanted).await, at));
            }
        }
        sent
    }

    /// The version of the table that includes this version of a node.
    async fn published(&self, wanted: u64) -> u64 {
        loop {
            let kinds = self.health.kinds();
            let nodes = kinds.iter().find(|kind| kind.name == "Node").unwrap();
            if nodes.resource_version.parse::<u64>().unwrap_or_default() >= wanted {
                return nodes.version;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Records the reported traffic as a controller does.
async fn record(cluster_totals: Arc<ClusterTotals>, historian: Arc<Historian>) {
    let mut recording = Recording::new(historian);
    let mut ticks = tokio::time::interval(meridian::historian::TICK);
    loop {
        ticks.tick().await;
        let grown = cluster_totals.take_growth(false);
        recording.record(&grown, Default::default(), &[]);
    }
}

/// The median of the changes' halves, and the worst of the rest.
fn waits(sent: &[(u64, f64)], results: &Results) -> [f64; 3] {
    let wait = |(version, at): &(u64, f64)| results.versions[version].map(|seen| seen - at);
    let mut waits: Vec<[f64; 3]> = sent.iter().map(wait).collect();
    waits.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let worst = |index: usize| waits.iter().map(|wait| wait[index]).fold(0.0, f64::max);
    [waits[waits.len() / 2][0], worst(1), worst(2)]
}

/// Milliseconds to write a whole table into the kernel, and to write a change of one prefix.
fn into_kernel(table: &SharedTable) -> (f64, f64) {
    let table = table.read();
    let mut slots = Slots::default();
    slots.assign(table.placements());
    let mut datapath = Datapath::load(Options { matrix_slots: slots.matrix_slots(), ..Options::default() }).unwrap();
    let mut times = Vec::new();
    let start = Instant::now();
    datapath.apply_zones(&table, table.networks(), &slots).unwrap();
    let whole = start.elapsed().as_secs_f64() * 1e3;
    // The first change brings the other map up to date.
    for prefix in table.networks().take(12) {
        let start = Instant::now();
        datapath.apply_zones(&table, [prefix], &slots).unwrap();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    (whole, times[times.len() / 2])
}
