//! Each source's use of the flow maps and the events: one source leaves room for the others.

use crate::maps::{Address, hash_keys, setting};
use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::Array};
use core::ptr;
use meridian_abi::{
    event,
    share::{self, Share},
};
use meridian_ebpf::{
    hash,
    level::{self, Limit},
};

#[map]
static SHARES: Array<Share> = Array::with_max_entries(share::CELLS, 0);

/// Whether a source may have one more flow entry.
#[inline(always)]
pub fn may_make_entry<A: Address>(source: A) -> bool {
    let (high, low) = halves(source.words());
    level_of_entries(high, low, 0) < entries_limit().uses
}

/// Counts a flow entry that was made for a source.
#[inline(always)]
pub fn made_entry<A: Address>(source: A) {
    let (high, low) = halves(source.words());
    level_of_entries(high, low, 1);
}

/// Counts an event of a source, and returns whether the source may have it although its CPU's limit is near: the level of
/// a source that announces without end stays near its limit.
#[inline(always)]
pub fn may_announce(source: [u32; 4]) -> bool {
    let (high, low) = halves(source);
    level_of_events(high, low) < EVENTS_LIMIT.uses / 2
}

const EVENTS_LIMIT: Limit = Limit { uses: share::EVENTS, period_ns: event::WINDOW_NS };

#[inline(always)]
fn entries_limit() -> Limit {
    Limit { uses: setting!(flow_slots) / share::PART, period_ns: share::ENTRIES_PERIOD_NS }
}

/// An address as two numbers: a function takes it in registers, so that nothing of it is on the callers' stack.
#[inline(always)]
fn halves([a, b, c, d]: [u32; 4]) -> (u64, u64) {
    (u64::from(a) | u64::from(b) << 32, u64::from(c) | u64::from(d) << 32)
}

#[inline(always)]
fn cell(high: u64, low: u64) -> *mut Share {
    let words = [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32];
    let cell = hash::address(&hash_keys(), words) as u32 & (share::CELLS - 1);
    SHARES.get_ptr_mut(cell).unwrap_or(ptr::null_mut())
}

/// The level of a source's entries before it rises by `uses`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn level_of_entries(high: u64, low: u64, uses: u32) -> u32 {
    let share = cell(high, low);
    if share.is_null() {
        return 0;
    }
    // SAFETY: a non-null map value; only the field's address is taken.
    raised(unsafe { &raw mut (*share).entries }, uses, entries_limit())
}

/// The level of a source's events before it rises by one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn level_of_events(high: u64, low: u64) -> u32 {
    let share = cell(high, low);
    if share.is_null() {
        return 0;
    }
    // SAFETY: a non-null map value; only the field's address is taken.
    raised(unsafe { &raw mut (*share).events }, 1, EVENTS_LIMIT)
}

/// The level before it rises by `uses`.
#[inline(always)]
fn raised(level: *mut u64, uses: u32, limit: Limit) -> u32 {
    // SAFETY: the caller's word of a map value, aligned to 8 bytes. CPUs that race here lose a use of one of them: it is a
    // limit, no sum. The helper takes nothing.
    unsafe {
        let (word, before) = level::raised(ptr::read_volatile(level), uses, limit, bpf_ktime_get_ns());
        ptr::write_volatile(level, word);
        before
    }
}
