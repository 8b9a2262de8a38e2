//! The controller's end of the feed.

use super::{
    agents::{Agents, Following},
    buckets::{BUCKETS, Digest},
    store::{Cursor, Position, Store},
};
use crate::proto::{
    feed::{
        feed_server::{Feed, FeedServer},
        reports_server::ReportsServer,
    },
    peer::{
        NotifyRequest,
        peer_server::{Peer, PeerServer},
    },
    v1::{
        FollowRequest, FollowResponse, Hello, StatusRequest, StatusResponse, controller_server::Controller,
        follow_request, status_response,
    },
};
use crate::{
    hubble::{PeerChanges, PeerService},
    reports::ReportsService,
    tls::{self, Tls},
};
use futures_util::future::BoxFuture;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Request, Response, Status, Streaming,
    codegen::{Service, http},
    service::Routes,
    transport::server::TcpConnectInfo,
};

/// A hello is the largest of an agent's messages: 16 KiB of digests.
const REQUEST_BYTES: usize = 32 << 10;
/// A report of as many pairs as one may have, each named anew.
const REPORT_BYTES: usize = 16 << 20;
/// A node's name is a DNS name.
const NODE_NAME: usize = 253;
/// How long an agent may take to say hello.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an agent may take to hear why its stream ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// What of a stream waits to be sent.
const SEND_BYTES: usize = 16 << 10;
/// An agent that has vanished is noticed after this time, and once more.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why a token is not good enough.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Whose it is can't be found out, or it is nobody's.
    #[error("{0}")]
    Unauthenticated(String),
    /// Somebody else's.
    #[error("{0}")]
    PermissionDenied(String),
    /// It can't be looked at now.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::Unauthenticated(_) => Self::unauthenticated(text),
            Refused::PermissionDenied(_) => Self::permission_denied(text),
            Refused::Unavailable(_) => Self::unavailable(text),
        }
    }
}

/// Looks at the token that an agent shows, and says on which node it is; `None` if the token does not say
/// that.
pub trait Authenticate: Send + Sync {
    /// Looks at a token; `None` is none.
    fn check(&self, token: Option<String>) -> BoxFuture<'_, Result<Option<String>, Refused>>;
}

/// What is watched in the cluster.
pub trait Watches: Send + Sync {
    /// Every kind, and how far it is.
    fn kinds(&self) -> Vec<status_response::Kind>;
}

/// What agents may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many may follow.
    pub agents: usize,
    /// After which time a stream is ended, so that agents spread over the replicas; half of it at the
    /// earliest.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { agents: 10_000, age: Duration::from_secs(3600) }
    }
}

/// `meridian.v1.Feed`.
#[derive(Clone)]
pub struct FeedService {
    /// What agents are told.
    pub store: Arc<Store>,
    /// Those that follow.
    pub agents: Arc<Agents>,
    /// Who may.
    pub tokens: Arc<dyn Authenticate>,
    /// What is watched.
    pub watches: Arc<dyn Watches>,
    /// How many, and how long.
    pub limits: Limits,
    /// Ends every stream.
    pub shutdown: CancellationToken,
}

impl FeedService {
    /// Serves it, `reports` and `peers` until `shutdown`; without TLS if there is none.
    pub async fn serve(
        self,
        reports: ReportsService,
        peers: PeerService,
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
    ) {
        let shutdown = self.shutdown.clone();
        let peers = PeersForAgents { tokens: Arc::clone(&self.tokens), peers };
        let routes = Routes::new(FeedServer::new(self).max_decoding_message_size(REQUEST_BYTES))
            .add_service(ReportsServer::new(reports).max_decoding_message_size(REPORT_BYTES))
            .add_service(PeerServer::new(peers));
        let connections = TaskTracker::new();
        let mut accepted = tls::connections(listener, tls, shutdown.clone());
        while let Some((stream, from)) = accepted.recv().await {
            connections.spawn(serve_connection(stream, from, routes.clone(), shutdown.clone()));
        }
        connections.close();
        connections.wait().await;
    }

