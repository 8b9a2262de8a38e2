//! `meridian replay`: yesterday's flows for today's tools.

mod load;

use super::{
    Failure,
    host::host_name,
    hubble::{Capacity, Cluster, OutputArgs, Peer, TlsArgs},
    signals::signals,
    usage,
};
use crate::{
    flows::{Ring, Sink},
    hubble::{NodeName, PeerAddress, PeerSource, Peers},
    link,
    metrics::{InvalidListen, Listen, Page},
    outputs::Outputs,
    servers::{self, Error as ServerError, Offer, Places, Servers},
};
use load::{Inputs, Loading};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};
use tokio::{
    runtime::Runtime,
    select,
    sync::{oneshot, watch},
    time::interval,
};
use tokio_util::sync::CancellationToken;

/// The interval at which the files of outputs are checked for changes.
const TICK: Duration = Duration::from_millis(500);
/// The largest ring that Hubble's own server has.
const CAPACITY: Capacity = Capacity(65_535);
/// The time limit for flow logs to write the remaining flows when the command ends.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// Flags of `meridian replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Flow logs to serve in the order of time: JSON from Hubble's exporter or `hubble observe --output jsonpb`, also
    /// compressed with gzip or zstd, in an array, indented, or within lines of a container runtime or a collector. `-`
    /// is stdin.
    #[arg(required = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Address of the server for Hubble's clients, HOST:PORT or unix:PATH. Beyond loopback it needs TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4245")]
    listen: ListenAddress,
    /// Number of flows to keep, the newest by time: a power of two, less one.
    #[arg(long, value_name = "FLOWS", default_value_t = CAPACITY)]
    capacity: Capacity,
    /// Number of flows to load a second. 0 loads all at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    rate: u32,
    /// Name of the serving node. Default: the host's name.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Name of the serving node's cluster. Flows keep their own.
    #[arg(long, value_name = "NAME", default_value_t = Cluster::default())]
    cluster_name: Cluster,
    /// Flow server to announce to hubble-relay; may be repeated. Default: this one.
    #[arg(long = "peer", value_name = "NAME=ADDRESS")]
    peers: Vec<Peer>,
    /// Address of the HTTP server for metrics and health. Default: none.
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<Listen>,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    outputs: OutputArgs,
}

/// An address to serve clients at.
#[derive(Clone, Debug)]
enum ListenAddress {
    Port(SocketAddr),
    Socket(PathBuf),
}

/// A text that is no address to serve at.
#[derive(Debug, thiserror::Error)]
enum InvalidAt {
    #[error("`{0}` is not a socket like unix:/run/hubble.sock")]
    Socket(String),
    #[error(transparent)]
    Port(#[from] InvalidListen),
}

impl std::str::FromStr for ListenAddress {
    type Err = InvalidAt;

    fn from_str(text: &str) -> Result<Self, InvalidAt> {
        match text.strip_prefix("unix:").map(|path| path.strip_prefix("//").unwrap_or(path)) {
            Some("") => Err(InvalidAt::Socket(text.to_owned())),
            Some(path) => Ok(Self::Socket(path.into())),
            None => Ok(text.parse().map(|Listen(at)| Self::Port(at))?),
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(at) => at.fmt(f),
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl ListenAddress {
    const fn port(&self) -> Option<SocketAddr> {
        match self {
            Self::Port(at) => Some(*at),
            Self::Socket(_) => None,
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let inputs = Inputs::open(&args.files)?;
    // Only this machine's users reach a socket.
    let at = args.listen.port().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let files_of_tls = args.tls.files(at, "--listen")?;
    let runtime = Runtime::new().map_err(Failure::failed)?;
    runtime.block_on(replay(args, inputs, at, files_of_tls))
}

async fn replay(args: &Args, inputs: Inputs, at: SocketAddr, tls_files: Option<link::Files>) -> Result<(), Failure> {
    let interrupted = signals()?.end;
    let shutdown = CancellationToken::new();
    let ring = Arc::new(Ring::new(args.capacity.0));
    let name = NodeName { cluster: args.cluster_name.0.clone(), node: args.node.clone().unwrap_or_else(host_name) };
    let settings = args.outputs.clone().settings()?;
    let mut outputs = Outputs::start(&settings, &ring, name.node.clone(), false).map_err(usage)?;
    let sink = Sink { listener: outputs.listener(), ..Sink::new(Arc::clone(&ring)) };
    let (page, ended) = (Page::default(), Arc::new(AtomicBool::new(false)));
    let ready = page.ready.clone();
    let tls = servers::tls(tls_files, at);
    let http = args.http_listen.map(|listen| listen.0);
    let socket = if let ListenAddress::Socket(path) = &args.listen { Some(path.as_path()) } else { None };
    let places = Places { grpc: args.listen.port(), tls: tls.clone(), socket, http };
    let mut peers: Peers = args.peers.iter().map(|peer| peer.announced(tls.is_some())).collect();
    if peers.is_empty() {
        let server_name = tls.is_some().then(|| name.server_name());
        peers.insert(name.display_name(), PeerAddress { address: args.listen.to_string(), server_name });
    }
    let offer = Offer {
        nodes: vec![name],
        is_recorded: true,
        // They are what they are: nobody keeps the sender.
        peers: Some(PeerSource::Local(watch::Sender::new(Arc::new(peers)).subscribe())),
        sink: sink.clone(),
        page: page.with(ring).with(outputs.shown()),
        measured: None,
    };
    let (go, may_go) = mpsc::channel();
    let has_read = CancellationToken::new();
    if inputs.is_endless() {
        has_read.cancel();
    }
    let (has_ended, mut end) = oneshot::channel();
    let loading = Loading::new(args.capacity.0, args.rate, sink, Arc::clone(&ended));
    let read = has_read.clone();
    thread::spawn(move || {
        let result = loading.load(inputs, || {
            read.cancel();
            // Ends with the command.
            let _ = may_go.recv();
        });
        ready.set(result.is_ok());
        // The command does not wait for it at its end.
        let _ = has_ended.send(result);
    });
    let (mut offer, mut servers, mut is_loading) = (Some(offer), None, true);
    let mut looks = interval(TICK);
    let result = loop {
        // The flows are not read again.
        select! {
            () = interrupted.cancelled() => break Ok(()),
            error = ended_server(&mut servers) => break Err(Failure::failed(error)),
            // Clients find a server when there is something to serve.
            () = has_read.cancelled(), if offer.is_some() => {
                if let Some(offer) = offer.take() {
                    servers = Some(Servers::start(&places, offer, &shutdown).await.map_err(Failure::failed)?);
                    tracing::info!("serving Hubble's clients on {}", args.listen);
                    let _ = go.send(());
                }
            }
            done = &mut end, if is_loading => {
                is_loading = false;
                match done {
                    Ok(Ok(())) => tracing::info!("Ctrl-C ends"),
                    Ok(Err(error)) => break Err(error),
                    Err(_) => break Err(Failure::failed("reading the flow logs has failed")),
                }
            }
            _ = looks.tick() => outputs.look(),
        }
    };
    ended.store(true, Ordering::Relaxed);
    shutdown.cancel();
    if let Some(servers) = servers {
        servers.end().await;
    }
    outputs.finish(WRITTEN_WITHIN);
    result
}

/// Waits until a server has ended by itself, if there are any.
async fn ended_server(servers: &mut Option<Servers>) -> ServerError {
    match servers {
        Some(servers) => servers.ended().await,
        None => std::future::pending().await,
    }
}
