//! What every command that stays has: signals and servers.

use super::{Failure, hubble::Name};
use crate::{
    api::{CountersService, ZonesService},
    export::{PairLog, Pairs},
    flows::Sink,
    grpc::{self, Services, Socket},
    hubble::{self, KnownPeers, PeerService},
    link::Tls,
    metrics::{self, Sources},
};
use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
    signal::unix::SignalKind,
    sync::oneshot,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// How long servers may take to end: a client that holds its connection does not hold us.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How often announced packets are taken out of the kernel while a command waits.
const EVENT_TICK: Duration = Duration::from_millis(100);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGINT or SIGTERM.
    End,
    /// SIGHUP.
    Reload,
}

/// Receives every signal from now on.
pub(super) fn signals(runtime: &Runtime) -> Result<Receiver<Signal>, Failure> {
    let (sender, receiver) = mpsc::channel();
    let _inside = runtime.enter();
    let asked = [
        (SignalKind::interrupt(), Signal::End),
        (SignalKind::terminate(), Signal::End),
        (SignalKind::hangup(), Signal::Reload),
    ];
    for (kind, asks) in asked {
        let mut signal = tokio::signal::unix::signal(kind).map_err(Failure::failed)?;
        let sender = sender.clone();
        // Ends with the runtime.
        runtime.spawn(async move {
            while signal.recv().await.is_some() {
                let _ = sender.send(asks);
            }
        });
    }
    Ok(receiver)
}

/// Waits for a signal, at most for `time`, and does `meanwhile` ten times a second.
pub(super) fn wait(
    received: &Receiver<Signal>,
    time: Duration,
    mut meanwhile: impl FnMut(),
) -> Result<Option<Signal>, Failure> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match received.recv_timeout(left.min(EVENT_TICK)) {
            Ok(signal) => return Ok(Some(signal)),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::failed("signals can't be received")),
            Err(RecvTimeoutError::Timeout) => meanwhile(),
        }
        if Instant::now() >= end {
            return Ok(None);
        }
    }
}

/// Writes the last interval and ends the pair log; a reader who is stuck does not hold us.
pub(super) fn end_pair_log(log: PairLog, pairs: Pairs) {
    if !log.finish(pairs, PATIENCE) {
        tracing::warn!("the pair log can't be written in time: its last lines are lost");
    }
}

/// Where clients are served.
pub(super) struct Places<'a> {
    pub(super) grpc: Option<SocketAddr>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) socket: Option<&'a Path>,
    pub(super) http: Option<SocketAddr>,
}

/// What they are served.
pub(super) struct Offer {
    /// The flows of these nodes.
    pub(super) nodes: Vec<Name>,
    /// Whether the flows were recorded elsewhere: the nodes are then those that they name.
    pub(super) is_recorded: bool,
    /// Who is announced to hubble-relay, if it may ask.
    pub(super) peers: Option<KnownPeers>,
    pub(super) sink: Sink,
    pub(super) sources: Sources,
    /// The zone table and, with it, counters.
    pub(super) zones: Option<ZonesService>,
}

/// The gRPC and HTTP servers of a process.
pub(super) struct Servers(Vec<JoinHandle<io::Result<()>>>);

impl Servers {
    /// Takes every port and socket, then serves until `shutdown`.
    pub(super) fn start(
        runtime: &Runtime,
        places: &Places<'_>,
        offer: Offer,
        shutdown: &CancellationToken,
    ) -> Result<Self, Failure> {
        let _inside = runtime.enter();
        let listen = |at: SocketAddr, what: &str| {
            let failed = |error| Failure::failed(format!("listening on {at} for {what}: {error}"));
            runtime.block_on(TcpListener::bind(at)).map_err(failed)
        };
        let port = places.grpc.map(|at| listen(at, "Hubble's clients")).transpose()?;
        let http = places.http.map(|at| listen(at, "metrics")).transpose()?;
        let bind = |path: &Path| {
            let failed = |error| Failure::failed(format!("the socket {}: {error}", path.display()));
            Socket::bind(path).map_err(failed)
        };
        let socket = places.socket.map(bind).transpose()?;
        let Offer { nodes, is_recorded, peers, sink, sources, zones } = offer;
        let own = zones.map(|zones| {
            let (samples, missed) = (sources.samples.clone(), Arc::clone(&sources.process.missed));
            (Arc::new(CountersService::new(samples, missed, shutdown.clone())), Arc::new(zones))
        });
        let cluster = nodes.first().map(Name::said_cluster).unwrap_or_default();
        let told = nodes.iter().map(Name::told_as).collect();
        let mut observer = hubble::Server::new(sink, told, shutdown.clone()).in_cluster(cluster);
        if is_recorded {
            observer = observer.recorded();
        }
        if let (Some(_), [node]) = (&places.tls, &*nodes) {
            observer = observer.with_tls(node.server_name());
        }
        let peers = peers.map(|peers| Arc::new(PeerService::new(peers, shutdown.clone())));
        let services = Services { observer: Arc::new(observer), peers, own };
        let serve = grpc::serve(services, port, places.tls.clone(), socket, shutdown.clone());
        let mut servers = vec![runtime.spawn(on_one_thread(serve)?)];
        if let Some(http) = http {
            servers.push(runtime.spawn(metrics::serve(sources, http, shutdown.clone())));
        }
        Ok(Self(servers))
    }

    /// The error of a server that has ended by itself.
    pub(super) fn failed(&mut self, runtime: &Runtime) -> Option<String> {
        let ended = self.0.iter().position(JoinHandle::is_finished)?;
        Some(match runtime.block_on(self.0.swap_remove(ended)) {
            Ok(Ok(())) => "a server has ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        })
    }

    /// Waits for the servers' end.
    pub(super) fn end(self, runtime: &Runtime) {
        for server in self.0 {
            let _ = runtime.block_on(async { tokio::time::timeout(PATIENCE, server).await });
        }
    }
}

/// Runs a server on a thread of its own. What it streams is not handed from thread to thread, which is
/// a large part of what streaming costs.
fn on_one_thread(
    server: impl Future<Output = io::Result<()>> + Send + 'static,
) -> Result<impl Future<Output = io::Result<()>>, Failure> {
    let (ended, end) = oneshot::channel();
    let own = runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    let run = move || drop(ended.send(own.block_on(server)));
    thread::Builder::new().name("grpc".into()).spawn(run).map_err(Failure::failed)?;
    Ok(async { end.await.unwrap_or_else(|_| Err(io::Error::other("the gRPC server has failed"))) })
}
