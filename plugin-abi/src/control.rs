//! The maps CONTROL and PINNED_STATE: the state that userspace changes while the programs run, and the state that
//! outlives the programs.

use crate::{Counter, IpVersion, zone::Slot};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The only value of the map CONTROL. It belongs to the programs that were loaded with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// The version of the zone table; its low bit selects the map to read. Never 0.
    pub epoch: u32,
    /// The zone of this node.
    pub node: Slot,
    /// 1: the table has external prefixes, so that arrivals must be looked at.
    pub externals: u16,
    /// UDP destination ports of the overlays' outer packets: VXLAN, Geneve. 0: none.
    pub destination_ports: [u16; Self::PORTS],
    /// UDP source ports of the overlays' outer packets: WireGuard. 0: none.
    pub source_ports: [u16; Self::PORTS],
    /// [`IPIP`](Self::IPIP), [`IPV6`](Self::IPV6), [`GRE`](Self::GRE): the protocols of overlays' outer packets.
    pub protocols: u32,
    /// An overlay's device; 0: none. See [`more_devices`](Self::more_devices).
    pub overlay: u32,
    /// Uplinks and trunks; 0: none. See [`more_devices`](Self::more_devices).
    pub uplinks: [u32; Self::UPLINKS],
    /// 1: the map DEVICES has devices that `overlay` and `uplinks` do not name.
    pub more_devices: u32,
    /// Zero, to the end of a cache line.
    pub reserved: [u32; 3],
}

impl Control {
    /// The limit of named uplinks.
    pub const UPLINKS: usize = 4;
    /// The limit of ports of each kind.
    pub const PORTS: usize = 4;
    /// IPv4 in IP.
    pub const IPIP: u32 = 1;
    /// IPv6 in IP.
    pub const IPV6: u32 = 2;
    /// GRE.
    pub const GRE: u32 = 4;
}

/// The only value of the map PINNED_STATE, written by userspace. It lives as long as the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PinnedState {
    /// The counts of removed flow entries.
    pub retired: Counter,
    /// The value of `retired` once the slot `retiring` is empty: the two can't change at once, and a process that
    /// finds a slot here completes the removal.
    pub retired_next: Counter,
    /// 0, or 1 + the slot that is being emptied, of FLOWS_V6 with [`V6_SLOT`](Self::V6_SLOT).
    pub retiring: u64,
    /// The seed of the hashes of flow keys, so that a sender can't choose keys with the same hash.
    pub seed: u64,
    /// The last epoch in any verdict.
    pub epoch: u32,
    /// Zero.
    pub reserved: u32,
    /// The id of these counters, assigned once when they begin.
    pub boot_id: [u8; 16],
}

impl PinnedState {
    /// See [`retiring`](Self::retiring).
    pub const V6_SLOT: u64 = 1 << 32;
}

/// The limit of the node's addresses in the map NODE_ADDRESSES.
pub const MAX_NODE_ADDRESSES: u32 = 1024;
/// Devices of overlays that the map TUNNEL_ENDS holds.
pub const MAX_TUNNEL_ENDS: u32 = 1024;

/// Elements of the map CORES.
pub const CORES: u32 = 4;

/// The element of CORES that netfilter's entry of an IP version continues with.
#[inline(always)]
pub const fn straight(version: IpVersion) -> u32 {
    match version {
        IpVersion::V4 => 0,
        IpVersion::V6 => 1,
    }
}

/// The element of CORES that the straight path leaves unusual packets to.
#[inline(always)]
pub const fn core(version: IpVersion) -> u32 {
    2 + straight(version)
}

const _: () = assert!(size_of::<Control>() == 64);
const _: () = assert!(size_of::<PinnedState>() == 72);
