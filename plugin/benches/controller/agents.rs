//! Agents without a kernel side, in a process of their own: each follows the feed and reports every ten seconds, over
//! TLS, with the settings of real agents. They record when they receive which version.

use crate::{cpu, many_files, memory, now};
use meridian::{
    feed::services::feed_client::FeedClient,
    proto::v1::{
        Counter, End, EndpointName, FollowRequest, FollowResponse, Hello, Line, Names, Place, ReportRequest, Zone,
        ZonePair, follow_request::Request,
    },
    reports::services::reports_client::ReportsClient,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::IpAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig},
};

/// The name in the controller's certificate.
pub const SERVER: &str = "meridian-controller";
/// The time in which all agents connect.
const SPREAD: Duration = Duration::from_secs(5);
/// The flow control window and the keepalive of a real agent.
const WINDOW: u32 = 256 << 10;
const BESIDE: u32 = 64 << 10;
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The interval of reports.
const EVERY: Duration = Duration::from_secs(10);
/// The wait before another attempt.
const AGAIN: Duration = Duration::from_secs(1);
/// Pairs of pods in the reports of a node, and zones.
const PAIRS: u32 = 20;
const ZONES: u32 = 3;

/// The agents, seen from the controller's process.
pub struct Agents {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

/// The agents' results.
pub struct Results {
    /// The times at which half, 99 of 100 and all agents had each version.
    pub versions: BTreeMap<u64, [f64; 3]>,
    /// Seconds of CPU under changes.
    pub cpu: f64,
    /// Bytes of changes that they received.
    pub bytes: f64,
}

/// The results of the flood.
pub struct Flood {
    pub seconds: f64,
    pub agents_cpu: f64,
    pub agent_bytes: f64,
    pub retries: u64,
}

impl Agents {
    /// Starts agents of the controller at this address.
    pub fn start(at: &str, count: usize, authority: Option<&Path>) -> Self {
        let authority = authority.map(|path| path.to_str().unwrap()).unwrap_or_default();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["agents", at, &count.to_string(), authority])
            // A profiler of the controller's memory is none of the agents'.
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits until all agents have the whole state.
    pub fn flood(&mut self) -> Flood {
        let numbers = numbers(&self.lines.next().unwrap().unwrap());
        let [seconds, agents_cpu, bytes, retries] = numbers[..] else { panic!("{numbers:?}") };
        Flood { seconds, agents_cpu, agent_bytes: bytes, retries: retries as u64 }
    }

    /// Waits until all agents have reported.
    pub fn reported(&mut self) {
        self.lines.next().unwrap().unwrap();
    }

