//! State that outlives an agent besides its counters: the names of the zones' slots, and the id of the counters.

use super::{
    Error,
    maps::Map,
    memory::{Memory, SharedPinnedState},
};
use crate::zones::{Slots, Zone};
use meridian_abi::{
    control::PinnedState,
    zone::{MAX_NAME, MAX_ZONES, Name},
};
use std::sync::{Arc, atomic::Ordering};
use uuid::Uuid;
use zerocopy::FromZeros;

/// Gives new counters their id and the seed of their hashes, and returns the seed.
pub(super) fn begin(pinned_state: &Map<u32, PinnedState>) -> Result<u64, Error> {
    let memory: Memory<SharedPinnedState> = Memory::map(pinned_state, 1)?;
    let [pinned_state] = memory.values() else { return Err(Error::Object { what: "PINNED_STATE is empty".into() }) };
    let [low, high] = &pinned_state.boot_id;
    if low.load(Ordering::SeqCst) == 0 {
        pinned_state.seed.store(Uuid::new_v4().as_u64_pair().1, Ordering::SeqCst);
        // It holds the time at which the counters begin.
        let (first, second) = Uuid::now_v7().as_u64_pair();
        high.store(second, Ordering::SeqCst);
        // Written last: a reader that finds this word finds all of it.
        low.store(first, Ordering::SeqCst);
    }
    Ok(pinned_state.seed.load(Ordering::SeqCst))
}

/// The id of the counters.
pub(super) fn boot_id(pinned_state: &Map<u32, PinnedState>) -> Result<Uuid, Error> {
    let memory: Memory<SharedPinnedState> = Memory::map(pinned_state, 1)?;
    let [pinned_state] = memory.values() else { return Ok(Uuid::nil()) };
    let [low, high] = pinned_state.boot_id.each_ref().map(|word| word.load(Ordering::SeqCst));
    Ok(Uuid::from_u64_pair(low, high))
}

/// Writes the names of new slots; a region may change.
pub(super) fn write(map: &Map<u32, Name>, slots: &Slots) -> Result<(), Error> {
    for (index, zone) in (0u32..).zip(slots.zones()) {
        let name = Name { zone: text(&zone.name), region: text(&zone.region) };
        if map.lookup(&index)? != name {
            map.update(&index, &name).map_err(|source| map.failed(source))?;
        }
    }
    Ok(())
}

/// The zones of the slots, up to the first slot that is not assigned.
pub(super) fn read(map: &Map<u32, Name>) -> Result<Vec<Arc<Zone>>, Error> {
    let mut zones = Vec::new();
    for index in 0..MAX_ZONES as u32 {
        let name = map.lookup(&index)?;
        if name == Name::new_zeroed() {
            break;
        }
        zones.push(Arc::new(Zone { name: string(&name.zone), region: string(&name.region) }));
    }
    Ok(zones)
}

/// Longer names are cut, but they are refused where they are read.
fn text(text: &str) -> [u8; MAX_NAME] {
    let mut bytes = [0; MAX_NAME];
    bytes.iter_mut().zip(text.bytes().take(MAX_NAME - 1)).for_each(|(to, from)| *to = from);
    bytes
}

fn string(bytes: &[u8; MAX_NAME]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(MAX_NAME);
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}
