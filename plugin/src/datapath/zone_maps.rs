//! Keeps the zone table in the kernel: two longest-prefix maps, of which the epoch's low bit names
//! the one that is read.
//!
//! A new table is written into the other map, then the epoch moves: a packet sees the old table or
//! the new one, never a part of each, and no prefix is ever absent.

use super::{
    Error,
    devices::Overlays,
    grace::wait_for_programs,
    maps::{Map, Maps},
    memory::{Memory, SharedControl, SharedPinnedState},
    prefix_key::PrefixKey,
};
use crate::zones::{Slots, Table};
use ipnetwork::IpNetwork;
use meridian_abi::{
    control::Control,
    flow::LAST_EPOCH,
    zone::{Entry, Slot},
};
use std::{
    collections::BTreeSet,
    iter,
    sync::atomic::{AtomicU16, Ordering},
};

/// The two maps, and what tells the programs which one to read.
pub(super) struct ZoneMaps {
    /// Prefixes of which the map that is not read may say something else than the table.
    behind: BTreeSet<IpNetwork>,
    control: Memory<SharedControl>,
    pinned_state: Memory<SharedPinnedState>,
}

impl ZoneMaps {
    /// Over empty maps. No entry that earlier programs have made is of the epoch that begins here.
    pub(super) fn new(maps: &Maps) -> Result<Self, Error> {
        let control = Memory::map(&maps.control, 1)?;
        let maps = Self { behind: BTreeSet::new(), control, pinned_state: Memory::map(&maps.pinned_state, 1)? };
        let first = maps.pinned_state()?.epoch.load(Ordering::SeqCst).max(1);
        maps.begin(following(first))?;
        Ok(maps)
    }

    fn control(&self) -> Result<&SharedControl, Error> {
        self.control.values().first().ok_or(Error::Object { what: "CONTROL is empty".into() })
    }

    fn pinned_state(&self) -> Result<&SharedPinnedState, Error> {
        self.pinned_state.values().first().ok_or(Error::Object { what: "PINNED_STATE is empty".into() })
    }

    /// Makes the programs read the map of an epoch.
    fn begin(&self, epoch: u32) -> Result<(), Error> {
        // First, so that no verdict is of an epoch that another agent could begin again.
        self.pinned_state()?.epoch.store(epoch, Ordering::SeqCst);
        self.control()?.epoch.store(epoch, Ordering::SeqCst);
        Ok(())
    }

    /// Makes the kernel read `table`, which differs from the table before in the prefixes `changed`
    /// only. The zones of the table have their slots in `slots`.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses. The old table stays in force then.
    pub(super) fn apply(
        &mut self,
        maps: &[Map<PrefixKey, Entry>; 2],
        table: &Table,
        changed: impl IntoIterator<Item = IpNetwork>,
        slots: &Slots,
        capacity: u32,
    ) -> Result<(), Error> {
        let next = following(self.control()?.epoch.load(Ordering::Relaxed));
        let map = &maps[(next & 1) as usize];
        // A program that began before the last change may still be reading this map.
        wait_for_programs();
        let changed: BTreeSet<IpNetwork> = changed.into_iter().collect();
        // If this fails, the map holds a part of what is not in force: all of it is written again then.
        let before = std::mem::take(&mut self.behind);
        let all = before.union(&changed);
        let written = write(map, all.clone().copied(), table, slots, capacity);
        if written.is_ok() {
            self.control()?.externals.store(table.has_external().into(), Ordering::SeqCst);
            self.begin(next)?;
            // The map that was read until now lacks these.
            self.behind = changed;
        } else {
            self.behind = all.copied().collect();
        }
        written
    }

    /// Says which zone the node is in. It is in force for entries that exist with the next table.
    /// Returns whether that is new.
    pub(super) fn set_node(&self, slot: Slot) -> Result<bool, Error> {
        Ok(self.control()?.node.swap(slot, Ordering::SeqCst) != slot)
    }

    /// Says by what the packets of overlays are told that go out through an uplink.
    pub(super) fn set_overlays(&self, overlays: &Overlays) -> Result<(), Error> {
        let control = self.control()?;
        let write = |places: &[AtomicU16], ports: &BTreeSet<u16>| {
            if ports.len() > Control::PORTS {
                tracing::warn!(
                    ?ports,
                    room = Control::PORTS,
                    "there are overlays on more ports than are told apart: theirs count twice"
                );
            }
            let ports = ports.iter().copied().chain(iter::repeat(0));
            places.iter().zip(ports).for_each(|(place, port)| place.store(port, Ordering::SeqCst));
        };
        write(&control.destination_ports, &overlays.destination_ports);
        write(&control.source_ports, &overlays.source_ports);
        control.protocols.store(overlays.protocols, Ordering::SeqCst);
        Ok(())
    }
}

/// The epoch after one. They go round after 2³² tables.
const fn following(epoch: u32) -> u32 {
    // 1 is of entries whose zones must be looked up.
    if epoch >= LAST_EPOCH { 2 } else { epoch + 1 }
}

/// Makes a map that nobody reads say of the prefixes what the table says.
fn write(
    map: &Map<PrefixKey, Entry>,
    prefixes: impl Iterator<Item = IpNetwork> + Clone,
    table: &Table,
    slots: &Slots,
    capacity: u32,
) -> Result<(), Error> {
    // Room is made first.
    for prefix in prefixes.clone().filter(|prefix| table.get(prefix).is_none()) {
        // One that is not there came and went while the other map was written.
        map.delete(&PrefixKey::from(&prefix)).map_err(|source| Error::Prefix { prefix, source })?;
    }
    for (prefix, placement) in prefixes.filter_map(|prefix| Some((prefix, table.get(&prefix)?))) {
        map.update(&PrefixKey::from(&prefix), &slots.entry(placement, capacity))
            .map_err(|source| Error::Prefix { prefix, source })?;
    }
    Ok(())
}
