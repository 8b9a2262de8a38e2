//! The map SHARES: how much of the flow maps and of the events each source address has used lately. One source leaves
//! room for the others.
//!
//! A cell is that of all addresses with its hash, which depends on a secret: a source can't choose whose cell it shares.

use crate::event;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The elements of the map: a power of two.
pub const CELLS: u32 = 8192;

/// A tick, the unit of time in the cells: 2 to this power nanoseconds.
pub const TICK_SHIFT: u32 = 20;

/// The part of the flow slots that a source may use at once, and once more in each [`ENTRIES_PERIOD_NS`].
pub const PART: u32 = 4;

/// The time in which a source may make as many flow entries as [`PART`] allows. Userspace removes entries that were idle
/// for as long when the maps fill up, so that one source never has more than two parts of them for long.
pub const ENTRIES_PERIOD_NS: u64 = 15_000_000_000;

/// The limit of a source's level of events, which sinks as far in each [`event::WINDOW_NS`]. Below half of it the source
/// may use the events that are reserved.
pub const EVENTS: u32 = event::BUDGET as u32 / PART;

/// The events of a CPU's window that only sources with few events may use.
pub const RESERVED_EVENTS: u64 = event::BUDGET / PART as u64;

/// A cell: two levels that sink with time, each with the tick of its last change in the upper half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Share {
    /// New flow entries.
    pub entries: u64,
    /// Events.
    pub events: u64,
}

const _: () = assert!(CELLS.is_power_of_two());
