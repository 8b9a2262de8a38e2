//! Bytes and packets by zone pair.

use super::{Locality, Place};
use meridian_abi::{Counter, IpVersion, matrix::Direction};
use std::collections::BTreeMap;

/// The key of a cell of the matrix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The source of the packets.
    pub source: Place,
    /// The destination of the packets.
    pub destination: Place,
    /// Their IP version.
    pub version: IpVersion,
    /// Whether the packets left the node or arrived at it. Only packets from external prefixes count as arrivals:
    /// no agent counts them when they are sent.
    pub direction: Direction,
}

impl Pair {
    /// The locality of the pair.
    pub fn locality(&self) -> Locality {
        Locality::between(&self.source, &self.destination)
    }
}

/// Counters by zone pair; a pair without an entry has a count of zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    cells: BTreeMap<Pair, Counter>,
}

impl Matrix {
    /// Adds to the counter of a pair.
    pub fn add(&mut self, pair: Pair, counter: Counter) {
        *self.cells.entry(pair).or_default() += counter;
    }

    /// Adds every cell of another matrix.
    pub fn merge(&mut self, other: &Self) {
        for (pair, counter) in &other.cells {
            self.add(pair.clone(), *counter);
        }
    }

    /// The growth of each cell since an earlier state.
    pub fn since(&self, before: &Self) -> impl Iterator<Item = (&Pair, Counter)> {
        self.cells().map(|(pair, now)| {
            let known = before.get(pair);
            let bytes = now.bytes.saturating_sub(known.bytes);
            (pair, Counter { bytes, packets: now.packets.saturating_sub(known.packets) })
        })
    }

    /// The cells, sorted by pair.
    pub fn cells(&self) -> impl Iterator<Item = (&Pair, Counter)> {
        self.cells.iter().map(|(pair, counter)| (pair, *counter))
    }

    /// The counter of a pair.
    pub fn get(&self, pair: &Pair) -> Counter {
        self.cells.get(pair).copied().unwrap_or_default()
    }

    /// The sum over all pairs of a locality.
    pub fn total(&self, locality: Locality) -> Counter {
        self.cells().filter(|(pair, _)| pair.locality() == locality).map(|(_, counter)| counter).sum()
    }
}
