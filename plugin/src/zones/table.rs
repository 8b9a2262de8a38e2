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

/// What becomes of a prefix: what is said of it from now on, or nothing.
pub type Change = (IpNetwork, Option<Placement>);

/// The table in force: one writes it, others read.
#[derive(Clone, Debug, Default)]
pub struct SharedTable(Arc<RwLock<Table>>);

impl SharedTable {
    /// The table as it is now.
    pub fn read(&self) -> RwLockReadGuard<'_, Table> {
        // Every change is one insertion or removal: there is no half of one.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table, to change it.
    pub fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prefixes and places, public and private address space included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    prefixes: BTreeMap<IpNetwork, Placement>,
    /// How many of them are external.
    externals: usize,
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
        Self { prefixes, externals: 0 }
    }

    /// Adds a prefix, or replaces what was said of it. Its host bits are zero.
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

    /// Whether some prefix is external.
    pub const fn has_external(&self) -> bool {
        self.externals > 0
    }

    /// Takes changes in, and returns those that undo them. A prefix of public or private address space of
    /// which nothing is said any more is that again.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
        let defaults = Self::new().prefixes;
        let apply = |(prefix, placement): Change| {
            let before = self.set(prefix, placement.or_else(|| defaults.get(&prefix).cloned()));
            (prefix, before)
        };
        changes.into_iter().map(apply).collect()
    }

    /// What makes `next` of this table.
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let gone = self.prefixes.keys().filter(|prefix| !next.prefixes.contains_key(prefix));
        let new = next.prefixes.iter().filter(|(prefix, placement)| self.prefixes.get(prefix) != Some(placement));
        gone.map(|prefix| (*prefix, None))
            .chain(new.map(|(prefix, placement)| (*prefix, Some(placement.clone()))))
            .collect()
    }

    /// What is said of exactly this prefix.
    pub fn get(&self, prefix: &IpNetwork) -> Option<&Placement> {
        self.prefixes.get(prefix)
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Every prefix.
    pub fn prefixes(&self) -> impl Iterator<Item = (&IpNetwork, &Placement)> {
        self.prefixes.iter()
    }

    /// What is said of all prefixes.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.prefixes.values()
    }

    /// All prefixes, without what is said of them.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> {
        self.prefixes.keys().copied()
    }

    /// The prefixes after one, in their order.
    pub fn after(&self, prefix: Option<IpNetwork>) -> impl Iterator<Item = (&IpNetwork, &Placement)> {
        self.prefixes.range((prefix.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
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
    fn changes_lead_to_the_other_table_and_back() {
        let zone = Place::Zone(Arc::new(Zone { name: "eu-1a".into(), region: "eu-1".into() }));
        let placement = Placement { place: zone, kind: PrefixKind::Cluster, origin: "test".into() };
        let (mut table, before) = (Table::new(), Table::new());
        // One of them is private address space, too.
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
