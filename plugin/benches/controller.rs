//! The cost of a large cluster for its controller: 5,000 nodes, 150,000 pods, 100 pod changes a second, and 5,000
//! agents that follow from another process. Once with a prefix for each node, once with an address for each pod, as
//! with the AWS VPC CNI. Writes its table into docs/performance.md. Needs root for the kernel's maps.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod report;

use meridian::{
    cluster::{AllowAll, CatalogueRequests, Health, Key, Kind, LabelKeys, Message, Notices, Publisher, messages, read},
    datapath::{Datapath, Options},
    feed::{Agents, FeedService, Limits, Store, Watches, services::feed_client::FeedClient},
    grpc::{self, AgentServices},
    hubble::{PeerService, PeerSource},
    identity::Index,
    leader::{Role, Term},
    proto::v1::{FollowRequest, Hello, follow_request::Request},
    reports::{ClusterTotals, ReportsService, ZoneNames},
    units::grouped,
    zones::{SharedTable, Slots, StaticTable},
};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashSet},
    env,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::IpAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

const NODES: usize = 5_000;
const PODS_OF_NODE: usize = 30;
/// Pods of one workload.
const PODS_OF_SET: usize = 15;
const AGENTS: usize = 5_000;
/// Pods deleted and pods created, a second.
const CHANGES: usize = 50;
const SECONDS: usize = 20;
/// The time in which all agents connect.
const SPREAD: Duration = Duration::from_secs(15);
/// The flow control window of an agent.
const WINDOW: u32 = 64 << 10;

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

fn main() {
    let args: Vec<String> = env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("controller") => controller(args[2] == "addresses"),
        Some("agents") => agents(&args[2]),
        _ => measure(),
    }
}

/// The results of one run of a controller.
#[derive(Serialize, Deserialize)]
struct Shown {
    load_seconds: f64,
    loaded_kib: u64,
    prefixes: usize,
    addresses: usize,
    connect_seconds: f64,
    most_kib: u64,
    cpu: f64,
    agents_cpu: f64,
    zone_ms: [f64; 3],
    bytes_a_second: f64,
    kernel: Option<(f64, f64)>,
}

