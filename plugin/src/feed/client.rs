//! The agent's side of the feed.

use super::{
    Position,
    buckets::{Bucket, Digest, bucket, digest_of},
    services::feed_client::FeedClient,
};
use crate::{
    identity::Index,
    link::{Backoff, ConnectError, Settings},
    proto::v1::{self, FollowRequest, FollowResponse, Hello, follow_request},
    wire::{self, BUCKETS, Changes, Reader, WireError},
    zones::SharedTable,
};
use meridian_abi::zone::PrefixKind;
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_stream::{StreamExt, wrappers::WatchStream};
use tonic::Status;

/// The size limit of a message: a bucket of a table of a million addresses takes a quarter of it.
const MESSAGE_BYTES: usize = 4 << 20;
/// The limit of prefixes and addresses that are stored before the state is complete.
const ENTRIES: usize = 4 << 20;

/// The range of the first wait: a controller's agents spread their reconnects over it.
const FIRST_WAIT: Duration = Duration::from_secs(15);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The wait after the controller ended the stream to spread its agents over the replicas: it ends few streams at a
/// time.
const MOVED: Duration = Duration::from_secs(2);

/// The first and the longest wait of an agent without a table, which can't count yet.
const WAITS_WITHOUT_TABLE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// The waits of a disconnected agent.
const fn waits(has_table: bool) -> Backoff {
    let (first, longest) = if has_table { (FIRST_WAIT, LONGEST_WAIT) } else { WAITS_WITHOUT_TABLE };
    Backoff::new(first, longest, 0.0..=1.0)
}

/// The state of the connection, for metrics.
#[derive(Debug, Default)]
pub struct Connection {
    /// Whether the controller's complete state has arrived.
    pub is_current: AtomicBool,
    /// Connections made.
    pub connects: AtomicU64,
    /// Connections that failed or broke.
    pub failures: AtomicU64,
}

/// A change that leads to a position of the state; an agent applies it as a whole.
#[derive(Debug, Default)]
pub struct Batch {
    /// The position after the change.
    pub position: Position,
    /// Buckets that `changes` replaces: their other entries are removed.
    replaced: BTreeSet<usize>,
    changes: Changes,
}

impl Batch {
    /// Whether the batch replaces the bucket of an address.
    pub fn replaces(&self, address: IpAddr) -> bool {
        self.replaced.contains(&bucket(address))
    }

    /// The changes to a table and an index.
    pub fn changes(self, table: &SharedTable, index: &Index) -> Changes {
        let Self { replaced, mut changes, .. } = self;
        if !replaced.is_empty() {
            let (mut gone, is_replaced) = (Changes::default(), |address| replaced.contains(&bucket(address)));
            let table = table.read();
            let known = table.prefixes().filter(|(_, placement)| placement.kind != PrefixKind::Default);
            gone.zones.extend(known.filter(|(prefix, _)| is_replaced(prefix.ip())).map(|(prefix, _)| (*prefix, None)));
            index.each(|address, _| {
                if is_replaced(address) {
                    gone.identities.push((address, None));
                }
            });
            // The last change of a key counts.
            gone.zones.append(&mut changes.zones);
            gone.identities.append(&mut changes.identities);
            changes = gone;
        }
        let Changes { zones, identities } = changes;
        Changes {
            zones: zones.into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect(),
            identities: identities.into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect(),
        }
    }
}

/// Follows a controller, whichever replica answers.
#[derive(Debug)]
pub struct Client {
    /// The connection to the controller.
    pub settings: Settings,
    /// The table in force.
    pub table: SharedTable,
    /// The endpoints in force.
    pub index: Arc<Index>,
    /// The queue of changes to apply.
    pub batches: mpsc::Sender<Batch>,
    /// The position of the applied changes.
    pub applied: watch::Receiver<Position>,
    /// The state of the connection.
    pub connection: Arc<Connection>,
}

