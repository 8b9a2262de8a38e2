//! The last reading of the counters, with the growth since the one before: rows for the screen. Every name is a text
//! that a terminal shows as it is.

use super::amount::{Amount, Prices};
use crate::{
    cli::plain::plain,
    proto::v1::{Counter, Place, PlacedEndpoint, WatchResponse},
};
use std::collections::{BTreeMap, VecDeque};

/// The rates that are kept of a pair of pods, for its course.
const COURSE: usize = 120;
/// The characters of a name.
const NAME: usize = 253;

/// Traffic between two zones, IP versions and directions together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ZoneRoute {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) locality: String,
}

impl ZoneRoute {
    /// Whether the traffic crosses zones or regions.
    pub(super) fn crosses(&self) -> bool {
        is_crossing(&self.locality)
    }
}

pub(super) fn is_crossing(locality: &str) -> bool {
    matches!(locality, "cross-zone" | "cross-region")
}

/// One end of a pair of pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodEnd {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) kind: String,
    pub(super) workload: String,
    pub(super) zone: String,
    pub(super) region: String,
}

impl PodEnd {
    /// `namespace/pod`.
    pub(super) fn name(&self) -> String {
        match (self.namespace.as_str(), self.pod.as_str()) {
            (_, "") => "?".to_owned(),
            ("", pod) => pod.to_owned(),
            (namespace, pod) => format!("{namespace}/{pod}"),
        }
    }

    /// `namespace/workload`; a pod without a workload is its own.
    pub(super) fn workload(&self) -> String {
        match (self.namespace.as_str(), self.workload.as_str()) {
            (_, "") => self.name(),
            ("", workload) => workload.to_owned(),
            (namespace, workload) => format!("{namespace}/{workload}"),
        }
    }
}

/// Traffic between two pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodRoute {
    pub(super) source: PodEnd,
    pub(super) destination: PodEnd,
    pub(super) locality: String,
}

/// What the screen shows of the traffic.
#[derive(Clone, Debug, Default)]
pub(super) struct Readings {
    /// The time of the last reading, as `HH:MM:SS`; empty before the first.
    pub(super) time: String,
    pub(super) nodes: Vec<String>,
    pub(super) zones: BTreeMap<ZoneRoute, Amount>,
    pub(super) pairs: BTreeMap<PodRoute, Amount>,
    /// The traffic of pairs that are not listed.
    pub(super) other_pairs: u64,
    /// Bytes counted with a caveat, by reason.
    pub(super) caveats: Vec<(String, u64)>,
    seconds: Option<f64>,
    course: BTreeMap<PodRoute, VecDeque<u64>>,
}

/// Traffic that crosses zones, of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct WorkloadTraffic {
    pub(super) sent: Amount,
    pub(super) received: Amount,
}

impl Readings {
    /// The readings after an answer.
    pub(super) fn after(&self, answer: &WatchResponse, prices: &Prices) -> Self {
        let seconds = answer.time.map(|time| time.seconds as f64 + f64::from(time.nanos) / 1e9);
        let elapsed = seconds.zip(self.seconds).map(|(now, then)| now - then).filter(|elapsed| *elapsed > 0.0);
        let amount = |counter: Option<Counter>| {
            let Counter { bytes, packets } = counter.unwrap_or_default();
            Amount { bytes, packets, ..Amount::default() }
        };
        let mut zones = BTreeMap::<ZoneRoute, Amount>::new();
        for pair in &answer.zones {
            let key = ZoneRoute {
                source: zone(pair.source.as_ref()),
                destination: zone(pair.destination.as_ref()),
                locality: name(&pair.locality),
            };
            *zones.entry(key).or_default() += amount(pair.counter);
        }
        let mut pairs = BTreeMap::<PodRoute, Amount>::new();
        for pair in &answer.pairs {
            let key = PodRoute {
                source: end(pair.source.as_ref()),
                destination: end(pair.destination.as_ref()),
                locality: name(&pair.locality),
            };
            *pairs.entry(key).or_default() += amount(pair.counter);
        }
        let mut readings = Self {
            time: answer.time.map(clock).unwrap_or_default(),
            nodes: answer.nodes.iter().map(|node| name(node)).collect(),
            zones,
            pairs,
            other_pairs: bytes(answer.other_pairs),
            caveats: caveats(answer),
            seconds,
            course: BTreeMap::new(),
        };
        readings.add_rates(self, elapsed);
        readings.price(prices);
        readings
    }

