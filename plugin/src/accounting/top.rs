//! Sums by key, of which a bounded number are series of their own.
//!
//! A series only grows and begins at zero, so its rate is always right. Keys without a series are summed in `other`.
//! A series ends after a long idle time, or when a key without a series sends far more. Its count then moves to
//! `ended`, outside every series, so that no rate jumps. The series, `other` and `ended` together are all that was
//! added.

use crate::zones::Locality;
use indexmap::IndexMap;
use meridian_abi::Counter;
use std::{
    cmp::Reverse,
    hash::Hash,
    ops::AddAssign,
    time::{Duration, Instant},
};

/// A series ends after this time without traffic.
const IDLE: Duration = Duration::from_secs(3600);
/// The interval at which series are compared with the keys without one.
const PERIOD: Duration = Duration::from_secs(60);
/// A key without a series replaces a series if it sends this many times as much.
const FACTOR: u64 = 2;

/// A counter for each locality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByLocality([Counter; Locality::ALL.len()]);

impl ByLocality {
    /// The counter of a locality.
    pub const fn get(&self, locality: Locality) -> Counter {
        self.0[locality as usize]
    }

    /// The sum over all localities.
    pub fn total(&self) -> Counter {
        self.0.into_iter().sum()
    }

    /// Adds to a locality's counter.
    pub fn add(&mut self, locality: Locality, counter: Counter) {
        self.0[locality as usize] += counter;
    }

    /// Subtracts from a locality's counter, but not below zero.
    pub fn subtract(&mut self, locality: Locality, Counter { bytes, packets }: Counter) {
        let of = &mut self.0[locality as usize];
        *of = Counter { bytes: of.bytes.saturating_sub(bytes), packets: of.packets.saturating_sub(packets) };
    }

    /// Each locality and its counter.
    pub fn iter(self) -> impl Iterator<Item = (Locality, Counter)> {
        Locality::ALL.into_iter().map(move |locality| (locality, self.get(locality)))
    }
}

impl AddAssign for ByLocality {
    fn add_assign(&mut self, other: Self) {
        other.iter().for_each(|(locality, counter)| self.add(locality, counter));
    }
}

/// Sums of a bounded number of keys, and of all others together.
#[derive(Clone, Debug)]
pub struct Top<K> {
    room: usize,
    series: IndexMap<K, Series, ahash::RandomState>,
    other: ByLocality,
    ended: ByLocality,
    /// Bytes in this period of keys without a series, for at most `room` keys.
    waiting: IndexMap<K, u64, ahash::RandomState>,
    last_expiry: Option<Instant>,
    /// Raised when rows are no longer those of their keys.
    version: u32,
}

/// Where a key's traffic is added, while [`Top::version`] is the same: the index of its series; with [`Row::WAITING`]
/// `other` and the index of a key that waits for a series; [`Row::OTHER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row(u32);

impl Row {
    const WAITING: u32 = 1 << 31;
    const OTHER: Self = Self(u32::MAX);

    /// The row of an index; `OTHER` for one that is too large to be named, which no room allows.
    fn new(at: usize, kind: u32) -> Self {
        u32::try_from(at).ok().filter(|at| *at < Self::WAITING - 1).map_or(Self::OTHER, |at| Self(at | kind))
    }
}

#[derive(Clone, Debug)]
struct Series {
    total: ByLocality,
    /// Bytes in this period and in the previous one.
    recent: [u64; 2],
    active: Instant,
}

impl Series {
    fn weight(&self) -> u64 {
        self.recent[0].max(self.recent[1])
    }
}

impl<K: Clone + Eq + Hash> Top<K> {
    /// Room for this many series.
    pub fn new(room: usize) -> Self {
        let (other, ended) = (ByLocality::default(), ByLocality::default());
        let (series, waiting) = (IndexMap::default(), IndexMap::default());
        Self { room, series, other, ended, waiting, last_expiry: None, version: 0 }
    }

    /// Adds to the key's series, or to `other` if there is no room for one.
    pub fn add(&mut self, key: K, locality: Locality, new: Counter, now: Instant) {
        let row = self.row(key, now);
        self.add_to(row, locality, new, now);
    }

    /// The row of a key; begins a series if there is room for one.
    pub(super) fn row(&mut self, key: K, now: Instant) -> Row {
        if let Some(at) = self.series.get_index_of(&key) {
            Row::new(at, 0)
        } else if self.series.len() < self.room {
            let series = Series { total: ByLocality::default(), recent: [0, 0], active: now };
            Row::new(self.series.insert_full(key, series).0, 0)
        } else if let Some(at) = self.waiting.get_index_of(&key) {
            Row::new(at, Row::WAITING)
        } else if self.waiting.len() < self.room {
            Row::new(self.waiting.insert_full(key, 0).0, Row::WAITING)
        } else {
            Row::OTHER
        }
    }

    /// Adds to a row of this version.
    pub(super) fn add_to(&mut self, row: Row, locality: Locality, new: Counter, now: Instant) {
        if let Some((_, series)) = self.series.get_index_mut(row.0 as usize) {
            series.total.add(locality, new);
            series.recent[0] += new.bytes;
            series.active = now;
            return;
        }
        self.other.add(locality, new);
        if let Some((_, bytes)) = self.waiting.get_index_mut((row.0 ^ Row::WAITING) as usize) {
            *bytes += new.bytes;
        }
    }

    /// The version of the rows.
    pub(super) const fn version(&self) -> u32 {
        self.version
    }

    /// The row of a key, which is made only if there is room for series at all.
    pub(super) fn row_made(&mut self, key: impl FnOnce() -> K, now: Instant) -> Row {
        if self.room == 0 { Row::OTHER } else { self.row(key(), now) }
    }

