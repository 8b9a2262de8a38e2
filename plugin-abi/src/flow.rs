//! The maps FLOWS_V4 and FLOWS_V6: bytes and packets by address pair and service port.
//!
//! A flow entry folds connections: the ephemeral port is not in the key, so ten thousand
//! connections between two pods on one service are one entry per direction.
//!
//! Each map is an array that is mapped into userspace, so that userspace reads entries and removes idle ones without a
//! system call. An entry lies at its number. Numbers are given in the order in which entries are made, and the programs
//! find the number in an index (see [`index`](crate::index)). Two CPUs that make the same entry at once may make two; their
//! sum counts. The first word of a slot is its state (see [`Verdict`]):
//!
//! 1. [`EMPTY`]: the number is free, or a program has just taken it and is writing key and generation. No cell of the
//!    index names it.
//! 2. A verdict: programs find the number in the index and add to the counters. The key does not change.
//! 3. [`RETIRED`]: userspace found the entry idle. No program that starts now uses it, and programs that started
//!    earlier end soon: then the counters are final.
//! 4. Userspace takes the counters over, writes zeros over them and the key, and then [`EMPTY`]. It clears the cell in
//!    the index. No program that starts now finds the number, and those that started earlier end soon: then the number is
//!    free.

use crate::slot::Slot;
use core::mem;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A slot without an entry.
pub const EMPTY: u64 = 0;
/// A slot whose counters userspace is taking over.
pub const RETIRED: u64 = u64::MAX;

/// The last epoch of a table.
pub const LAST_EPOCH: u32 = u32::MAX - 1;

/// Whether a slot's word is a verdict, which means that the slot has an entry.
#[inline(always)]
pub const fn is_verdict(word: u64) -> bool {
    word != EMPTY && word >> 32 <= LAST_EPOCH as u64
}

/// An IPv4 address, its bytes in network order in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct V4(pub u32);

/// An IPv6 address, its bytes in network order in memory. As words, because a kernel program copies aligned data in
/// fewer instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct V6(pub [u32; 4]);

/// The key of a flow entry, one direction of the traffic between two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey<A> {
    /// The sender.
    pub source: A,
    /// The receiver.
    pub destination: A,
    /// TCP, UDP, SCTP: the service's port. ICMP: type × 256 + code. Otherwise 0.
    pub service_port: u16,
    /// The IP protocol number.
    pub protocol: u8,
    /// The end that is the service, and the path of the packets.
    pub side_and_path: SideAndPath,
}

impl<A> FlowKey<A> {
    /// Makes the other end the service: exchanges its port with the client's, which the key does not have.
    ///
    /// The service is one of the two ends.
    #[inline(always)]
    pub const fn turn(&mut self, client_port: &mut u16) {
        mem::swap(&mut self.service_port, client_port);
        self.side_and_path = self.side_and_path.turned();
    }
}

/// A [`ServiceSide`] and a [`PacketPath`] in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct SideAndPath(u8);

impl SideAndPath {
    /// Combines a side and a path.
    #[inline(always)]
    pub const fn new(side: ServiceSide, path: PacketPath) -> Self {
        Self(side as u8 | (path as u8) << 2)
    }

    /// The byte.
    #[inline(always)]
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// The value of a byte.
    #[inline(always)]
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// The same path with the other end as the service.
    ///
    /// The service is one of the two ends.
    #[inline(always)]
    #[must_use]
    pub const fn turned(self) -> Self {
        Self(self.0 ^ 3)
    }

    /// The side; an invalid value is [`ServiceSide::None`].
    #[inline(always)]
    pub const fn side(self) -> ServiceSide {
        match self.0 & 3 {
            1 => ServiceSide::Destination,
            2 => ServiceSide::Source,
            _ => ServiceSide::None,
        }
    }

    /// The path; an invalid value is [`PacketPath::Sent`].
    #[inline(always)]
    pub const fn path(self) -> PacketPath {
        match self.0 >> 2 {
            1 => PacketPath::Forwarded,
            2 => PacketPath::Arrived,
            3 => PacketPath::Tunnelled,
            _ => PacketPath::Sent,
        }
    }
}

