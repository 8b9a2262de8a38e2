//! The history of a node without a controller: the agent keeps it itself.

use crate::{
    historian::{Historian, NodeSeen, Recording},
    meter::Meter,
    zones::{Matrix, Provider},
};
use std::{collections::BTreeMap, sync::Arc};

/// Records a node's own traffic.
pub(super) struct HistoryRecorder {
    recording: Recording,
    node: String,
    /// The matrix of the last record; `None` before the first.
    last: Option<Matrix>,
}

impl HistoryRecorder {
    pub(super) fn new(historian: Arc<Historian>, node: String) -> Self {
        Self { recording: Recording::new(historian), node, last: None }
    }

    /// Records the growth since the last record if it is time, or with `is_last`, which also writes the open hour.
    /// The flow entries have just been read. Counters of the time before the first record belong to no hour.
    pub(super) fn look(&mut self, meter: &mut Meter, providers: &BTreeMap<String, Provider>, is_last: bool) {
        if !is_last && self.last.is_some() && !self.recording.is_due() {
            return;
        }
        let Ok(matrix) = meter.matrix() else { return };
        let Some(growth) = meter.growth() else { return };
        let Some(before) = self.last.replace(matrix.clone()) else {
            growth.discard();
            self.recording.skip();
            return;
        };
        matrix.since(&before).for_each(|(pair, new)| growth.add_matrix(&pair.source, &pair.destination, new));
        let grown = growth.take(is_last);
        let nodes = [NodeSeen { name: self.node.clone(), provider_id: String::new(), is_heard: true }];
        self.recording.record(&grown, providers.clone(), &nodes);
        if is_last {
            self.recording.save();
        }
    }
}
