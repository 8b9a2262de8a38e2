//! The totals of the cluster: the sum of all agents' reports, with each byte counted once.
//!
//! The last counters of every node are kept, and a report adds their growth. So it does not matter how many reports
//! were lost, or how many replicas accepted them before: a replica without the node's last counters adds all of it.

use super::{
    decoded::{PAIRS, Read, SharedNames},
    plausible::MAX_COUNTER,
};
use crate::{
    accounting::{Accounting, ByLocality, EndpointKey, Line, Totals, TrafficDelta, Transfer, TransferEnd, TransferKey},
    counters::{self, CounterScope, CounterSnapshot},
    leader::Knowledge,
    proto::v1::{self, ClusterSums, FlowServer, MirrorResponse, NodeState, ReportRequest, mirror_response::Response},
    wire::{self, Malformed, Names},
    zones::{Locality, Matrix, Pair, Place},
};
use ahash::{AHashMap, AHashSet};
use meridian_abi::{Counter, stats::Stat};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::broadcast;

/// A node without a report for this long is forgotten. If it came back with the same counters, they would count twice.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);
/// The limit of reports that a standby replica may fall behind.
const BEHIND: usize = 4096;

/// The reason why a report is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The report is malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// There are too many nodes.
    #[error("there are reports of {0} nodes already")]
    Full(usize),
    /// This replica is ending.
    #[error("the controller ends")]
    Closed,
}

/// Counters by reason.
type Stats = [Counter; Stat::ALL.len()];

/// The totals of a cluster.
#[derive(Debug)]
pub struct ClusterTotals {
    inner: Mutex<Inner>,
    /// The state that another replica is sending: applied as a whole, because a part of it would make nodes count
    /// twice.
    incoming: Mutex<Option<Inner>>,
    /// Whether the leader was mirrored to its last message.
    is_complete: AtomicBool,
    /// Whether the leader's whole state is here, and its reports follow.
    is_synced: AtomicBool,
    limit: usize,
}

#[derive(Debug)]
struct Inner {
    since: SystemTime,
    /// Boxed, because a tree has room for half as many again as it holds.
    nodes: BTreeMap<String, Box<Node>>,
    matrix: Matrix,
    stats: Stats,
    accounting: Accounting,
    /// The additions for all nodes, also for those that are forgotten: no total is larger.
    ever: u64,
    /// Names that several nodes report are stored once.
    names: SharedNames,
    mirrors: broadcast::Sender<MirrorResponse>,
    is_closed: bool,
    last_expiry: Instant,
}

/// The last counters of a node.
#[derive(Debug, Default)]
struct Node {
    boot_id: [u8; 16],
    heard: Option<Instant>,
    /// Whether all of the node's counts were accepted here, or mirrored while another replica accepted them.
    is_current: bool,
    time: Option<SystemTime>,
    flow_server: Option<FlowServer>,
    matrix: BTreeMap<Pair, Counter>,
    stats: Stats,
    pods: AHashMap<TransferKey, Counter>,
    attributed: ByLocality,
    sent_by_known: ByLocality,
    /// The additions for it over all its counters: a node that restarts its counters again and again adds no more.
    added: u64,
}

/// A node with reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporting {
    /// The node's name.
    pub node: String,
    /// The address of its flow server, if other nodes can reach it.
    pub flow_server: Option<FlowServer>,
    /// The age of its last report.
    pub age: Duration,
}

