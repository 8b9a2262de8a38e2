//! The gRPC and HTTP servers of a process that serves flows: an agent, a demo, a replay.

use crate::{
    api::{CountersService, ZonesService},
    counters::Samples,
    flows::Sink,
    grpc::{self, Services, Socket},
    hubble::{self, NodeName, PeerService, PeerSource},
    link::{Backlog, Files, Requests, Tls},
    metrics::{self, Page},
};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    runtime,
    sync::oneshot,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The time limit for shutting down servers and outputs: a client that keeps its connection must not keep the process.
pub const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The addresses to serve on.
#[derive(Debug)]
pub struct Places<'a> {
    /// The port for gRPC.
    pub grpc: Option<SocketAddr>,
    /// TLS for the gRPC port.
    pub tls: Option<Arc<Tls>>,
    /// The unix socket.
    pub socket: Option<&'a Path>,
    /// The port for metrics and health.
    pub http: Option<SocketAddr>,
}

/// The data to serve.
pub struct Offer {
    /// The nodes whose flows are served.
    pub nodes: Vec<NodeName>,
    /// Whether the flows were recorded elsewhere: the node names then come from the flows.
    pub is_recorded: bool,
    /// The peers to announce to hubble-relay, if Peer is served.
    pub peers: Option<PeerSource>,
    /// The flows.
    pub sink: Sink,
    /// The metrics, but for those of the servers.
    pub page: Page,
    /// The counters and the zone table of nodes that are measured.
    pub measured: Option<Measured>,
}

/// Nodes that are measured, for `meridian top` and `meridian zones`.
pub struct Measured {
    /// Their samples.
    pub samples: Samples,
    /// The zone table.
    pub zones: ZonesService,
}

/// A server can't start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port can't be opened.
    #[error("listening on {at} for {what}: {source}")]
    Listen {
        /// The address.
        at: SocketAddr,
        /// The service on the port.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The unix socket can't be opened.
    #[error("the socket {}: {source}", path.display())]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A server's thread can't start.
    #[error(transparent)]
    Thread(io::Error),
    /// A server has failed.
    #[error(transparent)]
    Failed(io::Error),
    /// A server has panicked.
    #[error(transparent)]
    Panicked(JoinError),
    /// A server has ended without a shutdown.
    #[error("a server has ended")]
    Ended,
}

/// Opens a port. `what` names the service on it, for people.
///
/// # Errors
/// The port can't be opened.
pub async fn listen(at: SocketAddr, what: &'static str) -> Result<TcpListener, Error> {
    listen_by(at, TcpListener::bind).await.map_err(|source| Error::Listen { at, what, source })
}

/// Every address of a machine is `[::]`, and `0.0.0.0` where its kernel has no IPv6.
async fn listen_by<L>(at: SocketAddr, bind: impl AsyncFn(SocketAddr) -> io::Result<L>) -> io::Result<L> {
    match bind(at).await {
        Err(error)
            if at.ip() == Ipv6Addr::UNSPECIFIED
                && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            tracing::info!(port = at.port(), "there is no IPv6 here: served over IPv4 alone");
            bind((Ipv4Addr::UNSPECIFIED, at.port()).into()).await
        }
        bound => bound,
    }
}

async fn listen_at(at: Option<SocketAddr>, what: &'static str) -> Result<Option<TcpListener>, Error> {
    match at {
        Some(at) => listen(at, what).await.map(Some),
        None => Ok(None),
    }
}

/// Loads the certificate of a flow server at this address, and watches its files.
pub fn tls(files: Option<Files>, at: SocketAddr) -> Option<Arc<Tls>> {
    if files.is_none() && !at.ip().is_loopback() {
        tracing::warn!(listen = %at, "serving without TLS to every client that reaches this address, as configured");
    }
    files.map(|files| Arc::new(Tls::waiting("hubble", files)))
}

/// The servers of a process.
#[derive(Debug)]
pub struct Servers(JoinSet<io::Result<()>>);

