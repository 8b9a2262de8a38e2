//! The metrics of a process: the flow ring, Counters, the pair log, the history, the HTTP port, TLS.

use super::{parts::Part, writer::Writer};
use crate::{
    api::SkippedIntervals,
    atomic_file::Saves,
    export::PairLogTally,
    flows::{READERS, Ring},
    historian::Historian,
    link::{Admission, Backlog, Budget, Requests, Tls},
    otlp,
    statement::BudgetState,
};
use prometheus_client::registry::Unit;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

fn count(value: &AtomicU64) -> Vec<(Vec<(&'static str, String)>, u64)> {
    vec![(Vec::new(), value.load(Ordering::Relaxed))]
}

impl Part for Arc<Ring> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let gauge = |value: u64| vec![(Vec::new(), value as f64)];
        let counter = |value: u64| vec![(Vec::new(), value)];
        page.gauges("meridian_flow_ring_flows", "Number of flows in the flow ring.", None, &gauge(self.len()))?;
        page.gauges("meridian_flow_ring_limit", "Capacity of the flow ring.", None, &gauge(self.capacity()))?;
        let help = "Number of flows added to the flow ring.";
        page.counters("meridian_flow_ring_seen", help, None, &counter(self.flows_ever()))?;
        let help = "Number of flows overwritten before a client read them, summed over clients.";
        page.counters("meridian_flow_ring_lost", help, None, &counter(self.overtaken()))?;
        let (readers, refused) = self.readers();
        page.gauges("meridian_flow_ring_readers", "Number of flow streams to clients.", None, &gauge(readers))?;
        let help = "Limit of concurrent flow streams.";
        page.gauges("meridian_flow_ring_readers_limit", help, None, &gauge(READERS as u64))?;
        let help = "Number of flow requests refused because of the stream limit.";
        page.counters("meridian_flow_ring_refused_readers", help, None, &counter(refused))
    }
}

impl Part for Arc<Backlog> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let gauge = |value: usize| vec![(Vec::new(), value as f64)];
        let help = "Size of responses that gRPC clients have not read yet.";
        page.gauges("meridian_grpc_backlog", help, Some(Unit::Bytes), &gauge(self.bytes()))?;
        let help = "Limit of the responses that gRPC clients have not read yet.";
        page.gauges("meridian_grpc_backlog_limit", help, Some(Unit::Bytes), &gauge(self.limit()))?;
        let help = "Number of gRPC streams and connections ended because their clients did not read.";
        let ended = vec![(Vec::new(), self.ended())];
        page.counters("meridian_grpc_ended_clients", help, None, &ended)
    }
}

impl Part for Arc<Requests> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let help = "Number of open gRPC requests.";
        page.gauges("meridian_grpc_requests", help, None, &[(Vec::new(), self.count() as f64)])?;
        let help = "Number of gRPC requests ended to make room for newer ones.";
        page.counters("meridian_grpc_displaced_requests", help, None, &[(Vec::new(), self.displaced())])
    }
}

/// The filters of flow streams.
impl Part for Arc<Budget> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let gauge = |value: usize| vec![(Vec::new(), value as f64)];
        let help = "Upper limit of the memory that the filters of flow streams take.";
        page.gauges("meridian_flow_filters", help, Some(Unit::Bytes), &gauge(self.bytes()))?;
        let help = "Limit of the memory that the filters of flow streams may take.";
        page.gauges("meridian_flow_filters_limit", help, Some(Unit::Bytes), &gauge(self.limit()))?;
        let help = "Number of flow streams ended because newer ones needed the memory of their filters.";
        page.counters("meridian_flow_filters_displaced", help, None, &[(Vec::new(), self.displaced())])
    }
}

impl Part for Arc<SkippedIntervals> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let help = "Number of intervals skipped for slow clients of Counters.Watch.";
        page.counters("meridian_counters_missed", help, None, &count(&self.0))
    }
}

/// Places for connections to the HTTP port, of which a node has a handful for scrapers and probes; and requests that
/// waited too long for their turn.
#[derive(Clone, Debug)]
pub(super) struct HttpPlaces {
    pub(super) connections: Arc<Admission>,
    pub(super) late: Arc<AtomicU64>,
    pub(super) denied: Arc<AtomicU64>,
}

impl Default for HttpPlaces {
    fn default() -> Self {
        Self { connections: Arc::new(Admission::new(64, 32)), late: Arc::default(), denied: Arc::default() }
    }
}

impl Part for HttpPlaces {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let help = "Number of HTTP connections closed to make room for newer ones.";
        page.counters("meridian_http_refused_connections", help, None, &count(&self.connections.displaced))?;
        let help = "Number of HTTP requests refused because too many others were being answered from the history.";
        page.counters("meridian_http_refused_requests", help, None, &count(&self.late))?;
        let help = "Number of HTTP requests for the page or its API refused for want of a token.";
        page.counters("meridian_http_denied_requests", help, None, &count(&self.denied))
    }
}

impl Part for Arc<PairLogTally> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let help = "Number of pair log lines written.";
        page.counters("meridian_pair_log_lines", help, None, &count(&self.lines))?;
        let help = "Number of pair log lines not written, or not in time.";
        page.counters("meridian_pair_log_lost_lines", help, None, &count(&self.lost_lines))?;
        let help = "IP bytes in the lost lines of the pair log.";
        page.counters("meridian_pair_log_lost", help, Some(Unit::Bytes), &count(&self.lost_bytes))?;
        let help = "IP bytes left out of the pair log because an earlier agent may have logged them.";
        page.counters("meridian_pair_log_unknown", help, Some(Unit::Bytes), &count(&self.unknown_bytes))
    }
}

