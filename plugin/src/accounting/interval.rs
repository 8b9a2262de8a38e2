//! Cross-zone traffic of one interval, by pair.

use super::{
    ends::{Between, End, EndKey, Pod},
    top::ByLocality,
};
use crate::zones::{Locality, Place};
use ahash::AHashMap;
use meridian_abi::Counter;
use std::{cmp::Reverse, sync::Arc};

/// The two ends with their places.
pub type Key = Between<(EndKey, Place)>;

/// The traffic between two ends in two zones.
#[derive(Clone, Debug)]
pub struct Line {
    /// The sender and its place.
    pub source: (EndKey, Place),
    /// The receiver and its place.
    pub destination: (EndKey, Place),
    /// The relation between the two zones.
    pub locality: Locality,
    /// Bytes and packets.
    pub counter: Counter,
}

/// Pairs of pods or addresses in different zones.
#[derive(Debug, Default)]
pub struct Interval {
    pairs: AHashMap<(Key, Locality), Counter>,
}

impl Interval {
    /// The limit of pairs: as many as one of the kernel's flow maps holds. Further pairs are summed as `other`, once
    /// for each pair of zones.
    pub const ROOM: usize = 65_536;

    /// Adds the traffic between two ends, if it crosses zones.
    pub fn add(&mut self, source: &End, destination: &End, locality: Locality, new: Counter) {
        if !matches!(locality, Locality::CrossZone | Locality::CrossRegion) {
            return;
        }
        let end_key = |end: &End| {
            let end_key = match (&end.endpoint, end.address) {
                (Some(endpoint), _) => EndKey::Pod(Pod(Arc::clone(endpoint))),
                (None, Some(address)) => EndKey::Address(address),
                (None, None) => EndKey::Other,
            };
            (end_key, end.place.clone())
        };
        let mut key = Key { source: end_key(source), destination: end_key(destination) };
        if self.pairs.len() >= Self::ROOM && !self.pairs.contains_key(&(key.clone(), locality)) {
            (key.source.0, key.destination.0) = (EndKey::Other, EndKey::Other);
        }
        *self.pairs.entry((key, locality)).or_default() += new;
    }

    /// Adds cross-zone traffic between unknown ends in unknown places.
    pub(super) fn add_rest(&mut self, rest: ByLocality) {
        for locality in [Locality::CrossZone, Locality::CrossRegion] {
            let new = rest.get(locality);
            if new != Counter::default() {
                let nobody = || (EndKey::Other, Place::Unknown);
                self.restore(Key { source: nobody(), destination: nobody() }, locality, new);
            }
        }
    }

    /// All pairs since the last call to [`take`](Self::take).
    pub fn pairs(&self) -> impl Iterator<Item = (&Key, Locality, Counter)> {
        self.pairs.iter().map(|((key, locality), counter)| (key, *locality, *counter))
    }

    /// Restores a pair that an earlier process counted since it last took an interval.
    pub fn restore(&mut self, key: Key, locality: Locality, counter: Counter) {
        *self.pairs.entry((key, locality)).or_default() += counter;
    }

    /// Takes all pairs since the last call, the largest first.
    pub fn take(&mut self) -> Vec<Line> {
        let pairs = std::mem::take(&mut self.pairs);
        let line = |((Key { source, destination }, locality), counter)| Line { source, destination, locality, counter };
        let mut lines: Vec<Line> = pairs.into_iter().map(line).collect();
        lines.sort_by_key(|line| Reverse(line.counter.bytes));
        lines
    }
}
