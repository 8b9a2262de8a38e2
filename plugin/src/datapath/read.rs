//! Reads the kernel's per-CPU counters, in batches, into the domain's types.

use super::{Error, sys};
use meridian_abi::{
    Counter, IpVersion,
    matrix::{self, Direction},
    stats::Stat,
    zone::Slot,
};
use std::os::fd::BorrowedFd;

/// Elements that one call reads.
const BATCH: usize = 4096;

/// A cell of the zone matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The way of the packets.
    pub direction: Direction,
    /// Their IP version.
    pub version: IpVersion,
    /// The source's zone.
    pub source: Slot,
    /// The destination's zone.
    pub destination: Slot,
    /// What was counted since the programs were loaded.
    pub counter: Counter,
}

pub(super) fn matrix(map: BorrowedFd<'_>, slots: u32) -> Result<Vec<Cell>, Error> {
    let mut cells = Vec::new();
    per_cpu("ZONE_MATRIX", map, |index, counter| {
        if counter != Counter::default() {
            let (direction, version, source, destination) = matrix::cell(slots, index);
            cells.push(Cell { direction, version, source, destination, counter });
        }
    })?;
    Ok(cells)
}

pub(super) fn stat(map: BorrowedFd<'_>, stat: Stat) -> Result<Counter, Error> {
    let mut found = Counter::default();
    per_cpu("STATS", map, |index, counter| {
        if index == stat as u32 {
            found = counter;
        }
    })?;
    Ok(found)
}

pub(super) fn reentries(map: BorrowedFd<'_>) -> Result<u64, Error> {
    let mut found = 0;
    // Depth and count have the layout of a Counter.
    per_cpu("REENTRIES", map, |_, counter| found = counter.packets)?;
    Ok(found)
}

/// Shows each element of a per-CPU array, summed over the CPUs.
fn per_cpu(name: &'static str, map: BorrowedFd<'_>, mut see: impl FnMut(u32, Counter)) -> Result<(), Error> {
    let failed = |source| Error::Map { map: name.into(), source };
    let cpus = aya::util::nr_cpus().map_err(|(_, source)| failed(source))?;
    sys::read_all(map, BATCH, cpus, |index: &u32, values: &[Counter]| {
        let sum = values.iter().copied().sum();
        see(*index, sum);
    })
    .map_err(failed)
}