impl ClusterTotals {
    /// Limits each sum to `series` series, and the number of nodes to `limit`. With `by_interval`, pairs of pods are
    /// also summed for each interval.
    pub fn new(series: usize, by_interval: bool, limit: usize) -> Self {
        let inner = Inner {
            since: SystemTime::now(),
            nodes: BTreeMap::new(),
            matrix: Matrix::default(),
            stats: Stats::default(),
            accounting: Accounting::new(series, by_interval).without_transfers(),
            ever: 0,
            names: SharedNames::default(),
            mirrors: broadcast::Sender::new(BEHIND),
            is_closed: false,
            last_expiry: Instant::now(),
        };
        Self {
            inner: Mutex::new(inner),
            incoming: Mutex::new(None),
            is_complete: AtomicBool::new(false),
            is_synced: AtomicBool::new(false),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A report is checked before anything is added.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the growth of a node's counters.
    ///
    /// # Errors
    /// The report is malformed, there are too many nodes, or this replica is ending. Nothing was added.
    pub fn take(&self, report: ReportRequest, now: Instant) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(Refused::Closed);
        }
        let read = Read::new(&report, &mut inner.names)?;
        if !inner.nodes.contains_key(&report.node) && inner.nodes.len() >= self.limit {
            return Err(Refused::Full(self.limit));
        }
        let added = inner.would_add(&report.node, &read);
        let added =
            added.filter(|added| *added <= MAX_COUNTER).ok_or(Malformed("it has more bytes than a node can send"))?;
        inner.take(&report, read, now);
        let before = inner.nodes.get_mut(&report.node).map(|node| std::mem::replace(&mut node.added, added));
        inner.ever += added - before.unwrap_or(added);
        // Sending fails without a standby replica.
        let _ = inner.mirrors.send(MirrorResponse { response: Some(Response::Report(report)) });
        Ok(())
    }

    /// The totals.
    pub fn counted(&self) -> CounterSnapshot {
        let inner = self.lock();
        CounterSnapshot {
            whose: CounterScope::Cluster(inner.nodes.keys().cloned().collect()),
            time: inner.nodes.values().filter_map(|node| node.time).min().unwrap_or(inner.since),
            // The first of all, or unknown if that of a node is.
            began: inner.nodes.values().map(|node| counters::began(node.boot_id)).min().flatten(),
            epoch: 0,
            matrix: inner.matrix.clone(),
            stats: Stat::ALL.map(|stat| (stat, inner.stats[stat as usize])).into(),
            totals: inner.accounting.totals().clone(),
        }
    }

    /// The nodes with the ages of their reports.
    pub fn nodes(&self, now: Instant) -> Vec<Reporting> {
        let inner = self.lock();
        let nodes = inner.nodes.iter().map(|(name, node)| Reporting {
            node: name.clone(),
            flow_server: node.flow_server.clone(),
            age: node.age(now),
        });
        nodes.collect()
    }

    /// Takes the cross-zone pairs since the last call.
    pub fn take_interval(&self) -> Vec<Line> {
        let mut inner = self.lock();
        let _ = inner.mirrors.send(MirrorResponse { response: Some(Response::IntervalTaken(true)) });
        inner.accounting.take_interval()
    }

    /// The same, with traffic for the history.
    #[must_use]
    pub fn with_growth(self) -> Self {
        let mut inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.accounting = inner.accounting.with_growth();
        Self { inner: Mutex::new(inner), ..self }
    }

    /// Traffic since the last call, for the history; `None` if it is not kept.
    pub fn take_growth(&self, all: bool) -> TrafficDelta {
        self.lock().accounting.growth_mut().map(|growth| growth.take(all)).unwrap_or_default()
    }

    /// Ends idle series, and forgets removed nodes. Must be called regularly.
    pub fn expire(&self, now: Instant) {
        let mut inner = self.lock();
        inner.accounting.expire(now);
        if now.saturating_duration_since(inner.last_expiry) < Duration::from_secs(60) {
            return;
        }
        inner.last_expiry = now;
        inner.nodes.retain(|_, node| node.age(now) < FORGOTTEN);
        inner.names.expire();
    }

    /// Ends the acceptance of reports, and notifies the standby replicas. Returns whether there are any.
    pub fn close(&self) -> bool {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.mirrors.send(MirrorResponse { response: Some(Response::Last(true)) }).is_ok()
    }

