//! Sums the growth of flow entries by pod, workload and namespace.
//!
//! Memory is bounded regardless of the cluster's size, and no byte is lost: bytes without a series of their own go
//! to a common sum, `other`. Pure; time is a parameter.

mod ends;
mod growth;
mod interval;
pub mod series;
mod top;

pub use ends::{Directed, EndKey, EndpointKey, LocatedPod, Pod, Service, Transfer, TransferEnd, TransferKey, Workload};
pub use growth::{GrowthKey, NodeAt, TrafficAccumulator, TrafficDelta};
pub use interval::{Interval, IntervalKey, Line};
use top::Row;
pub use top::{ByLocality, Top};

use crate::zones::Locality;
use meridian_abi::Counter;
use std::{sync::Arc, time::Instant};

/// Sums since the start, each with a bounded number of series.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Between pods.
    pub pods: Top<Directed<LocatedPod>>,
    /// The same, by the service that is used.
    pub transfers: Top<TransferKey>,
    /// Between workloads; `None` stands for ends without a known workload.
    pub workloads: Top<Directed<Option<Workload>>>,
    /// By the pod that sent. Traffic of unknown senders is left out.
    pub senders: Top<Pod>,
    /// Between namespaces; nodes and unknown endpoints have the empty namespace.
    pub namespaces: Top<Directed<Arc<str>>>,
}

impl Totals {
    fn new(series: usize) -> Self {
        let (pods, transfers, workloads) = (Top::new(series), Top::new(series), Top::new(series));
        Self { pods, transfers, workloads, senders: Top::new(series), namespaces: Top::new(series) }
    }

    /// The traffic of series that ended, by the sum's name and the locality.
    pub fn ended(&self) -> impl Iterator<Item = (&'static str, Locality, Counter)> {
        let Self { pods, transfers: _, workloads, senders, namespaces } = self;
        let sums = [
            ("pod", pods.ended()),
            ("workload", workloads.ended()),
            ("sender", senders.ended()),
            ("namespace", namespaces.ended()),
        ];
        let all = |(sum, ended): (_, ByLocality)| ended.iter().map(move |(locality, counter)| (sum, locality, counter));
        sums.into_iter().flat_map(all)
    }

    fn rows(&mut self, transfer: &Transfer<'_>, now: Instant) -> Rows {
        let Transfer { source, destination, service } = *transfer;
        let pod = |end: &TransferEnd| end.endpoint.as_ref().map(|endpoint| Pod(Arc::clone(endpoint)));
        let workload = |end: &TransferEnd| end.endpoint.as_ref().map(|endpoint| Workload(Arc::clone(endpoint)));
        let placed = |end: &TransferEnd| (pod(end), end.place.clone());
        let named =
            |end: &TransferEnd| (end.named().map(|endpoint| EndpointKey(Arc::clone(endpoint))), end.place.clone());
        let ends = || Directed { source: named(source), destination: named(destination) };
        let workloads = || Directed { source: workload(source), destination: workload(destination) };
        let namespace = |end: &TransferEnd| {
            end.endpoint.as_ref().map(|endpoint| Arc::clone(&endpoint.namespace)).unwrap_or_default()
        };
        let namespaces = || Directed { source: namespace(source), destination: namespace(destination) };
        Rows {
            locality: Locality::between(&source.place, &destination.place),
            pods: self.pods.row(Directed { source: placed(source), destination: placed(destination) }, now),
            transfers: self.transfers.row_made(|| TransferKey { ends: ends(), service }, now),
            workloads: self.workloads.row_made(workloads, now),
            senders: pod(source).map(|sender| self.senders.row(sender, now)),
            namespaces: self.namespaces.row_made(namespaces, now),
            pair: None,
            version: 0,
        }
    }

    fn add_to(&mut self, rows: &Rows, new: Counter, now: Instant) {
        let Rows { locality, pods, transfers, workloads, senders, namespaces, .. } = *rows;
        self.pods.add_to(pods, locality, new, now);
        self.transfers.add_to(transfers, locality, new, now);
        self.workloads.add_to(workloads, locality, new, now);
        if let Some(senders) = senders {
            self.senders.add_to(senders, locality, new, now);
        }
        self.namespaces.add_to(namespaces, locality, new, now);
    }

    fn version(&self) -> u64 {
        let Self { pods, transfers, workloads, senders, namespaces } = self;
        [pods.version(), transfers.version(), workloads.version(), senders.version(), namespaces.version()]
            .into_iter()
            .map(u64::from)
            .sum()
    }
}

