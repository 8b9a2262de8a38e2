//! Agents at a feed service in this process: refusals, resynchronization and ends of streams.

use super::{
    super::{
        BUCKETS, Changes, FollowServer, bucket,
        client::hello,
        services::{controller_server::ControllerServer, feed_client::FeedClient},
    },
    *,
};
use crate::{
    identity::{Endpoint, Index},
    link::RefusedToken,
    zones::SharedTable,
};
use futures_util::future::BoxFuture;
use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::AtomicUsize,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::{Channel, server::TcpIncoming};

/// A good token is the name of its node; `any` is good on every node.
struct Tokens;

impl Authenticate for Tokens {
    fn check(&self, token: Option<String>, _: Option<IpAddr>) -> BoxFuture<'_, Result<Option<String>, RefusedToken>> {
        Box::pin(async move {
            match token {
                Some(token) if token == "any" => Ok(None),
                Some(token) if token.starts_with("node-") => Ok(Some(token)),
                Some(token) if token == "reader" => Err(RefusedToken::PermissionDenied("not an agent's".into())),
                Some(_) => Err(RefusedToken::Unauthenticated("unknown".into())),
                None => Err(RefusedToken::Unauthenticated("there is no token".into())),
            }
        })
    }
}

struct NodesAreWatched;

impl Watches for NodesAreWatched {
    fn kinds(&self) -> Vec<status_response::Kind> {
        vec![status_response::Kind { name: "Node".into(), ..status_response::Kind::default() }]
    }
}

fn pod(n: u32) -> (IpAddr, Option<Arc<Endpoint>>) {
    let endpoint = Endpoint { pod: format!("p{n}").into(), ..Endpoint::default() };
    (IpAddr::from((0x0a00_0000 + n).to_be_bytes()), Some(Arc::new(endpoint)))
}

/// A running service.
struct Server {
    service: FeedService,
    channel: Channel,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let service = FeedService {
            store: Arc::default(),
            agents: Arc::default(),
            tokens: Arc::new(Tokens),
            watches: Arc::new(NodesAreWatched),
            limits,
            shutdown: CancellationToken::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let routes = tonic::transport::Server::builder()
            .add_service(FollowServer::new(service.clone(), 4 << 20))
            .add_service(ControllerServer::new(service.clone()));
        tokio::spawn(routes.serve_with_incoming(TcpIncoming::from(listener)));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { service, channel }
    }

    /// Pods of these numbers.
    fn publish(&self, pods: impl IntoIterator<Item = u32>) -> u64 {
        self.service.store.publish(Changes { identities: pods.into_iter().map(pod).collect(), ..Changes::default() })
    }

    /// A stream that begins with this request.
    async fn open(&self, token: Option<&str>, first: follow_request::Request) -> Result<Agent, Status> {
        let (requests, receiver) = mpsc::channel(8);
        requests.send(FollowRequest { request: Some(first) }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(receiver));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let responses = FeedClient::new(self.channel.clone()).follow(request).await?.into_inner();
        Ok(Agent { requests, responses })
    }

    async fn follow(&self, token: &str, hello: Hello) -> Result<Agent, Status> {
        self.open(Some(token), follow_request::Request::Hello(hello)).await
    }

    /// The refusals of tokens, of requests, and for want of room.
    fn refused(&self) -> [u64; 3] {
        let refused = &self.service.agents.refused;
        [&refused.token, &refused.request, &refused.full].map(|count| count.load(Ordering::Relaxed))
    }

    /// Waits until so many agents follow, and so many of them are behind.
    async fn agents_are(&self, expected: (usize, usize)) {
        while self.service.agents.count(self.service.store.position().version) != expected {
            tokio::task::yield_now().await;
        }
    }
}

/// An agent's stream.
struct Agent {
    requests: mpsc::Sender<FollowRequest>,
    responses: Streaming<FollowResponse>,
}

impl Agent {
    async fn send(&self, request: follow_request::Request) {
        self.requests.send(FollowRequest { request: Some(request) }).await.unwrap();
    }

    /// The number of updates until the state is whole, and its position.
    async fn updates(&mut self) -> (usize, Position) {
        let mut updates = 0;
        loop {
            let response = self.responses.message().await.unwrap().unwrap();
            updates += response.updates.len();
            if response.whole {
                return (updates, response.position.unwrap().into());
            }
        }
    }

