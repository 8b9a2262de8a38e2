//! The agent's side of the feed.

use super::{
    Position,
    buckets::{Bucket, Digest, bucket, digest_of},
    services::feed_client::FeedClient,
};
use crate::{
    backoff::Backoff,
    identity::Index,
    link::{ConnectError, Settings, SharedChannel},
    proto::v1::{self, FollowRequest, FollowResponse, Hello, follow_request},
    wire::{self, BUCKETS, Changes, Reader, WireError},
    zones::SharedTable,
};
use meridian_abi::zone::PrefixKind;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tokio_stream::{StreamExt, wrappers::WatchStream};
use tonic::{Code, Status};

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
const REBALANCE_DELAY: Duration = Duration::from_secs(2);

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
    buckets: BTreeMap<usize, BucketBatch>,
}

/// A change of one bucket.
#[derive(Debug, Default)]
struct BucketBatch {
    /// Whether all that is not in `changes` is forgotten.
    is_replaced: bool,
    changes: Changes,
}

impl Batch {
    /// Whether the batch replaces the bucket of an address.
    pub fn replaces(&self, address: IpAddr) -> bool {
        self.buckets.get(&bucket(address)).is_some_and(|batch| batch.is_replaced)
    }

    /// Takes an update in, and the bucket that it replaces: earlier changes of that are overtaken.
    fn add(&mut self, replaced: Option<usize>, Changes { zones, identities }: Changes) {
        if let Some(index) = replaced {
            self.buckets.insert(index, BucketBatch { is_replaced: true, changes: Changes::default() });
        }
        for change in zones {
            self.buckets.entry(bucket(change.0.ip())).or_default().changes.zones.push(change);
        }
        for change in identities {
            self.buckets.entry(bucket(change.0)).or_default().changes.identities.push(change);
        }
    }