    /// Ends the agents.
    pub fn end(mut self) -> Results {
        drop(self.child.stdin.take());
        let mut results = Results { versions: BTreeMap::new(), cpu: 0.0, bytes: 0.0 };
        for line in self.lines {
            match numbers(&line.unwrap())[..] {
                [version, half, most, all] => {
                    results.versions.insert(version as u64, [half, most, all]);
                }
                [cpu, received] => (results.cpu, results.bytes) = (cpu, received),
                ref other => panic!("{other:?}"),
            }
        }
        self.child.wait().unwrap();
        results
    }
}

fn numbers(line: &str) -> Vec<f64> {
    line.split(' ').map(|number| number.parse().unwrap()).collect()
}

/// What agents note for the end.
#[derive(Default)]
struct Noted {
    versions: Vec<(u64, f64)>,
    bytes: usize,
}

/// An agent's connection settings.
#[derive(Clone)]
struct Target {
    at: Arc<str>,
    tls: Option<ClientTlsConfig>,
}

/// An event of an agent.
enum Event {
    /// It has the whole state, of so many bytes.
    Whole(usize),
    Retry,
    Reported,
}

/// Runs agents until standard input ends.
pub fn run(at: &str, count: usize, authority: &str) {
    many_files();
    let tls = (!authority.is_empty()).then(|| {
        let authority = Certificate::from_pem(fs::read(authority).unwrap());
        ClientTlsConfig::new().ca_certificate(authority).domain_name(SERVER)
    });
    let target = Target { at: at.into(), tls };
    tokio::runtime::Runtime::new().unwrap().block_on(follow_all(target, count));
}

async fn follow_all(target: Target, count: usize) {
    let (start, before) = (Instant::now(), cpu());
    let stop = CancellationToken::new();
    let (sender, mut events) = mpsc::unbounded_channel();
    let mut streams = JoinSet::new();
    // Reports begin when all have their tables, so that the flood is measured by itself.
    let reports = Arc::new(Semaphore::new(0));
    for n in 0..count {
        let agent = Agent { target: target.clone(), n, events: sender.clone(), stop: stop.clone() };
        streams.spawn(agent.run(SPREAD.mul_f64(n as f64 / count as f64), Arc::clone(&reports)));
    }
    let (mut whole, mut reported, mut retries, mut bytes) = (0, 0, 0, 0);
    while whole < count {
        match events.recv().await.unwrap() {
            Event::Whole(received) => (whole, bytes) = (whole + 1, bytes + received),
            Event::Retry => retries += 1,
            Event::Reported => {}
        }
    }
    let used = (cpu() - before).as_secs_f64();
    println!("{} {used} {} {retries}", start.elapsed().as_secs_f64(), bytes / count);
    reports.add_permits(Semaphore::MAX_PERMITS);
    while reported < count {
        reported += usize::from(matches!(events.recv().await.unwrap(), Event::Reported));
    }
    eprintln!("agents: {} MiB", memory("VmRSS:") >> 10);
    println!("{reported}");
    let before = cpu();
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
    let used = (cpu() - before).as_secs_f64();
    stop.cancel();
    let mut all = Noted::default();
    while let Some(noted) = streams.join_next().await {
        let noted = noted.unwrap();
        all.bytes += noted.bytes;
        all.versions.extend(noted.versions);
    }
    print_versions(all, used, count);
}

fn print_versions(all: Noted, used: f64, count: usize) {
    let mut versions: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (version, at) in all.versions {
        versions.entry(version).or_default().push(at);
    }
    let mut stdout = std::io::stdout().lock();
    for (version, mut times) in versions {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        if times.len() == count {
            writeln!(stdout, "{version} {} {} {}", at(0.5), at(0.99), at(1.0)).unwrap();
        }
    }
    writeln!(stdout, "{used} {}", all.bytes).unwrap();
}

/// An agent.
struct Agent {
    target: Target,
    n: usize,
    events: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
}

/// The open stream of an agent's feed, and the connection with room for another stream.
struct Following {
    channel: Channel,
    responses: Streaming<FollowResponse>,
    acknowledgements: mpsc::Sender<FollowRequest>,
    version: u64,
}

impl Agent {
    async fn run(self, wait: Duration, reports: Arc<Semaphore>) -> Noted {
        tokio::time::sleep(wait).await;
        let following = loop {
            match self.follow().await {
                Ok((following, bytes)) => {
                    self.events.send(Event::Whole(bytes)).unwrap();
                    break following;
                }
                Err(error) => {
                    if self.n.is_multiple_of(1000) {
                        eprintln!("agent {}: {error}", self.n);
                    }
                    self.events.send(Event::Retry).unwrap();
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        let channel = following.channel.clone();
        tokio::select! {
            noted = self.note(following) => noted,
            error = self.report(channel, &reports) => {
                // A broken stream ends the bench.
                eprintln!("reports of agent {}: {error}", self.n);
                std::process::exit(1)
            }
        }
    }

    async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        // Each agent has an address of its own, as nodes do: connections are bounded by address.
        let n = self.n;
        let own = IpAddr::from([127, 1 + (n / 62_500) as u8, (n / 250 % 250) as u8, (n % 250) as u8 + 1]);
        let scheme = if self.target.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Channel::from_shared(format!("{scheme}://{}", self.target.at))
            .unwrap()
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW + BESIDE)
            .tcp_nodelay(true)
            .local_address(Some(own));
        if let Some(tls) = &self.target.tls {
            endpoint = endpoint.tls_config(tls.clone())?;
        }
        endpoint.connect().await
    }

    /// Follows until the whole state is there, of so many bytes.
    async fn follow(&self) -> Result<(Following, usize), Box<dyn std::error::Error + Send + Sync>> {
        let channel = self.connect().await?;
        let (acknowledgements, requests) = mpsc::channel(1);
        let hello = Hello { node: format!("node-{}", self.n), ..Hello::default() };
        acknowledgements.send(FollowRequest { request: Some(Request::Hello(hello)) }).await?;
        let mut responses = FeedClient::new(channel.clone()).follow(ReceiverStream::new(requests)).await?.into_inner();
        let mut bytes = 0;
        loop {
            let response = responses.message().await?.ok_or("the stream ended")?;
            bytes += size(&response);
            if response.whole {
                let version = response.position.unwrap_or_default().version;
                acknowledgements.send(FollowRequest { request: response.position.map(Request::Acknowledged) }).await?;
                return Ok((Following { channel, responses, acknowledgements, version }, bytes));
            }
        }
    }

    /// Notes when which version came, until the end.
    async fn note(&self, mut following: Following) -> Noted {
        let mut noted = Noted::default();
        let mut last = following.version;
        loop {
            let response = tokio::select! {
                response = following.responses.message() => response.unwrap_or_else(|error| {
                    eprintln!("agent {}: {error}", self.n);
                    std::process::exit(1)
                }).unwrap(),
                () = self.stop.cancelled() => return noted,
            };
            noted.bytes += size(&response);
            if !response.whole {
                continue;
            }
            let version = response.position.unwrap_or_default().version;
            let acknowledged = FollowRequest { request: response.position.map(Request::Acknowledged) };
            following.acknowledgements.send(acknowledged).await.unwrap();
            // One response may have several changes.
            let at = now();
            noted.versions.extend((last + 1..=version).map(|version| (version, at)));
            last = version;
        }
    }

    /// Reports until it fails.
    async fn report(&self, channel: Channel, reports: &Semaphore) -> Status {
        let _ = reports.acquire().await.unwrap();
        tokio::time::sleep(EVERY.mul_f64(self.n as f64 % 1000.0 / 1000.0)).await;
        let (sender, requests) = mpsc::channel(1);
        let mut answers = match ReportsClient::new(channel).report(ReceiverStream::new(requests)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return status,
        };
        let mut ticks = tokio::time::interval(EVERY);
        for round in 1.. {
            ticks.tick().await;
            if sender.send(self.reported(round)).await.is_err() {
                break;
            }
            match answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(status) => return status,
            }
            if round == 1 {
                self.events.send(Event::Reported).unwrap();
            }
        }
        Status::unavailable("the controller ended the stream")
    }

