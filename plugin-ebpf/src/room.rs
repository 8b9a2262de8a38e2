//! The index of flow entries, and room in it for a new one: a cell, and a number. The loader makes these functions global, so that the
//! verifier walks their loops once for each program.

use crate::maps::{opaque, setting};
use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    ptr,
};
use meridian_abi::{
    IpVersion, control,
    index::{self, Line, Numbers, Pair},
};

#[map]
pub static INDEX_V4: Array<Pair> = Array::with_max_entries(index::PAIRS, BPF_F_MMAPABLE);
#[map]
pub static INDEX_V6: Array<Pair> = Array::with_max_entries(index::PAIRS, BPF_F_MMAPABLE);

/// The loader sets the sizes.
#[map]
static FREE_V4: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static FREE_V6: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static NUMBERS: Array<Numbers> = Array::with_max_entries(2, BPF_F_MMAPABLE);

/// The place of a cell for a new entry with this hash, which no other program takes. `u32::MAX`: all cells that it may be
/// in are taken.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reserve_v4(hash: u64) -> u32 {
    reserved_cell(&INDEX_V4, hash)
}

/// The same.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reserve_v6(hash: u64) -> u32 {
    reserved_cell(&INDEX_V6, hash)
}

/// A number that no entry has, or `u32::MAX`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn number_v4() -> u32 {
    taken_number(&FREE_V4, IpVersion::V4)
}

/// The same.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn number_v6() -> u32 {
    taken_number(&FREE_V6, IpVersion::V6)
}

#[inline(always)]
fn reserved_cell(index: &Array<Pair>, hash: u64) -> u32 {
    for probe in 0..opaque::<{ index::PROBES as i32 }>() {
        let pair = index::pair(hash, probe as u32);
        let Some(cells) = index.get_ptr_mut(pair) else { break };
        for at in 0..2 {
            // SAFETY: a cell of a non-null map value, which others write as one word.
            unsafe {
                let cell = cells.cast::<u32>().add(at);
                if ptr::read_volatile(cell) != index::EMPTY {
                    continue;
                }
                let (_, is_mine) = atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                    cell,
                    index::EMPTY,
                    index::RESERVED,
                );
                if is_mine {
                    return index::place(pair, at);
                }
            }
        }
    }
    u32::MAX
}

/// The attempts to take a number while other CPUs take some.
const ATTEMPTS: i32 = 32;

#[inline(always)]
fn taken_number(free: &Array<Line>, version: IpVersion) -> u32 {
    let slots = setting!(flow_slots);
    let Some(numbers) = NUMBERS.get_ptr_mut(control::straight(version)) else { return u32::MAX };
    for _ in 0..opaque::<ATTEMPTS>() {
        // SAFETY: a non-null map value; words are read and exchanged whole. The addition of zero is a full barrier:
        // what lies in the ring is not read before the number of those that were given.
        unsafe {
            let taken = ptr::read_volatile(&raw const (*numbers).taken);
            let given = atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(&raw mut (*numbers).given, 0);
            let (word, expected, number) = if (given.wrapping_sub(taken) as i64) > 0 {
                let at = taken as u32 & slots.wrapping_sub(1);
                let Some(line) = free.get(at / index::CELLS) else { break };
                let number = ptr::read_volatile(line.0.as_ptr().add((at % index::CELLS) as usize));
                (&raw mut (*numbers).taken, taken, number)
            } else {
                let next = ptr::read_volatile(&raw const (*numbers).next);
                (&raw mut (*numbers).next, next, next as u32)
            };
            if number >= slots {
                break;
            }
            let (_, is_mine) = atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                word,
                expected,
                expected.wrapping_add(1),
            );
            if is_mine {
                return number;
            }
        }
    }
    u32::MAX
}
