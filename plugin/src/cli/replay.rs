//! `meridian replay`: yesterday's flows for today's tools.

use super::{
    Failure,
    config::host_name,
    process::{Offer, Places, Servers, Signal, signals, wait},
};
use crate::{
    agent::Sink,
    flows::{Namespaces, Ring},
    hubble::Peers,
    metrics::{Families, Listen, Process, Sources},
    replay::{Line, Reader},
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a signal has come or a server has failed.
const TICK: Duration = Duration::from_millis(500);
/// The largest ring that Hubble's own server has.
const CAPACITY: Capacity = Capacity(65_535);
/// Bad lines that are named; of the others only the number is said.
const NAMED: u64 = 10;

/// What to serve, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Flow logs, read in this order: lines of JSON as Hubble's exporter and `hubble observe --output jsonpb` write
    /// them; `-` is stdin.
    #[arg(required = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Where Hubble's clients are served, without TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4245")]
    listen: Listen,
    /// Flows that are kept, the newest ones: a power of two, less one.
    #[arg(long, value_name = "FLOWS", default_value_t = CAPACITY)]
    capacity: Capacity,
    /// Flows a second; 0 is all at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    rate: u32,
    /// The name of the node that serves them; by default the host's.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The name of its cluster; flows keep the names that they have.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_CLUSTER)]
    cluster_name: String,
    /// A server of flows to announce to hubble-relay, several by repeating it; by default this one.
    #[arg(long = "peer", value_name = "NAME=ADDRESS")]
    peers: Vec<Peer>,
    /// Where metrics and health are served over HTTP; by default nowhere.
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<Listen>,
}

/// Hubble's name for a cluster that has none.
const DEFAULT_CLUSTER: &str = "default";

/// A peer: its name and where it serves.
#[derive(Clone, Debug)]
struct Peer(String, String);

impl std::str::FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, address) = text.split_once('=').unwrap_or_default();
        let has_port = |address: &str| address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if name.is_empty() || !has_port(address) {
            return Err(format!("`{text}` is not a name, `=`, a host and a port, such as node-a=10.0.0.1:4244"));
        }
        Ok(Self(name.to_owned(), address.to_owned()))
    }
}

/// Records of a ring.
#[derive(Clone, Copy, Debug)]
struct Capacity(usize);

impl std::str::FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let capacity = text.parse().ok().filter(|n: &usize| (1..1 << 26).contains(n) && (n + 1).is_power_of_two());
        capacity.map(Self).ok_or_else(|| format!("`{text}` is not a power of two less one, such as 4095 or 65535"))
    }
}

impl std::fmt::Display for Capacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let files = args.files.iter().map(|path| open(path).map(|file| (path.clone(), file))).collect::<Result<_, _>>()?;
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let received = signals(&runtime)?;
    let shutdown = CancellationToken::new();
    let ring = Arc::new(Ring::new(args.capacity.0));
    let sink = Sink { ring: Arc::clone(&ring), namespaces: Arc::new(Namespaces::default()) };
    let (process, ended) = (Arc::new(Process::default()), Arc::new(AtomicBool::new(false)));
    let places = Places { grpc: args.listen.0, socket: None, http: args.http_listen.map(|listen| listen.0) };
    let (node, in_default) = (args.node.clone().unwrap_or_else(host_name), args.cluster_name == DEFAULT_CLUSTER);
    let node = if in_default { node } else { format!("{}/{node}", args.cluster_name) };
    let mut peers: Peers = args.peers.iter().map(|Peer(name, address)| (name.clone(), address.clone())).collect();
    if peers.is_empty() {
        peers.insert(node.clone(), args.listen.0.to_string());
    }
    let offer = Offer {
        nodes: vec![node],
        cluster: if in_default { String::new() } else { args.cluster_name.clone() },
        peers: Some(peers),
        sink: sink.clone(),
        sources: Sources {
            samples: watch::Sender::new(Arc::from([])).subscribe(),
            ring,
            process: Arc::clone(&process),
            families: Families::default(),
        },
        zones: None,
    };
    let mut servers = Servers::start(&runtime, &places, offer, &shutdown)?;
    tracing::info!("serving Hubble's clients on {}", args.listen.0);
    let loading = {
        let (rate, ended) = (args.rate, Arc::clone(&ended));
        thread::spawn(move || load(files, rate, &sink, &process, &ended))
    };
    let mut loading = Some(loading);
    let result = loop {
        // There is nothing to read again.
        match wait(&received, TICK, || {})? {
            Some(Signal::End) => break Ok(()),
            Some(Signal::Reload) | None => {}
        }
        if let Some(error) = servers.failed(&runtime) {
            break Err(Failure::failed(error));
        }
        if let Some(done) = loading.take_if(|loading| loading.is_finished()) {
            match done.join() {
                Ok(Ok(())) => tracing::info!("Ctrl-C ends"),
                Ok(Err(error)) => break Err(error),
                Err(_) => break Err(Failure::failed("reading the flow logs has failed")),
            }
        }
    };
    ended.store(true, Ordering::Relaxed);
    shutdown.cancel();
    servers.end(&runtime);
    result
}

fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

type Files = Vec<(PathBuf, Box<dyn BufRead + Send>)>;

/// Reads every line into the ring.
fn load(files: Files, rate: u32, sink: &Sink, process: &Process, ended: &AtomicBool) -> Result<(), Failure> {
    let (mut reader, start) = (Reader::new(), Instant::now());
    let (mut flows, mut bad) = (0u64, 0u64);
    for (path, file) in files {
        let read = reader.read(file, |number, line| match line {
            Line::Record(record) => {
                if rate > 0 && !ended.load(Ordering::Relaxed) {
                    let due = Duration::from_secs_f64(flows as f64 / f64::from(rate));
                    thread::sleep(due.saturating_sub(start.elapsed()));
                }
                flows += 1;
                sink.take_recorded(record, Instant::now());
            }
            Line::Other => {}
            Line::Bad(reason) => {
                bad += 1;
                if bad <= NAMED {
                    tracing::warn!("{}:{number}: the line is left out: {reason}", path.display());
                }
            }
        });
        read.map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    process.ready.store(true, Ordering::Relaxed);
    tracing::info!(flows, left_out = bad, "loaded");
    Ok(())
}