    /// The report of a round: all pairs at first, then a few that have grown.
    fn reported(&self, round: u64) -> ReportRequest {
        let whole = round == 1;
        let pairs = if whole { PAIRS } else { PAIRS / 4 };
        let counter = |n: u64| Counter { bytes: 1500 * n * round, packets: n * round };
        let zones = (0..ZONES * ZONES).map(|n| ZonePair {
            source: Some(place(n / ZONES)),
            destination: Some(place(n % ZONES)),
            ip_version: 4,
            direction: "egress".to_owned(),
            counter: Some(counter(u64::from(PAIRS))),
            ..ZonePair::default()
        });
        let end = |endpoint: u32, zone: u32| Some(End { endpoint, zone: 2 + zone, ..End::default() });
        let pods = (0..pairs).map(|n| {
            let counters = vec![counter(1)];
            Line { source: end(2 * n + 1, 0), destination: end(2 * n + 2, n % ZONES), counters, ..Line::default() }
        });
        let endpoints = (0..2 * pairs).map(|n| self.endpoint(n));
        let named = (0..ZONES).map(|n| Zone { name: zone(n), region: "eu-1".to_owned() });
        ReportRequest {
            node: format!("node-{}", self.n),
            boot_id: vec![1; 16],
            time: Some(std::time::SystemTime::now().into()),
            zones: zones.collect(),
            pods: pods.collect(),
            names: Some(Names { endpoints: endpoints.collect(), zones: named.collect() }),
            attributed: vec![counter(u64::from(PAIRS)); 3],
            whole,
            ..ReportRequest::default()
        }
    }

    /// One of the node's pods, or a pod that several nodes talk to.
    fn endpoint(&self, n: u32) -> EndpointName {
        let own = 30 * self.n + n as usize / 2 % 30;
        let pod = if n.is_multiple_of(2) { own } else { 150_000 + (7 * self.n + n as usize) % 5000 };
        let set = pod / 15;
        EndpointName {
            namespace: format!("team-{}", set % 200),
            pod: format!("app-{set}-6d8f7c9b5-{pod:05x}"),
            workload_kind: "Deployment".to_owned(),
            workload_name: format!("app-{set}"),
            ..EndpointName::default()
        }
    }
}

fn zone(n: u32) -> String {
    format!("eu-1{}", (b'a' + n as u8) as char)
}

fn place(n: u32) -> Place {
    Place { zone: zone(n), region: "eu-1".to_owned() }
}

fn size(response: &FollowResponse) -> usize {
    response.updates.iter().map(|update| update.len()).sum()
}
