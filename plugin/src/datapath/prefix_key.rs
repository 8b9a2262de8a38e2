//! Addresses and prefixes in the form of map keys.

use aya::maps::lpm_trie::Key;
use ipnetwork::IpNetwork;
use meridian_abi::{
    flow::{V4, V6},
    zone::{Address, VERSION_BITS},
};
use std::net::IpAddr;
use zerocopy::{Immutable, IntoBytes};

/// A key of the longest-prefix maps, as bpf(2) expects it.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct PrefixKey {
    prefix_len: u32,
    address: Address,
}

const _: () = assert!(size_of::<PrefixKey>() == size_of::<Key<Address>>());

impl From<&IpNetwork> for PrefixKey {
    fn from(prefix: &IpNetwork) -> Self {
        Self { prefix_len: VERSION_BITS + u32::from(prefix.prefix()), address: address(prefix.network()) }
    }
}

/// An address in the form of the maps.
pub(super) fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::v4(V4(u32::from_ne_bytes(v4.octets()))),
        IpAddr::V6(v6) => Address::v6(V6(zerocopy::transmute!(v6.octets()))),
    }
}