    /// The end of the stream.
    async fn end(&mut self) -> Option<Status> {
        loop {
            match self.responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }
}

fn named(node: &str) -> Hello {
    Hello { node: node.into(), ..Hello::default() }
}

#[tokio::test]
async fn a_token_that_is_missing_unknown_or_of_another_node_is_refused_and_counted() {
    let server = Server::start(Limits::default()).await;
    server.publish([1]);
    let hello = || follow_request::Request::Hello(named("node-a"));
    let cases = [
        (None, Code::Unauthenticated, "there is no token"),
        (Some("forged"), Code::Unauthenticated, "unknown"),
        (Some("reader"), Code::PermissionDenied, "not an agent's"),
        (Some("node-b"), Code::PermissionDenied, "the token belongs to an agent on node-b, not on node-a"),
    ];
    for (token, code, message) in cases {
        let refused = server.open(token, hello()).await.err().unwrap();
        assert_eq!((refused.code(), refused.message()), (code, message));
    }
    assert_eq!(server.refused(), [4, 0, 0]);
    for token in ["node-a", "any"] {
        assert_eq!(server.open(Some(token), hello()).await.unwrap().updates().await.0, 1);
    }
}

#[tokio::test]
async fn a_malformed_hello_is_refused_and_counted() {
    let server = Server::start(Limits::default()).await;
    let mut cases = vec![follow_request::Request::Acknowledged(Position::default().into())];
    let long = "n".repeat(NODE_NAME + 1);
    cases.extend(["", &long].map(|node| follow_request::Request::Hello(named(node))));
    for length in [1, DIGESTS - 1, DIGESTS + 1, 16 * DIGESTS] {
        cases.push(follow_request::Request::Hello(Hello { digests: vec![0; length], ..named("node-a") }));
    }
    let all = cases.len() as u64;
    for request in cases {
        assert_eq!(server.open(Some("any"), request).await.err().unwrap().code(), Code::InvalidArgument);
    }
    assert_eq!(server.refused(), [0, all, 0]);
    assert_eq!(server.service.agents.count(0), (0, 0));
}

#[tokio::test]
async fn one_agent_too_many_is_refused_until_another_one_leaves() {
    let server = Server::start(Limits { agents: 2, ..Limits::default() }).await;
    server.publish([1]);
    let (first, mut second) =
        (server.follow("any", named("node-a")).await.unwrap(), server.follow("any", named("node-b")).await.unwrap());
    for _ in 0..3 {
        let refused = server.follow("any", named("node-c")).await.err().unwrap();
        assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "2 agents are connected already"));
    }
    assert_eq!(server.refused(), [0, 0, 3]);
    // A node that connects anew keeps its place.
    let _newer = server.follow("any", named("node-b")).await.unwrap();
    let end = second.end().await.unwrap();
    assert_eq!((end.code(), end.message()), (Code::Aborted, "a newer stream of this node has begun"));
    drop(first);
    server.agents_are((1, 1)).await;
    server.follow("any", named("node-c")).await.unwrap();
}

#[tokio::test]
async fn an_agent_gets_the_buckets_whose_digests_differ() {
    let server = Server::start(Limits::default()).await;
    let pods: Vec<u32> = (0..200).collect();
    server.publish(pods.iter().copied());
    let filled: std::collections::BTreeSet<usize> = pods.iter().map(|n| bucket(pod(*n).0)).collect();
    let empty = server.follow("any", named("node-a")).await.unwrap().updates().await;
    assert_eq!(empty, (filled.len(), server.service.store.position()), "an agent without a table");
    // An agent with the whole state of another replica.
    let (table, index) = (SharedTable::default(), Index::default());
    index.apply(pods.iter().copied().map(pod));
    let other = Position { instance: 7, version: 3 };
    let same = hello("node-a", other, &table, &index);
    assert_eq!(server.follow("any", same.clone()).await.unwrap().updates().await, (0, empty.1));
    let mut digests = same.digests.clone();
    digests[5 * size_of::<Digest>()] ^= 1;
    digests[(BUCKETS - 1) * size_of::<Digest>()] ^= 1;
    let damaged = Hello { digests, ..same };
    assert_eq!(server.follow("any", damaged).await.unwrap().updates().await.0, 2);
    // An agent that knows this replica's last version needs no digests.
    let known = Hello { position: Some(empty.1.into()), ..named("node-a") };
    let mut agent = server.follow("any", known.clone()).await.unwrap();
    assert_eq!(agent.updates().await.0, 0);
    server.publish([1000]);
    assert_eq!(agent.updates().await.0, 1);
    // A version that this replica has not reached is none of its own.
    let ahead = Position { version: u64::MAX, ..empty.1 };
    let lying = Hello { position: Some(ahead.into()), ..known };
    assert!(server.follow("any", lying).await.unwrap().updates().await.0 >= filled.len());
}

