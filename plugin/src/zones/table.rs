//! The zone table: prefixes with the place of their addresses. The most specific prefix wins.

use super::Place;
use ipnetwork::IpNetwork;
use meridian_abi::zone::PrefixKind;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Address space that is not private and not reserved, then the parts of it that are. From the
/// registries of special-purpose addresses (RFC 6890 and its successors): what is globally
/// reachable is the internet, the rest is unknown until a prefix names it.
const PUBLIC: [&str; 3] = ["0.0.0.0/0", "2000::/3", "64:ff9b::/96"];
const NOT_PUBLIC: [&str; 20] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/0",
    "2001:2::/48",
    "2001:10::/28",
    "2001:db8::/32",
    "3fff::/20",
    "64:ff9b:1::/48",
    "fc00::/7",
];

/// What a prefix says of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where they are.
    pub place: Place,
    /// Whose they are.
    pub kind: PrefixKind,
    /// The object that says so, for people.
    pub origin: Arc<str>,
}

/// Prefixes and places, public and private address space included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    prefixes: BTreeMap<IpNetwork, Placement>,
}

impl Table {
    /// The table that names nothing: public addresses are the internet, all others unknown.
    pub fn new() -> Self {
        let public = PUBLIC.iter().map(|prefix| (prefix, Place::Internet));
        let not_public = NOT_PUBLIC.iter().map(|prefix| (prefix, Place::Unknown));
        let origin: Arc<str> = "address registries".into();
        let default = |place| Placement { place, kind: PrefixKind::Default, origin: Arc::clone(&origin) };
        let prefixes = public
            .chain(not_public)
            .filter_map(|(prefix, place)| Some((prefix.parse().ok()?, default(place))))
            .collect();
        Self { prefixes }
    }

    /// Adds a prefix, or replaces what was said of it. Its host bits are zero.
    pub fn insert(&mut self, prefix: IpNetwork, placement: Placement) {
        self.prefixes.insert(prefix, placement);
    }

    /// Every prefix.
    pub fn prefixes(&self) -> impl Iterator<Item = (&IpNetwork, &Placement)> {
        self.prefixes.iter()
    }

    /// The most specific prefix that holds the address, and what it says.
    pub fn lookup(&self, address: IpAddr) -> Option<(IpNetwork, &Placement)> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (0..=longest).rev().find_map(|len| {
            let network = IpNetwork::new(address, len).ok()?;
            let prefix = IpNetwork::new(network.network(), len).ok()?;
            self.prefixes.get(&prefix).map(|placement| (prefix, placement))
        })
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::Zone;

    #[test]
    fn every_default_prefix_is_a_prefix_without_host_bits() {
        let table = Table::new();
        assert_eq!(table.prefixes.len(), PUBLIC.len() + NOT_PUBLIC.len());
        for (prefix, _) in table.prefixes() {
            assert_eq!(prefix.ip(), prefix.network(), "{prefix}");
        }
    }

    #[test]
    fn public_addresses_are_the_internet_and_private_ones_unknown() {
        let table = Table::new();
        let place = |address: &str| table.lookup(address.parse().unwrap()).unwrap().1.place.clone();
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1", "64:ff9b::808:808"] {
            assert_eq!(place(public), Place::Internet, "{public}");
        }
        for private in
            ["10.1.2.3", "172.31.0.1", "100.64.0.1", "192.168.1.1", "fd00::1", "2001:db8::1", "::1", "fe80::1"]
        {
            assert_eq!(place(private), Place::Unknown, "{private}");
        }
    }

    #[test]
    fn the_most_specific_prefix_wins() {
        let mut table = Table::new();
        let zone = |name: &str| Place::Zone(Arc::new(Zone { name: name.into(), region: "eu-1".into() }));
        for (prefix, name) in
            [("10.0.0.0/16", "eu-1a"), ("10.0.7.0/24", "eu-1b"), ("10.0.7.9/32", "eu-1c"), ("0.0.0.0/0", "eu-1d")]
        {
            let placement = Placement { place: zone(name), kind: PrefixKind::Cluster, origin: "test".into() };
            table.insert(prefix.parse().unwrap(), placement);
        }
        for (address, name) in
            [("10.0.1.1", "eu-1a"), ("10.0.7.1", "eu-1b"), ("10.0.7.9", "eu-1c"), ("8.8.8.8", "eu-1d")]
        {
            assert_eq!(table.lookup(address.parse().unwrap()).unwrap().1.place, zone(name), "{address}");
        }
    }
}
