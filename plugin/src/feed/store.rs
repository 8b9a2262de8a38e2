//! The state that a controller sends to its agents, and each agent's position in it.

use super::{
    buckets::{Bucket, Digest, bucket, digest_of},
    snapshot::Snapshot,
};
use crate::{
    proto::v1::{self, FollowResponse},
    wire::{self, BUCKETS, Changes},
    zones::Zone,
};
use prost::bytes::Bytes;
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// The limit of changes kept for agents that are behind; an agent that is further behind gets the changed buckets.
const DELTAS: usize = 1024;
/// The limit of their total size in bytes.
const DELTA_BYTES: usize = 8 << 20;
/// The size up to which updates are combined in a message. The buffer of a stream keeps the size of a message while
/// the stream waits.
const MESSAGE: usize = 6 << 10;
/// A change of more prefixes and addresses than this is sent as buckets.
const LARGE: usize = 16_384;

/// An agent without a table gets a snapshot of a state of so many prefixes and addresses, and the buckets of a smaller
/// one: a snapshot begins with the emptying of all buckets.
const SNAPSHOT: usize = 4 * BUCKETS;
/// The changes behind a snapshot after which the next agent gets a newer one.
const SNAPSHOT_AGE: u64 = 256;

/// A version of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Identifies the run of a controller.
    pub instance: u64,
    /// The number of changes in that run.
    pub version: u64,
}

impl From<Position> for v1::Position {
    fn from(Position { instance, version }: Position) -> Self {
        Self { instance, version }
    }
}

impl From<v1::Position> for Position {
    fn from(v1::Position { instance, version }: v1::Position) -> Self {
        Self { instance, version }
    }
}

/// The state, and its latest changes.
#[derive(Debug)]
pub struct Store {
    instance: u64,
    inner: Mutex<Inner>,
    /// The version; 0 before the first state.
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    version: u64,
    buckets: Vec<StoredBucket>,
    /// The changes to the latest versions, without a gap.
    deltas: VecDeque<Bytes>,
    delta_bytes: usize,
    /// The last snapshot, as long as the changes that follow it are kept.
    snapshot: Option<Snapshot>,
    prefixes: usize,
    identities: usize,
    /// Those that prefixes are or were in.
    zones: HashSet<Zone>,
}

/// A bucket, the version of its last change, and its encoding.
#[derive(Debug, Default)]
struct StoredBucket {
    content: Bucket,
    changed: u64,
    encoded: Option<(Arc<[Bytes]>, Digest)>,
}

impl StoredBucket {
    fn is_empty(&self) -> bool {
        self.content.prefixes.is_empty() && self.content.identities.is_empty()
    }

    /// The bucket as updates, and its digest.
    fn encoded(&mut self, index: usize) -> &(Arc<[Bytes]>, Digest) {
        let Self { content, encoded, .. } = self;
        encoded.get_or_insert_with(|| {
            let pieces = content.pieces(index);
            let digest = match &pieces[..] {
                [whole] => digest_of(whole),
                _ => digest_of(&content.encode(index)),
            };
            (pieces.iter().map(|piece| wire::pack(piece)).collect(), digest)
        })
    }
}

impl Default for Store {
    fn default() -> Self {
        let inner = Inner {
            version: 0,
            buckets: (0..BUCKETS).map(|_| StoredBucket::default()).collect(),
            deltas: VecDeque::new(),
            delta_bytes: 0,
            snapshot: None,
            prefixes: 0,
            identities: 0,
            zones: HashSet::new(),
        };
        Self { instance: rand::random(), inner: Mutex::new(inner), version: watch::Sender::new(0) }
    }
}

impl Store {
    /// Applies changes; those without an effect are left out. The first call makes the state available to agents, even
    /// if the state is empty. Returns the new version.
    pub fn publish(&self, changes: Changes) -> u64 {
        let mut inner = self.lock();
        let changes = inner.take(changes);
        if changes.is_empty() && inner.version > 0 {
            return inner.version;
        }
        inner.version += 1;
        let version = inner.version;
        for address in changes.zones.iter().map(|(prefix, _)| prefix.ip()).chain(changes.identities.iter().map(|c| c.0))
        {
            let kept = &mut inner.buckets[bucket(address)];
            (kept.changed, kept.encoded) = (version, None);
        }
        let delta = Inner::small_delta(&changes);
        match delta {
            Some(delta) => inner.keep(delta),
            None => (inner.deltas, inner.delta_bytes) = (VecDeque::new(), 0),
        }
        inner.drop_old_snapshot();
        drop(inner);
        self.version.send_replace(version);
        version
    }

