//! The agents that follow a controller.

use crate::link::{Admission, LogLimit};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The agents that follow this controller, and counts of refused ones.
#[derive(Debug, Default)]
pub struct Agents {
    next: AtomicU64,
    follower: Mutex<HashMap<u64, Arc<Agent>>>,
    /// Counts of refusals.
    pub refused: Refusals,
    /// Places for their connections.
    pub places: ConnectionPlaces,
    /// Turns to be sent buckets.
    pub(super) turns: Turns,
}

/// The number of agents that are sent buckets at the same time. Each needs buffers meanwhile; thousands of agents that
/// come at once would need them at once, and none would have its table sooner.
const TURNS: usize = 32;

/// Turns to be sent buckets.
#[derive(Debug)]
pub(super) struct Turns(pub(super) Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TURNS)))
    }
}

/// Places for connections of agents, before and after they have shown a token.
#[derive(Debug)]
pub struct ConnectionPlaces {
    /// Before: a connection that agrees on TLS takes 23 kB.
    pub strangers: Arc<Admission>,
    /// After: two or three for each agent.
    pub known: Arc<Admission<String>>,
}

impl Default for ConnectionPlaces {
    fn default() -> Self {
        Self { strangers: Arc::new(Admission::new(1024, 256)), known: Arc::new(Admission::new(32_768, 8)) }
    }
}

impl ConnectionPlaces {
    /// Connections that had to give way to newer ones.
    pub fn displaced(&self) -> u64 {
        self.strangers.displaced.load(Ordering::Relaxed) + self.known.displaced.load(Ordering::Relaxed)
    }
}

/// Connections and streams that were refused, by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    /// The token is missing, or is not an agent's.
    pub token: AtomicU64,
    /// The message is malformed.
    pub request: AtomicU64,
    /// There are too many agents.
    pub full: AtomicU64,
    /// No token was shown in time.
    pub late: AtomicU64,
    /// Streams that ended because a newer one of the same node came.
    pub replaced: AtomicU64,
    /// Lines of the log about them.
    pub log: LogLimit,
}

/// An agent that follows.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) node: String,
    pub(super) acknowledged: AtomicU64,
    pub(super) connected: SystemTime,
    /// Ends its stream: a newer one of the node has come.
    pub(super) replaced: CancellationToken,
}

/// Registers an agent for as long as it follows.
#[derive(Debug)]
pub(super) struct Follower {
    agents: Arc<Agents>,
    id: u64,
    pub(super) agent: Arc<Agent>,
}

impl Agents {
    /// Registers an agent, if there are fewer than `limit`.
    pub(super) fn join(self: &Arc<Self>, node: String, limit: usize) -> Option<Follower> {
        let mut follower = self.lock();
        let older = follower.iter().find(|(_, agent)| agent.node == node).map(|(id, _)| *id);
        if let Some(older) = older.and_then(|id| follower.remove(&id)) {
            older.replaced.cancel();
            self.refused.replaced.fetch_add(1, Ordering::Relaxed);
        }
        if follower.len() >= limit {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let agent = Arc::new(Agent {
            node,
            acknowledged: AtomicU64::new(0),
            connected: SystemTime::now(),
            replaced: CancellationToken::new(),
        });
        follower.insert(id, Arc::clone(&agent));
        Some(Follower { agents: Arc::clone(self), id, agent })
    }

    /// All agents, by node.
    pub(super) fn all(&self) -> Vec<Arc<Agent>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by(|a, b| a.node.cmp(&b.node));
        all
    }

    /// The number of agents, and of those that have not acknowledged `version`.
    pub fn count(&self, version: u64) -> (usize, usize) {
        let follower = self.lock();
        let behind = follower.values().filter(|agent| agent.acknowledged.load(Ordering::Relaxed) < version).count();
        (follower.len(), behind)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Agent>>> {
        // Insertions and removals are atomic.
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.agents.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_streams_of_one_node_keep_no_other_out() {
        let agents = Arc::new(Agents::default());
        let mut all: Vec<_> = (0..60).map(|_| agents.join("a".into(), 2).unwrap()).collect();
        let other = agents.join("b".into(), 2).unwrap();
        assert_eq!(agents.count(0).0, 2);
        let last = all.pop().unwrap();
        assert!(all.iter().all(|follower| follower.agent.replaced.is_cancelled()));
        drop(all);
        assert_eq!(agents.count(0).0, 2, "the end of an older one is not that of the newer");
        assert!(!last.agent.replaced.is_cancelled() && !other.agent.replaced.is_cancelled());
        assert!(agents.join("c".into(), 2).is_none());
        assert_eq!(agents.refused.replaced.load(Ordering::Relaxed), 59);
    }
}
