//! Reads the kernel's counters, in batches, into the domain's types.

use super::{Error, sys};
use crate::flows::Entry;
use meridian_abi::{
    Counter, IpVersion,
    flow::{FlowKey, FlowValue, ServiceSide, V4, V6, Verdict},
    matrix::{self, Direction},
    stats::Stat,
    zone::Slot,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::BorrowedFd,
};
use zerocopy::FromBytes;

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

pub(super) fn flows_v4(map: BorrowedFd<'_>, see: &mut impl FnMut(Entry)) -> Result<(), Error> {
    read_flows(map, |V4(word)| IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes())), see)
        .map_err(|source| Error::Map { map: "FLOWS_V4".into(), source })
}

pub(super) fn flows_v6(map: BorrowedFd<'_>, see: &mut impl FnMut(Entry)) -> Result<(), Error> {
    let address = |V6(words): V6| {
        let octets: [u8; 16] = zerocopy::transmute!(words);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    read_flows(map, address, see).map_err(|source| Error::Map { map: "FLOWS_V6".into(), source })
}

fn read_flows<A: FromBytes + Clone + Copy>(
    map: BorrowedFd<'_>,
    address: impl Fn(A) -> IpAddr,
    see: &mut impl FnMut(Entry),
) -> io::Result<()> {
    sys::read_all(map, BATCH, 1, |key: &FlowKey<A>, values: &[FlowValue]| {
        for value in values {
            see(Entry {
                source: address(key.source),
                destination: address(key.destination),
                protocol: key.protocol,
                service_port: key.service_port,
                client_port: value.client_port,
                side: ServiceSide::from_u8(key.side),
                verdict: Verdict::unpack(value.verdict),
                counter: Counter { bytes: value.bytes, packets: value.packets },
            });
        }
    })
}
