//! The zone table in the kernel: ZONES_0 and ZONES_1, longest-prefix maps from prefix to zone.
//!
//! The programs read the map that the epoch's low bit selects. Userspace prepares the other one, so a packet never
//! sees half of a change.

pub use crate::slot::{FIRST_ZONE, INTERNET, MAX_ZONES, Slot, UNKNOWN};
use crate::{
    IpVersion,
    flow::{V4, V6},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of a key before the address: the IP version.
pub const VERSION_BITS: u32 = 32;

/// The data of a longest-prefix key: the IP version, then the address.
///
/// The version is part of the prefix, so `::/0` contains no IPv4 address. An IPv4 address is in the first word; the
/// rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address {
    version: u32,
    words: [u32; 4],
}

impl Address {
    /// The key data of an IPv4 address.
    #[inline(always)]
    pub const fn v4(V4(word): V4) -> Self {
        Self { version: IpVersion::V4 as u32, words: [word, 0, 0, 0] }
    }

    /// The key data of an IPv6 address.
    #[inline(always)]
    pub const fn v6(V6(words): V6) -> Self {
        Self { version: IpVersion::V6 as u32, words }
    }
}

/// The zone and the kind of a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    /// The zone.
    pub slot: Slot,
    /// A [`PrefixKind`].
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
}

/// The origin of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PrefixKind {
    /// In no table: only public or private address space.
    Default = 0,
    /// Of the cluster: pods and nodes.
    Cluster = 1,
    /// Where no agent counts what is sent: outside the cluster, named in the static table; or of a node that can
    /// have none.
    External = 2,
}

/// A name in the map ZONE_NAMES: of a zone and of its region, as UTF-8, the rest zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Name {
    /// The zone's name; empty if the slot is not assigned yet.
    pub zone: [u8; MAX_NAME],
    /// The region's name.
    pub region: [u8; MAX_NAME],
}

/// Bytes of a zone's or region's name: a Kubernetes label's value has at most 63.
pub const MAX_NAME: usize = 64;

const _: () = assert!(size_of::<Address>() == 20);
const _: () = assert!(size_of::<Entry>() == 4);