/// The files that outlive a process.
impl Part for Vec<(&'static str, Arc<Saves>)> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let saves = self.iter().flat_map(|(file, saves)| {
            [("written", &saves.written), ("failed", &saves.failed)].map(|(result, count)| {
                let labels = vec![("file", (*file).to_owned()), ("result", result.to_owned())];
                (labels, count.load(Ordering::Relaxed))
            })
        });
        let help = "Number of times the agent saved a file for the next agent, by file and result.";
        page.counters("meridian_state_saves", help, None, &saves.collect::<Vec<_>>())
    }
}

/// The certificates of the servers, and failed handshakes.
impl Part for Vec<Arc<Tls>> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let labels = |tls: &Tls| vec![("server", tls.server.to_owned())];
        let expires = self.iter().filter_map(|tls| {
            let expires = tls.expires()?.duration_since(UNIX_EPOCH).ok()?;
            Some((labels(tls), expires.as_secs_f64()))
        });
        let help = "Unix time at which the server's certificate expires.";
        let expires: Vec<_> = expires.collect();
        page.gauges("meridian_tls_certificate_expiry_timestamp", help, Some(Unit::Seconds), &expires)?;
        let refused = self.iter().map(|tls| (labels(tls), tls.refused.load(Ordering::Relaxed)));
        let help = "Number of connections refused during the TLS handshake.";
        page.counters("meridian_tls_refused_connections", help, None, &refused.collect::<Vec<_>>())
    }
}

impl Part for Arc<otlp::Tally> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let results = [("accepted", &self.accepted), ("failed", &self.failed)];
        let results = results.map(|(name, count)| (vec![("result", name.to_owned())], count.load(Ordering::Relaxed)));
        let help = "Number of messages to the OpenTelemetry collector, by result.";
        page.counters("meridian_otlp_messages", help, None, &results)?;
        let help = "Number of sums that the OpenTelemetry collector rejected.";
        page.counters("meridian_otlp_rejected_sums", help, None, &count(&self.rejected))?;
        let sums = vec![(Vec::new(), self.sums.load(Ordering::Relaxed) as f64)];
        page.gauges("meridian_otlp_sums", "Number of sums in the last export over OTLP.", None, &sums)
    }
}

impl Part for Arc<Historian> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let (blocks, bytes) = self.size();
        let gauge = |value: f64| vec![(Vec::new(), value)];
        let help = "Number of hours and days in the history.";
        page.gauges("meridian_history_blocks", help, None, &gauge(blocks as f64))?;
        let help = "Size of the history on disk.";
        page.gauges("meridian_history_size", help, Some(Unit::Bytes), &gauge(bytes as f64))?;
        let tally = self.tally();
        let results = [("written", &tally.written), ("failed", &tally.failed)];
        let results = results.map(|(name, count)| (vec![("result", name.to_owned())], count.load(Ordering::Relaxed)));
        page.counters("meridian_history_writes", "Number of writes of an hour or day, by result.", None, &results)?;
        let help = "Number of hours and days set aside because they could not be read.";
        page.counters("meridian_history_damaged_blocks", help, None, &count(&tally.damaged))?;
        let help = "Number of hours and days removed because of their age or the size limit.";
        page.counters("meridian_history_removed_blocks", help, None, &count(&tally.removed))?;
        let help = "Number of hours and days copied from another replica.";
        page.counters("meridian_history_copied_blocks", help, None, &count(&tally.copied))?;
        let help = "Number of failed attempts to copy hours and days from another replica.";
        page.counters("meridian_history_copy_failures", help, None, &count(&tally.uncopied))?;
        let reloads = self.reloads().flat_map(|(file, counts)| {
            ["taken", "refused"]
                .into_iter()
                .zip(counts)
                .map(move |(result, count)| (vec![("file", file.to_owned()), ("result", result.to_owned())], count))
        });
        let help = "Number of times the file of prices or budgets was read again, by result.";
        page.counters("meridian_history_config_reloads", help, None, &reloads.collect::<Vec<_>>())?;
        budgets(page, &self.budgets())
    }
}

fn budgets(page: &mut Writer<'_, '_>, states: &[BudgetState]) -> fmt::Result {
    let gauges = |value: fn(&BudgetState) -> f64| -> Vec<_> {
        states.iter().map(|state| (vec![("budget", state.budget.name.clone())], value(state))).collect()
    };
    let help = "Limit of a budget in dollars for a calendar month.";
    page.gauges("meridian_budget_limit_dollars", help, None, &gauges(|state| state.budget.limit.dollars()))?;
    let help = "Cost of a budget's traffic in this calendar month so far, in dollars.";
    page.gauges("meridian_budget_spent_dollars", help, None, &gauges(|state| state.spent.dollars()))?;
    let help =
        "Cost of a budget's traffic at the end of this calendar month, in dollars, at the rate of the last week.";
    page.gauges("meridian_budget_projected_dollars", help, None, &gauges(|state| state.projected.dollars()))
}
