//! What outlives an agent beside its counters: the names of the zones' slots, and which counters these
//! are.

use super::{
    Error,
    memory::{Memory, SharedLedger},
    sys,
};
use crate::zones::{Slots, Zone};
use meridian_abi::zone::{MAX_NAME, MAX_ZONES, Name};
use std::{
    os::fd::BorrowedFd,
    sync::{Arc, atomic::Ordering},
};
use uuid::Uuid;
use zerocopy::FromZeros;

/// Gives counters that begin their id and the seed of their hashes.
pub(super) fn begin(ledger: BorrowedFd<'_>) -> Result<(), Error> {
    let memory = ledger_memory(ledger)?;
    for ledger in memory.values() {
        let [low, high] = &ledger.boot_id;
        if low.load(Ordering::SeqCst) == 0 {
            ledger.seed.store(Uuid::new_v4().as_u64_pair().1, Ordering::SeqCst);
            let (first, second) = Uuid::new_v4().as_u64_pair();
            high.store(second, Ordering::SeqCst);
            // Last: who finds it finds all.
            low.store(first, Ordering::SeqCst);
        }
    }
    Ok(())
}

/// Which counters these are.
pub(super) fn boot_id(ledger: BorrowedFd<'_>) -> Result<Uuid, Error> {
    let memory = ledger_memory(ledger)?;
    let [ledger] = memory.values() else { return Ok(Uuid::nil()) };
    let [low, high] = ledger.boot_id.each_ref().map(|word| word.load(Ordering::SeqCst));
    Ok(Uuid::from_u64_pair(low, high))
}

fn ledger_memory(ledger: BorrowedFd<'_>) -> Result<Memory<SharedLedger>, Error> {
    Memory::map("LEDGER", ledger, 1)
}

/// Writes the names of slots that have none yet; a region may change.
pub(super) fn write(map: BorrowedFd<'_>, slots: &Slots) -> Result<(), Error> {
    for (index, zone) in (0u32..).zip(slots.zones()) {
        let name = Name { zone: text(&zone.name), region: text(&zone.region) };
        let failed = |source| Error::Map { map: "ZONE_NAMES".into(), source };
        if sys::lookup::<_, Name>(map, &index).map_err(failed)? != name {
            sys::update(map, &index, &name).map_err(failed)?;
        }
    }
    Ok(())
}

/// The zones of the slots, up to the first that was not given.
pub(super) fn read(map: BorrowedFd<'_>) -> Result<Vec<Arc<Zone>>, Error> {
    let mut zones = Vec::new();
    for index in 0..MAX_ZONES as u32 {
        let name: Name = sys::lookup(map, &index).map_err(|source| Error::Map { map: "ZONE_NAMES".into(), source })?;
        if name == Name::new_zeroed() {
            break;
        }
        zones.push(Arc::new(Zone { name: string(&name.zone), region: string(&name.region) }));
    }
    Ok(zones)
}

/// What does not fit is cut: names that long are refused where they are read.
fn text(text: &str) -> [u8; MAX_NAME] {
    let mut bytes = [0; MAX_NAME];
    bytes.iter_mut().zip(text.bytes().take(MAX_NAME - 1)).for_each(|(to, from)| *to = from);
    bytes
}

fn string(bytes: &[u8; MAX_NAME]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(MAX_NAME);
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}
