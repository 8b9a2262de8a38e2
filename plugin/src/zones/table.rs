//! The zone table: prefixes with the place of their addresses. The most specific prefix wins.

use super::Place;
use ipnetwork::IpNetwork;
use meridian_abi::zone::PrefixKind;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Address space that is neither private nor reserved, then the private and reserved parts of it. From the IANA
/// registries of special-purpose addresses (RFC 6890 and its successors): globally reachable addresses are the
/// internet, all others are unknown until a prefix names them.
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

/// The place, kind and origin of the addresses of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The zone, or unknown, or the internet.
    pub place: Place,
    /// The kind of the prefix: default, cluster or external.
    pub kind: PrefixKind,
    /// The object that the placement comes from, for people.
    pub origin: Arc<str>,
}

/// A change of one prefix: its new placement, or `None` if the prefix is removed.
pub type Change = (IpNetwork, Option<Placement>);

/// The table in force: one task writes it, others read it.
#[derive(Clone, Debug, Default)]
pub struct SharedTable(Arc<RwLock<Table>>);

impl SharedTable {
    /// Locks the table for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, Table> {
        // Every change is a single insertion or removal, so a panic can't leave one half done.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the table for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prefixes with their places, public and private address space included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    prefixes: BTreeMap<IpNetwork, Placement>,
    /// The number of external prefixes.
    externals: usize,
}

impl Table {
    /// A table without zones: public addresses are the internet, all others are unknown.
    pub fn new() -> Self {
        let public = PUBLIC.iter().map(|prefix| (prefix, Place::Internet));
        let not_public = NOT_PUBLIC.iter().map(|prefix| (prefix, Place::Unknown));
        let origin: Arc<str> = "address registries".into();
        let default = |place| Placement { place, kind: PrefixKind::Default, origin: Arc::clone(&origin) };
        let prefixes = public
            .chain(not_public)
            .filter_map(|(prefix, place)| Some((prefix.parse().ok()?, default(place))))
            .collect();
        Self { prefixes, externals: 0 }
    }

    /// Adds a prefix, or replaces its placement. Its host bits must be zero.
    pub fn insert(&mut self, prefix: IpNetwork, placement: Placement) {
        self.set(prefix, Some(placement));
    }

    fn set(&mut self, prefix: IpNetwork, placement: Option<Placement>) -> Option<Placement> {
        let is_external = |placement: &Placement| placement.kind == PrefixKind::External;
        self.externals += usize::from(placement.as_ref().is_some_and(is_external));
        let before = match placement {
            Some(placement) => self.prefixes.insert(prefix, placement),
            None => self.prefixes.remove(&prefix),
        };
        self.externals -= usize::from(before.as_ref().is_some_and(is_external));
        before
    }

    /// Whether the table has an external prefix.
    pub const fn has_external(&self) -> bool {
        self.externals > 0
    }

    /// Applies changes, and returns the changes that undo them. When a prefix of public or private address space is
    /// removed, it falls back to its default.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
        let defaults = Self::new().prefixes;
        let apply = |(prefix, placement): Change| {
            let before = self.set(prefix, placement.or_else(|| defaults.get(&prefix).cloned()));
            (prefix, before)
        };
        changes.into_iter().map(apply).collect()
    }

    /// The changes that turn this table into `next`.
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let gone = self.prefixes.keys().filter(|prefix| !next.prefixes.contains_key(prefix));
        let new = next.prefixes.iter().filter(|(prefix, placement)| self.prefixes.get(prefix) != Some(placement));
        gone.map(|prefix| (*prefix, None))
            .chain(new.map(|(prefix, placement)| (*prefix, Some(placement.clone()))))
            .collect()
    }

    /// The placement of exactly this prefix.
    pub fn get(&self, prefix: &IpNetwork) -> Option<&Placement> {
        self.prefixes.get(prefix)
    }

    /// The number of prefixes.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether the table has no prefixes.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Every prefix.
    pub fn prefixes(&self) -> impl Iterator<Item = (&IpNetwork, &Placement)> {
        self.prefixes.iter()
    }

    /// The placements of all prefixes.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.prefixes.values()
    }

    /// All prefixes, without their placements.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> {
        self.prefixes.keys().copied()
    }

    /// The prefixes after the given one, in order.
    pub fn after(&self, prefix: Option<IpNetwork>) -> impl Iterator<Item = (&IpNetwork, &Placement)> {
        self.prefixes.range((prefix.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }

    /// The most specific prefix that contains the address, and its placement.
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
    fn changes_lead_to_the_other_table_and_back() {
        let zone = Place::Zone(Arc::new(Zone { name: "eu-1a".into(), region: "eu-1".into() }));
        let placement = Placement { place: zone, kind: PrefixKind::Cluster, origin: "test".into() };
        let (mut table, before) = (Table::new(), Table::new());
        // One of these prefixes is also private address space.
        for prefix in ["10.0.0.0/8", "10.1.0.0/16", "192.168.7.0/24"] {
            table.insert(prefix.parse().unwrap(), placement.clone());
        }
        let mut changed = before.clone();
        let undo = changed.apply(before.changes_to(&table));
        assert_eq!(changed, table);
        changed.apply(undo);
        assert_eq!(changed, before);
        let mut changed = table.clone();
        changed.apply(table.changes_to(&before));
        assert_eq!(changed, before);
        changed.apply(["10.0.0.0/8", "10.1.0.0/16"].map(|prefix| (prefix.parse().unwrap(), None)));
        assert_eq!(changed, before, "private address space is never the internet");
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