    /// Whether everything that the leader before has served is known here.
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Relaxed)
    }

    /// Whether this replica stands by with the leader's whole state: its failure would cost nothing.
    pub fn is_synced(&self) -> bool {
        self.is_synced.load(Ordering::Relaxed)
    }

    /// The leader's mirror stream has ended.
    pub fn mirror_ended(&self) {
        self.is_synced.store(false, Ordering::Relaxed);
    }

    /// Whether another replica mirrors this one.
    pub fn is_mirrored(&self) -> bool {
        self.lock().mirrors.receiver_count() > 0
    }

    /// Marks it unknown which traffic of the nodes other replicas have logged.
    pub fn lose_track(&self) {
        self.lock().nodes.values_mut().for_each(|node| node.is_current = false);
    }

    /// The complete state, and a receiver of the reports that follow.
    pub fn mirror(&self, now: Instant) -> (Vec<MirrorResponse>, broadcast::Receiver<MirrorResponse>) {
        let inner = self.lock();
        let sums = ClusterSums {
            since: Some(inner.since.into()),
            zones: inner.matrix.cells().map(|(pair, counter)| wire::zone_pair(pair, counter)).collect(),
            reasons: reasons(&inner.stats),
            sums: Some(wire::sums(&inner.accounting)),
        };
        let known = inner.nodes.iter().map(|(name, node)| {
            // The age of a node's last report is passed on.
            let age = prost_types::Duration::try_from(node.age(now)).ok();
            Response::Node(NodeState { report: Some(node.report(name)), age, added: node.added })
        });
        let all = std::iter::once(Response::Sums(sums)).chain(known).chain([Response::Whole(true)]);
        (all.map(|response| MirrorResponse { response: Some(response) }).collect(), inner.mirrors.subscribe())
    }

    /// Applies a message of the leader's mirror stream.
    ///
    /// # Errors
    /// The message is malformed.
    pub fn apply_mirrored(&self, message: MirrorResponse, now: Instant) -> Result<(), Refused> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        match (message.response, &mut *incoming) {
            (Some(Response::Report(report)), None) => return self.take(report, now),
            (Some(Response::IntervalTaken(_)), None) => drop(self.lock().accounting.take_interval()),
            (Some(Response::Sums(sums)), _) => {
                self.is_complete.store(false, Ordering::Relaxed);
                self.mirror_ended();
                *incoming = Some(self.lock().with_sums(sums, now)?);
            }
            (Some(Response::Last(_)), None) => self.is_complete.store(true, Ordering::Relaxed),
            (Some(Response::Node(NodeState { report, age, added })), Some(incoming)) => {
                let report = report.unwrap_or_default();
                let read = Read::new(&report, &mut incoming.names)?;
                let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
                let heard = now.checked_sub(age).unwrap_or(now);
                let node = Node { added, ..Node::new(&report, read, heard) };
                incoming.nodes.insert(report.node.clone(), Box::new(node));
            }
            (Some(Response::Whole(_)), Some(_)) => {
                if let Some(incoming) = incoming.take() {
                    *self.lock() = incoming;
                    self.is_synced.store(true, Ordering::Relaxed);
                }
            }
            (Some(_), _) => return Err(Malformed("the leader's messages are out of order").into()),
            // A message of a newer version.
            (None, _) => {}
        }
        Ok(())
    }
}

impl Knowledge for ClusterTotals {
    fn is_blank(&self) -> bool {
        self.lock().nodes.is_empty()
    }

    fn missed_a_term(&self) {
        self.is_complete.store(false, Ordering::Relaxed);
    }
}

impl Inner {
    /// A new state with the sums of another replica.
    fn with_sums(&self, sums: ClusterSums, now: Instant) -> Result<Self, Malformed> {
        let mut state = Self {
            since: sums.since.and_then(|since| since.try_into().ok()).unwrap_or(self.since),
            nodes: BTreeMap::new(),
            matrix: Matrix::default(),
            stats: Stats::default(),
            accounting: self.accounting.without_counts(),
            ever: 0,
            names: SharedNames::default(),
            mirrors: self.mirrors.clone(),
            is_closed: self.is_closed,
            last_expiry: now,
        };
        let matrix = wire::matrix(&sums.zones, &mut state.names)?;
        matrix.into_iter().for_each(|(pair, counter)| state.matrix.add(pair, counter));
        wire::stats(&sums.reasons).into_iter().for_each(|(stat, counter)| state.stats[stat as usize] = counter);
        wire::restore(&mut state.accounting, sums.sums.unwrap_or_default(), now);
        let Totals { pods, senders, .. } = state.accounting.totals();
        let flows = [pods.sum(), senders.sum()].into_iter().flat_map(ByLocality::iter).map(|(_, counter)| counter);
        let all = state.matrix.cells().map(|(_, counter)| counter).chain(state.stats).chain(flows);
        state.ever = all.map(most).fold(0, u64::saturating_add);
        Ok(state)
    }

