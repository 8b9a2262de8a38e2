//! The maps FLOWS_V4 and FLOWS_V6: bytes and packets by address pair and service port.
//!
//! A flow entry folds connections: the ephemeral port is not in the key, so ten thousand
//! connections between two pods on one service are one entry per direction.

use crate::zone::Slot;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv4 address, its bytes in network order in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct V4(pub u32);

/// An IPv6 address, its bytes in network order in memory. Words, because a kernel program copies
/// what is aligned in fewer instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct V6(pub [u32; 4]);

/// The key of a flow entry, one direction of the traffic between two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey<A> {
    /// Who sends.
    pub source: A,
    /// Who receives.
    pub destination: A,
    /// TCP, UDP, SCTP: the service's port. ICMP: type × 256 + code. Otherwise 0.
    pub service_port: u16,
    /// The IP protocol number.
    pub protocol: u8,
    /// A [`ServiceSide`].
    pub side: u8,
}

/// Which end of a flow entry is the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ServiceSide {
    /// Not known: no ports, or they could not be read.
    None = 0,
    /// The destination: these packets are requests.
    Destination = 1,
    /// The source: these packets are replies.
    Source = 2,
}

impl ServiceSide {
    /// Reads the `side` of a key; a value that is not one is `None`.
    pub const fn from_u8(side: u8) -> Self {
        match side {
            1 => Self::Destination,
            2 => Self::Source,
            _ => Self::None,
        }
    }
}

/// What the kernel keeps of a flow entry. Written by the kernel alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowValue {
    /// A [`Verdict`], written and read as one word.
    pub verdict: u64,
    /// IP bytes since the entry was made.
    pub bytes: u64,
    /// Packets since the entry was made.
    pub packets: u64,
    /// The ephemeral port that was seen last.
    pub client_port: u16,
    /// Zero.
    pub reserved: [u8; 6],
}

/// The zones of a flow entry and the table version that they were read from, in one 64-bit word.
///
/// One word, because two stores by two CPUs could leave an old zone under a new epoch for as long
/// as that epoch lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The table version. 0 is that of no table, and of an entry that was never classified.
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
const _: () = assert!(size_of::<FlowValue>() == 32);