/// The reason why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The controller asks the agent to reconnect.
    #[error("the controller ended the stream")]
    Moved,
    /// The agent shuts down.
    #[error("the agent ends")]
    Agent,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller answers {code:?}: {message}", code = .0.code(), message = .0.message())]
    Refused(Status),
    #[error("the controller's message is malformed: {0}")]
    Wire(#[from] WireError),
    #[error("the controller sends too many prefixes and addresses")]
    TooMuch,
}

impl Client {
    /// Follows until the receiver of batches is dropped.
    pub async fn follow(mut self) {
        let mut has_table = self.has_table();
        let mut backoff = waits(has_table);
        let mut gathered = Gathered::default();
        let mut told = String::new();
        loop {
            let connects = self.connection.connects.load(Ordering::Relaxed);
            let ended = self.once(&mut backoff, &mut gathered).await;
            self.connection.is_current.store(false, Ordering::Relaxed);
            if !has_table && self.has_table() {
                (has_table, backoff) = (true, waits(true));
            }
            if self.connection.connects.load(Ordering::Relaxed) != connects {
                told.clear();
            }
            let wait = match &ended {
                Ended::Agent => return,
                Ended::Moved => {
                    backoff.succeeded();
                    MOVED.mul_f64(rand::random_range(0.0..=1.0))
                }
                failed => {
                    self.connection.failures.fetch_add(1, Ordering::Relaxed);
                    let wait = backoff.failed();
                    let (controller, reason) = (&self.settings.server, failed.to_string());
                    // A repeated error is logged once.
                    if reason == told {
                        tracing::debug!(controller, reason, ?wait, "the controller still can't be reached");
                    } else {
                        let table = if has_table { "the last table stays in force" } else { "there is no table yet" };
                        tracing::warn!(controller, reason, ?wait, "the controller can't be reached: {table}");
                        told = reason;
                    }
                    wait
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.batches.closed() => return,
            }
        }
    }

    /// Whether a table of the controller is in force, received now or loaded from disk.
    fn has_table(&self) -> bool {
        *self.applied.borrow() != Position::default()
    }

    async fn once(&mut self, backoff: &mut Backoff, gathered: &mut Gathered) -> Ended {
        match self.try_once(backoff, gathered).await {
            Ok(()) => Ended::Moved,
            Err(ended) => ended,
        }
    }

    async fn try_once(&mut self, backoff: &mut Backoff, gathered: &mut Gathered) -> Result<(), Ended> {
        let channel = self.settings.connect().await?;
        let hello = follow_request::Request::Hello(self.hello());
        // Applied positions are acknowledged; positions that were overtaken are skipped.
        let hello = tokio_stream::once(FollowRequest { request: Some(hello) });
        let acknowledged = WatchStream::from_changes(self.applied.clone()).map(|position: Position| FollowRequest {
            request: Some(follow_request::Request::Acknowledged(position.into())),
        });
        let request = self.settings.request(hello.chain(acknowledged))?;
        let mut client = FeedClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        let mut responses = client.follow(request).await.map_err(Ended::Refused)?.into_inner();
        self.connection.connects.fetch_add(1, Ordering::Relaxed);
        backoff.succeeded();
        gathered.begin();
        loop {
            let response = tokio::select! {
                response = responses.message() => response.map_err(Ended::Refused)?,
                () = self.batches.closed() => return Err(Ended::Agent),
            };
            let Some(response) = response else { return Ok(()) };
            if let Some(batch) = gathered.take(response)? {
                self.batches.send(batch).await.map_err(|_| Ended::Agent)?;
                if !self.connection.is_current.swap(true, Ordering::Relaxed) {
                    tracing::info!(controller = self.settings.server, "the controller's table has arrived");
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        hello(&self.settings.node, *self.applied.borrow(), &self.table, &self.index)
    }
}

/// The agent's state, as digests.
fn hello(node: &str, position: Position, table: &SharedTable, index: &Index) -> Hello {
    let position = (position != Position::default()).then(|| v1::Position::from(position));
    Hello {
        node: node.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        position,
        digests: position.map_or_else(Vec::new, |_| digests(table, index).concat()),
    }
}

/// Updates that have arrived but are not complete yet.
#[derive(Default)]
struct Gathered {
    reader: Reader,
    batch: Batch,
    entries: usize,
}

impl Gathered {
    /// Starts a stream: incomplete updates of an earlier stream are dropped.
    fn begin(&mut self) {
        (self.batch, self.entries) = (Batch::default(), 0);
    }

    /// Adds a response; returns the batch to apply, if it is complete.
    fn take(&mut self, FollowResponse { position, updates, whole }: FollowResponse) -> Result<Option<Batch>, Ended> {
        for update in updates {
            let (bucket, mut changes) = self.reader.read(wire::unpack(&update)?)?;
            self.entries += changes.zones.len() + changes.identities.len();
            if self.entries > ENTRIES {
                return Err(Ended::TooMuch);
            }
            self.batch.replaced.extend(bucket);
            self.batch.changes.zones.append(&mut changes.zones);
            self.batch.changes.identities.append(&mut changes.identities);
        }
        self.batch.position = position.unwrap_or_default().into();
        if !whole {
            return Ok(None);
        }
        self.entries = 0;
        Ok(Some(std::mem::take(&mut self.batch)))
    }
}

/// The contents of every bucket.
pub(super) fn buckets(table: &SharedTable, index: &Index) -> Vec<Bucket> {
    let mut buckets = vec![Bucket::default(); BUCKETS];
    for (prefix, placement) in table.read().prefixes().filter(|(_, placement)| placement.kind != PrefixKind::Default) {
        buckets[bucket(prefix.ip())].prefixes.insert(*prefix, placement.clone());
    }
    index.each(|address, endpoint| {
        buckets[bucket(address)].identities.insert(address, Arc::clone(endpoint));
    });
    buckets
}

fn digests(table: &SharedTable, index: &Index) -> Vec<Digest> {
    buckets(table, index).iter().enumerate().map(|(index, bucket)| digest_of(&bucket.encode(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        feed::{Cursor, Store},
        identity::Endpoint,
        zones::{Place, Placement, Zone},
    };
    use std::{collections::BTreeMap, time::SystemTime};

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }

        fn changes(&mut self) -> Changes {
            let mut changes = Changes::default();
            for _ in 0..self.below(20) {
                let address = IpAddr::from([10, 0, self.below(4) as u8, self.below(64) as u8]);
                let goes = self.below(3) == 0;
                if self.below(2) == 0 {
                    let zone = Zone { name: format!("z{}", self.below(3)), region: "r".into() };
                    let place = Place::Zone(Arc::new(zone));
                    let placement = Placement { place, kind: PrefixKind::Cluster, origin: "test".into() };
                    changes.zones.push((address.into(), (!goes).then_some(placement)));
                } else {
                    let endpoint = Endpoint { pod: format!("p{}", self.below(9)).into(), ..Endpoint::default() };
                    changes.identities.push((address, (!goes).then(|| Arc::new(endpoint))));
                }
            }
            changes
        }
    }

    /// An agent and its stream.
    #[derive(Default)]
    struct Agent {
        table: SharedTable,
        index: Index,
        position: Position,
        stream: Option<(usize, Cursor, Gathered)>,
        updates: usize,
    }

    impl Agent {
        fn connect(&mut self, which: usize, store: &Store) {
            let hello = hello("node", self.position, &self.table, &self.index);
            let (digests, _) = hello.digests.as_chunks();
            let cursor = store.cursor(hello.position.map(Into::into), digests);
            self.stream = Some((which, cursor, Gathered::default()));
        }

        /// Handles a message, if there is one.
        fn take(&mut self, stores: &[Store]) -> bool {
            let Some((which, cursor, gathered)) = &mut self.stream else { return false };
            let Some(response) = cursor.next(&stores[*which]) else { return false };
            self.updates += response.updates.len();
            if let Some(batch) = gathered.take(response).unwrap() {
                self.position = batch.position;
                let changes = batch.changes(&self.table, &self.index);
                self.table.write().apply(changes.zones);
                self.index.apply(changes.identities);
            }
            true
        }

        fn content(&self) -> (Vec<(String, String)>, BTreeMap<IpAddr, String>) {
            let table = self.table.read();
            let named = table.prefixes().filter(|(_, said)| said.kind != PrefixKind::Default);
            let mut pods = BTreeMap::new();
            self.index.each(|address, endpoint| {
                pods.insert(address, endpoint.pod.to_string());
            });
            (named.map(|(prefix, said)| (prefix.to_string(), said.place.to_string())).collect(), pods)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_agents_come_back_spread_over_ten_seconds() {
        let start = tokio::time::Instant::now();
        let mut agents = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            agents.spawn(async move {
                sleep(waits(true).failed()).await;
                start.elapsed().as_secs_f64()
            });
        }
        let mut back = agents.join_all().await;
        back.sort_by(f64::total_cmp);
        assert!(back[999] - back[0] >= 10.0, "{} to {}", back[0], back[999]);
        // A fifteenth of the agents is expected in each second.
        for second in 0..15 {
            let came = back.iter().filter(|at| **at as usize == second).count();
            assert!((20..=150).contains(&came), "{came} in second {second}");
        }
    }

    #[test]
    fn an_agent_that_comes_and_goes_between_replicas_has_what_they_have() {
        for seed in 0..12 {
            let mut random = Random(seed);
            let stores = [Store::default(), Store::default()];
            let (mut agent, truth) = (Agent::default(), Agent::default());
            for _ in 0..200 {
                match random.below(4) {
                    0 => {
                        let changes = random.changes();
                        stores.iter().for_each(|store| {
                            store.publish(changes.clone());
                        });
                        truth.table.write().apply(changes.zones);
                        truth.index.apply(changes.identities);
                    }
                    1 => {
                        let which = random.below(2) as usize;
                        agent.connect(which, &stores[which]);
                    }
                    // The rest of a broken stream is lost.
                    _ => {
                        for _ in 0..random.below(400) {
                            agent.take(&stores);
                        }
                    }
                }
            }
            agent.connect(0, &stores[0]);
            while agent.take(&stores) {}
            assert_eq!(agent.content(), truth.content(), "seed {seed}");
            assert_eq!(agent.position, stores[0].position());
            let sizes = truth.content();
            assert_eq!(stores[0].sizes(), (sizes.0.len(), sizes.1.len()));
        }
    }

    /// The number of updates until an agent has the whole state.
    fn told(agent: &mut Agent, stores: &[Store], which: usize) -> usize {
        agent.connect(which, &stores[which]);
        while agent.take(stores) {}
        std::mem::take(&mut agent.updates)
    }

    #[test]
    fn an_agent_is_told_only_what_it_lacks() {
        let stores = [Store::default(), Store::default()];
        let pod = |n: u32| {
            let endpoint = Endpoint { since: Some(SystemTime::UNIX_EPOCH), ..Endpoint::default() };
            (IpAddr::from(n.to_be_bytes()), Some(Arc::new(endpoint)))
        };
        let all = |pods: std::ops::Range<u32>| Changes { identities: pods.map(pod).collect(), ..Changes::default() };
        let publish = |changes: Changes| {
            for store in &stores {
                store.publish(changes.clone());
            }
        };
        let mut agent = Agent::default();
        assert_eq!(told(&mut agent, &stores, 0), 0, "nothing is known yet");
        publish(all(0..5000));
        assert_eq!(told(&mut agent, &stores, 0), BUCKETS, "every bucket");
        assert_eq!(told(&mut agent, &stores, 0), 0, "it has everything");
        assert_eq!(told(&mut agent, &stores, 1), 0, "by its digests");
        assert_eq!(agent.position, stores[1].position(), "and knows that");
        publish(all(5000..5003));
        let (mut same, mut other) = (told(&mut agent, &stores, 1), Agent::default());
        assert_eq!(same, 1, "the change");
        publish(all(5003..5006));
        same = told(&mut agent, &stores, 0);
        assert!((1..=3).contains(&same), "the buckets that differ: {same}");
        // More changes than are kept, as after a start.
        told(&mut other, &stores, 0);
        publish(all(10_000..30_000));
        assert_eq!(told(&mut other, &stores, 0), BUCKETS);
        assert_eq!(other.content(), {
            told(&mut agent, &stores, 1);
            agent.content()
        });
    }
}
