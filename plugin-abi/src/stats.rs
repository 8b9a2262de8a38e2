//! The map STATS: a per-CPU array of [`Counter`](crate::Counter), one for each [`Stat`].

/// The reason why a packet is outside the sums, or was counted with a caveat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Stat {
    /// Outside the sums: went out through a loopback device.
    Loopback = 0,
    /// Outside the sums: neighbour discovery, MLD, multicast, broadcast, link-local addresses.
    LinkScoped = 1,
    /// Outside the sums: from a pod or the node to another pod of the node.
    SameNode = 2,
    /// Outside the sums: arrived through an uplink, counted at its sender's node.
    Delivered = 3,
    /// Outside the sums: not IP, or shorter than its IP header.
    Malformed = 4,
    /// In the matrix, but in no flow entry: the flow map is full, or its source has used up its share of it.
    Unattributed = 5,
    /// In the matrix and in the flow entry of the address pair, because its ports could not be read, or because it is
    /// a fragment without ports.
    NoPorts = 6,
    /// In the sums with its length as one packet: a GSO packet whose segments can't be computed.
    OddGso = 7,
    /// In the sums as its fragments: a packet that is fragmented before the wire, whose fragments could be counted.
    Fragmented = 8,
    /// In the sums as its segments: a super-packet. This counter has the packet as the hook saw it, as one.
    SuperPacket = 9,
    /// In the sums, but not announced: there were too many events on its CPU or of its source.
    EventWithheld = 10,
    /// In the sums, but not announced: the ring buffer was full.
    EventLost = 11,
    /// Outside the sums: carries a packet of an overlay, which was counted as the inner packet.
    Overlay = 12,
    /// In the sums as its fragments, whose number follows from the out device's MTU, because there were no fragments
    /// to count. On a route with a smaller MTU there are more.
    FragmentedByMtu = 13,
    /// In the sums with its length as one packet: it is cut into more fragments than the program follows.
    OddFragments = 14,
    /// Outside the sums: has a VLAN tag, and was counted on the VLAN's own device.
    Vlan = 15,
    /// In the sums: left through an overlay's device, inside another packet. It allows comparing the hook's counters
    /// of overlays with their devices' own.
    Encapsulated = 16,
    /// In the matrix and in [`Unattributed`](Self::Unattributed): the packet's source has used up its share of the flow
    /// map.
    OverShare = 17,
}

/// The elements of STATS: room for reasons of later versions, so that they can use the pinned map.
pub const ROOM: u32 = 32;

impl Stat {
    /// All reasons, in the order of their indices.
    pub const ALL: [Self; 18] = [
        Self::Loopback,
        Self::LinkScoped,
        Self::SameNode,
        Self::Delivered,
        Self::Malformed,
        Self::Unattributed,
        Self::NoPorts,
        Self::OddGso,
        Self::Fragmented,
        Self::SuperPacket,
        Self::EventWithheld,
        Self::EventLost,
        Self::Overlay,
        Self::FragmentedByMtu,
        Self::OddFragments,
        Self::Vlan,
        Self::Encapsulated,
        Self::OverShare,
    ];

    /// Whether such packets are outside the sums.
    pub const fn is_outside(self) -> bool {
        matches!(
            self,
            Self::Loopback
                | Self::LinkScoped
                | Self::SameNode
                | Self::Delivered
                | Self::Malformed
                | Self::Overlay
                | Self::Vlan
        )
    }

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::LinkScoped => "link_scoped",
            Self::SameNode => "same_node",
            Self::Delivered => "delivered",
            Self::Malformed => "malformed",
            Self::Unattributed => "unattributed",
            Self::NoPorts => "no_ports",
            Self::OddGso => "odd_gso",
            Self::Fragmented => "fragmented",
            Self::SuperPacket => "super_packet",
            Self::EventWithheld => "event_withheld",
            Self::EventLost => "event_lost",
            Self::Overlay => "overlay",
            Self::FragmentedByMtu => "fragmented_by_mtu",
            Self::OddFragments => "odd_fragments",
            Self::Vlan => "vlan",
            Self::Encapsulated => "encapsulated",
            Self::OverShare => "over_share",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_order_of_the_indices() {
        for (index, stat) in Stat::ALL.into_iter().enumerate() {
            assert_eq!(stat as usize, index, "{}", stat.name());
        }
        assert!(Stat::ALL.len() <= ROOM as usize);
    }
}
