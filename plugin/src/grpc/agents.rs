//! A controller's port for agents: the feed, reports, and peers.

use crate::{
    feed::{Agents, FeedService, FollowServer},
    hubble::{
        PeerChanges, PeerService,
        services::peer_server::{Peer, PeerServer},
    },
    link::{self, Arrival, Authenticate, Authenticated, Tls, check_token},
    proto::peer::NotifyRequest,
    replication::{HistoryService, services::history_server::HistoryServer},
    reports::{self, ReportsService},
};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Request, Response, Status,
    codegen::{Service, http},
    service::Routes,
    transport::server::TcpConnectInfo,
};

/// The limit of a message. The largest is hello, with 16 KiB of digests.
const REQUEST_BYTES: usize = 32 << 10;
/// The limit of a report: the most pairs that it may have, each with new names.
const REPORT_BYTES: usize = 16 << 20;
/// The limit of bytes that a stream buffers for sending.
const SEND_BYTES: usize = 16 << 10;
/// A vanished agent is detected after twice this time.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long a client may take to show a token, from the connection on; a slow API server is asked about it.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for delivering the reason why a stream ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The services for agents.
pub struct AgentServices {
    /// The zone table and identities.
    pub feed: FeedService,
    /// Accepts the agents' reports.
    pub reports: ReportsService,
    /// The addresses of flow servers, for agents that hubble-relay asks.
    pub peers: PeerService,
    /// The history, for the other replicas.
    pub history: Option<HistoryService>,
}

/// Serves agents until the feed shuts down; without TLS if `tls` is `None`.
pub async fn serve(services: AgentServices, listener: TcpListener, tls: Option<Arc<Tls>>) {
    let AgentServices { feed, reports: reports_service, peers, history } = services;
    let (agents, shutdown) = (Arc::clone(&feed.agents), feed.shutdown.clone());
    let peers = PeersForAgents { tokens: Arc::clone(&feed.tokens), peers };
    let mut routes = Routes::new(FollowServer::new(feed, REQUEST_BYTES))
        .add_service(reports::serve(reports_service, REPORT_BYTES))
        .add_service(PeerServer::new(peers));
    if let Some(history) = history {
        routes = routes.add_service(HistoryServer::new(history).max_decoding_message_size(REQUEST_BYTES));
    }
    serve_routes(routes, listener, tls, Port { agents, shutdown }).await;
}

/// Shared by all connections to the port.
#[derive(Clone)]
struct Port {
    agents: Arc<Agents>,
    shutdown: CancellationToken,
}

async fn serve_routes(routes: Routes, listener: TcpListener, tls: Option<Arc<Tls>>, port: Port) {
    let connections = TaskTracker::new();
    let strangers = Arc::clone(&port.agents.places.strangers);
    let mut accepted = link::connections(listener, tls, strangers, port.shutdown.clone());
    while let Some(arrival) = accepted.recv().await {
        connections.spawn(serve_connection(arrival, routes.clone(), port.clone()));
    }
    connections.close();
    connections.wait().await;
}

/// Peer, for agents that hubble-relay asks.
struct PeersForAgents {
    tokens: Arc<dyn Authenticate>,
    peers: PeerService,
}

#[tonic::async_trait]
impl Peer for PeersForAgents {
    type NotifyStream = PeerChanges;

    async fn notify(&self, request: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        check_token(&*self.tokens, &request).await?;
        self.peers.notify(request).await
    }
}

/// HTTP/2 in hyper's own words: tonic's server has none for how much of a stream waits to be sent, of which there are
/// thousands.
fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        // An agent needs one stream of each kind, and another one when it reconnects.
        .max_concurrent_streams(8)
        .max_send_buf_size(SEND_BYTES);
    builder
}

/// Serves a connection until one of the two ends it, its place is another's, or it shows no token in time.
///
/// Not an async function, and what is large is boxed: the future of an async function has room for a value in each
/// place that it moves through, and there are thousands of connections.
fn serve_connection(
    Arrival { stream, from, mut place }: Arrival,
    routes: Routes,
    port: Port,
) -> impl Future<Output = ()> + Send {
    let authenticated = Authenticated::default();
    let noted = authenticated.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(from) });
        request.extensions_mut().insert(noted.clone());
        // The routes are always ready.
        Box::pin(routes.clone().call(request))
    });
    let mut connection = Box::pin(http2().serve_connection(TokioIo::new(stream), service));
    async move {
        let mut deadline = std::pin::pin!(sleep(TOKEN_TIMEOUT));
        let mut is_known = false;
        let served = loop {
            tokio::select! {
                served = &mut connection => break served,
                () = place.displaced() => return,
                () = &mut deadline, if !is_known => {
                    port.agents.refused.late.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                node = authenticated.node(), if !is_known => {
                    // The place of a stranger is free again. Without tokens, each connection is its own peer.
                    let client = node.unwrap_or_else(|| from.to_string());
                    (place, is_known) = (port.agents.places.known.admit(client), true);
                }
                () = port.shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    break timeout(SHUTDOWN_TIMEOUT, connection.as_mut()).await.unwrap_or(Ok(()));
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(%from, %error, "a connection has broken");
        }
    }
}

#[cfg(test)]
mod tests;