    /// The additions for a node including this report, in bytes or packets, whichever is more; `None` if a total would
    /// overflow.
    fn would_add(&self, node: &str, read: &Read) -> Option<u64> {
        let known = self.nodes.get(node);
        let (same, none) = (known.filter(|known| known.boot_id == read.boot_id), Counter::default());
        let zones = read.matrix.iter().map(|(pair, counter)| {
            most(minus(*counter, same.and_then(|known| known.matrix.get(pair)).copied().unwrap_or(none)))
        });
        let stats = read
            .stats
            .iter()
            .map(|(stat, counter)| most(minus(*counter, same.map_or(none, |known| known.stats[*stat as usize]))));
        let localities = [(&read.attributed, same.map(|known| &known.attributed))].into_iter();
        let localities = localities.chain([(&read.sent_by_known, same.map(|known| &known.sent_by_known))]);
        let flows = localities.flat_map(|(now, before)| {
            now.iter().map(move |(at, counter)| most(minus(counter, before.map_or(none, |known| known.get(at)))))
        });
        let before = known.map_or(0, |known| known.added);
        let added = zones.chain(stats).chain(flows).try_fold(before, u64::checked_add)?;
        self.ever.checked_add(added - before)?;
        Some(added)
    }

    fn take(&mut self, report: &ReportRequest, read: Read, now: Instant) {
        let Self { nodes, matrix, stats, accounting, .. } = self;
        let node = nodes.entry(report.node.clone()).or_default();
        // If another replica summed the traffic, it may have logged it, too.
        let is_logged = !node.is_current && report.taken_before;
        if node.boot_id != read.boot_id {
            // The sums keep the counts of the counters before.
            **node = Node { boot_id: read.boot_id, added: node.added, ..Node::default() };
        }
        node.remember(report, now);
        for (pair, counter) in read.matrix {
            let new = grow(node.matrix.entry(pair.clone()).or_default(), counter);
            if let Some(growth) = accounting.growth_mut().filter(|_| !is_logged) {
                growth.add_matrix(&pair.source, &pair.destination, new);
            }
            matrix.add(pair, new);
        }
        for (stat, counter) in read.stats {
            stats[stat as usize] += grow(&mut node.stats[stat as usize], counter);
        }
        // The pairs can't add more than the attributed counters have grown by.
        let mut left = grown(&mut node.attributed, read.attributed);
        let mut left_of_known = grown(&mut node.sent_by_known, read.sent_by_known);
        for key in &read.ended {
            node.pods.remove(key);
        }
        let mut lives: Option<AHashSet<TransferKey>> = report.whole.then(AHashSet::new);
        for (key, counter) in read.pods {
            let locality = Locality::between(&key.ends.source.1, &key.ends.destination.1);
            if node.pods.len() >= PAIRS && !node.pods.contains_key(&key) {
                // It stays in the rest.
                continue;
            }
            // Bytes beyond what is left stay in the rest: they take no part of what other pairs send later.
            let new = least(grow(node.pods.entry(key.clone()).or_default(), counter), left.get(locality));
            left.subtract(locality, new);
            let (source, destination) = (end(&key.ends.source), end(&key.ends.destination));
            let transfer = Transfer { source: &source, destination: &destination, service: key.service };
            if source.endpoint.is_some() {
                left_of_known.subtract(locality, new);
            }
            if new == Counter::default() {
            } else if is_logged {
                accounting.add_to_totals(&transfer, new, now);
            } else {
                accounting.add(&transfer, new, now);
            }
            if let Some(lives) = &mut lives {
                lives.insert(key);
            }
        }
        if let Some(lives) = lives {
            node.pods.retain(|key, _| lives.contains(key));
        }
        accounting.add_rest(left, left_of_known, !is_logged);
    }
}

