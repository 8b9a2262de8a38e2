//! The difference between Meridian's numbers and the wire's. Whatever happens in between, it must be
//! the same before and after: then all that the wire carried was counted, and nothing else.
//!
//! The cluster never keeps still, and neither is read at the other's moment. But both only grow, and the wire is
//! read before and after: one look leaves the difference between two bounds, and more looks bring them together,
//! at one moment without traffic to a single number.

use super::{
    cluster::{Cluster, until},
    wire::{Pair, Sums},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

/// The maximum age of an agent's numbers: it reads the kernel's counters once a second.
const READ: Duration = Duration::from_millis(1500);
/// How often agents report in these tests.
pub const REPORTS: &str = "4s";
/// From the wire through an agent's report to the controller's page.
const REPORTED: Duration = Duration::from_secs(8);
/// Looks that may fail: on a busy machine an agent may read late.
const LOOKS: usize = 3;

/// Bounds of Meridian's number minus the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    low: i128,
    high: i128,
}

impl Bounds {
    /// The intersection. It is never empty if the difference is constant.
    fn narrowed(self, by: Self) -> Self {
        Self { low: self.low.max(by.low), high: self.high.min(by.high) }
    }

    fn is_exact(self) -> bool {
        self.low >= self.high
    }

    fn is_possible(self) -> bool {
        self.low <= self.high
    }
}

/// The wire and the pages of one cluster.
pub trait Sides {
    /// The key of all sums but those by zones.
    type Key: Clone + Ord + Debug;
    /// How long zones are looked at. Agents and controllers talk between zones, too, and may not pause together; then
    /// the bounds of the zones stay a few packets apart.
    const ZONES: Duration;

    /// The carried bytes by zones.
    fn zones_carried(&self) -> Sums;
    /// The reported bytes by zones.
    fn zones_reported(&self) -> Sums;
    /// The other carried bytes.
    fn others_carried(&self) -> BTreeMap<Self::Key, u64>;
    /// The other reported bytes.
    fn others_reported(&self) -> BTreeMap<Self::Key, u64>;
}

/// The differences by pair of zones, and by the other keys.
#[derive(Debug)]
pub struct Offsets<K> {
    zones: BTreeMap<Pair, Bounds>,
    others: BTreeMap<K, Bounds>,
}

impl<K: Clone + Ord + Debug> Offsets<K> {
    /// Looks until all are exact, except for traffic to no zone, which never stops.
    pub fn look(cluster: &Cluster, sides: &impl Sides<Key = K>) -> Self {
        until("a moment without traffic between pods", || {
            let mut offsets = Self { zones: BTreeMap::new(), others: BTreeMap::new() };
            let start = Instant::now();
            let quiet = sides.others_carried();
            offsets.look_at_zones(cluster, sides);
            thread::sleep(REPORTED.saturating_sub(start.elapsed()));
            let reported = sides.others_reported();
            narrow(&mut offsets.others, &quiet, &reported, &sides.others_carried());
            offsets.others.values().all(|bounds| bounds.is_exact()).then_some(offsets)
        })
    }

    /// Whether all that is reported between pods was carried, and nothing else: agents were there before the pods'
    /// first packet.
    pub fn must_be_nothing(&self) {
        let nothing = Bounds { low: 0, high: 0 };
        let some: Vec<_> = self.others.iter().filter(|(_, bounds)| **bounds != nothing).collect();
        assert!(some.is_empty(), "reported less carried: {some:#?}");
    }

    fn look_at_zones<S: Sides<Key = K>>(&mut self, cluster: &Cluster, sides: &S) {
        if !cluster.is_whole() {
            // The agent of the lost node can't be asked.
            return;
        }
        let (mut carried, start) = (VecDeque::new(), Instant::now());
        until("a moment without traffic between zones", || {
            let now = Instant::now();
            carried.push_back((now, sides.zones_carried()));
            while carried.get(1).is_some_and(|(time, _)| now - *time >= READ) {
                carried.pop_front();
            }
            let reported = sides.zones_reported();
            let after = sides.zones_carried();
            let (time, before) = &carried[0];
            if now - *time < READ {
                return None;
            }
            narrow(&mut self.zones, before, &reported, &after);
            let exact = |(pair, bounds): (&Pair, &Bounds)| pair.1 == "unknown" || bounds.is_exact();
            (self.zones.iter().all(exact) || start.elapsed() > S::ZONES).then_some(())
        });
    }

    /// Looks again, and fails if there is a pair whose difference is not what it was.
    pub fn must_be_as_before(&mut self, what: &str, cluster: &Cluster, sides: &impl Sides<Key = K>) {
        let mut changes = Vec::new();
        for _ in 0..LOOKS {
            let now = Self::look(cluster, sides);
            changes = now.changes(self);
            if changes.is_empty() {
                *self = now;
                return;
            }
            eprintln!("    to be looked at again: {changes:#?}");
        }
        panic!("{what}: {changes:#?}");
    }

    /// Each pair whose difference is not what it was.
    fn changes(&self, since: &Self) -> Vec<String> {
        let mut all = changes("zones", &since.zones, &self.zones);
        all.extend(changes("", &since.others, &self.others));
        all
    }
}

fn changes<K: Ord + Debug>(what: &str, since: &BTreeMap<K, Bounds>, now: &BTreeMap<K, Bounds>) -> Vec<String> {
    let changed = now.iter().filter_map(|(pair, bounds)| {
        let then = since.get(pair).copied().unwrap_or(Bounds { low: 0, high: 0 });
        let same = then.narrowed(*bounds).is_possible();
        (!same).then(|| format!("{what} {pair:?}: reported less carried was {then:?} and is {bounds:?}"))
    });
    changed.collect()
}

fn narrow<K: Clone + Ord>(
    offsets: &mut BTreeMap<K, Bounds>,
    before: &BTreeMap<K, u64>,
    reported: &BTreeMap<K, u64>,
    after: &BTreeMap<K, u64>,
) {
    let pairs: BTreeSet<&K> = after.keys().chain(reported.keys()).collect();
    for pair in pairs {
        let of = |sums: &BTreeMap<K, u64>| i128::from(sums.get(pair).copied().unwrap_or(0));
        let bounds = Bounds { low: of(reported) - of(after), high: of(reported) - of(before) };
        offsets.entry(pair.clone()).and_modify(|known| *known = known.narrowed(bounds)).or_insert(bounds);
    }
}