/// The rows of the sums to which the traffic between two ends is added: found once, used until a sum gives a row to
/// another key.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    locality: Locality,
    pods: Row,
    transfers: Row,
    workloads: Row,
    /// `None`: no known pod is the sender.
    senders: Option<Row>,
    namespaces: Row,
    /// `None`: the traffic is in no interval.
    pair: Option<u32>,
    version: u64,
}

/// Sums the growth of flow entries.
#[derive(Debug)]
pub struct Accounting {
    totals: Totals,
    interval: Option<Interval>,
    growth: Option<TrafficAccumulator>,
}

impl Accounting {
    /// Limits each sum to `series` series. With `by_interval`, pairs of pods are also summed for each interval.
    pub fn new(series: usize, by_interval: bool) -> Self {
        Self { totals: Totals::new(series), interval: by_interval.then(Interval::default), growth: None }
    }

    /// Switches the sums by workload and by namespace off where they are not needed: their `other` then holds
    /// everything.
    #[must_use]
    pub fn only(mut self, workloads: bool, namespaces: bool) -> Self {
        if !workloads {
            self.totals.workloads = Top::new(0);
        }
        if !namespaces {
            self.totals.namespaces = Top::new(0);
        }
        self
    }

    /// The same, without sums by service: they are for reports.
    #[must_use]
    pub fn without_transfers(mut self) -> Self {
        self.totals.transfers = Top::new(0);
        self
    }

    /// The same, with traffic for the history.
    #[must_use]
    pub fn with_growth(mut self) -> Self {
        self.growth = Some(TrafficAccumulator::default());
        self
    }

    /// A copy with the same settings and no counts.
    #[must_use]
    pub fn without_counts(&self) -> Self {
        let anew = Self::new(self.totals.pods.room(), self.interval.is_some());
        let anew = if self.totals.transfers.room() == 0 { anew.without_transfers() } else { anew };
        if self.growth.is_some() { anew.with_growth() } else { anew }
    }

    /// Adds the traffic between two ends.
    pub fn add(&mut self, transfer: &Transfer<'_>, new: Counter, now: Instant) {
        let rows = self.rows(transfer, now);
        self.add_to(&rows, transfer, new, now);
    }

    /// The rows of all sums to which the traffic between two ends is added.
    pub fn rows(&mut self, transfer: &Transfer<'_>, now: Instant) -> Rows {
        let rows = self.totals.rows(transfer, now);
        let pair = self.interval.as_mut().and_then(|interval| interval.row(transfer, rows.locality));
        Rows { pair, version: self.version(), ..rows }
    }

    /// Whether the rows are still those of their ends.
    pub fn is_current(&self, rows: &Rows) -> bool {
        rows.version == self.version()
    }

    fn version(&self) -> u64 {
        self.totals.version() + self.interval.as_ref().map_or(0, Interval::version)
    }

    /// Adds the traffic between two ends to their rows, which are current.
    pub fn add_to(&mut self, rows: &Rows, transfer: &Transfer<'_>, new: Counter, now: Instant) {
        self.totals.add_to(rows, new, now);
        if let (Some(interval), Some(pair)) = (&mut self.interval, rows.pair) {
            interval.add_to(pair, new);
        }
        if let Some(growth) = &mut self.growth {
            growth.add(transfer, new);
        }
    }

    /// Adds to the totals only, neither to the interval nor to the history: another process may have reported it there.
    pub fn add_to_totals(&mut self, transfer: &Transfer<'_>, new: Counter, now: Instant) -> Locality {
        let rows = self.totals.rows(transfer, now);
        self.totals.add_to(&rows, new, now);
        rows.locality
    }

    /// Adds traffic of which only the locality is known. `sent_by_known` is the part that known pods sent. With
    /// `to_interval` it is also added to the interval; without, another process may have reported it there already.
    pub fn add_rest(&mut self, rest: ByLocality, sent_by_known: ByLocality, to_interval: bool) {
        if let Some(interval) = self.interval.as_mut().filter(|_| to_interval) {
            interval.add_rest(rest);
        }
        let Totals { pods, transfers, workloads, senders, namespaces } = &mut self.totals;
        pods.add_to_other(rest);
        transfers.add_to_other(rest);
        workloads.add_to_other(rest);
        namespaces.add_to_other(rest);
        senders.add_to_other(sent_by_known);
    }

    /// Ends series that are idle or outgrown by others. Must be called regularly.
    pub fn expire(&mut self, now: Instant) {
        self.totals.pods.expire(now);
        self.totals.transfers.expire(now);
        self.totals.workloads.expire(now);
        self.totals.senders.expire(now);
        self.totals.namespaces.expire(now);
    }

    /// The sums since the start.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The sums since the start, to restore the counts of an earlier process.
    pub const fn totals_mut(&mut self) -> &mut Totals {
        &mut self.totals
    }

