//! The zone table in the kernel: two longest-prefix maps, of which the epoch's low bit selects the one that programs
//! read.
//!
//! A new table is written into the other map, then the epoch moves: a packet sees the old table or the new one, never
//! a mix, and no prefix is ever absent.

use super::{
    Error,
    devices::{Device, Overlays, Role},
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

/// Prefixes that are written in one call.
const BATCH: usize = 4096;

/// The two maps, and the epoch that selects one.
pub(super) struct ZoneMaps {
    /// Prefixes in which the map that is not read may differ from the table.
    behind: BTreeSet<IpNetwork>,
    control: Memory<SharedControl>,
    pinned_state: Memory<SharedPinnedState>,
}

impl ZoneMaps {
    /// Starts with empty maps. No entry of earlier programs has the epoch that begins here.
    pub(super) fn new(maps: &Maps) -> Result<Self, Error> {
        let control = Memory::map(&maps.control, 1)?;
        let maps = Self { behind: BTreeSet::new(), control, pinned_state: Memory::map(&maps.pinned_state, 1)? };
        let first = maps.pinned_state()?.epoch.load(Ordering::SeqCst).max(1);
        maps.begin(following(first))?;
        maps.forget_devices()?;
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
        // Stored first, so that no verdict has an epoch that another agent could use again.
        self.pinned_state()?.epoch.store(epoch, Ordering::SeqCst);
        self.control()?.epoch.store(epoch, Ordering::SeqCst);
        Ok(())
    }

    /// Makes the kernel use `table`, which differs from the last table only in the prefixes `changed`. The zones of
    /// the table have their slots in `slots`.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses. The old table then stays in force.
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
        // If this fails, the map is partly written: it is then written again completely.
        let before = std::mem::take(&mut self.behind);
        let all = before.union(&changed);
        let written = write(map, all.clone().copied(), table, slots, capacity);
        if written.is_ok() {
            self.control()?.externals.store(table.has_external().into(), Ordering::SeqCst);
            self.begin(next)?;
            // The map that was read until now does not have these yet.
            self.behind = changed;
        } else {
            self.behind = all.copied().collect();
        }
        written
    }

    /// Sets the node's zone, which existing entries use from the next table on. Returns whether it changed.
    pub(super) fn set_node(&self, slot: Slot) -> Result<bool, Error> {
        Ok(self.control()?.node.swap(slot, Ordering::SeqCst) != slot)
    }

    /// Names no device in CONTROL: the programs ask DEVICES about each.
    pub(super) fn forget_devices(&self) -> Result<(), Error> {
        let control = self.control()?;
        control.more_devices.store(1, Ordering::SeqCst);
        control.uplinks.iter().chain([&control.overlay]).for_each(|place| place.store(0, Ordering::SeqCst));
        Ok(())
    }

    /// Names devices in CONTROL, which DEVICES has already.
    pub(super) fn set_devices(&self, devices: &[Device]) -> Result<(), Error> {
        let control = self.control()?;
        let of_role = |role| devices.iter().filter(move |device| device.role == role).map(|device| device.ifindex);
        let (uplinks, overlays) = (of_role(Role::Uplink), of_role(Role::Overlay));
        let is_all = uplinks.clone().count() <= Control::UPLINKS && overlays.clone().count() <= 1;
        control.uplinks.iter().zip(uplinks).for_each(|(place, ifindex)| place.store(ifindex, Ordering::SeqCst));
        overlays.take(1).for_each(|ifindex| control.overlay.store(ifindex, Ordering::SeqCst));
        control.more_devices.store((!is_all).into(), Ordering::SeqCst);
        Ok(())
    }

    /// Sets the marks of overlays' packets that leave through an uplink.
    pub(super) fn set_overlays(&self, overlays: &Overlays) -> Result<(), Error> {
        let control = self.control()?;
        let write = |places: &[AtomicU16], ports: &BTreeSet<u16>| {
            if ports.len() > Control::PORTS {
                tracing::warn!(
                    ?ports,
                    room = Control::PORTS,
                    "overlays use more ports than fit: traffic on the others counts twice"
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

/// The epoch after this one; it wraps after 2³² tables.
const fn following(epoch: u32) -> u32 {
    // 1 marks entries whose zones must be looked up.
    if epoch >= LAST_EPOCH { 2 } else { epoch + 1 }
}

/// Writes the prefixes of the table into a map that no program reads.
fn write(
    map: &Map<PrefixKey, Entry>,
    prefixes: impl Iterator<Item = IpNetwork> + Clone,
    table: &Table,
    slots: &Slots,
    capacity: u32,
) -> Result<(), Error> {
    // Deletions come first, to make room.
    for prefix in prefixes.clone().filter(|prefix| table.get(prefix).is_none()) {
        // A missing prefix was added and removed while the other map was written.
        map.delete(&PrefixKey::from(&prefix)).map_err(|source| Error::Prefix { prefix, source })?;
    }
    let mut placed = prefixes.filter_map(|prefix| Some((prefix, table.get(&prefix)?)));
    loop {
        let batch: Vec<_> = placed.by_ref().take(BATCH).collect();
        let keys: Vec<PrefixKey> = batch.iter().map(|(prefix, _)| prefix.into()).collect();
        let entries: Vec<Entry> = batch.iter().map(|(_, placement)| slots.entry(placement, capacity)).collect();
        map.update_all(&keys, &entries).map_err(|(at, source)| Error::Prefix { prefix: batch[at].0, source })?;
        if batch.len() < BATCH {
            return Ok(());
        }
    }
}
