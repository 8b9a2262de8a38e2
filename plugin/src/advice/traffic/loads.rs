//! The load of services by the zone of their clients: hour by hour, and how much of it crossed.

use super::peaks::Peaks;
use crate::zones::{Locality, Place};
use ahash::AHashMap;
use indexmap::IndexMap;
use std::collections::BTreeMap;

/// Services times zones of clients whose load is kept.
const MAX_LOADS: usize = 1 << 16;

/// The load of a service by the zone of its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The load of the 95th percentile hour of each zone.
    pub by_zone: BTreeMap<String, u64>,
    /// That of all zones together.
    pub total: u64,
}

/// Bytes of a service's clients in a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Those that went to or came from another zone.
    pub crossing: u64,
    /// All of them.
    pub all: u64,
}

impl Share {
    /// Adds another one.
    pub const fn add(&mut self, other: Self) {
        self.crossing = self.crossing.saturating_add(other.crossing);
        self.all = self.all.saturating_add(other.all);
    }
}

/// The number of a service's load in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

/// The load that a pair's bytes are a part of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LoadPart {
    /// The service; none where none is used, or where it is not known which end serves.
    pub(super) service: Option<u32>,
    pub(super) slot: Option<Slot>,
    /// Whether the bytes cross zones.
    pub(super) crosses: bool,
}

#[derive(Clone, Debug, Default)]
struct ZoneHours {
    peaks: Peaks,
    /// Before, and recently.
    shares: [Share; 2],
}

/// Loads by service and zone of the clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Loads {
    zones: IndexMap<(u32, u32), ZoneHours, ahash::RandomState>,
    totals: AHashMap<u32, Peaks>,
    hours: u64,
}

/// The loads of one block.
#[derive(Debug, Default)]
pub(super) struct BlockLoads {
    /// By slot.
    zones: Vec<Share>,
    /// By service.
    totals: Vec<u64>,
}

impl BlockLoads {
    /// Adds the bytes of a row.
    pub(super) fn add(&mut self, LoadPart { service, slot, crosses }: LoadPart, bytes: u64) {
        if let Some(Slot(slot)) = slot {
            grown(&mut self.zones, slot).add(Share { crossing: if crosses { bytes } else { 0 }, all: bytes });
        }
        if let Some(service) = service {
            let total = grown(&mut self.totals, service);
            *total = total.saturating_add(bytes);
        }
    }
}

/// The element at an index, after which there may have been none.
fn grown<T: Clone + Default>(list: &mut Vec<T>, at: u32) -> &mut T {
    let at = at as usize;
    if at >= list.len() {
        list.resize(at + 1, T::default());
    }
    &mut list[at]
}

impl Loads {
    /// The load of traffic between two places, from a zone of clients.
    pub(super) fn part(&mut self, service: Option<u32>, zone: u32, [from, to]: [&Place; 2]) -> LoadPart {
        let crosses = matches!(Locality::between(from, to), Locality::CrossZone | Locality::CrossRegion);
        LoadPart { service, slot: service.and_then(|service| self.slot(service, zone)), crosses }
    }

    /// The number of a load. `None` where there is no room for a new one.
    fn slot(&mut self, service: u32, zone: u32) -> Option<Slot> {
        let is_full = self.zones.len() >= MAX_LOADS;
        let at = match self.zones.get_index_of(&(service, zone)) {
            Some(at) => at,
            None if is_full => return None,
            None => self.zones.insert_full((service, zone), ZoneHours::default()).0,
        };
        Some(Slot(at as u32))
    }

    /// Adds the loads of a block of some hours; part 1 is what happens recently.
    pub(super) fn add(&mut self, block: &BlockLoads, hours: u64, part: usize) {
        self.hours = self.hours.saturating_add(hours);
        for (share, zone) in block.zones.iter().zip(self.zones.values_mut()).filter(|(share, _)| share.all > 0) {
            zone.peaks.add(share.all / hours, hours);
            zone.shares[part].add(*share);
        }
        for (service, bytes) in (0..).zip(&block.totals).filter(|(_, bytes)| **bytes > 0) {
            if self.totals.len() < MAX_LOADS || self.totals.contains_key(&service) {
                self.totals.entry(service).or_default().add(bytes / hours, hours);
            }
        }
    }

    /// The load of a service from zones, which are given with their names.
    pub(super) fn load<'a>(&self, service: u32, zones: impl Iterator<Item = &'a String>) -> Load {
        let of_zone = |zone: u32| Some(self.zones.get(&(service, zone))?.peaks.percentile_95(self.hours));
        Load {
            by_zone: (0..).zip(zones).filter_map(|(zone, name)| Some((name.clone(), of_zone(zone)?))).collect(),
            total: self.totals.get(&service).map_or(0, |peaks| peaks.percentile_95(self.hours)),
        }
    }

    pub(super) fn shares(&self, service: u32, zone: u32) -> Option<[Share; 2]> {
        Some(self.zones.get(&(service, zone))?.shares)
    }
}
