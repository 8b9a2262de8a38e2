//! Clients that do not read, beside one that does.

use super::*;
use crate::{
    flows::{Ring, Sink},
    grpc::reflection::Reflection,
    hubble::{
        self, Reply,
        services::{observer_client::ObserverClient, observer_server::ObserverServer},
    },
    proto::{flow::Flow, observer::GetFlowsRequest},
};
use hyper::body::{Body, Bytes, Frame};
use prost::Message;
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// The bound of the tests: a hundredth of what their clients would leave unread.
const LIMIT: usize = 1 << 20;
/// The bytes that the last messages within the bound count for.
const MESSAGE: usize = 256 << 10;

struct Server {
    at: SocketAddr,
    ring: Arc<Ring>,
    requests: Arc<Requests>,
    backlog: Arc<Backlog>,
    _ends: tokio_util::sync::DropGuard,
}

fn flow(n: usize) -> Flow {
    Flow { uuid: format!("{n:0500}"), node_name: "node-a".into(), ..Flow::default() }
}

impl Server {
    async fn start() -> Self {
        Self::with_requests(2000).await
    }

    async fn with_requests(most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let (ring, backlog) = (Arc::new(Ring::new(1023)), Arc::new(Backlog::new(LIMIT)));
        (0..1023).for_each(|n| ring.push(flow(n).into()));
        let requests = Arc::new(Requests::new(most, LIMIT));
        let observer = hubble::Server::new(Sink::new(Arc::clone(&ring)), vec!["node-a".into()], shutdown.clone());
        let port = Port {
            routes: Routes::new(ObserverServer::new(observer)),
            named: Reflection::of(&[]).named(),
            backlog: Arc::clone(&backlog),
            requests: Arc::clone(&requests),
            shutdown: shutdown.clone(),
        };
        tokio::spawn(port.serve(crate::grpc::connections(listener, None, shutdown.clone())));
        Self { at, ring, requests, backlog, _ends: shutdown.drop_guard() }
    }

    /// A client whose connection never fills, so that each of its streams is stuck by itself.
    async fn client(&self) -> ObserverClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.at)).unwrap();
        let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(1 << 30);
        ObserverClient::new(endpoint.connect().await.unwrap())
    }
}

/// All flows of the ring, and then those that follow.
fn everything() -> GetFlowsRequest {
    GetFlowsRequest { number: u64::MAX, follow: true, ..GetFlowsRequest::default() }
}

/// Reads all flows that the server has.
async fn read(stream: &mut Streaming<Reply>, flows: usize) {
    for _ in 0..flows {
        stream.message().await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_followers_that_read_nothing_hold_no_more_than_the_bound_and_a_reader_gets_all() {
    let server = Server::start().await;
    let mut honest = server.client().await;
    let mut follower = honest.get_flows(everything()).await.unwrap().into_inner();
    read(&mut follower, 1023).await;
    let (mut stuck, mut client) = (Vec::new(), honest.clone());
    for n in 1..=1000 {
        stuck.push(client.get_flows(everything()).await.unwrap());
        // The first of them share the connection of the honest client, as behind hubble-relay.
        if n % 100 == 0 {
            client = server.client().await;
        }
        assert!(server.backlog.bytes() <= LIMIT + MESSAGE);
    }
    for n in 0..100 {
        server.ring.push(flow(n).into());
        read(&mut follower, 1).await;
    }
    // Each sends 64 KiB to its window, and leaves as much in the server's memory.
    assert!(server.backlog.ended() > 900, "{} of 1,000 were ended", server.backlog.ended());
    assert!(server.backlog.bytes() <= LIMIT + MESSAGE);
    read(&mut honest.get_flows(everything()).await.unwrap().into_inner(), 1023).await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request for all flows, in a stream with the largest window.
fn request(stream: u32) -> Vec<u8> {
    let literal = |name: u8, value: &str| [&[name, value.len() as u8], value.as_bytes()].concat();
    // POST and http, and by their numbers in the static table: path, authority, content type.
    let path = literal(0x04, "/observer.Observer/GetFlows");
    let headers = [vec![0x83, 0x86], path, literal(0x01, "x"), vec![0x0f, 0x10], literal(16, "application/grpc")];
    let headers = [&headers[..4].concat(), &headers[4][1..]].concat();
    let message = everything().encode_to_vec();
    let data = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    [frame(1, 4, stream, &headers), frame(0, 1, stream, &data)].concat()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_nothing_is_ended_as_a_whole() {
    let server = Server::start().await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        let mut client = TcpStream::connect(server.at).await.unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        // The window of each stream, then that of the connection.
        client.write_all(&frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await.unwrap();
        client.write_all(&frame(8, 0, 0, &(0x7fff_0000_u32).to_be_bytes())).await.unwrap();
        for n in 0..50 {
            client.write_all(&request(2 * n + 1)).await.unwrap();
        }
        silent.push(client);
    }
    let mut honest = server.client().await;
    while server.backlog.ended() < 4 {
        read(&mut honest.get_flows(everything()).await.unwrap().into_inner(), 1023).await;
        assert!(server.backlog.bytes() <= LIMIT + MESSAGE);
    }
    read(&mut honest.get_flows(everything()).await.unwrap().into_inner(), 1023).await;
}

/// A request body that begins and never ends.
struct Endless(Option<Bytes>);

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

#[tokio::test]
async fn requests_that_never_end_hold_no_more_than_the_bound_and_a_client_is_answered() {
    let server = Server::with_requests(300).await;
    let mut answers = tokio::task::JoinSet::new();
    // Twenty times the bound, and twice as many requests as there may be.
    for _ in 0..6 {
        let stream = TokioIo::new(TcpStream::connect(server.at).await.unwrap());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..100 {
            let mut body = vec![0; 40 << 10];
            body[..5].copy_from_slice(&[0, 0, 3, 0, 0]);
            let request = http::Request::post(format!("http://{}/observer.Observer/GetFlows", server.at))
                .header("content-type", "application/grpc")
                .body(Endless(Some(body.into())))
                .unwrap();
            client.ready().await.unwrap();
            answers.spawn(client.send_request(request));
        }
        // They end for others, or are open.
        while server.requests.displaced() == 0 && server.requests.count() < 20 {
            tokio::task::yield_now().await;
        }
        assert!(server.requests.bytes() <= LIMIT && server.requests.count() <= 300);
        let mut reader = server.client().await.get_flows(everything()).await.unwrap().into_inner();
        read(&mut reader, 1023).await;
    }
    assert!(server.requests.displaced() > 0);
    assert!(server.requests.bytes() <= LIMIT && server.requests.count() <= 300);
}