    /// The pairs of this interval, if pairs are summed by interval.
    pub const fn interval(&self) -> Option<&Interval> {
        self.interval.as_ref()
    }

    /// The pairs of this interval, to restore the counts of an earlier process.
    pub const fn interval_mut(&mut self) -> Option<&mut Interval> {
        self.interval.as_mut()
    }

    /// The growth for the history, if it is kept.
    pub const fn growth_mut(&mut self) -> Option<&mut TrafficAccumulator> {
        self.growth.as_mut()
    }

    /// Takes the pairs of pods in different zones since the last call, the largest first. Empty if pairs are not
    /// summed by interval.
    pub fn take_interval(&mut self) -> Vec<Line> {
        self.interval.as_mut().map(Interval::take).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{self, Endpoint},
        zones::{Place, Zone},
    };
    use meridian_abi::flow::ServiceSide;
    use std::net::IpAddr;

    const PODS: usize = 10_000;
    const SERIES: usize = 1000;

    fn place(n: usize) -> Place {
        let (zone, region) = [("eu-1a", "eu-1"), ("eu-1a", "eu-1"), ("eu-1b", "eu-1"), ("eu-2a", "eu-2")][n];
        Place::Zone(Arc::new(Zone { name: zone.into(), region: region.into() }))
    }

    fn end(n: usize) -> TransferEnd {
        let workload = identity::Workload { kind: "Deployment".into(), name: format!("w{}", n % 3000) };
        let endpoint = Endpoint {
            namespace: format!("ns{}", n % 3000 % 40).into(),
            pod: format!("p{n}").into(),
            workload: Some(Arc::new(workload)),
            ..Endpoint::default()
        };
        let address = IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
        TransferEnd { address: Some(address), endpoint: Some(Arc::new(endpoint)), place: place(n % 4), external: None }
    }

    fn sum<K: Clone + Eq + std::hash::Hash>(top: &Top<K>) -> ByLocality {
        assert!(top.len() <= SERIES);
        let mut sum = top.other();
        sum += top.ended();
        top.series().for_each(|(_, total)| sum += total);
        sum
    }

    #[test]
    fn ten_thousand_pods_that_talk_to_ten_thousand_pods_are_bounded_and_sum_up() {
        let ends: Vec<TransferEnd> = (0..PODS).map(end).collect();
        let mut accounting = Accounting::new(SERIES, true);
        let start = Instant::now();
        let (mut expected, mut crossing) = (ByLocality::default(), 0);
        for round in 0..30 {
            let now = start + std::time::Duration::from_secs(60 * round as u64);
            for source in 0..PODS {
                // Each round pairs the pods differently; some pairs carry far more traffic.
                let destination = (source * 7919 + round * 104_729) % PODS;
                let packets = 1 + (source * round % 97) as u64;
                let new = Counter { bytes: packets * (60 + source as u64 % 1400), packets };
                let service = Service::new([80, 443][round % 2], 6, ServiceSide::Destination);
                let (source, destination) = (&ends[source], &ends[destination]);
                let locality = Locality::between(&source.place, &destination.place);
                expected.add(locality, new);
                if matches!(locality, Locality::CrossZone | Locality::CrossRegion) {
                    crossing += new.bytes;
                }
                accounting.add(&Transfer { source, destination, service }, new, now);
            }
            accounting.expire(now);
        }
        let Totals { pods, transfers, workloads, senders, namespaces } = accounting.totals();
        let sums = [sum(pods), sum(transfers), sum(workloads), sum(senders), sum(namespaces)];
        assert_eq!(sums, [expected; 5]);
        assert!(pods.ended() != ByLocality::default() && pods.other() != ByLocality::default());
        let lines = accounting.take_interval();
        assert!(lines.len() <= Interval::ROOM + 16, "{}", lines.len());
        assert!(lines.is_sorted_by_key(|line| std::cmp::Reverse(line.counter.bytes)));
        assert_eq!(lines.iter().map(|line| line.counter.bytes).sum::<u64>(), crossing);
        assert!(accounting.take_interval().is_empty());
    }

    #[test]
    fn sums_that_nobody_asks_for_are_whole_and_have_no_series() {
        let mut accounting = Accounting::new(SERIES, false).only(false, false);
        for n in 0..100 {
            let (source, destination, service) = (&end(n), &end(n + 1), Service::default());
            accounting.add(
                &Transfer { source, destination, service },
                Counter { bytes: 10, packets: 1 },
                Instant::now(),
            );
        }
        let Totals { pods, workloads, namespaces, .. } = accounting.totals();
        assert_eq!((workloads.len(), namespaces.len(), workloads.other()), (0, 0, sum(pods)));
        assert_eq!(namespaces.other().total(), Counter { bytes: 1000, packets: 100 });
    }
}
