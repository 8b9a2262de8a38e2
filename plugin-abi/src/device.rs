//! The map DEVICES: the devices through which packets leave the node, two bits for each ifindex.

/// The largest interface index that fits. The kernel counts indices up from 1 in each network namespace, so only a
/// node that has made a million devices since it booted exceeds it.
pub const MAX_IFINDEX: u32 = (1 << 20) - 1;
/// The words of 64 bits in the map.
pub const WORDS: u32 = (MAX_IFINDEX + 1) / DEVICES_IN_WORD;

const DEVICES_IN_WORD: u32 = 32;

/// The bits of a device.
pub const MASK: u64 = 3;
/// A device to the wire.
pub const UPLINK: u64 = 1;
/// A device of an overlay: its packets leave through an uplink, inside other packets.
pub const OVERLAY: u64 = 2;

/// An uplink over which VLANs have their own devices, which count the tagged packets.
pub const TRUNK: u64 = 3;

/// The word of an ifindex, and the position of its bits there.
#[inline(always)]
pub const fn place(ifindex: u32) -> (u32, u32) {
    (ifindex / DEVICES_IN_WORD, ifindex % DEVICES_IN_WORD * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ifindex_has_bits_of_its_own() {
        assert_eq!(place(1), (0, 2));
        assert_eq!(place(31), (0, 62));
        assert_eq!(place(32), (1, 0));
        assert_eq!(place(MAX_IFINDEX), (WORDS - 1, 62));
    }
}
