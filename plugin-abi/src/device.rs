//! The map UPLINKS: which devices packets leave the node through, a bit for each ifindex.

/// Interface indices that fit. The kernel counts them up from 1 in each network namespace, so only
/// a node that has made a million devices since it booted gets past them.
pub const MAX_IFINDEX: u32 = (1 << 20) - 1;
/// Words of 64 bits in the map.
pub const WORDS: u32 = (MAX_IFINDEX + 1) / 64;

/// The word of an ifindex, and its bit there.
#[inline(always)]
pub const fn bit(ifindex: u32) -> (u32, u64) {
    (ifindex / 64, 1 << (ifindex % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ifindex_has_a_bit_of_its_own() {
        assert_eq!(bit(1), (0, 2));
        assert_eq!(bit(63), (0, 1 << 63));
        assert_eq!(bit(64), (1, 1));
        assert_eq!(bit(MAX_IFINDEX), (WORDS - 1, 1 << 63));
    }
}
