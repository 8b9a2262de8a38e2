//! The types that the kernel programs and userspace share: map keys, map values, load-time settings.
//!
//! Every type is `repr(C)` without padding (`IntoBytes` refuses padding; where it can't be derived, the size is
//! asserted): a map key with an unwritten byte would split one flow into several at random. Integers are in host byte
//! order and addresses in network byte order, unless a field says otherwise.
#![no_std]
#![forbid(unsafe_code)]

pub mod control;
pub mod device;
pub mod event;
pub mod flow;
pub mod index;
pub mod matrix;
pub mod service;
pub mod settings;
pub mod share;
pub mod slot;
pub mod stats;
pub mod zone;

use core::{iter::Sum, ops::AddAssign};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// IP bytes and packets as on the wire: a GSO super-packet counts as its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counter {
    /// IP bytes, headers of layer 3 and above included, layer 2 excluded.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

impl AddAssign for Counter {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.packets += other.packets;
    }
}

impl Sum for Counter {
    fn sum<I: Iterator<Item = Self>>(counters: I) -> Self {
        counters.fold(Self::default(), |mut sum, counter| {
            sum += counter;
            sum
        })
    }
}

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum IpVersion {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}
