//! Cross-zone traffic of one interval, by pair.

use super::{
    ends::{Directed, EndKey, Pod, Service, Transfer, TransferEnd},
    top::ByLocality,
};
use crate::zones::{Locality, Place};
use indexmap::IndexMap;
use meridian_abi::Counter;
use std::{cmp::Reverse, sync::Arc};

/// The key of a line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IntervalKey {
    /// Between whom, and where.
    pub ends: Directed<(EndKey, Place)>,
    /// The service.
    pub service: Service,
    /// The locality.
    pub locality: Locality,
}

/// The traffic between two ends in two zones.
#[derive(Clone, Debug)]
pub struct Line {
    /// The sender and its place.
    pub source: (EndKey, Place),
    /// The receiver and its place.
    pub destination: (EndKey, Place),
    /// The service.
    pub service: Service,
    /// The relation between the two zones.
    pub locality: Locality,
    /// Bytes and packets.
    pub counter: Counter,
}

/// Pairs of pods or addresses in different zones.
#[derive(Debug, Default)]
pub struct Interval {
    pairs: IndexMap<IntervalKey, Counter, ahash::RandomState>,
    /// Raised when rows are no longer those of their pairs.
    version: u32,
}

impl Interval {
    /// The limit of pairs: as many as one of the kernel's flow maps holds. Further pairs are summed as `other`, once
    /// for each pair of zones.
    pub const ROOM: usize = 65_536;

    /// The row of the traffic between two ends, if it crosses zones.
    pub(super) fn row(&mut self, transfer: &Transfer<'_>, locality: Locality) -> Option<u32> {
        let Transfer { source, destination, service } = *transfer;
        if !matches!(locality, Locality::CrossZone | Locality::CrossRegion) {
            return None;
        }
        let end_key = |end: &TransferEnd| {
            let end_key = match (&end.endpoint, end.address) {
                (Some(endpoint), _) => EndKey::Pod(Pod(Arc::clone(endpoint))),
                (None, Some(address)) => EndKey::Address(address),
                (None, None) => EndKey::Other,
            };
            (end_key, end.place.clone())
        };
        let ends = Directed { source: end_key(source), destination: end_key(destination) };
        let mut key = IntervalKey { ends, service, locality };
        if self.pairs.len() >= Self::ROOM && !self.pairs.contains_key(&key) {
            (key.ends.source.0, key.ends.destination.0) = (EndKey::Other, EndKey::Other);
            key.service = Service::default();
        }
        let row = self.pairs.entry(key);
        let at = row.index() as u32;
        row.or_default();
        Some(at)
    }

    /// Adds to a row of this version.
    pub(super) fn add_to(&mut self, row: u32, new: Counter) {
        if let Some((_, counter)) = self.pairs.get_index_mut(row as usize) {
            *counter += new;
        }
    }

    /// The version of the rows.
    pub(super) fn version(&self) -> u64 {
        self.version.into()
    }

    /// Adds cross-zone traffic between unknown ends in unknown places.
    pub(super) fn add_rest(&mut self, rest: ByLocality) {
        for locality in [Locality::CrossZone, Locality::CrossRegion] {
            let new = rest.get(locality);
            if new != Counter::default() {
                let nobody = || (EndKey::Other, Place::Unknown);
                let ends = Directed { source: nobody(), destination: nobody() };
                self.restore(IntervalKey { ends, service: Service::default(), locality }, new);
            }
        }
    }

    /// All pairs since the last call to [`take`](Self::take).
    pub fn pairs(&self) -> impl Iterator<Item = (&IntervalKey, Counter)> {
        self.pairs.iter().map(|(key, counter)| (key, *counter))
    }

    /// Restores a pair that an earlier process counted since it last took an interval.
    pub fn restore(&mut self, key: IntervalKey, counter: Counter) {
        *self.pairs.entry(key).or_default() += counter;
    }

    /// Takes all pairs since the last call, the largest first.
    pub fn take(&mut self) -> Vec<Line> {
        self.version = self.version.wrapping_add(1);
        let pairs = std::mem::take(&mut self.pairs);
        let line = |(IntervalKey { ends: Directed { source, destination }, service, locality }, counter)| Line {
            source,
            destination,
            service,
            locality,
            counter,
        };
        let mut lines: Vec<Line> = pairs.into_iter().map(line).collect();
        lines.sort_by_key(|line| Reverse(line.counter.bytes));
        lines
    }
}
