//! Reads the kernel's per-CPU counters, in batches, into the domain's types.

use super::{Error, maps::Map, sys};
use meridian_abi::{
    Counter, IpVersion,
    matrix::{self, Direction},
    stats::{self, Stat},
    zone::Slot,
};
use std::os::fd::AsFd;

/// The number of elements that one call reads.
const BATCH: usize = 4096;

/// A cell of the zone matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The direction of the packets.
    pub direction: Direction,
    /// Their IP version.
    pub version: IpVersion,
    /// The source's zone.
    pub source: Slot,
    /// The destination's zone.
    pub destination: Slot,
    /// Counters since the programs were loaded.
    pub counter: Counter,
}

/// The counters of STATS at one moment, summed over the CPUs.
#[derive(Clone, Debug)]
pub struct Stats(Vec<Counter>);

impl Stats {
    /// The counter of one reason.
    pub fn get(&self, stat: Stat) -> Counter {
        self.0.get(stat as usize).copied().unwrap_or_default()
    }

    /// The counters of all reasons.
    pub fn all(&self) -> Vec<(Stat, Counter)> {
        Stat::ALL.into_iter().map(|stat| (stat, self.get(stat))).collect()
    }
}

pub(super) fn matrix(map: &Map<u32, Counter>, slots: u32) -> Result<Vec<Cell>, Error> {
    let mut cells = Vec::new();
    per_cpu(map, |index, counter| {
        if counter != Counter::default() {
            let (direction, version, source, destination) = matrix::cell(slots, index);
            cells.push(Cell { direction, version, source, destination, counter });
        }
    })?;
    Ok(cells)
}

pub(super) fn stats(map: &Map<u32, Counter>) -> Result<Stats, Error> {
    let mut found = Vec::with_capacity(stats::ROOM as usize);
    per_cpu(map, |index, counter| {
        let at = index as usize;
        found.resize(found.len().max(at + 1), Counter::default());
        found[at] = counter;
    })?;
    Ok(Stats(found))
}

pub(super) fn reentries(map: &Map<u32, Counter>) -> Result<u64, Error> {
    let mut found = 0;
    per_cpu(map, |_, counter| found = counter.packets)?;
    Ok(found)
}

/// Calls `visit` with each element of a per-CPU array, summed over the CPUs.
fn per_cpu(map: &Map<u32, Counter>, mut visit: impl FnMut(u32, Counter)) -> Result<(), Error> {
    let failed = |source| map.failed(source);
    let cpus = aya::util::nr_cpus().map_err(|(_, source)| failed(source))?;
    sys::read_all(map.as_fd(), BATCH, cpus, |index: &u32, values: &[Counter]| {
        let sum = values.iter().copied().sum();
        visit(*index, sum);
    })
    .map_err(failed)
}
