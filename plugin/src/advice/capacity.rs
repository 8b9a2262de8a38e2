//! The load of a service's endpoints if its clients stay in their zones, beside the load that each has if all are used
//! alike.
//!
//! Loads are those of the 95th percentile hour. Clients in a zone without an endpoint use all endpoints alike, as
//! kube-proxy and Cilium do.

use super::traffic::Load;
use crate::catalogue::Endpoints;
use std::cmp::Ordering;

/// Loads above these, in thousandths of the even load, are warned of, and refused.
const WARN: u128 = 1200;
const REFUSE: u128 = 2000;

/// The load of a zone's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ZoneLoad {
    pub(super) zone: String,
    pub(super) endpoints: u32,
    /// In thousandths of the even load, rounded up.
    pub(super) ratio: u128,
    /// Endpoints that bring it down to 1.2.
    pub(super) to_add: u32,
}

impl ZoneLoad {
    pub(super) const fn is_warned(&self) -> bool {
        self.ratio > WARN
    }

    pub(super) const fn is_refused(&self) -> bool {
        self.ratio > REFUSE
    }

    /// The ratio for people.
    pub(super) fn times(&self) -> String {
        format!("{}.{:02}", self.ratio / 1000, self.ratio % 1000 / 10)
    }
}

/// The load of each zone that has endpoints, the highest first. Empty where nothing is known of the load.
pub(super) fn loads(endpoints: &Endpoints, load: &Load) -> Vec<ZoneLoad> {
    let all = u128::from(endpoints.count());
    let total = u128::from(load.total);
    if total == 0 || all == 0 {
        return Vec::new();
    }
    let has_none = |zone: &str| endpoints.in_zone(zone) == 0;
    let spilled: u128 = load.by_zone.iter().filter(|(zone, _)| has_none(zone)).map(|(_, load)| u128::from(*load)).sum();
    let of_zone = |(zone, count): (&String, &u32)| {
        let (here, count_here) = (load.by_zone.get(zone).copied().unwrap_or_default(), u128::from(*count));
        // The even load is total / all; here each endpoint has here / count + spilled / all.
        let parts = u128::from(here) * all + spilled * count_here;
        let needed = (parts * 1000).div_ceil(total * WARN);
        ZoneLoad {
            zone: zone.clone(),
            endpoints: *count,
            ratio: (parts * 1000).div_ceil(total * count_here),
            to_add: u32::try_from(needed.saturating_sub(count_here)).unwrap_or(u32::MAX),
        }
    };
    let mut loads: Vec<_> = endpoints.ready.iter().filter(|(_, count)| **count > 0).map(of_zone).collect();
    loads.sort_by(|a, b| match b.ratio.cmp(&a.ratio) {
        Ordering::Equal => a.zone.cmp(&b.zone),
        order => order,
    });
    loads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(endpoints: &[(&str, u32)], clients: &[(&str, u64)]) -> Vec<(String, u128, u32)> {
        let ready = endpoints.iter().map(|(zone, count)| ((*zone).to_owned(), *count)).collect();
        let by_zone: std::collections::BTreeMap<_, _> =
            clients.iter().map(|(zone, load)| ((*zone).to_owned(), *load)).collect();
        let total = by_zone.values().sum();
        let loads = loads(&Endpoints { ready, ..Endpoints::default() }, &Load { by_zone, total });
        loads.into_iter().map(|load| (load.zone, load.ratio, load.to_add)).collect()
    }

    #[test]
    fn a_zone_with_many_clients_and_few_endpoints_is_overloaded() {
        assert_eq!(
            load(&[("a", 2), ("b", 2)], &[("a", 50), ("b", 50)]),
            [("a".into(), 1000, 0), ("b".into(), 1000, 0)]
        );
        // 90 % of the load at one of four endpoints: 3.6 times; ⌈0.9 · 4 / 1.2⌉ − 1 = 2 more.
        assert_eq!(load(&[("a", 1), ("b", 3)], &[("a", 90), ("b", 10)])[0], ("a".into(), 3600, 2));
        assert_eq!(load(&[("a", 5), ("b", 5)], &[("a", 60), ("b", 40)])[0], ("a".into(), 1200, 0));
        assert_eq!(load(&[("a", 5), ("b", 5)], &[("a", 61), ("b", 39)])[0], ("a".into(), 1220, 1));
    }

    #[test]
    fn clients_in_a_zone_without_endpoints_use_all() {
        let loads = load(&[("a", 1), ("b", 1)], &[("a", 25), ("b", 25), ("c", 50)]);
        assert_eq!(loads, [("a".into(), 1000, 0), ("b".into(), 1000, 0)]);
        assert!(load(&[], &[("a", 1)]).is_empty() && load(&[("a", 1)], &[]).is_empty());
    }
}
