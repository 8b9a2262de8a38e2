//! The history of a node without a controller: the agent keeps it itself.

use crate::{
    historian::{Historian, NodeSeen, Tick, second},
    meter::Meter,
    recorder::Directory,
    zones::{Matrix, Provider},
};
use meridian_abi::Counter;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// The interval at which traffic is recorded.
const TICK: Duration = Duration::from_secs(10);

/// Records a node's own traffic.
pub(super) struct Keeping {
    historian: Arc<Historian>,
    node: String,
    /// The matrix of the last record and its time; `None` before the first.
    last: Option<(Matrix, Instant)>,
}

impl Keeping {
    pub(super) const fn new(historian: Arc<Historian>, node: String) -> Self {
        Self { historian, node, last: None }
    }

    /// Records the growth since the last record if it is time, or with `is_last`, which also writes the open hour.
    /// The flow entries have just been read. Counters of the time before the first record belong to no hour.
    pub(super) fn look(&mut self, meter: &mut Meter, providers: &BTreeMap<String, Provider>, is_last: bool) {
        let now = Instant::now();
        if !is_last && self.last.as_ref().is_some_and(|(_, last)| now.duration_since(*last) < TICK) {
            return;
        }
        let Ok(matrix) = meter.matrix() else { return };
        let Some(growth) = meter.growth() else { return };
        let Some((before, last)) = self.last.replace((matrix.clone(), now)) else {
            growth.discard();
            return;
        };
        for (pair, counter) in matrix.cells() {
            let known = before.get(pair);
            let new = Counter {
                bytes: counter.bytes.saturating_sub(known.bytes),
                packets: counter.packets.saturating_sub(known.packets),
            };
            growth.add_matrix(&pair.source, &pair.destination, new);
        }
        let grown = growth.take(is_last);
        let directory = Directory { providers: providers.clone(), ..Directory::default() };
        let nodes = [NodeSeen { name: self.node.clone(), provider_id: String::new(), is_heard: true }];
        let elapsed = now.duration_since(last);
        self.historian.tick(&Tick { now: second(), elapsed, grown: &grown, directory: &directory, nodes: &nodes });
        if is_last {
            self.historian.save();
        }
    }
}
