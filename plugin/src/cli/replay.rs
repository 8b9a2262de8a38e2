//! `meridian replay`: yesterday's flows for today's tools.

use super::{
    Failure,
    config::host_name,
    hubble::{self, Capacity, Cluster, Name, OutputArgs, OutputKeys, Outputs, Peer, TlsArgs},
    process::{Offer, PATIENCE, Places, Servers, Signal, signals, wait},
};
use crate::{
    flows::{Ring, Sink},
    hubble::{KnownPeers, PeerAddress, Peers},
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
    /// Where Hubble's clients are served; beyond loopback with TLS.
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
    #[arg(long, value_name = "NAME", default_value_t = Cluster::default())]
    cluster_name: Cluster,
    /// A server of flows to announce to hubble-relay, several by repeating it; by default this one.
    #[arg(long = "peer", value_name = "NAME=ADDRESS")]
    peers: Vec<Peer>,
    /// Where metrics and health are served over HTTP; by default nowhere.
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<Listen>,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    outputs: OutputArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let files = args.files.iter().map(|path| open(path).map(|file| (path.clone(), file))).collect::<Result<_, _>>()?;
    let files_of_tls = args.tls.files(args.listen.0, "--listen")?;
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let received = signals(&runtime)?;
    let shutdown = CancellationToken::new();
    let ring = Arc::new(Ring::new(args.capacity.0));
    let name = Name { cluster: args.cluster_name.0.clone(), node: args.node.clone().unwrap_or_else(host_name) };
    let settings = args.outputs.clone().or(OutputKeys::default())?;
    let mut outputs = Outputs::start(&settings, &ring, name.node.clone(), false)?;
    let sink = Sink { listener: outputs.listener(), ..Sink::new(Arc::clone(&ring)) };
    let (process, ended) = (Arc::new(Process::default()), Arc::new(AtomicBool::new(false)));
    let tls = hubble::tls(files_of_tls, args.listen.0);
    let (at, http) = (args.listen.0, args.http_listen.map(|listen| listen.0));
    let places = Places { grpc: at, tls: tls.clone(), socket: None, http };
    let mut peers: Peers = args.peers.iter().map(|peer| peer.announced(tls.is_some())).collect();
    if peers.is_empty() {
        let server_name = tls.is_some().then(|| name.server_name());
        peers.insert(name.told_as(), PeerAddress { address: at.to_string(), server_name });
    }
    let offer = Offer {
        nodes: vec![name],
        // They are what they are: nobody keeps the sender.
        peers: Some(KnownPeers::Here(watch::Sender::new(Arc::new(peers)).subscribe())),
        sink: sink.clone(),
        sources: Sources {
            samples: watch::Sender::new(Arc::from([])).subscribe(),
            ring,
            process: Arc::clone(&process),
            families: Families::default(),
            tls: tls.into_iter().collect(),
            outputs: outputs.shown(),
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
        // The flows are not read again.
        match wait(&received, TICK, || {})? {
            Some(Signal::End) => break Ok(()),
            Some(Signal::Reload) | None => outputs.look(),
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
    outputs.finish(PATIENCE);
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
