//! A controller's port for agents: the feed, reports, and peers.

use crate::{
    feed::{FeedService, services::feed_server::FeedServer},
    hubble::{
        PeerChanges, PeerService,
        services::peer_server::{Peer, PeerServer},
    },
    link::{self, Authenticate, Tls, check_token},
    proto::peer::NotifyRequest,
    reports::{ReportsService, services::reports_server::ReportsServer},
};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::timeout,
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
/// The time limit for delivering the reason why a stream ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// The services for agents.
pub struct AgentServices {
    /// The zone table and identities.
    pub feed: FeedService,
    /// Accepts the agents' reports.
    pub reports: ReportsService,
    /// The addresses of flow servers, for agents that hubble-relay asks.
    pub peers: PeerService,
}

/// Serves agents until the feed shuts down; without TLS if `tls` is `None`.
pub async fn serve(services: AgentServices, listener: TcpListener, tls: Option<Arc<Tls>>) {
    let AgentServices { feed, reports, peers } = services;
    let shutdown = feed.shutdown.clone();
    let peers = PeersForAgents { tokens: Arc::clone(&feed.tokens), peers };
    let routes = Routes::new(FeedServer::new(feed).max_decoding_message_size(REQUEST_BYTES))
        .add_service(ReportsServer::new(reports).max_decoding_message_size(REPORT_BYTES))
        .add_service(PeerServer::new(peers));
    let connections = TaskTracker::new();
    let mut accepted = link::connections(listener, tls, shutdown.clone());
    while let Some((stream, from)) = accepted.recv().await {
        connections.spawn(serve_connection(stream, from, routes.clone(), shutdown.clone()));
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

/// Serves a connection until either side ends it. It uses hyper directly, because tonic's server can't limit the send
/// buffer of a stream, and there are thousands of streams.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: SocketAddr,
    routes: Routes,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(from) });
        let mut routes = routes.clone();
        // The routes are always ready.
        async move { routes.call(request).await }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        // An agent needs one stream of each kind, and another one when it reconnects.
        .max_concurrent_streams(8)
        .max_send_buf_size(SEND_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%from, %error, "a connection has broken");
    }
}