impl Servers {
    /// Opens every port and socket, then serves until `shutdown`.
    ///
    /// # Errors
    /// A port or socket can't be opened.
    pub async fn start(places: &Places<'_>, offer: Offer, shutdown: &CancellationToken) -> Result<Self, Error> {
        let port = listen_at(places.grpc, "Hubble's clients").await?;
        let http = listen_at(places.http, "metrics").await?;
        let bind = |path: &Path| {
            let failed = |source| Error::Socket { path: path.to_owned(), source };
            Socket::bind(path).map_err(failed)
        };
        let socket = places.socket.map(bind).transpose()?;
        let mut page = offer.page.clone();
        if let Some(tls) = &places.tls {
            page.add(vec![Arc::clone(tls)]);
        }
        let backlog = grpc::backlog();
        page.add(Arc::clone(&backlog));
        let requests = grpc::requests();
        page.add(Arc::clone(&requests));
        let services = offer.services(places.tls.is_some(), (backlog, requests), shutdown);
        page.add(services.observer.filters());
        if let Some((counters, _)) = &services.own {
            page.add(counters.missed());
        }
        let serve = grpc::serve(services, port, places.tls.clone(), socket, shutdown.clone());
        let mut servers = JoinSet::new();
        servers.spawn(on_one_thread(serve).map_err(Error::Thread)?);
        if let Some(http) = http {
            servers.spawn(metrics::serve(page, http, shutdown.clone()));
        }
        Ok(Self(servers))
    }

    /// Waits until a server ends by itself. Cancel safe.
    pub async fn ended(&mut self) -> Error {
        match self.0.join_next().await {
            Some(Ok(Ok(()))) | None => Error::Ended,
            Some(Ok(Err(error))) => Error::Failed(error),
            Some(Err(error)) => Error::Panicked(error),
        }
    }

    /// Waits for the servers to shut down, at most for [`END_TIMEOUT`].
    pub async fn end(mut self) {
        let all = async { while self.0.join_next().await.is_some() {} };
        let _ = timeout(END_TIMEOUT, all).await;
    }
}

impl Offer {
    fn services(
        self,
        with_tls: bool,
        (backlog, requests): (Arc<Backlog>, Arc<Requests>),
        shutdown: &CancellationToken,
    ) -> Services {
        let Self { nodes, is_recorded, peers, sink, page: _, measured } = self;
        let own = measured.map(|Measured { samples, zones }| {
            (Arc::new(CountersService::new(samples, shutdown.clone())), Arc::new(zones))
        });
        let cluster = nodes.first().map(NodeName::reported_cluster).unwrap_or_default();
        let names = nodes.iter().map(NodeName::display_name).collect();
        let mut observer = hubble::Server::new(sink, names, shutdown.clone()).in_cluster(cluster);
        if is_recorded {
            observer = observer.recorded();
        }
        if let (true, [node]) = (with_tls, &*nodes) {
            observer = observer.with_tls(node.server_name());
        }
        let peers = peers.map(|peers| Arc::new(PeerService::new(peers, shutdown.clone())));
        Services { observer: Arc::new(observer), peers, own, backlog, requests }
    }
}

/// Runs a server on its own thread. Handing streamed data between threads is a large part of the cost of streaming.
fn on_one_thread(
    server: impl Future<Output = io::Result<()>> + Send + 'static,
) -> io::Result<impl Future<Output = io::Result<()>>> {
    let (ended, end) = oneshot::channel();
    let own = runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || drop(ended.send(own.block_on(server)));
    thread::Builder::new().name("grpc".into()).spawn(run)?;
    Ok(async { end.await.unwrap_or_else(|_| Err(io::Error::other("the gRPC server has failed"))) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[tokio::test]
    async fn without_ipv6_every_address_is_every_one_of_ipv4() {
        let tried = RefCell::new(Vec::new());
        let without_ipv6 = async |at: SocketAddr| {
            tried.borrow_mut().push(at.to_string());
            if at.is_ipv6() { Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)) } else { Ok(()) }
        };
        listen_by("[::]:9980".parse().unwrap(), without_ipv6).await.unwrap();
        assert_eq!(*tried.borrow(), ["[::]:9980", "0.0.0.0:9980"]);
        // An address that was named is not another one.
        assert!(listen_by("[::1]:9980".parse().unwrap(), without_ipv6).await.is_err());
        let in_use = async |_| Err::<(), _>(io::Error::from_raw_os_error(libc::EADDRINUSE));
        let error = listen_by("[::]:9980".parse().unwrap(), in_use).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    }
}
