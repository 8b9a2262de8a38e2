//! States with which a tenant would stop the feed, and an agent that can't apply its updates.

use super::*;
use crate::{
    feed::services::feed_server::{Feed, FeedServer},
    proto::v1::Update,
};
use prost::{Message, bytes::Bytes};
use tokio::{net::TcpListener, sync::mpsc::UnboundedSender};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Streaming};

/// A pod with labels of about so many bytes, which do not pack well.
fn heavy(random: &mut Random, bytes: usize) -> Arc<Endpoint> {
    let value = |random: &mut Random| (0..8).map(|_| format!("{:08x}", random.below(1 << 31))).collect::<String>();
    let labels = (0..bytes / 70).map(|n| (format!("l{n:05}"), value(random))).collect();
    Arc::new(Endpoint { pod: "p".into(), labels: Arc::new(labels), ..Endpoint::default() })
}

/// Receives all updates of the store; each message is within the agent's limit.
fn follow(agent: &mut Agent, store: &Store) {
    let stores = std::slice::from_ref(store);
    agent.connect(0, store);
    let (_, mut cursor, _) = agent.stream.take().unwrap();
    while let Some(response) = cursor.next(store) {
        let bytes = response.encoded_len();
        assert!(bytes < MESSAGE_BYTES, "a message of {bytes} bytes");
    }
    agent.connect(0, store);
    while agent.take(stores) {}
}

#[test]
fn a_bucket_of_any_size_arrives() {
    let (store, mut random) = (Store::default(), Random(1));
    let of_one_bucket = (0..).map(|n: u32| IpAddr::from(n.to_be_bytes())).filter(|address| bucket(*address) == 7);
    let identities: Vec<_> = of_one_bucket.take(1000).map(|a| (a, Some(heavy(&mut random, 12 << 10)))).collect();
    store.publish(Changes { identities, ..Changes::default() });
    let mut agent = Agent::default();
    follow(&mut agent, &store);
    assert_eq!(agent.content().1.len(), 1000);
    let before = agent.updates;
    agent.connect(0, &Store::default());
    agent.position = Position::default();
    let digests = digests(&agent.table, &agent.index);
    assert!(store.cursor(None, &digests).next(&store).unwrap().updates.is_empty(), "its digests are the store's");
    assert!(before > 10, "{before} updates");
}

#[test]
fn a_change_of_any_size_arrives_at_an_agent_that_follows() {
    let (store, mut random) = (Store::default(), Random(2));
    store.publish(Changes::default());
    let mut agent = Agent::default();
    follow(&mut agent, &store);
    // Fifty replicas of a Deployment with ten thousand labels.
    let pods = (0..50u8).map(|n| (IpAddr::from([10, 0, 0, n]), Some(heavy(&mut random, 250_000))));
    store.publish(Changes { identities: pods.collect(), ..Changes::default() });
    let zone = Place::Zone(Arc::new(Zone { name: "z".into(), region: "r".into() }));
    let placement = Placement { place: zone, kind: PrefixKind::Cluster, origin: "test".into() };
    store.publish(Changes { zones: vec![("10.0.0.0/24".parse().unwrap(), Some(placement))], ..Changes::default() });
    follow(&mut agent, &store);
    assert_eq!((agent.content().0.len(), agent.content().1.len()), (1, 50));
    assert_eq!(agent.position, store.position());
}

#[test]
fn a_bucket_sent_twice_before_the_state_is_whole_has_its_last_contents() {
    let endpoint = |address: &str| crate::proto::v1::Endpoint { address: address.into(), ..Default::default() };
    let (a, b) = ("10.0.0.1", "10.0.0.2");
    let mut gathered = Gathered::default();
    let mut send = |update: Update, whole| {
        let updates = vec![wire::pack(&update.encode_to_vec())];
        gathered.take(FollowResponse { position: None, updates, whole }).unwrap()
    };
    let replaces = |address: &str, endpoints| Update {
        bucket: Some(bucket(address.parse().unwrap()) as u32),
        endpoints,
        ..Update::default()
    };
    send(Update { endpoints: vec![endpoint(b)], ..Update::default() }, false);
    send(replaces(a, vec![endpoint(a)]), false);
    send(replaces(b, Vec::new()), false);
    let batch = send(replaces(a, Vec::new()), true).unwrap();
    assert_eq!(batch.changes(&SharedTable::default(), &Index::default()), Changes::default());
}

/// A controller that answers every hello with something that no agent can take.
struct Nonsense {
    hellos: UnboundedSender<(Hello, tokio::sync::oneshot::Receiver<()>)>,
}