/// An external prefix is in no other sum.
fn end((endpoint, place): &(Option<EndpointKey>, Place)) -> TransferEnd {
    let named = endpoint.as_ref().map(|endpoint| Arc::clone(&endpoint.0));
    let (external, endpoint) = match named {
        Some(named) if named.class().is_some() => (Some(named), None),
        named => (None, named),
    };
    TransferEnd { address: None, endpoint, place: place.clone(), external }
}

impl Node {
    /// A node from its first report.
    fn new(report: &ReportRequest, read: Read, heard: Instant) -> Self {
        let Read { boot_id, matrix, stats, pods, attributed, sent_by_known, ended: _ } = read;
        let (matrix, pods) = (matrix.into_iter().collect(), pods.into_iter().collect());
        let mut node = Self { boot_id, matrix, pods, attributed, sent_by_known, ..Self::default() };
        stats.into_iter().for_each(|(stat, counter)| node.stats[stat as usize] = counter);
        node.remember(report, heard);
        node
    }

    /// The time since its last report.
    fn age(&self, now: Instant) -> Duration {
        self.heard.map_or(Duration::MAX, |heard| now.saturating_duration_since(heard))
    }

    fn remember(&mut self, report: &ReportRequest, heard: Instant) {
        (self.heard, self.is_current) = (Some(heard), true);
        self.time = report.time.and_then(|time| time.try_into().ok());
        self.flow_server.clone_from(&report.flow_server);
    }

    /// The node's counts, in the form of its own report.
    fn report(&self, name: &str) -> ReportRequest {
        let mut names = Names::default();
        let line = |(key, counter): (&TransferKey, &Counter)| {
            let mut end = |(endpoint, place): &(Option<EndpointKey>, Place)| {
                Some(names.end(endpoint.as_ref().map(|endpoint| &*endpoint.0), place))
            };
            let (source, destination) = (end(&key.ends.source), end(&key.ends.destination));
            let service = wire::service_message(key.service);
            v1::Line { source, destination, counters: vec![(*counter).into()], locality: 0, service }
        };
        let pods = self.pods.iter().map(line).collect();
        ReportRequest {
            node: name.to_owned(),
            boot_id: self.boot_id.to_vec(),
            time: self.time.map(Into::into),
            flow_server: self.flow_server.clone(),
            zones: self.matrix.iter().map(|(pair, counter)| wire::zone_pair(pair, *counter)).collect(),
            reasons: reasons(&self.stats),
            names: Some(names.into()),
            pods,
            whole: true,
            ended: Vec::new(),
            attributed: self.attributed.into(),
            sent_by_known: self.sent_by_known.into(),
            taken_before: true,
            // A new leader learns it from the agents.
            hook: None,
        }
    }
}

fn reasons(stats: &Stats) -> Vec<v1::Reason> {
    Stat::ALL.into_iter().zip(stats).map(|(stat, counter)| wire::reason(stat, *counter)).collect()
}

fn minus(a: Counter, b: Counter) -> Counter {
    Counter { bytes: a.bytes.saturating_sub(b.bytes), packets: a.packets.saturating_sub(b.packets) }
}

const fn most(Counter { bytes, packets }: Counter) -> u64 {
    if bytes > packets { bytes } else { packets }
}

fn least(a: Counter, b: Counter) -> Counter {
    Counter { bytes: a.bytes.min(b.bytes), packets: a.packets.min(b.packets) }
}

/// The growth of a counter, whose last value is replaced.
fn grow(known: &mut Counter, now: Counter) -> Counter {
    let new = minus(now, *known);
    *known += new;
    new
}

fn grown(known: &mut ByLocality, now: ByLocality) -> ByLocality {
    let mut new = ByLocality::default();
    for (locality, counter) in now.iter() {
        new.add(locality, minus(counter, known.get(locality)));
    }
    *known += new;
    new
}

#[cfg(test)]
mod tests;