    pub(super) fn add_to_other(&mut self, rest: ByLocality) {
        self.other += rest;
    }

    /// Once a period, ends series that are idle or that a key without a series has outgrown. The new series of such a
    /// key begins at zero: its earlier traffic stays in `other`.
    pub fn expire(&mut self, now: Instant) {
        let last_expiry = *self.last_expiry.get_or_insert(now);
        if now.duration_since(last_expiry) < PERIOD {
            return;
        }
        self.last_expiry = Some(now);
        self.version = self.version.wrapping_add(1);
        let Self { series, ended, .. } = self;
        series.retain(|_, series| {
            let lives = now.duration_since(series.active) < IDLE;
            if !lives {
                *ended += series.total;
            }
            lives
        });
        let mut waiting: Vec<(K, u64)> = self.waiting.drain(..).collect();
        waiting.sort_by_key(|(_, bytes)| Reverse(*bytes));
        let mut lightest: Vec<(K, u64)> =
            self.series.iter().map(|(key, series)| (key.clone(), series.weight())).collect();
        lightest.sort_by_key(|(_, weight)| Reverse(*weight));
        for (key, bytes) in waiting {
            if self.series.len() >= self.room {
                let Some((light, _)) = lightest.pop().filter(|(_, weight)| bytes / FACTOR > *weight) else { break };
                if let Some(series) = self.series.swap_remove(&light) {
                    self.ended += series.total;
                }
            }
            self.series.insert(key, Series { total: ByLocality::default(), recent: [0, bytes], active: now });
        }
        for series in self.series.values_mut() {
            series.recent = [0, series.recent[0].max(series.recent[1] / FACTOR)];
        }
    }

    /// Restores the counts of an earlier process. Series beyond the limit end.
    pub fn restore(
        &mut self,
        series: impl IntoIterator<Item = (K, ByLocality)>,
        other: ByLocality,
        ended: ByLocality,
        now: Instant,
    ) {
        self.other += other;
        self.ended += ended;
        self.version = self.version.wrapping_add(1);
        for (key, total) in series {
            if self.series.len() < self.room {
                self.series.insert(key, Series { total, recent: [0, 0], active: now });
            } else {
                self.ended += total;
            }
        }
    }

    /// The sum of everything added.
    pub fn sum(&self) -> ByLocality {
        let mut sum = self.other;
        sum += self.ended;
        self.series.values().for_each(|series| sum += series.total);
        sum
    }

    /// The series and their counts.
    pub fn series(&self) -> impl Iterator<Item = (&K, ByLocality)> {
        self.series.iter().map(|(key, series)| (key, series.total))
    }

    /// The counters of each series and locality with traffic, and those of `other`, without a key.
    pub fn with_traffic(&self) -> impl Iterator<Item = (Option<&K>, Locality, Counter)> {
        let totals = self.series().map(|(key, total)| (Some(key), total)).chain([(None, self.other())]);
        totals.flat_map(|(key, total)| {
            let with_traffic = total.iter().filter(|(_, counter)| counter.packets > 0);
            with_traffic.map(move |(locality, counter)| (key, locality, counter))
        })
    }

    /// Whether the key has a series.
    pub fn has(&self, key: &K) -> bool {
        self.series.contains_key(key)
    }

    /// The number of series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there are no series.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The most series that fit.
    pub const fn room(&self) -> usize {
        self.room
    }

    /// The count of keys without a series.
    pub const fn other(&self) -> ByLocality {
        self.other
    }

    /// The count of series that have ended.
    pub const fn ended(&self) -> ByLocality {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Locality = Locality::SameZone;

    fn bytes(bytes: u64) -> Counter {
        Counter { bytes, packets: 1 }
    }

    fn listed(top: &Top<&'static str>) -> Vec<(&'static str, u64)> {
        let mut listed: Vec<_> = top.series().map(|(key, total)| (*key, total.get(NEAR).bytes)).collect();
        listed.sort_unstable();
        listed
    }

    #[test]
    fn a_heavy_key_takes_the_place_of_a_light_one_and_no_series_jumps() {
        let (mut top, start) = (Top::new(2), Instant::now());
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        top.expire(at(0));
        top.add("a", NEAR, bytes(100), at(0));
        top.add("b", NEAR, bytes(10), at(0));
        top.add("c", NEAR, bytes(20), at(0));
        top.expire(at(1));
        assert_eq!(listed(&top), [("a", 100), ("b", 10)], "twice is not more than twice");
        top.add("c", NEAR, bytes(500), at(1));
        top.add("a", NEAR, bytes(100), at(1));
        top.expire(at(2));
        assert_eq!(listed(&top), [("a", 200), ("c", 0)], "it begins at zero");
        top.add("c", NEAR, bytes(7), at(2));
        assert_eq!(listed(&top), [("a", 200), ("c", 7)]);
        assert_eq!((top.other().get(NEAR).bytes, top.ended().get(NEAR).bytes), (520, 10));
    }

    #[test]
    fn an_idle_series_ends_and_makes_room() {
        let (mut top, start) = (Top::new(1), Instant::now());
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        top.expire(at(0));
        top.add("a", NEAR, bytes(100), at(0));
        top.expire(at(59));
        assert_eq!(listed(&top), [("a", 100)]);
        top.expire(at(60));
        assert!(top.is_empty());
        top.add("b", NEAR, bytes(1), at(60));
        top.add("a", NEAR, bytes(1), at(60));
        assert_eq!(listed(&top), [("b", 1)]);
        assert_eq!((top.other().get(NEAR).bytes, top.ended().get(NEAR).bytes), (1, 100));
    }
}
