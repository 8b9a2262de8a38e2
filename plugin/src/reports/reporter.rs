//! Builds an agent's reports.

use crate::{
    accounting::{EndpointKey, Totals, TransferKey},
    counters::Sample,
    proto::v1::{FlowServer, Hook, Line, ReportRequest},
    wire::{self, Names},
    zones::Place,
};
use ahash::AHashMap;
use meridian_abi::Counter;
use std::collections::hash_map::Entry;

/// Builds reports from samples; each has the changes since the last one.
#[derive(Debug)]
pub struct ReportBuilder {
    flow_server: Option<FlowServer>,
    /// The counters that this stream has sent; `None` before its first report.
    sent: Option<AHashMap<TransferKey, Counter>>,
    taken_before: bool,
}

/// The changed lines of a report.
struct Lines {
    pods: Vec<Line>,
    ended: Vec<Line>,
}

impl ReportBuilder {
    /// Reports of a node with this flow server, if it has one. `taken_before`: an earlier agent may have reported the
    /// same counters.
    pub const fn new(flow_server: Option<FlowServer>, taken_before: bool) -> Self {
        Self { flow_server, sent: None, taken_before }
    }

    /// Starts a stream: its first report is complete.
    pub fn begin(&mut self) {
        self.sent = None;
    }

    /// Records that a report was accepted.
    pub const fn accepted(&mut self) {
        self.taken_before = true;
    }

    /// The changes since the last report of this stream.
    pub fn report(&mut self, sample: &Sample) -> ReportRequest {
        let counted = &sample.counted;
        let totals = &counted.totals;
        let whole = self.sent.is_none();
        let mut names = Names::default();
        let Lines { pods, ended } = self.lines(totals, &mut names);
        ReportRequest {
            node: counted.whose.nodes().first().cloned().unwrap_or_default(),
            boot_id: sample.boot_id.to_vec(),
            time: Some(counted.time.into()),
            flow_server: self.flow_server.clone(),
            zones: counted.matrix.cells().map(|(pair, counter)| wire::zone_pair(pair, counter)).collect(),
            reasons: counted.stats.iter().map(|(stat, counter)| wire::reason(*stat, *counter)).collect(),
            pods,
            whole,
            ended,
            attributed: totals.pods.sum().into(),
            sent_by_known: totals.senders.sum().into(),
            taken_before: self.taken_before,
            names: Some(names.into()),
            hook: Some(Hook {
                name: sample.hook.to_owned(),
                reason: sample.hook_reason.to_string(),
                changes: sample.hook_changes,
            }),
        }
    }

    /// The series that have changed or ended since the last report of this stream.
    fn lines(&mut self, totals: &Totals, names: &mut Names) -> Lines {
        let sent = self.sent.get_or_insert_default();
        let (mut pods, mut ended) = (Vec::new(), Vec::new());
        let mut line = |key: &TransferKey, counter: Option<Counter>| {
            let mut end = |(endpoint, place): &(Option<EndpointKey>, Place)| {
                Some(names.end(endpoint.as_ref().map(|endpoint| &*endpoint.0), place))
            };
            let (source, destination) = (end(&key.ends.source), end(&key.ends.destination));
            let counters = counter.map(Into::into).into_iter().collect();
            Line { source, destination, counters, locality: 0, service: wire::service_message(key.service) }
        };
        for (key, total) in totals.transfers.series() {
            // The places of a pair determine its locality, so only one counter is set.
            let total = total.total();
            match sent.entry(key.clone()) {
                Entry::Occupied(last) if *last.get() == total => continue,
                Entry::Occupied(mut last) => {
                    // The series has ended and started again.
                    if total.bytes < last.get().bytes {
                        ended.push(line(key, None));
                    }
                    last.insert(total);
                }
                Entry::Vacant(new) => {
                    new.insert(total);
                }
            }
            pods.push(line(key, Some(total)));
        }
        sent.retain(|key, _| {
            let lives = totals.transfers.has(key);
            if !lives {
                ended.push(line(key, None));
            }
            lives
        });
        Lines { pods, ended }
    }
}