/// The end of a flow entry that is the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ServiceSide {
    /// Unknown: no ports, or they could not be read.
    None = 0,
    /// The destination: these packets are requests.
    Destination = 1,
    /// The source: these packets are replies.
    Source = 2,
}

/// How packets of a flow entry pass the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketPath {
    /// From the node or a pod of it, out through an uplink.
    #[default]
    Sent = 0,
    /// In through an uplink and out through one: the second hop of a node port or load balancer.
    /// They leave from this node's zone, whatever their sender.
    Forwarded = 1,
    /// In through an uplink from an external prefix: no agent is there that counts it.
    Arrived = 2,
    /// From the node or a pod of it, inside an overlay. To an address outside the cluster they go through a
    /// gateway, in whose zone the tunnel ends.
    Tunnelled = 3,
}

/// A slot of FLOWS_V4 or FLOWS_V6. The kernel writes it, and userspace as described for the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowSlot<A> {
    /// A [`Verdict`], or a state without an entry. Written and read as one word.
    pub verdict: u64,
    /// IP bytes since the entry was made.
    pub bytes: u64,
    /// Packets since the entry was made.
    pub packets: u64,
    /// The key of the entry.
    pub key: FlowKey<A>,
    /// The ephemeral port of the last packet.
    pub client_port: u16,
    /// The number of entries that the slot has had, modulo 2¹⁶: it tells two entries with the same key apart.
    pub generation: u16,
}

/// The zones of a flow entry, and the version of the table that they come from, in one 64-bit word.
///
/// It is one word, because two stores by two CPUs could leave an old zone under a new epoch for as long as that epoch
/// lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The table version, from 1 to [`LAST_EPOCH`].
    pub epoch: u32,
    /// The source's zone.
    pub source: Slot,
    /// The destination's zone.
    pub destination: Slot,
}

impl Verdict {
    /// The word that a flow entry keeps.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        (self.epoch as u64) << 32 | (self.source as u64) << 16 | self.destination as u64
    }

    /// The verdict in a flow entry's word.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self { epoch: (word >> 32) as u32, source: (word >> 16) as u16, destination: word as u16 }
    }
}

// The sums of the fields' sizes: there is no padding.
const _: () = assert!(size_of::<FlowKey<V4>>() == 12);
const _: () = assert!(size_of::<FlowKey<V6>>() == 36);
const _: () = assert!(size_of::<FlowSlot<V4>>() == 40);
// A cache line.
const _: () = assert!(size_of::<FlowSlot<V6>>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_and_a_path_are_read_as_they_were_written() {
        for side in [ServiceSide::None, ServiceSide::Destination, ServiceSide::Source] {
            for path in [PacketPath::Sent, PacketPath::Forwarded, PacketPath::Arrived, PacketPath::Tunnelled] {
                let side_and_path = SideAndPath::new(side, path);
                assert_eq!((side_and_path.side(), side_and_path.path()), (side, path));
                assert_eq!(SideAndPath::from_byte(side_and_path.byte()), side_and_path);
            }
        }
    }

    #[test]
    fn the_other_end_is_the_service_of_a_turned_key() {
        for path in [PacketPath::Sent, PacketPath::Forwarded, PacketPath::Arrived, PacketPath::Tunnelled] {
            let (source, destination) =
                (SideAndPath::new(ServiceSide::Source, path), SideAndPath::new(ServiceSide::Destination, path));
            assert_eq!((source.turned(), destination.turned()), (destination, source));
        }
    }

    #[test]
    fn no_verdict_is_taken_for_another_state() {
        let words = [1, LAST_EPOCH].map(|epoch| Verdict { epoch, source: 256, destination: 256 }.pack());
        assert!(words.into_iter().all(is_verdict));
        assert!(![EMPTY, RETIRED].into_iter().any(is_verdict));
    }
}
