//! The maps INDEX_V4 and INDEX_V6, FREE_V4 and FREE_V6, NUMBERS: where a flow entry is, and which numbers are free.
//!
//! Flow entries lie in the order in which they were made (see [`flow`](crate::flow)), so that those of a time are
//! neighbours. An index has a cell for each: bits of the key's hash, and the entry's number. A cell of a key is in one of
//! two lines of the cache, first in a small part that stays in the second-level cache, then in a large one.
//!
//! A program takes the number of a new entry from the ring of free numbers, or if the ring is empty the first number that
//! no entry has had. Only userspace puts numbers into the ring.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The cells of a line.
pub const CELLS: u32 = 16;
/// The lines of the small part: 64 KiB.
pub const NEAR_LINES: u32 = 1024;
/// The lines of the large part: 1 MiB.
pub const FAR_LINES: u32 = 16_384;
/// The pairs of cells of an index.
pub const PAIRS: u32 = (NEAR_LINES + FAR_LINES) * CELLS / 2;

/// The bits of an entry's number.
pub const NUMBER_BITS: u32 = 17;
/// The limit of the entries of an IP version.
pub const MAX_ENTRIES: u32 = 1 << NUMBER_BITS;

/// A value of the index: two cells. A program looks a pair up by its number, so that the verifier need not follow how the
/// hash became an offset.
pub type Pair = [u32; 2];

/// A value of the ring of free numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Line(pub [u32; CELLS as usize]);

/// A cell without an entry.
pub const EMPTY: u32 = 0;
/// A cell whose entry a program is making.
pub const RESERVED: u32 = 1;
/// Is in the cells of entries.
const TAKEN: u32 = 1 << 31;

/// Whether a cell is that of an entry.
#[inline(always)]
pub const fn is_entry(cell: u32) -> bool {
    cell & TAKEN != 0
}

/// The pairs of cells that a key may be in.
pub const PROBES: u32 = 2 * CELLS / 2;

/// The pair of cells to look at after `probe` others: those of a line of the small part, then those of one of the large
/// part.
#[inline(always)]
pub const fn pair(hash: u64, probe: u32) -> u32 {
    let near = hash as u32 % NEAR_LINES;
    let far = NEAR_LINES + (hash >> 16) as u32 % FAR_LINES;
    let line = if probe < CELLS / 2 { near } else { far };
    line * (CELLS / 2) + ((hash >> 32) as u32).wrapping_add(probe) % (CELLS / 2)
}

/// A cell's place in the index, from its pair's and its own in the pair.
#[inline(always)]
pub const fn place(pair: u32, at: usize) -> u32 {
    pair * 2 + at as u32
}

/// The pair of the cell at a place.
#[inline(always)]
pub const fn pair_of(place: u32) -> u32 {
    place / 2
}

/// The place of a cell in its pair.
#[inline(always)]
pub const fn cell_of(place: u32) -> usize {
    place as usize % 2
}

/// What the cell of a hash has besides the entry's number.
#[inline(always)]
pub const fn tag(hash: u64) -> u32 {
    TAKEN | (((hash >> 50) as u32 % (TAKEN >> NUMBER_BITS)) << NUMBER_BITS)
}

/// The number in a cell that has an entry.
#[inline(always)]
pub const fn number(cell: u32) -> u32 {
    cell % MAX_ENTRIES
}

/// The tag in a cell.
#[inline(always)]
pub const fn tag_of(cell: u32) -> u32 {
    cell & !(MAX_ENTRIES - 1)
}

/// A value of the map NUMBERS, which has one for IPv4 and one for IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Numbers {
    /// Numbers that programs have taken from the ring since the counters began.
    pub taken: u64,
    /// The first number that no entry has had.
    pub next: u64,
    /// Zero, to the end of a line of the cache.
    pub reserved: [u64; 6],
    /// Numbers that userspace has put into the ring since the counters began.
    pub given: u64,
    /// Zero, to the end of a line of the cache.
    pub reserved_given: [u64; 7],
}

const _: () = assert!(size_of::<Line>() == 64);
const _: () = assert!(size_of::<Numbers>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_gives_back_its_number_and_its_tag_and_is_not_empty() {
        for hash in [0, u64::MAX, 0x0123_4567_89ab_cdef] {
            for entry in [0, 1, MAX_ENTRIES - 1] {
                let cell = tag(hash) | entry;
                assert_eq!((number(cell), tag_of(cell)), (entry, tag(hash)));
                assert!(is_entry(cell) && !is_entry(EMPTY) && !is_entry(RESERVED));
            }
            for probe in 0..PROBES {
                let (line, is_near) = (pair(hash, probe) / (CELLS / 2), probe < PROBES / 2);
                assert!(line < NEAR_LINES + FAR_LINES && is_near == (line < NEAR_LINES));
                assert!((0..probe).all(|before| pair(hash, before) != pair(hash, probe)));
            }
        }
    }
}