#[tonic::async_trait]
impl Feed for Nonsense {
    type FollowStream = ReceiverStream<Result<FollowResponse, Status>>;

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.request);
        let Some(follow_request::Request::Hello(hello)) = first else { panic!("no hello") };
        let (ends, ended) = tokio::sync::oneshot::channel();
        let (sender, responses) = mpsc::channel(1);
        tokio::spawn(async move {
            let response = FollowResponse { updates: vec![Bytes::from_static(b"nonsense")], ..Default::default() };
            let _ = sender.send(Ok(response)).await;
            // The stream stays open here until the agent's is at its end.
            while let Ok(Some(_)) = requests.message().await {}
            let _ = ends.send(());
        });
        let _ = self.hellos.send((hello, ended));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

#[tokio::test]
async fn an_agent_that_can_t_take_a_change_asks_by_digests_and_leaves_no_stream_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let (hellos, mut heard) = mpsc::unbounded_channel();
    let service = FeedServer::new(Nonsense { hellos });
    let serving =
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(serving);
    let (batches, _taken) = mpsc::channel(1);
    let position = Position { instance: 1, version: 1 };
    let mut client = Client {
        settings: Settings { node: "a".into(), server, authority: None, server_name: None, token: None },
        table: SharedTable::default(),
        index: Arc::default(),
        batches,
        applied: watch::Sender::new(position).subscribe(),
        connection: Arc::default(),
        shared: SharedChannel::default(),
    };
    let (mut backoff, mut gathered) = (waits(true), Gathered::default());
    for n in 0..3 {
        let ended = client.once(&mut backoff, &mut gathered).await;
        assert!(matches!(ended, Ended::Wire(_)), "{ended}");
        let (hello, ended) = heard.recv().await.unwrap();
        assert_eq!(hello.position.is_some(), n == 0, "hello {n}");
        assert_eq!(hello.digests.len(), BUCKETS * size_of::<Digest>());
        // It hangs here if the agent's stream continues.
        ended.await.unwrap();
    }
    serving.abort();
}

/// The hello of a member that lies about its position and its buckets.
fn lying_cursor(random: &mut Random, store: &Store, honest: &Agent) -> Cursor {
    let Position { instance, version } = store.position();
    let version = [0, 1, version, version.wrapping_add(1), version / 2, u64::MAX][random.below(6) as usize];
    let instance = [instance, instance, 0, u64::MAX][random.below(4) as usize];
    let position = (random.below(4) > 0).then_some(Position { instance, version });
    let mut digests = hello("node", honest.position, &honest.table, &honest.index).digests;
    for _ in 0..random.below(40).min(digests.len() as u64) {
        let at = random.below(digests.len() as u64) as usize;
        digests[at] ^= random.below(256) as u8;
    }
    // The service refuses all lengths but these.
    let digests = if random.below(3) == 0 { Vec::new() } else { digests };
    store.cursor(position, digests.as_chunks().0)
}

#[test]
fn an_agent_has_the_whole_state_beside_members_that_lie_about_theirs() {
    for seed in 0..6 {
        let (mut random, mut lies) = (Random(seed), Random(seed + 100));
        let stores = [Store::default()];
        let (mut agent, truth, mut cursors) = (Agent::default(), Agent::default(), Vec::new());
        for _ in 0..200 {
            match random.below(5) {
                0 => {
                    let changes = random.changes();
                    stores[0].publish(changes.clone());
                    truth.table.write().apply(changes.zones);
                    truth.index.apply(changes.identities);
                }
                1 => agent.connect(0, &stores[0]),
                2 => {
                    for _ in 0..random.below(400) {
                        agent.take(&stores);
                    }
                }
                3 => cursors.push(lying_cursor(&mut lies, &stores[0], &agent)),
                // They read some, and leave the rest.
                _ => {
                    for cursor in &mut cursors {
                        let messages = (0..lies.below(3)).map_while(|_| cursor.next(&stores[0]));
                        assert!(messages.map(|message| message.updates.len()).sum::<usize>() <= 2 * BUCKETS);
                    }
                    cursors.truncate(8);
                }
            }
        }
        // Each comes to an end, whatever it said.
        for cursor in &mut cursors {
            assert!((0..2 * BUCKETS).any(|_| cursor.next(&stores[0]).is_none()), "seed {seed}: it never ends");
        }
        agent.connect(0, &stores[0]);
        while agent.take(&stores) {}
        assert_eq!((agent.content(), agent.position), (truth.content(), stores[0].position()), "seed {seed}");
    }
}