fn measure() {
    let shown: Vec<Shown> = ["prefixes", "addresses"]
        .map(|shape| {
            let output = Command::new(env::current_exe().unwrap()).args(["controller", shape]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice(&output.stdout).unwrap()
        })
        .into();
    let mut text = format!(
        "Measured on {} by `make bench`: {} nodes, {} pods, {} pod changes a second for {SECONDS} s, {} agents in \
         another process on the same CPUs, without TLS.\n\n\
         | | a prefix for each node | an address for each pod |\n|---|---:|---:|\n",
        report::machine(),
        grouped(NODES as u64),
        grouped((NODES * PODS_OF_NODE) as u64),
        2 * CHANGES,
        grouped(AGENTS as u64),
    );
    let mut row = |name: &str, value: &dyn Fn(&Shown) -> String| {
        writeln!(text, "| {name} | {} | {} |", value(&shown[0]), value(&shown[1])).unwrap();
    };
    row("prefixes in the agents' table", &|s| grouped(s.prefixes as u64));
    row("addresses with an owner", &|s| grouped(s.addresses as u64));
    row("reading all objects", &|s| format!("{:.1} s", s.load_seconds));
    row("memory of the controller then", &|s| format!("{} MiB", s.loaded_kib >> 10));
    row("the whole state to all agents, at once", &|s| format!("{:.1} s", s.connect_seconds));
    row("memory at most", &|s| format!("{} MiB", s.most_kib >> 10));
    row("CPU of the controller under changes", &|s| format!("{:.0} % of a core", 100.0 * s.cpu));
    row("CPU of all agents together", &|s| format!("{:.0} % of a core", 100.0 * s.agents_cpu));
    row("sent to an agent", &|s| format!("{:.1} KiB/s", s.bytes_a_second / 1024.0));
    row("a node's zone at half of the agents", &|s| format!("{:.0} ms", s.zone_ms[0]));
    row("at 99 of 100", &|s| format!("{:.0} ms", s.zone_ms[1]));
    row("at all", &|s| format!("{:.0} ms", s.zone_ms[2]));
    let kernel = |s: &Shown, value: fn((f64, f64)) -> f64| {
        s.kernel.map_or_else(|| "–".to_owned(), |times| format!("{:.0} ms", value(times)))
    };
    row("the table written into an agent's kernel", &|s| kernel(s, |times| times.0));
    row("a change of one prefix", &|s| kernel(s, |times| times.1));
    println!("{text}");
    report::write("controller", &text);
}

/// Objects as an API server sends them.
struct Objects {
    /// Whether nodes have no prefix.
    addresses: bool,
    version: u64,
    labels: LabelKeys,
}

impl Objects {
    fn set(&mut self, kind: Kind, mut object: serde_json::Value) -> Message {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        // Fields that are not needed: most of an object.
        object["metadata"]["managedFields"] = json!([{"manager": "kubelet", "operation": "Update", "fieldsV1":
            {"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {}, "f:status": {}}}}}}]);
        Message::Set(kind, read(kind, &serde_json::to_vec(&object).unwrap(), &self.labels).unwrap())
    }

    fn node(&mut self, n: usize, zone: usize) -> Message {
        let cidrs = if self.addresses { json!([]) } else { json!([format!("10.{}.{}.0/24", n / 250, n % 250)]) };
        let labels = json!({"topology.kubernetes.io/zone": format!("eu-1{}", (b'a' + zone as u8) as char),
                            "topology.kubernetes.io/region": "eu-1", "kubernetes.io/hostname": node_name(n)});
        let address = format!("172.16.{}.{}", n / 250, n % 250);
        self.set(
            Kind::Node,
            json!({
                "metadata": {"name": node_name(n), "uid": format!("n-{n}"), "labels": labels},
                "spec": {"podCIDRs": cidrs}, "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            }),
        )
    }

    fn pod(&mut self, n: usize, life: usize) -> Message {
        let (node, set) = (n % NODES, n / PODS_OF_SET);
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app-{set}-6d8f7c9b5"),
                           "uid": format!("rs-{set}"), "controller": true});
        let key = pod_key(n, life);
        let container = json!({"name": "main", "image": "registry.example/app:1.2.3", "resources": {"limits": {"memory": "1Gi"}},
                               "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
        self.set(
            Kind::Pod,
            json!({
                "metadata": {"name": &*key.name, "namespace": &*key.namespace, "uid": format!("p-{n}-{life}"),
                             "creationTimestamp": "2026-11-23T10:00:00Z", "ownerReferences": [owner],
                             "labels": {"app": format!("app-{set}"), "pod-template-hash": "6d8f7c9b5", "team": "shop"}},
                "spec": {"nodeName": node_name(node), "containers": [container], "serviceAccountName": "default"},
                "status": {"phase": "Running", "startTime": "2026-11-23T10:00:01Z",
                           "podIPs": [{"ip": pod_address(n)}], "hostIPs": [{"ip": "172.16.0.1"}]},
            }),
        )
    }

    fn replica_set(&mut self, set: usize) -> Message {
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("app-{set}"),
                           "uid": format!("d-{set}"), "controller": true});
        let metadata = json!({"name": format!("app-{set}-6d8f7c9b5"), "namespace": namespace(set),
                              "uid": format!("rs-{set}"), "ownerReferences": [owner]});
        self.set(Kind::ReplicaSet, json!({ "metadata": metadata }))
    }

    fn service(&mut self, set: usize) -> Message {
        let metadata = json!({"name": format!("app-{set}"), "namespace": namespace(set)});
        self.set(Kind::Service, json!({"metadata": metadata, "spec": {"clusterIP": "10.96.0.10"}}))
    }

    fn slice(&mut self, set: usize) -> Message {
        let endpoints: Vec<_> = (set * PODS_OF_SET..(set + 1) * PODS_OF_SET)
            .map(|n| json!({"addresses": [pod_address(n)], "nodeName": node_name(n % NODES)}))
            .collect();
        let labels = json!({"kubernetes.io/service-name": format!("app-{set}")});
        let metadata = json!({"name": format!("app-{set}-x"), "namespace": namespace(set), "labels": labels});
        let types = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"});
        self.set(
            Kind::EndpointSlice,
            json!({"apiVersion": types["apiVersion"], "kind": types["kind"],
                 "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints}),
        )
    }
}

fn node_name(n: usize) -> String {
    format!("ip-172-16-{}-{}.eu-1.compute.internal", n / 250, n % 250)
}

fn namespace(set: usize) -> String {
    format!("team-{}", set % 200)
}

fn pod_key(n: usize, life: usize) -> Key {
    let set = n / PODS_OF_SET;
    Key { namespace: namespace(set).into(), name: format!("app-{set}-6d8f7c9b5-{n:05x}{life}").into() }
}

fn pod_address(n: usize) -> String {
    let (node, slot) = (n % NODES, n / NODES);
    format!("10.{}.{}.{}", node / 250, node % 250, slot + 2)
}

/// Milliseconds since 1970, comparable between processes.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e3
}

fn memory(of: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(of)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

fn many_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

fn controller(addresses: bool) {
    many_files();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shown = runtime.block_on(run_controller(addresses));
    println!("{}", serde_json::to_string(&shown).unwrap());
}

async fn run_controller(addresses: bool) -> Shown {
    let (store, health, table, index): (Arc<Store>, Arc<Health>, SharedTable, Arc<Index>) = Default::default();
    let (sender, receiver) = messages();
    let fixed = tokio::sync::watch::Sender::new(Arc::new(StaticTable::default()));
    let (notices, _queue) = Notices::new(Arc::clone(&health));
    let publisher = Publisher {
        store: Arc::clone(&store),
        table: table.clone(),
        index: Arc::clone(&index),
        health: Arc::clone(&health),
        notices,
        ignored: Vec::new(),
        fixed: fixed.subscribe(),
        nodes: tokio::sync::watch::Sender::default(),
        catalogues: CatalogueRequests::default(),
    };
    tokio::spawn(publisher.follow(receiver));
    let mut objects = Objects { addresses, version: 0, labels: LabelKeys::default() };

    let start = Instant::now();
    list(&mut objects, &sender).await;
    while store.version() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let load_seconds = start.elapsed().as_secs_f64();
    let (prefixes, known) = store.sizes();
    let loaded_kib = memory("VmRSS:");
    eprintln!("loaded: {load_seconds:.1} s, {} MiB, at most {} MiB", loaded_kib >> 10, memory("VmHWM:") >> 10);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let agents = Arc::<Agents>::default();
    let service = FeedService {
        store: Arc::clone(&store),
        agents: Arc::clone(&agents),
        tokens: Arc::new(AllowAll),
        watches: Arc::clone(&health) as _,
        limits: Limits::default(),
        shutdown: CancellationToken::new(),
    };
    let reports = ReportsService {
        cluster_totals: Arc::new(ClusterTotals::new(1000, false, 10_000)),
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
    tokio::spawn(grpc::serve_agents(AgentServices { feed: service, reports, peers, history: None }, listener, None));
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["agents", &at])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let connect_seconds: f64 = tokio::task::block_in_place(|| output.next().unwrap().unwrap()).parse().unwrap();
    eprintln!("told: {connect_seconds:.1} s, {} MiB, at most {} MiB", memory("VmRSS:") >> 10, memory("VmHWM:") >> 10);

    // Pods are deleted and created; once a second the zone of a node changes.
    let mut sent: Vec<(u64, f64)> = Vec::new();
    let (before, begin) = (cpu(), Instant::now());
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for n in 0..SECONDS * CHANGES {
        tick.tick().await;
        let pod = n * 149 % (NODES * PODS_OF_NODE);
        let version = format!("{}", objects.version + 1);
        sender.send(Message::Gone(Kind::Pod, pod_key(pod, 0), version)).await.unwrap();
        sender.send(objects.pod(pod, 1)).await.unwrap();
        if n % CHANGES == CHANGES / 2 {
            let message = objects.node(n, (n / CHANGES + 1) % 3 + 3);
            sent.push((objects.version, now()));
            sender.send(message).await.unwrap();
            let wanted = objects.version;
            let health = Arc::clone(&health);
            // The version of the table that includes the change.
            let entry = sent.last_mut().unwrap();
            entry.0 = loop {
                let kinds = health.kinds();
                let nodes = kinds.iter().find(|kind| kind.name == "Node").unwrap();
                if nodes.resource_version.parse::<u64>().unwrap_or_default() >= wanted {
                    break nodes.version;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let took = begin.elapsed().as_secs_f64();
    let used = (cpu() - before).as_secs_f64();
    let (lines, agents_used, bytes) = end(&mut child, output);
    let mut waits: Vec<[f64; 3]> = Vec::new();
    for (version, at) in sent {
        let seen = &lines[&version];
        waits.push([seen[0] - at, seen[1] - at, seen[2] - at]);
    }
    // The median of the changes' halves, and the worst of the rest.
    waits.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let worst = |index: usize| waits.iter().map(|wait| wait[index]).fold(0.0, f64::max);
    let zone_ms = [waits[waits.len() / 2][0], worst(1), worst(2)];
    let most_kib = memory("VmHWM:");
    Shown {
        load_seconds,
        loaded_kib,
        prefixes,
        addresses: known,
        connect_seconds,
        most_kib,
        cpu: used / took,
        agents_cpu: agents_used / took,
        zone_ms,
        bytes_a_second: bytes / took / AGENTS as f64,
        kernel: addresses.then(|| into_kernel(&table)),
    }
}

async fn list(objects: &mut Objects, sender: &mpsc::Sender<Message>) {
    let pods = NODES * PODS_OF_NODE;
    let sets = pods / PODS_OF_SET;
    let mut keys: BTreeMap<Kind, HashSet<Key>> = Kind::ALL.map(|kind| (kind, HashSet::new())).into();
    let mut send = async |kind: Kind, message: Message| {
        if let Message::Set(_, seen) = &message {
            keys.get_mut(&kind).unwrap().insert(seen.key().clone());
        }
        sender.send(message).await.unwrap();
    };
    for n in 0..NODES {
        let message = objects.node(n, n % 3);
        send(Kind::Node, message).await;
    }
    for n in 0..pods {
        let message = objects.pod(n, 0);
        send(Kind::Pod, message).await;
    }
    for set in 0..sets {
        for (kind, message) in [
            (Kind::ReplicaSet, objects.replica_set(set)),
            (Kind::Service, objects.service(set)),
            (Kind::EndpointSlice, objects.slice(set)),
        ] {
            send(kind, message).await;
        }
    }
    for (kind, keys) in keys {
        sender.send(Message::Listed(kind, keys, objects.version.to_string())).await.unwrap();
    }
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

/// The times at which half, 99 of 100 and all agents had each version; the agents' CPU time, and the bytes received.
fn end(
    child: &mut Child,
    output: impl Iterator<Item = std::io::Result<String>>,
) -> (BTreeMap<u64, [f64; 3]>, f64, f64) {
    drop(child.stdin.take());
    let (mut versions, mut used, mut bytes) = (BTreeMap::new(), 0.0, 0.0);
    for line in output {
        let line = line.unwrap();
        let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        match numbers[..] {
            [version, half, most, all] => {
                versions.insert(version as u64, [half, most, all]);
            }
            [cpu, received] => (used, bytes) = (cpu, received),
            _ => panic!("{line}"),
        }
    }
    child.wait().unwrap();
    (versions, used, bytes)
}

/// Agents without a kernel side: they follow, and record when they receive which version.
fn agents(at: &str) {
    many_files();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let stop = CancellationToken::new();
        let (whole, mut are_whole) = mpsc::unbounded_channel();
        let mut streams = JoinSet::new();
        for n in 0..AGENTS {
            streams.spawn(follow(at.to_owned(), n, whole.clone(), stop.clone()));
        }
        for _ in 0..AGENTS {
            are_whole.recv().await.unwrap();
        }
        let before = cpu();
        println!("{}", start.elapsed().as_secs_f64());
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
        let used = (cpu() - before).as_secs_f64();
        stop.cancel();
        let (mut versions, mut bytes): (BTreeMap<u64, Vec<f64>>, usize) = Default::default();
        while let Some(noted) = streams.join_next().await {
            let (noted, received) = noted.unwrap();
            bytes += received;
            for (version, at) in noted {
                versions.entry(version).or_default().push(at);
            }
        }
        let mut stdout = std::io::stdout().lock();
        for (version, mut times) in versions {
            times.sort_by(f64::total_cmp);
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
            if times.len() == AGENTS {
                writeln!(stdout, "{version} {} {} {}", at(0.5), at(0.99), at(1.0)).unwrap();
            }
        }
        writeln!(stdout, "{used} {bytes}").unwrap();
    });
}

async fn follow(
    at: String,
    n: usize,
    whole: mpsc::UnboundedSender<()>,
    stop: CancellationToken,
) -> (Vec<(u64, f64)>, usize) {
    // As after a controller's restart: the agents reconnect spread over this time.
    tokio::time::sleep(SPREAD.mul_f64(n as f64 / AGENTS as f64)).await;
    // Each agent has an address of its own, as nodes do: connections are bounded by address.
    let own = IpAddr::from([127, 1 + (n / 62_500) as u8, (n / 250 % 250) as u8, (n % 250) as u8 + 1]);
    let endpoint = Channel::from_shared(format!("http://{at}")).unwrap();
    let endpoint = endpoint.initial_stream_window_size(WINDOW).local_address(Some(own));
    let channel = endpoint.connect().await.unwrap();
    let hello = Hello { node: format!("node-{n}"), ..Hello::default() };
    let hello = tokio_stream::once(FollowRequest { request: Some(Request::Hello(hello)) });
    let requests = tokio_stream::StreamExt::chain(hello, tokio_stream::pending());
    let mut responses = FeedClient::new(channel).follow(requests).await.unwrap().into_inner();
    let (mut noted, mut bytes, mut is_whole, mut last) = (Vec::new(), 0, false, 0);
    loop {
        let response = tokio::select! {
            // A broken stream ends the bench.
            response = responses.message() => response.unwrap_or_else(|error| {
                eprintln!("agent {n}: {error}");
                std::process::exit(1)
            }).unwrap(),
            () = stop.cancelled() => return (noted, bytes),
        };
        if !response.whole {
            continue;
        }
        if !is_whole {
            is_whole = true;
            last = response.position.unwrap().version;
            whole.send(()).unwrap();
            continue;
        }
        let version = response.position.unwrap().version;
        bytes += response.updates.iter().map(|update| update.len()).sum::<usize>();
        // One response may have several changes.
        let at = now();
        noted.extend((last + 1..=version).map(|version| (version, at)));
        last = version;
    }
}
