//! The agents that follow a controller.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

/// The agents that follow this controller, and counts of refused ones.
#[derive(Debug, Default)]
pub struct Agents {
    next: AtomicU64,
    follower: Mutex<HashMap<u64, Arc<Agent>>>,
    /// Counts of refusals.
    pub refused: Refusals,
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
}

/// An agent that follows.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) node: String,
    pub(super) acknowledged: AtomicU64,
    pub(super) connected: SystemTime,
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
        if follower.len() >= limit {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let agent = Arc::new(Agent { node, acknowledged: AtomicU64::new(0), connected: SystemTime::now() });
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