    /// The current version; 0 before the first state.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// The current position.
    pub fn position(&self) -> Position {
        Position { instance: self.instance, version: self.version() }
    }

    /// Notifies of new versions.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The numbers of prefixes and addresses.
    pub fn sizes(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.prefixes, inner.identities)
    }

    /// Whether a prefix is or was in a zone of this name, in this region.
    pub fn has_zone(&self, name: &str, region: &str) -> bool {
        self.lock().zones.contains(&Zone { name: name.to_owned(), region: region.to_owned() })
    }

    /// The cursor of an agent that has `position` in force, and buckets with these digests.
    pub fn cursor(&self, position: Option<Position>, digests: &[Digest]) -> Cursor {
        let mut inner = self.lock();
        let version = inner.version;
        if let Some(position) = position.filter(|position| position.instance == self.instance)
            && position.version <= version
        {
            return Cursor { at: position.version, ..Cursor::default() };
        }
        if digests.is_empty() && inner.is_large() {
            let at = inner.snapshot();
            return Cursor { at, snapshot: Some((at, 0)), until: version, ..Cursor::default() };
        }
        let lacks = inner.lacking(|index, bucket| {
            // An agent without a table needs no empty buckets.
            !(digests.is_empty() && bucket.is_empty()) && digests.get(index) != Some(&bucket.encoded(index).1)
        });
        Cursor { at: version, lacks, until: version, ..Cursor::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock would be our own bug, and leaves no partial change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Applies changes to the buckets, and returns those that had an effect.
    fn take(&mut self, changes: Changes) -> Changes {
        let Self { buckets, prefixes, identities, zones: known, .. } = self;
        let mut effective = Changes::default();
        // Only the last change of a prefix or address counts.
        let zones: BTreeMap<_, _> = changes.zones.into_iter().collect();
        for (prefix, placement) in zones {
            if let Some(zone) = placement.as_ref().and_then(|placement| placement.place.zone()) {
                // There are as many as the cluster's nodes and the static table name.
                if !known.contains(zone) {
                    known.insert(zone.clone());
                }
            }
            let content = &mut buckets[bucket(prefix.ip())].content.prefixes;
            if content.get(&prefix) == placement.as_ref() {
                continue;
            }
            let before = match placement.clone() {
                Some(placement) => content.insert(prefix, placement),
                None => content.remove(&prefix),
            };
            *prefixes = *prefixes + usize::from(placement.is_some()) - usize::from(before.is_some());
            effective.zones.push((prefix, placement));
        }
        let all: BTreeMap<_, _> = changes.identities.into_iter().collect();
        for (address, endpoint) in all {
            let content = &mut buckets[bucket(address)].content.identities;
            if content.get(&address) == endpoint.as_ref() {
                continue;
            }
            let before = match &endpoint {
                Some(endpoint) => content.insert(address, Arc::clone(endpoint)),
                None => content.remove(&address),
            };
            *identities = *identities + usize::from(endpoint.is_some()) - usize::from(before.is_some());
            effective.identities.push((address, endpoint));
        }
        effective
    }

    /// The buckets of which this holds.
    fn lacking(&mut self, mut holds: impl FnMut(usize, &mut StoredBucket) -> bool) -> Vec<u16> {
        (0..)
            .zip(&mut self.buckets)
            .filter_map(|(index, bucket)| holds(index.into(), bucket).then_some(index))
            .collect()
    }

    /// Changes as one update; `None` if it exceeds the agent's limit: then buckets carry them.
    fn small_delta(changes: &Changes) -> Option<Bytes> {
        if changes.zones.len() + changes.identities.len() > LARGE {
            return None;
        }
        let delta = wire::encode_changes(changes);
        (delta.len() <= wire::PIECE_BYTES).then(|| wire::pack(&delta))
    }

    fn keep(&mut self, delta: Bytes) {
        self.delta_bytes += delta.len();
        self.deltas.push_back(delta);
        while self.deltas.len() > DELTAS || self.delta_bytes > DELTA_BYTES {
            let Some(dropped) = self.deltas.pop_front() else { break };
            self.delta_bytes -= dropped.len();
        }
    }

    const fn is_large(&self) -> bool {
        self.prefixes + self.identities >= SNAPSHOT
    }

    /// The version of a snapshot that is not old.
    fn snapshot(&mut self) -> u64 {
        match &self.snapshot {
            Some(known) if self.version - known.version <= SNAPSHOT_AGE => known.version,
            _ => {
                let contents = self.buckets.iter().map(|bucket| &bucket.content);
                self.snapshot = Some(Snapshot::new(self.version, contents));
                self.version
            }
        }
    }

    fn drop_old_snapshot(&mut self) {
        let version = self.snapshot.as_ref().map(|snapshot| snapshot.version);
        if version.is_some_and(|version| self.delta_after(version).is_none()) {
            self.snapshot = None;
        }
    }

    /// The change from a version to the next one, if it is still kept.
    fn delta_after(&self, version: u64) -> Option<Bytes> {
        let back = usize::try_from(self.version - version).ok()?;
        self.deltas.len().checked_sub(back).and_then(|index| self.deltas.get(index)).cloned()
    }
}

/// An agent's position: everything that the controller remembers about the missing state.
#[derive(Debug, Default)]
pub struct Cursor {
    /// The agent has all changes up to this version.
    at: u64,
    /// The version of the snapshot that the agent is sent, and the number of updates sent.
    snapshot: Option<(u64, usize)>,
    /// Buckets that the agent lacks: thousands of agents may have a list at once.
    lacks: Vec<u16>,
    /// A bucket of which a part was sent, and the number of updates sent.
    begun: Option<(Arc<[Bytes]>, usize)>,
    /// The state is whole from this version on: a bucket may have been newer than the rest.
    until: u64,
    /// Whether the agent was sent anything.
    was_sent: bool,
}

impl Cursor {
    /// The next response for the agent, if there is one.
    pub fn next(&mut self, store: &Store) -> Option<FollowResponse> {
        let mut inner = store.lock();
        if inner.version == 0 {
            return None;
        }
        if self.has_buckets() && self.at < inner.version && inner.delta_after(self.at).is_none() {
            self.until = inner.version;
            if self.at == 0 && inner.is_large() {
                // The agent came before the first state.
                self.snapshot = Some((inner.version, 0));
            } else {
                // Too far behind: the buckets that have changed since.
                self.lacks = inner.lacking(|_, bucket| bucket.changed > self.at);
                self.at = inner.version;
            }
        }
        let (mut updates, mut bytes) = (Vec::new(), 0);
        while bytes < MESSAGE {
            let update = if let Some(piece) = self.next_of_snapshot(&mut inner) {
                piece
            } else if let Some(piece) = self.next_piece(&mut inner) {
                piece
            } else if self.at < inner.version {
                // The change is still kept, because the lock was held since the check above.
                let Some(delta) = inner.delta_after(self.at) else { break };
                self.at += 1;
                delta
            } else {
                break;
            };
            bytes += update.len();
            updates.push(update);
        }
        if updates.is_empty() && self.was_sent {
            return None;
        }
        // A response without updates means that the agent has the whole state.
        self.was_sent = true;
        let position = Position { instance: store.instance, version: self.at };
        let whole = self.has_buckets() && self.at >= self.until;
        Some(FollowResponse { position: Some(position.into()), updates, whole })
    }

    /// Whether all that the agent lacked was sent.
    pub fn has_buckets(&self) -> bool {
        self.lacks.is_empty() && self.begun.is_none() && self.snapshot.is_none()
    }

    /// The next update of the snapshot that the agent is sent. A snapshot that is not kept any more is held by no
    /// agent, however slowly it reads: it gets buckets in place of the rest.
    fn next_of_snapshot(&mut self, inner: &mut Inner) -> Option<Bytes> {
        let (version, sent) = match self.snapshot? {
            // Agents wait for their turn.
            (_, 0) => (inner.snapshot(), 0),
            begun => begun,
        };
        let Some(snapshot) = inner.snapshot.as_mut().filter(|known| known.version == version) else {
            self.snapshot = None;
            self.lacks = inner.lacking(|_, bucket| bucket.changed > version || !bucket.is_empty());
            (self.at, self.until) = (inner.version, inner.version);
            return None;
        };
        let (piece, is_last) = snapshot.piece(sent)?;
        self.at = version;
        self.snapshot = (!is_last).then_some((version, sent + 1));
        Some(piece)
    }

    /// The next part of a bucket that the agent lacks. A bucket that has changed meanwhile is sent to its end as
    /// it was: the changes follow.
    fn next_piece(&mut self, inner: &mut Inner) -> Option<Bytes> {
        let (pieces, sent) = match self.begun.take() {
            Some(begun) => begun,
            None => {
                let index = usize::from(self.lacks.pop()?);
                if self.lacks.is_empty() {
                    // Frees the memory of the list.
                    self.lacks = Vec::new();
                }
                self.until = inner.version;
                (Arc::clone(&inner.buckets[index].encoded(index).0), 0)
            }
        };
        let piece = pieces[sent].clone();
        if sent + 1 < pieces.len() {
            self.begun = Some((pieces, sent + 1));
        }
        Some(piece)
    }
}