#[tokio::test]
async fn an_agents_acknowledgements_count_for_this_replica_alone() {
    let server = Server::start(Limits::default()).await;
    server.publish([1]);
    let mut agent = server.follow("node-a", named("node-a")).await.unwrap();
    let (_, position) = agent.updates().await;
    server.agents_are((1, 1)).await;
    let acknowledge = |position: Position| follow_request::Request::Acknowledged(position.into());
    agent.send(acknowledge(Position { instance: position.instance ^ 1, version: u64::MAX })).await;
    agent.send(acknowledge(position)).await;
    server.agents_are((1, 0)).await;
    let mut client = super::super::services::controller_client::ControllerClient::new(server.channel.clone());
    let status = client.status(StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!((status.kinds.len(), status.kinds[0].name.as_str()), (1, "Node"));
    assert_eq!((status.agents[0].node.as_str(), status.agents[0].acknowledged), ("node-a", position.version));
    agent.send(follow_request::Request::Hello(named("node-a"))).await;
    let end = agent.end().await.unwrap();
    assert_eq!((end.code(), server.refused()), (Code::InvalidArgument, [0, 1, 0]));
    server.agents_are((0, 0)).await;
}

#[tokio::test]
async fn streams_end_with_their_age_and_with_the_service() {
    let server = Server::start(Limits { age: Duration::from_millis(20), ..Limits::default() }).await;
    let mut old = server.follow("any", named("node-a")).await.unwrap();
    assert!(old.end().await.is_none(), "without an error: the agent reconnects at once");
    let server = Server::start(Limits::default()).await;
    let mut agent = server.follow("any", named("node-a")).await.unwrap();
    server.service.shutdown.cancel();
    let end = agent.end().await.unwrap();
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "the controller ends"));
    assert_eq!(server.refused(), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_read_is_given_up() {
    let service = FeedService {
        store: Arc::default(),
        agents: Arc::default(),
        tokens: Arc::new(Tokens),
        watches: Arc::new(NodesAreWatched),
        limits: Limits::default(),
        shutdown: CancellationToken::new(),
    };
    let publish = |n: u8| {
        let endpoint = Some(Arc::new(Endpoint { pod: format!("p{n}").into(), ..Endpoint::default() }));
        let identities = vec![([10, 0, 0, n].into(), endpoint)];
        service.store.publish(Changes { identities, ..Changes::default() });
    };
    publish(0);
    let (sender, mut receiver) = handoff();
    let mut cursor = service.store.cursor(None, &[]);
    let sending = service.send(&mut cursor, &sender);
    let reads = AtomicUsize::new(0);
    let agent = async {
        for n in 1..6 {
            publish(n);
            // A slow agent reads in time.
            sleep(READ_TIMEOUT - Duration::from_secs(1)).await;
            receiver.next().await.unwrap().unwrap();
            reads.fetch_add(1, Ordering::Relaxed);
        }
        for n in 6..9 {
            publish(n);
            sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let status = tokio::select! {
        status = sending => status.unwrap(),
        () = agent => unreachable!(),
    };
    assert_eq!((status.code(), reads.load(Ordering::Relaxed)), (Code::DeadlineExceeded, 5));
}

#[tokio::test(start_paused = true)]
async fn agents_that_do_not_read_keep_no_turn_from_others() {
    let server = Server::start(Limits::default()).await;
    server.publish(0..20_000);
    let follow = |sender| {
        let (service, mut cursor) = (server.service.clone(), server.service.store.cursor(None, &[]));
        tokio::spawn(async move { service.send(&mut cursor, &sender).await })
    };
    let turns = &server.service.agents.turns.0;
    let most = turns.available_permits();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..3 * most).map(|_| handoff()).unzip();
    let slow: Vec<_> = senders.into_iter().map(follow).collect();
    tokio::task::yield_now().await;
    assert_eq!(turns.available_permits(), 0, "only so many are sent buckets at once");
    let (sender, mut receiver) = handoff();
    let honest = follow(sender);
    let begun = tokio::time::Instant::now();
    while !receiver.next().await.unwrap().unwrap().whole {}
    assert!(begun.elapsed() <= 4 * TURN, "{:?}", begun.elapsed());
    assert!(slow.iter().all(|slow| !slow.is_finished()));
    assert_eq!(turns.available_permits(), most);
    drop((receivers, receiver));
    for stream in slow.into_iter().chain([honest]) {
        assert!(stream.await.unwrap().is_none());
    }
}
