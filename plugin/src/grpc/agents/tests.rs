//! Strangers at the agents' port, while an agent follows.

use super::*;
use crate::{
    feed::{Changes, Limits, Store, Watches, services::feed_client::FeedClient},
    proto::v1::{FollowRequest, FollowResponse, Hello, follow_request, status_response},
};
use futures_util::future::BoxFuture;
use std::net::{IpAddr, SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

/// A token is good if it is the name of a node.
struct Named;

impl Authenticate for Named {
    fn check(
        &self,
        token: Option<String>,
        _: Option<IpAddr>,
    ) -> BoxFuture<'_, Result<Option<String>, link::RefusedToken>> {
        let refused = || link::RefusedToken::Unauthenticated("it is not valid".into());
        Box::pin(async move { token.filter(|token| token.starts_with("node-")).map(Some).ok_or_else(refused) })
    }
}

struct Nothing;

impl Watches for Nothing {
    fn kinds(&self) -> Vec<status_response::Kind> {
        Vec::new()
    }
}

struct Server {
    at: SocketAddr,
    agents: Arc<Agents>,
    _ends: tokio_util::sync::DropGuard,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, agents, shutdown) = (listener.local_addr().unwrap(), Arc::default(), CancellationToken::new());
        let store = Arc::new(Store::default());
        store.publish(Changes::default());
        let feed = FeedService {
            store,
            agents: Arc::clone(&agents),
            tokens: Arc::new(Named),
            watches: Arc::new(Nothing),
            limits: Limits { agents: 10, ..Limits::default() },
            shutdown: shutdown.clone(),
        };
        let port = Port { agents: Arc::clone(&agents), shutdown: shutdown.clone() };
        tokio::spawn(serve_routes(Routes::new(FollowServer::new(feed, REQUEST_BYTES)), listener, None, port));
        Self { at, agents, _ends: shutdown.drop_guard() }
    }

    async fn stranger(&self, from: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    /// An agent of a node follows; its stream, and the end of its own.
    async fn follow(&self, node: &str) -> (Streaming<FollowResponse>, mpsc::Sender<FollowRequest>) {
        let (sender, requests) = mpsc::channel(1);
        let hello = Hello { node: node.into(), ..Hello::default() };
        sender.send(FollowRequest { request: Some(follow_request::Request::Hello(hello)) }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(requests));
        request.metadata_mut().insert("authorization", format!("Bearer {node}").parse().unwrap());
        let channel = Endpoint::from_shared(format!("http://{}", self.at)).unwrap().connect().await.unwrap();
        (FeedClient::new(channel).follow(request).await.unwrap().into_inner(), sender)
    }
}

#[tokio::test]
async fn an_agent_follows_while_silent_connections_hold_all_places() {
    let server = Server::start().await;
    let (mut first, _open) = server.follow("node-a").await;
    assert!(first.message().await.unwrap().unwrap().whole);
    let mut strangers = Vec::new();
    for n in 0..1500u16 {
        let mut stranger = server.stranger([127, 1, (n % 60) as u8, 1]).await;
        if n % 2 == 0 {
            // HTTP/2 and nothing more.
            let _ = stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        }
        strangers.push(stranger);
    }
    let (mut second, _open_too) = server.follow("node-b").await;
    assert!(second.message().await.unwrap().unwrap().whole);
    assert!(server.agents.places.strangers.held() <= 1024);
    assert!(server.agents.places.displaced() >= 400);
    // A connection with a token does not displace others.
    assert_eq!((server.agents.places.known.held(), server.agents.count(0).0), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn whoever_shows_no_token_in_time_is_gone_and_an_agent_stays() {
    let server = Server::start().await;
    let (mut agent, _open) = server.follow("node-a").await;
    assert!(agent.message().await.unwrap().unwrap().whole);
    let mut silent = server.stranger([127, 0, 0, 1]).await;
    let mut answer = Vec::new();
    // The clock runs ahead while all wait.
    let _ = silent.read_to_end(&mut answer).await;
    assert_eq!(server.agents.refused.late.load(Ordering::Relaxed), 1);
    assert_eq!((server.agents.places.strangers.held(), server.agents.count(0).0), (0, 1));
}