    /// The changes to a table and an index.
    pub fn changes(self, table: &SharedTable, index: &Index) -> Changes {
        let (mut zones, mut identities) = (BTreeMap::new(), BTreeMap::new());
        if self.buckets.values().any(|batch| batch.is_replaced) {
            let table = table.read();
            let known = table.prefixes().filter(|(_, placement)| placement.kind != PrefixKind::Default);
            zones.extend(known.filter(|(prefix, _)| self.replaces(prefix.ip())).map(|(prefix, _)| (*prefix, None)));
            index.each(|address, _| {
                if self.replaces(address) {
                    identities.insert(address, None);
                }
            });
        }
        // The last change of a key counts.
        for batch in self.buckets.into_values() {
            zones.extend(batch.changes.zones);
            identities.extend(batch.changes.identities);
        }
        Changes { zones: zones.into_iter().collect(), identities: identities.into_iter().collect() }
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
    /// Its connection, for the agent's reports.
    pub shared: SharedChannel,
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

impl Ended {
    /// Whether a message came that could not be taken.
    fn is_about_content(&self) -> bool {
        match self {
            Self::Wire(_) | Self::TooMuch => true,
            Self::Refused(status) => matches!(status.code(), Code::OutOfRange | Code::Internal | Code::DataLoss),
            Self::Moved | Self::Agent | Self::Connect(_) => false,
        }
    }
}

impl Client {
    /// Follows until the receiver of batches is dropped.
    pub async fn follow(mut self) {
        let mut has_table = self.has_table();
        let mut backoff = waits(has_table);
        let mut gathered = Gathered::default();
        let mut last_reason = String::new();
        loop {
            let connects = self.connection.connects.load(Ordering::Relaxed);
            let ended = self.once(&mut backoff, &mut gathered).await;
            self.connection.is_current.store(false, Ordering::Relaxed);
            if !has_table && self.has_table() {
                (has_table, backoff) = (true, waits(true));
            }
            if self.connection.connects.load(Ordering::Relaxed) != connects {
                last_reason.clear();
            }
            if !matches!(ended, Ended::Agent) {
                self.shared.withdraw();
            }
            let wait = match &ended {
                // The connection stays for the last report.
                Ended::Agent => return,
                Ended::Moved => {
                    backoff.succeeded();
                    REBALANCE_DELAY.mul_f64(rand::random_range(0.0..=1.0))
                }
                failed => {
                    self.connection.failures.fetch_add(1, Ordering::Relaxed);
                    let wait = backoff.failed();
                    let (controller, reason) = (&self.settings.server, failed.to_string());
                    // A repeated error is logged once.
                    if reason == last_reason {
                        tracing::debug!(controller, reason, ?wait, "the controller still can't be reached");
                    } else {
                        let table = if has_table { "the last table stays in force" } else { "there is no table yet" };
                        tracing::warn!(controller, reason, ?wait, "the controller can't be reached: {table}");
                        last_reason = reason;
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
            Err(ended) => {
                gathered.is_doubtful |= ended.is_about_content();
                ended
            }
        }
    }

    async fn try_once(&mut self, backoff: &mut Backoff, gathered: &mut Gathered) -> Result<(), Ended> {
        let channel = self.settings.connect().await?;
        // The controller ends its stream when this one has ended: a response that is dropped does not end it.
        let (_open, ended) = oneshot::channel::<()>();
        let hello = follow_request::Request::Hello(self.hello(gathered));
        // Versions in force are acknowledged; overtaken ones are not.
        let hello = tokio_stream::once(FollowRequest { request: Some(hello) });
        let acknowledged = WatchStream::from_changes(self.applied.clone()).map(|position: Position| FollowRequest {
            request: Some(follow_request::Request::Acknowledged(position.into())),
        });
        let request = self.settings.request(futures_util::StreamExt::take_until(hello.chain(acknowledged), ended))?;
        let mut client = FeedClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
        let mut responses = client.follow(request).await.map_err(Ended::Refused)?.into_inner();
        self.connection.connects.fetch_add(1, Ordering::Relaxed);
        self.shared.offer(channel);
        gathered.begin();
        loop {
            let response = tokio::select! {
                response = responses.message() => response.map_err(Ended::Refused)?,
                () = self.batches.closed() => return Err(Ended::Agent),
            };
            let Some(response) = response else { return Ok(()) };
            let batch = gathered.take(response)?;
            // An agent that can't apply the same updates again and again waits ever longer.
            backoff.succeeded();
            if let Some(batch) = batch {
                self.batches.send(batch).await.map_err(|_| Ended::Agent)?;
                if !self.connection.is_current.swap(true, Ordering::Relaxed) {
                    tracing::info!(controller = self.settings.server, "the controller's table has arrived");
                }
            }
        }
    }

    fn hello(&self, gathered: &Gathered) -> Hello {
        let applied = *self.applied.borrow();
        let mut hello = hello(&self.settings.node, applied, &self.table, &self.index);
        if gathered.is_doubtful {
            // Its digests make the controller send buckets instead of the change that it could not apply.
            hello.position = None;
        }
        hello
    }
}

/// The agent's state, as digests.
pub(super) fn hello(node: &str, position: Position, table: &SharedTable, index: &Index) -> Hello {
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
    /// Whether the last change that came could not be taken.
    is_doubtful: bool,
}

impl Gathered {
    /// Starts a stream: incomplete updates of an earlier stream are dropped.
    fn begin(&mut self) {
        (self.batch, self.entries) = (Batch::default(), 0);
    }

    /// Adds a response; returns the batch to apply, if it is complete.
    fn take(&mut self, FollowResponse { position, updates, whole }: FollowResponse) -> Result<Option<Batch>, Ended> {
        for update in updates {
            let (bucket, changes) = self.reader.read(wire::unpack(&update)?)?;
            self.entries += changes.zones.len() + changes.identities.len();
            if self.entries > ENTRIES {
                return Err(Ended::TooMuch);
            }
            self.batch.add(bucket, changes);
        }
        self.batch.position = position.unwrap_or_default().into();
        if !whole {
            return Ok(None);
        }
        (self.entries, self.is_doubtful) = (0, false);
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
mod tests;
