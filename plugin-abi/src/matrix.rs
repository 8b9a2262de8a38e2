//! The map ZONE_MATRIX: a per-CPU array of [`Counter`](crate::Counter), one cell for each direction, IP version,
//! source slot and destination slot. The sums over the CPUs count.
//!
//! The array is dense, so it can't overflow, and a cell is found without hashing. Its side is chosen when the map is
//! made, from the number of zones in the table: 4 × slots² cells of 16 bytes on each CPU, 64 KiB for 32 slots.

use crate::{IpVersion, zone};

/// The direction of a packet, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Leaves the node.
    Egress = 0,
    /// Arrives at the node.
    Ingress = 1,
}

impl Direction {
    /// The name in labels and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// The fewest slots of a matrix: room for thirty zones.
pub const MIN_SLOTS: u32 = 32;
/// The most slots of a matrix: every zone, unknown and internet.
pub const MAX_SLOTS: u32 = zone::MAX_ZONES as u32 + zone::FIRST_ZONE as u32;

/// The cells of a matrix with `slots` slots.
pub const fn cells(slots: u32) -> u32 {
    4 * slots * slots
}

/// The index of a cell. `source` and `destination` are below `slots`.
#[inline(always)]
pub const fn index(
    slots: u32,
    direction: Direction,
    version: IpVersion,
    source: zone::Slot,
    destination: zone::Slot,
) -> u32 {
    let plane = 2 * direction as u32 + matches!(version, IpVersion::V6) as u32;
    (plane * slots + source as u32) * slots + destination as u32
}

/// The cell at `index`: the inverse of [`index`].
pub const fn cell(slots: u32, index: u32) -> (Direction, IpVersion, zone::Slot, zone::Slot) {
    let plane = index / (slots * slots);
    let direction = if plane & 2 == 0 { Direction::Egress } else { Direction::Ingress };
    let version = if plane & 1 == 0 { IpVersion::V4 } else { IpVersion::V6 };
    (direction, version, (index / slots % slots) as zone::Slot, (index % slots) as zone::Slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_one_index() {
        for slots in [MIN_SLOTS, 33, MAX_SLOTS] {
            for i in 0..cells(slots) {
                let (direction, version, source, destination) = cell(slots, i);
                assert_eq!(index(slots, direction, version, source, destination), i);
            }
        }
    }
}
