//! The state that a controller tells its agents, and where each of them is in it.

use super::buckets::{Bucket, Digest, bucket, digest_of};
use crate::{
    proto::v1::{self, FollowResponse},
    wire::{self, BUCKETS, Changes},
};
use prost::bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Changes that are kept for agents that are behind; who is further behind gets the buckets that have
/// changed.
const DELTAS: usize = 1024;
/// Bytes of those, together.
const DELTA_BYTES: usize = 8 << 20;
/// Updates are sent together up to about this size.
const MESSAGE: usize = 12 << 10;
/// A change of more prefixes and addresses than this is told by buckets.
const LARGE: usize = 16_384;

/// A state of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The controller's run.
    pub instance: u64,
    /// How often the state has changed in it.
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

/// The state, and what has lately become of it.
#[derive(Debug)]
pub struct Store {
    instance: u64,
    inner: Mutex<Inner>,
    /// The version; 0 until there is a state.
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    version: u64,
    buckets: Vec<StoredBucket>,
    /// The changes that led to the last versions, without a gap.
    deltas: VecDeque<Bytes>,
    delta_bytes: usize,
    prefixes: usize,
    identities: usize,
}

/// A bucket, when it changed, and how it is sent.
#[derive(Debug, Default)]
struct StoredBucket {
    content: Bucket,
    changed: u64,
    encoded: Option<(Bytes, Digest)>,
}

impl StoredBucket {
    fn encoded(&mut self, index: usize) -> &(Bytes, Digest) {
        let Self { content, encoded, .. } = self;
        encoded.get_or_insert_with(|| {
            let update = content.encode(index);
            (wire::pack(&update), digest_of(&update))
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
            prefixes: 0,
            identities: 0,
        };
        Self { instance: rand::random(), inner: Mutex::new(inner), version: watch::Sender::new(0) }
    }
}

impl Store {
    /// Takes changes in; those that change nothing are left out. The first call makes the state known
    /// to agents, even if there is nothing in it. Returns the version now.
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
        if changes.zones.len() + changes.identities.len() > LARGE {
            (inner.deltas, inner.delta_bytes) = (VecDeque::new(), 0);
        } else {
            inner.keep(wire::pack(&wire::encode_changes(&changes)));
        }
        drop(inner);
        self.version.send_replace(version);
        version
    }

    /// The version now; 0 while there is no state.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Where the state is now.
    pub fn position(&self) -> Position {
        Position { instance: self.instance, version: self.version() }
    }

    /// Changes with the version.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// How many prefixes and addresses there are.
    pub fn sizes(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.prefixes, inner.identities)
    }

    /// Where an agent is that has `position` in force, and these digests of its buckets.
    pub fn cursor(&self, position: Option<Position>, digests: &[Digest]) -> Cursor {
        let mut inner = self.lock();
        let version = inner.version;
        if let Some(position) = position.filter(|position| position.instance == self.instance)
            && position.version <= version
        {
            return Cursor { at: position.version, lacks: Vec::new(), until: 0, is_told: false };
        }
        let differs = |(index, kept): (usize, &mut StoredBucket)| {
            (digests.get(index) != Some(&kept.encoded(index).1)).then_some(index)
        };
        let mut lacks: Vec<usize> = inner.buckets.iter_mut().enumerate().filter_map(differs).collect();
        if digests.is_empty() {
            // It has nothing: there is nothing to forget.
            lacks.retain(|index| {
                let content = &inner.buckets[*index].content;
                !content.prefixes.is_empty() || !content.identities.is_empty()
            });
        }
        Cursor { at: version, lacks, until: version, is_told: false }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it is held would be in our own code, and leaves no half of a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Puts changes into the buckets, and returns those that were any.
    fn take(&mut self, changes: Changes) -> Changes {
        let Self { buckets, prefixes, identities, .. } = self;
        let mut effective = Changes::default();
        // An update says one thing of a prefix or an address: the last.
        let zones: BTreeMap<_, _> = changes.zones.into_iter().collect();
        for (prefix, placement) in zones {
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

    fn keep(&mut self, delta: Bytes) {
        self.delta_bytes += delta.len();
        self.deltas.push_back(delta);
        while self.deltas.len() > DELTAS || self.delta_bytes > DELTA_BYTES {
            let Some(dropped) = self.deltas.pop_front() else { break };
            self.delta_bytes -= dropped.len();
        }
    }

    /// The change from a version to the next one, if it is still kept.
    fn delta_after(&self, version: u64) -> Option<Bytes> {
        let back = usize::try_from(self.version - version).ok()?;
        self.deltas.len().checked_sub(back).and_then(|index| self.deltas.get(index)).cloned()
    }
}

/// Where an agent is: all that the controller keeps of what it still has to be told.
#[derive(Debug)]
pub struct Cursor {
    /// It has been told all changes up to this version.
    at: u64,
    /// Buckets that it still lacks.
    lacks: Vec<usize>,
    /// The state is whole from this version on: a bucket may have been newer than the rest.
    until: u64,
    /// Whether it has been told anything.
    is_told: bool,
}

impl Cursor {
    /// What the agent is told next, if there is anything to tell.
    pub fn next(&mut self, store: &Store) -> Option<FollowResponse> {
        let mut inner = store.lock();
        if inner.version == 0 {
            return None;
        }
        if self.lacks.is_empty() && self.at < inner.version && inner.delta_after(self.at).is_none() {
            // Too far behind: the buckets that have changed since.
            let changed = |(index, kept): (usize, &StoredBucket)| (kept.changed > self.at).then_some(index);
            self.lacks = inner.buckets.iter().enumerate().filter_map(changed).collect();
            self.at = inner.version;
            self.until = inner.version;
        }
        let (mut updates, mut bytes) = (Vec::new(), 0);
        while bytes < MESSAGE {
            let update = if let Some(index) = self.lacks.pop() {
                self.until = inner.version;
                inner.buckets[index].encoded(index).0.clone()
            } else if self.at < inner.version {
                // It is kept: the lock has been held since that was found.
                let Some(delta) = inner.delta_after(self.at) else { break };
                self.at += 1;
                delta
            } else {
                break;
            };
            bytes += update.len();
            updates.push(update);
        }
        if updates.is_empty() && self.is_told {
            return None;
        }
        // Without updates: it has everything, and is to know.
        self.is_told = true;
        let position = Position { instance: store.instance, version: self.at };
        let whole = self.lacks.is_empty() && self.at >= self.until;
        Some(FollowResponse { position: Some(position.into()), updates, whole })
    }
}
