//! The external prefix that holds an address, as an end of a transfer.

use crate::{
    identity::Endpoint,
    zones::{External, Table},
};
use ahash::AHashMap;
use meridian_abi::zone::PrefixKind;
use std::{net::IpAddr, sync::Arc};

/// External prefixes by the origin of their table entry. There are as many as the static table names.
#[derive(Debug, Default)]
pub(super) struct Externals {
    by_origin: AHashMap<Arc<str>, Option<Arc<Endpoint>>>,
}

impl Externals {
    /// The prefix that holds an address, if it is external and has a class.
    pub(super) fn at(&mut self, address: IpAddr, table: &Table) -> Option<Arc<Endpoint>> {
        if !table.has_external() {
            return None;
        }
        let (_, placement) = table.lookup(address).filter(|(_, placement)| placement.kind == PrefixKind::External)?;
        if let Some(known) = self.by_origin.get(&placement.origin) {
            return known.clone();
        }
        let found =
            External::of_origin(&placement.origin).map(|(name, class)| Arc::new(Endpoint::external(name, class)));
        self.by_origin.insert(Arc::clone(&placement.origin), found.clone());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::{Class, StaticTable};
    use std::path::Path;

    #[test]
    fn an_address_of_an_external_prefix_is_named_and_no_other_is() {
        let text = b"zones: [{name: a, region: r, cidrs: [10.0.0.0/24]}]\nexternal: [{name: db, cidr: 10.0.0.8/32, zone: a, class: database}]\n";
        let table = StaticTable::parse(Path::new("z"), text).unwrap().zones;
        let mut externals = Externals::default();
        let mut at = |address: &str| externals.at(address.parse().unwrap(), &table);
        let found = at("10.0.0.8").unwrap();
        assert_eq!((found.class(), found.workload_id()), (Some(Class::Database), ("", "database", "db")));
        assert!(Arc::ptr_eq(&found, &at("10.0.0.8").unwrap()));
        assert!(at("10.0.0.9").is_none() && at("8.8.8.8").is_none());
    }
}