    /// A pair of zones that was not there grew from nothing; a pair of pods that was not listed may have been there.
    fn add_rates(&mut self, before: &Self, elapsed: Option<f64>) {
        let Some(elapsed) = elapsed else { return };
        let rate = |now: u64, then: u64| Some(now.saturating_sub(then) as f64 / elapsed);
        for (pair, amount) in &mut self.zones {
            amount.rate = rate(amount.bytes, before.zones.get(pair).map_or(0, |then| then.bytes));
        }
        for (pair, amount) in &mut self.pairs {
            amount.rate = before.pairs.get(pair).and_then(|then| rate(amount.bytes, then.bytes));
            let mut course = before.course.get(pair).cloned().unwrap_or_default();
            course.push_back(amount.rate.unwrap_or_default() as u64);
            if course.len() > COURSE {
                course.pop_front();
            }
            self.course.insert(pair.clone(), course);
        }
    }

    /// Gives all traffic its cost by these prices.
    pub(super) fn price(&mut self, prices: &Prices) {
        for (pair, amount) in &mut self.zones {
            *amount = amount.priced(prices, &pair.source, &pair.destination);
        }
        for (pair, amount) in &mut self.pairs {
            *amount = amount.priced(prices, &pair.source.zone, &pair.destination.zone);
        }
    }

    /// The rates of a pair of pods, the oldest first.
    pub(super) fn course(&self, pair: &PodRoute) -> Vec<u64> {
        self.course.get(pair).map(|course| course.iter().copied().collect()).unwrap_or_default()
    }

    /// What workloads send and receive across zones, of the listed pairs.
    pub(super) fn workloads(&self) -> BTreeMap<(String, String), WorkloadTraffic> {
        let mut workloads = BTreeMap::<(String, String), WorkloadTraffic>::new();
        for (pair, amount) in self.pairs.iter().filter(|(pair, _)| is_crossing(&pair.locality)) {
            let of = |end: &PodEnd| (end.workload(), end.kind.clone());
            workloads.entry(of(&pair.source)).or_default().sent += *amount;
            workloads.entry(of(&pair.destination)).or_default().received += *amount;
        }
        workloads
    }

    /// All traffic across zones, and all traffic.
    pub(super) fn sums(&self) -> (Amount, Amount) {
        let (mut crossing, mut all) = (Amount::default(), Amount::default());
        for (pair, amount) in &self.zones {
            all += *amount;
            if pair.crosses() {
                crossing += *amount;
            }
        }
        (crossing, all)
    }
}

/// The bytes of a counter that may be missing.
pub(super) fn bytes(counter: Option<Counter>) -> u64 {
    counter.map_or(0, |counter| counter.bytes)
}

fn name(text: &str) -> String {
    plain(&text.chars().take(NAME).collect::<String>())
}

fn zone(place: Option<&Place>) -> String {
    place.map(|place| name(&place.zone)).unwrap_or_default()
}

fn end(end: Option<&PlacedEndpoint>) -> PodEnd {
    let PlacedEndpoint { namespace, pod, workload_kind, workload, place } = end.cloned().unwrap_or_default();
    let region = place.as_ref().map(|place| name(&place.region)).unwrap_or_default();
    let zone = zone(place.as_ref());
    PodEnd {
        namespace: name(&namespace),
        pod: name(&pod),
        kind: name(&workload_kind),
        workload: name(&workload),
        zone,
        region,
    }
}

/// The time of a day in UTC.
fn clock(time: prost_types::Timestamp) -> String {
    let second = time.seconds.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Bytes counted with a caveat, by reason. Super-packets are counted as they should be, so they are no caveat.
pub(super) fn caveats(answer: &WatchResponse) -> Vec<(String, u64)> {
    let counted = answer.reasons.iter().filter(|reason| !reason.outside && reason.name != "super_packet");
    counted.map(|reason| (name(&reason.name), bytes(reason.counter))).filter(|(_, bytes)| *bytes > 0).collect()
}
