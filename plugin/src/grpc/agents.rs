//! A controller's port for agents: the feed, their reports, and peers.

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

/// A hello is the largest of an agent's messages: 16 KiB of digests.
const REQUEST_BYTES: usize = 32 << 10;
/// A report of as many pairs as one may have, each named anew.
const REPORT_BYTES: usize = 16 << 20;
/// What of a stream waits to be sent.
const SEND_BYTES: usize = 16 << 10;
/// An agent that has vanished is noticed after this time, and once more.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long an agent may take to hear why its stream ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What agents are served.
pub struct AgentServices {
    /// The zone table and identities.
    pub feed: FeedService,
    /// Takes what they have counted.
    pub reports: ReportsService,
    /// Who serves flows, for those that are asked for it.
    pub peers: PeerService,
}

/// Serves agents until the feed's shutdown; without TLS if there is none.
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

/// Peers, for agents that are asked for them.
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

/// Serves a connection until one of the two ends it. In hyper's own words: tonic's server has none for how
/// much of a stream waits to be sent, of which there are thousands.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: SocketAddr,
    routes: Routes,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(from) });
        let mut routes = routes.clone();
        // It is always ready.
        async move { routes.call(request).await }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        // An agent needs one stream, and another one when it comes again.
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