    /// Whose stream it is.
    async fn hello(
        &self,
        request: Request<Streaming<FollowRequest>>,
    ) -> Result<(Hello, Streaming<FollowRequest>), Status> {
        let node = check_token(&*self.tokens, &request).await?;
        let mut requests = request.into_inner();
        let first = timeout(PATIENCE, requests.message()).await;
        let first = first.map_err(|_| Status::invalid_argument("no hello came in time"))??;
        let Some(FollowRequest { request: Some(follow_request::Request::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("the first message is no hello"));
        };
        if hello.node.is_empty() || hello.node.len() > NODE_NAME {
            return Err(Status::invalid_argument("a hello names the agent's node"));
        }
        if !matches!(hello.digests.len(), 0 | DIGESTS) {
            return Err(Status::invalid_argument(format!("digests are {DIGESTS} bytes or none")));
        }
        if let Some(node) = node.filter(|node| *node != hello.node) {
            let text = format!("the token is that of an agent on {node}, not on {}", hello.node);
            return Err(Status::permission_denied(text));
        }
        Ok((hello, requests))
    }

    fn count(&self, status: &Status) {
        let refused = &self.agents.refused;
        let counter = match status.code() {
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => &refused.token,
            tonic::Code::ResourceExhausted => &refused.full,
            _ => &refused.request,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks at the token of a request, and says on which node its owner is, if the token says that.
///
/// # Errors
/// It is not good enough.
pub(crate) async fn check_token<T>(of: &dyn Authenticate, request: &Request<T>) -> Result<Option<String>, Status> {
    let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    of.check(token).await.map_err(Refused::into)
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

const DIGESTS: usize = BUCKETS * size_of::<Digest>();

#[tonic::async_trait]
impl Feed for FeedService {
    type FollowStream = ReceiverStream<Result<FollowResponse, Status>>;

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let from = request.remote_addr().map_or_else(String::new, |address| address.to_string());
        let refuse = |status: Status| {
            self.count(&status);
            tracing::warn!(from, code = ?status.code(), reason = status.message(), "an agent is refused");
            status
        };
        let (hello, requests) = self.hello(request).await.map_err(refuse)?;
        let full = || refuse(Status::resource_exhausted(format!("{} agents follow already", self.limits.agents)));
        let following = self.agents.join(hello.node, self.limits.agents).ok_or_else(full)?;
        let (digests, _) = hello.digests.as_chunks();
        let cursor = self.store.cursor(hello.position.map(Into::into), digests);
        tracing::debug!(node = following.agent.node, from, "an agent follows");
        // What is in the channel is shared with the other streams, so a slow agent holds nothing of its own.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(self.clone().follow_to_the_end(cursor, following, requests, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl Controller for FeedService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let agents = self.agents.all();
        let agents = agents.iter().map(|agent| status_response::Agent {
            node: agent.node.clone(),
            acknowledged: agent.acknowledged.load(Ordering::Relaxed),
            connected: Some(agent.connected.into()),
        });
        Ok(Response::new(StatusResponse {
            position: Some(self.store.position().into()),
            kinds: self.watches.kinds(),
            agents: agents.collect(),
        }))
    }
}

impl FeedService {
    /// Tells an agent everything until one of the two ends it.
    async fn follow_to_the_end(
        self,
        cursor: Cursor,
        following: Following,
        mut requests: Streaming<FollowRequest>,
        sender: mpsc::Sender<Result<FollowResponse, Status>>,
    ) {
        let age = self.limits.age.mul_f64(rand::random_range(0.5..=1.0));
        let end = tokio::select! {
            () = self.tell(cursor, &sender) => None,
            status = self.listen(&following, &mut requests) => status,
            () = self.shutdown.cancelled() => Some(Status::unavailable("the controller ends")),
            // Without an error: come again.
            () = sleep(age) => None,
        };
        if let Some(status) = end {
            if status.code() == tonic::Code::InvalidArgument {
                self.count(&status);
                let node = &following.agent.node;
                tracing::warn!(node, reason = status.message(), "an agent's stream is ended");
            }
            // Whoever does not read it in time reads the end of the stream.
            let _ = timeout(FAREWELL, sender.send(Err(status))).await;
        }
    }

    /// Tells an agent what it lacks; ends when it has gone.
    async fn tell(&self, mut cursor: Cursor, sender: &mpsc::Sender<Result<FollowResponse, Status>>) {
        let mut version = self.store.watch();
        loop {
            version.mark_unchanged();
            while let Some(next) = cursor.next(&self.store) {
                if sender.send(Ok(next)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                // The store outlives its agents.
                _ = version.changed() => {}
                () = sender.closed() => return,
            }
        }
    }

    /// Hears what an agent has put in force; ends with it.
    async fn listen(&self, following: &Following, requests: &mut Streaming<FollowRequest>) -> Option<Status> {
        loop {
            match requests.message().await {
                Ok(Some(FollowRequest { request: Some(follow_request::Request::Acknowledged(position)) })) => {
                    let position = Position::from(position);
                    if position.instance == self.store.position().instance {
                        following.agent.acknowledged.store(position.version, Ordering::Relaxed);
                    }
                }
                Ok(Some(_)) => return Some(Status::invalid_argument("after its hello an agent only acknowledges")),
                Ok(None) => return None,
                Err(status) if status.code() == tonic::Code::Cancelled => return None,
                Err(status) => return Some(Status::invalid_argument(status.message())),
            }
        }
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
