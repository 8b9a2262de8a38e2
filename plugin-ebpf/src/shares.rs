//! What each source has used of the flow maps and of the events: one source leaves room for the others.

use crate::maps::{Address, hash_keys, setting};
use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::Array};
use core::ptr;
use meridian_abi::{
    event,
    share::{self, Share},
};
use meridian_ebpf::{
    hash,
    level::{Limit, used},
};

#[map]
static SHARES: Array<Share> = Array::with_max_entries(share::CELLS, 0);

/// Whether a source may have one more flow entry.
#[inline(always)]
pub fn may_make_entry<A: Address>(source: A) -> bool {
    may_make_entry_in(cell(source.words())) != 0
}

/// Whether a source may have an event although its CPU's limit is near.
#[inline(always)]
pub fn may_announce(source: [u32; 4]) -> bool {
    may_announce_in(cell(source)) != 0
}

#[inline(always)]
fn cell(source: [u32; 4]) -> u32 {
    hash::address(&hash_keys(), source) as u32 & (share::CELLS - 1)
}

/// A function of its own, so that its variables are not on the callers' stack.
#[inline(never)]
fn may_make_entry_in(cell: u32) -> u32 {
    let Some(share) = SHARES.get_ptr_mut(cell) else { return 0 };
    let limit = Limit { uses: setting!(flow_slots) / share::PART, period_ns: share::ENTRIES_PERIOD_NS };
    // SAFETY: a non-null map value; only the field's address is taken.
    u32::from(use_one(unsafe { &raw mut (*share).entries }, limit) < limit.uses)
}

/// A function of its own, for the same reason.
#[inline(never)]
fn may_announce_in(cell: u32) -> u32 {
    let Some(share) = SHARES.get_ptr_mut(cell) else { return 0 };
    let limit = Limit { uses: share::EVENTS, period_ns: event::WINDOW_NS };
    // SAFETY: a non-null map value; only the field's address is taken. The level of a source that announces without end
    // stays near its limit.
    u32::from(use_one(unsafe { &raw mut (*share).events }, limit) < limit.uses / 2)
}

/// The level before the use.
#[inline(always)]
fn use_one(level: *mut u64, limit: Limit) -> u32 {
    // SAFETY: the caller's word of a map value, aligned to 8 bytes. CPUs that race here lose a use of one of them: it is a
    // limit, no sum. The helper takes nothing.
    unsafe {
        let (word, before) = used(ptr::read_volatile(level), limit, bpf_ktime_get_ns());
        ptr::write_volatile(level, word);
        before
    }
}
