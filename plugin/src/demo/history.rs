//! What the demo's nodes count, put into a history in memory second by second.

use super::{
    error::Error,
    topology::{NODES, NodeSpec},
};
use crate::{
    accounting::Grown,
    datapath,
    historian::{Historian, NodeSeen, Tick, second},
    meter::Meter,
    recorder::Directory,
    zones::Matrix,
};
use meridian_abi::Counter;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The demo's history.
pub(super) struct DemoHistory {
    pub(super) historian: Arc<Historian>,
    directory: Directory,
    /// What each node has recorded so far.
    recorded: Vec<Matrix>,
    since: Instant,
    /// Whole seconds since then that are recorded.
    seconds: u64,
}

impl DemoHistory {
    pub(super) fn new(historian: Arc<Historian>, directory: Directory) -> Self {
        let recorded = NODES.iter().map(|_| Matrix::default()).collect();
        Self { historian, directory, recorded, since: Instant::now(), seconds: 0 }
    }

    /// Time before this moment that is not recorded yet counts as unrecorded.
    pub(super) fn begin(&mut self) {
        (self.since, self.seconds) = (Instant::now(), 0);
    }

    /// Records the growth since the last call. With `is_last`, also what has no flow entry yet.
    pub(super) fn record(&mut self, meters: &[Mutex<Meter>], is_last: bool) -> Result<(), Error> {
        let elapsed = Duration::from_secs(self.since.elapsed().as_secs() - self.seconds);
        self.seconds += elapsed.as_secs();
        for (node, meter) in meters.iter().enumerate() {
            let grown = self.growth(node, &mut lock(meter), is_last)?;
            // The time of all nodes is recorded with the first.
            let is_first = node == 0;
            let seen =
                |node: &NodeSpec| NodeSeen { name: node.name.to_owned(), provider_id: String::new(), is_heard: true };
            let nodes: Vec<NodeSeen> = if is_first { NODES.iter().map(seen).collect() } else { Vec::new() };
            let elapsed = if is_first { elapsed } else { Duration::ZERO };
            let (grown, directory) = (&grown, &self.directory);
            self.historian.tick(&Tick { now: second(), elapsed, grown, directory, nodes: &nodes });
        }
        Ok(())
    }

    fn growth(&mut self, node: usize, meter: &mut Meter, is_last: bool) -> Result<Grown, datapath::Error> {
        let matrix = meter.matrix()?;
        let before = std::mem::replace(&mut self.recorded[node], matrix.clone());
        let Some(growth) = meter.growth() else { return Ok(Grown::default()) };
        for (pair, counter) in matrix.cells() {
            let known = before.get(pair);
            let new = Counter {
                bytes: counter.bytes.saturating_sub(known.bytes),
                packets: counter.packets.saturating_sub(known.packets),
            };
            growth.add_matrix(&pair.source, &pair.destination, new);
        }
        Ok(growth.take(is_last))
    }
}

/// Locks a part of the demo. What a thread that has panicked leaves is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
