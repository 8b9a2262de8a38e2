//! Bytes and packets by zone pair.

use super::{Locality, Place};
use meridian_abi::{Counter, IpVersion, matrix::Direction};
use std::collections::BTreeMap;

/// What a cell of the matrix is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Where the packets came from.
    pub source: Place,
    /// Where they went.
    pub destination: Place,
    /// Their IP version.
    pub version: IpVersion,
    /// Whether they left the node, or arrived from where nobody counts what is sent.
    pub direction: Direction,
}

impl Pair {
    /// What the two places are to each other.
    pub fn locality(&self) -> Locality {
        Locality::between(&self.source, &self.destination)
    }
}

/// Counters by zone pair; a pair that is not in it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    cells: BTreeMap<Pair, Counter>,
}

impl Matrix {
    /// Adds to a cell.
    pub fn add(&mut self, pair: Pair, counter: Counter) {
        *self.cells.entry(pair).or_default() += counter;
    }

    /// Adds every cell of another matrix.
    pub fn merge(&mut self, other: &Self) {
        for (pair, counter) in &other.cells {
            self.add(pair.clone(), *counter);
        }
    }

    /// The cells, sorted by pair.
    pub fn cells(&self) -> impl Iterator<Item = (&Pair, Counter)> {
        self.cells.iter().map(|(pair, counter)| (pair, *counter))
    }

    /// A cell.
    pub fn get(&self, pair: &Pair) -> Counter {
        self.cells.get(pair).copied().unwrap_or_default()
    }

    /// The sum of the cells of a locality.
    pub fn total(&self, locality: Locality) -> Counter {
        self.cells().filter(|(pair, _)| pair.locality() == locality).map(|(_, counter)| counter).sum()
    }
}
