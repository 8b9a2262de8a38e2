//! Gives each zone its slot in the kernel's matrix. A slot is never reused for another zone, because its
//! counters continue.

use super::{Place, Placement, Table, Zone};
use meridian_abi::{
    matrix::{MAX_SLOTS, MIN_SLOTS},
    zone::{Entry, FIRST_ZONE, INTERNET, MAX_ZONES, Slot, UNKNOWN},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// A table names more zones than the matrix has slots for. Zones without a slot count as unknown.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is room for {room} zones: {} count as unknown (a restart makes room for up to {MAX_ZONES})", zones.join(", "))]
pub struct TooManyZones {
    /// The zones without a slot.
    pub zones: Vec<String>,
    /// The number of zones that fit into the matrix.
    pub room: u32,
}

/// Zones by slot and slots by zone.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    zones: Vec<Arc<Zone>>,
    by_name: HashMap<String, Slot>,
}

impl Slots {
    /// Restores the slots that an earlier agent assigned, in their order.
    pub fn restore(zones: Vec<Arc<Zone>>) -> Self {
        let slots = (FIRST_ZONE..).zip(&zones);
        let by_name = slots.map(|(slot, zone)| (zone.name.clone(), slot)).collect();
        Self { zones, by_name }
    }

    /// The zones in the order of their slots.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter().map(Arc::as_ref)
    }

    /// Gives each new zone of the placements a slot while slots are free. A zone that has a slot gets the region of
    /// its placement.
    pub fn assign<'a>(&mut self, placements: impl IntoIterator<Item = &'a Placement>) {
        for placement in placements {
            let Place::Zone(zone) = &placement.place else { continue };
            if let Some(slot) = self.by_name.get(&zone.name) {
                self.zones[usize::from(slot - FIRST_ZONE)] = Arc::clone(zone);
            } else if self.zones.len() < MAX_ZONES {
                self.by_name.insert(zone.name.clone(), FIRST_ZONE + self.zones.len() as Slot);
                self.zones.push(Arc::clone(zone));
            }
        }
    }

    /// Checks that every zone of the table has a slot in a matrix with `capacity` slots.
    ///
    /// # Errors
    /// Lists the zones without a slot.
    pub fn fit(&self, table: &Table, capacity: u32) -> Result<(), TooManyZones> {
        // If every zone named so far has a slot, the table need not be searched.
        if self.zones.len() < MAX_ZONES && self.zones.len() as u32 + u32::from(FIRST_ZONE) <= capacity {
            return Ok(());
        }
        let named: BTreeSet<&str> =
            table.prefixes().filter_map(|(_, placement)| Some(placement.place.zone()?.name.as_str())).collect();
        let left_out = named.into_iter().filter(|name| self.slot(name, capacity) == UNKNOWN);
        let zones: Vec<String> = left_out.map(str::to_owned).collect();
        if zones.is_empty() { Ok(()) } else { Err(TooManyZones { zones, room: capacity - u32::from(FIRST_ZONE) }) }
    }

    fn slot(&self, zone: &str, capacity: u32) -> Slot {
        let slot = self.by_name.get(zone).copied();
        slot.filter(|slot| u32::from(*slot) < capacity).unwrap_or(UNKNOWN)
    }

    /// The number of zones, those beyond the room for slots included.
    pub fn len(&self) -> usize {
        self.zones.len()
    }

    /// Whether no zone has a slot.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// The side of a matrix with a cell for each pair of the zones assigned so far.
    pub fn matrix_slots(&self) -> u32 {
        (self.zones.len() as u32 + u32::from(FIRST_ZONE)).next_power_of_two().clamp(MIN_SLOTS, MAX_SLOTS)
    }

    /// The slot of a place. A zone without a slot below `capacity` gets the slot of unknown.
    pub fn of(&self, place: &Place, capacity: u32) -> Slot {
        match place {
            Place::Unknown => UNKNOWN,
            Place::Internet => INTERNET,
            Place::Zone(zone) => self.slot(&zone.name, capacity),
        }
    }

    /// The kernel's table entry for a prefix. A zone without a slot below `capacity` is unknown.
    pub fn entry(&self, placement: &Placement, capacity: u32) -> Entry {
        let slot = self.of(&placement.place, capacity);
        Entry { slot, kind: placement.kind as u8, reserved: 0 }
    }

    /// The place of a slot.
    pub fn place(&self, slot: Slot) -> Place {
        match slot {
            INTERNET => Place::Internet,
            _ => slot
                .checked_sub(FIRST_ZONE)
                .and_then(|index| self.zones.get(usize::from(index)))
                .map_or(Place::Unknown, |zone| Place::Zone(Arc::clone(zone))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnetwork::{IpNetwork, Ipv4Network};
    use meridian_abi::zone::PrefixKind;

    fn table(zones: impl IntoIterator<Item = (u8, u16, &'static str)>) -> Table {
        let mut table = Table::new();
        for (net, zone, region) in zones {
            let prefix = IpNetwork::V4(Ipv4Network::new([10, net, (zone >> 8) as u8, zone as u8].into(), 32).unwrap());
            let zone = Zone { name: format!("z{zone}"), region: region.into() };
            table.insert(
                prefix,
                Placement { place: Place::Zone(Arc::new(zone)), kind: PrefixKind::Cluster, origin: "test".into() },
            );
        }
        table
    }

    fn assign(slots: &mut Slots, table: &Table) {
        slots.assign(table.placements());
    }

    #[test]
    fn a_slot_stays_with_its_zone() {
        let mut slots = Slots::default();
        assign(&mut slots, &table([(0, 1, "r"), (0, 2, "r")]));
        let before: Vec<Place> = (0..4).map(|slot| slots.place(slot)).collect();
        assign(&mut slots, &table([(0, 0, "r"), (0, 2, "r")]));
        assert_eq!(before, (0..4).map(|slot| slots.place(slot)).collect::<Vec<_>>());
        assert_eq!(slots.place(4).to_string(), "z0");
        assert_eq!(slots.place(5), Place::Unknown);
    }

    #[test]
    fn one_zone_too_many_is_an_error_and_counts_as_unknown() {
        let mut slots = Slots::default();
        let table = table((0..=255).map(|zone| (0, zone, "r")));
        assign(&mut slots, &table);
        assert_eq!(slots.fit(&table, MAX_SLOTS).unwrap_err().zones, ["z255"]);
        assert_eq!(slots.matrix_slots(), MAX_SLOTS);
        let unknown: Vec<_> = table.prefixes().filter(|(_, p)| slots.entry(p, MAX_SLOTS).slot == UNKNOWN).collect();
        assert_eq!(unknown.iter().filter(|(_, p)| p.place.zone().is_some()).count(), 1);
    }

    #[test]
    fn a_zone_beyond_the_matrix_counts_as_unknown() {
        let mut slots = Slots::default();
        let table = table([(0, 1, "r"), (0, 2, "r")]);
        assign(&mut slots, &table);
        assert_eq!(slots.fit(&table, 4), Ok(()));
        let error = slots.fit(&table, 3).unwrap_err().to_string();
        assert_eq!(error, "there is room for 1 zones: z2 count as unknown (a restart makes room for up to 255)");
        let known = |capacity| {
            let entries = table.prefixes().map(|(_, p)| slots.entry(p, capacity).slot);
            entries.filter(|slot| *slot >= FIRST_ZONE).count()
        };
        assert_eq!((known(4), known(3)), (2, 1));
    }

    #[test]
    fn a_zone_may_change_its_region() {
        let mut slots = Slots::default();
        assign(&mut slots, &table([(0, 1, "old")]));
        assign(&mut slots, &table([(0, 1, "new")]));
        assert_eq!(slots.place(FIRST_ZONE).zone().unwrap().region, "new");
    }
}
