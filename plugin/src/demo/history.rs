//! The demo's history: in memory, written second by second from the nodes' counters.

use super::{
    error::Error,
    topology::{NODES, NodeSpec},
};
use crate::{
    accounting::TrafficDelta,
    datapath,
    historian::{Historian, NodeSeen, Tick, second},
    meter::Meter,
    recorder::Directory,
    zones::Matrix,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The demo's history.
pub(super) struct DemoHistory {
    pub(super) historian: Arc<Historian>,
    directory: Directory,
    /// The recorded counters of each node.
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

    /// Records the growth since the last call. With `is_last`, also bytes without a flow entry.
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

    fn growth(&mut self, node: usize, meter: &mut Meter, is_last: bool) -> Result<TrafficDelta, datapath::Error> {
        let matrix = meter.matrix()?;
        let before = std::mem::replace(&mut self.recorded[node], matrix.clone());
        let Some(growth) = meter.growth() else { return Ok(TrafficDelta::default()) };
        matrix.since(&before).for_each(|(pair, new)| growth.add_matrix(&pair.source, &pair.destination, new));
        Ok(growth.take(is_last))
    }
}

/// Locks a part of the demo. A thread that has panicked leaves it whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
