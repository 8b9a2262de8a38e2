//! The process behind the page, as the page needs it.

use crate::zones::Matrix;
use meridian_abi::{Counter, stats::Stat};
use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// A process that measures nodes, or sums up the reports of nodes.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// The counters by zone pair.
    fn counts(&self) -> Counts;

    /// The state of the process and of its nodes.
    fn health(&self) -> Health;
}

/// Counters by zone pair, of all nodes.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// When the oldest of them were read; `None` where there are none yet.
    pub time: Option<SystemTime>,
    /// The number of their nodes.
    pub nodes: usize,
    /// The counters.
    pub matrix: Matrix,
}

/// The state of a process and of its nodes.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// `controller`, `agent` or `demo`.
    pub program: &'static str,
    /// Whether the process holds the Lease, where there is one.
    pub is_leader: Option<bool>,
    /// The agents that follow a controller's table.
    pub agents: Option<AgentsHealth>,
    /// The nodes.
    pub nodes: Vec<NodeHealth>,
    /// Bytes and packets with a caveat, or outside the sums, by reason.
    pub stats: Vec<(Stat, Counter)>,
}

/// The agents that follow a controller's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentsHealth {
    /// Connected to this replica.
    pub connected: usize,
    /// Of those, how many have not acknowledged the latest version.
    pub behind: usize,
}

/// The state of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHealth {
    /// Its name.
    pub name: String,
    /// The age of its counters; `None` if there were none yet.
    pub age: Option<Duration>,
    /// Whether they are too old to be current.
    pub is_silent: bool,
    /// The hook that counts its packets, and the reason for it, where they are known.
    pub hook: Option<(&'static str, String)>,
}
