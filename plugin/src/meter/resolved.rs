//! The ends of a flow entry, and the rows of the sums to which it is added. The meter finds them once for each entry, and
//! again after a change of the table, the endpoints or the sums.

use super::externals::Externals;
use crate::{
    accounting::{Accounting, Rows, Service, Transfer, TransferEnd},
    flows::{BySlot, Entry, SlotId},
    identity::Index,
    zones::{Slots, Table},
};
use ahash::AHashMap;
use meridian_abi::{Counter, zone::Slot};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

/// The most ends that entries share.
const ENDS: usize = 8192;

/// The ends and the rows of an entry.
#[derive(Debug)]
pub(super) struct Resolved {
    generation: u16,
    zones: (Slot, Slot),
    /// The number of changes after which it was found; `None`: an address moves to another endpoint soon.
    changes: Option<u64>,
    pub(super) source: Arc<TransferEnd>,
    pub(super) destination: Arc<TransferEnd>,
    /// `None` until something is added.
    rows: Option<Rows>,
}

impl Resolved {
    /// Adds the growth of the entry to all sums.
    pub(super) fn add(&mut self, accounting: &mut Accounting, service: Service, new: Counter, now: Instant) {
        let transfer = Transfer { source: &self.source, destination: &self.destination, service };
        let rows = match self.rows {
            Some(rows) if accounting.is_current(&rows) => rows,
            _ => *self.rows.insert(accounting.rows(&transfer, now)),
        };
        accounting.add_to(&rows, &transfer, new, now);
    }
}

/// The entries that are known, and the ends that they share.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    entries: BySlot<Box<Resolved>>,
    ends: AHashMap<(IpAddr, Slot), Arc<TransferEnd>>,
    externals: Externals,
    /// The changes of endpoints after which `ends` were found.
    index_version: u64,
    /// Changes of the table or the endpoints.
    changes: u64,
}

/// Where the meaning of an entry is found.
pub(super) struct Sources<'a> {
    pub(super) index: &'a Index,
    pub(super) table: &'a Table,
    pub(super) slots: &'a Slots,
    pub(super) time: SystemTime,
}

impl Resolver {
    /// Everything must be found again: the table has changed.
    pub(super) fn table_changed(&mut self) {
        self.changes += 1;
        self.ends.clear();
    }

    /// Begins a drain. Ends that are found during it hold until the endpoints change.
    pub(super) fn begin(&mut self, index: &Index) {
        let version = index.version();
        if version != self.index_version {
            self.index_version = version;
            self.changes += 1;
            self.ends.clear();
        }
    }

    /// The entry, found again if anything has changed.
    pub(super) fn resolve(&mut self, entry: &Entry, sources: &Sources<'_>) -> &mut Resolved {
        let zones = (entry.verdict.source, entry.verdict.destination);
        let changes = self.changes;
        let holds = |known: &Resolved| {
            known.generation == entry.generation && known.zones == zones && known.changes == Some(changes)
        };
        let place = self.entries.entry(entry.slot);
        let resolved = match place.take() {
            Some(known) if holds(&known) => known,
            _ => {
                let mut end = |address, slot| shared_end((&mut self.ends, &mut self.externals), address, slot, sources);
                let (source, is_source_settled) = end(entry.source, zones.0);
                let (destination, is_destination_settled) = end(entry.destination, zones.1);
                let changes = (is_source_settled && is_destination_settled).then_some(changes);
                let generation = entry.generation;
                Box::new(Resolved { generation, zones, changes, source, destination, rows: None })
            }
        };
        place.insert(resolved)
    }

    /// Forgets an entry that was removed.
    pub(super) fn forget(&mut self, slot: SlotId) {
        self.entries.remove(slot);
    }
}

/// An end, and whether it stays the same until the endpoints change.
fn shared_end(
    (ends, externals): (&mut AHashMap<(IpAddr, Slot), Arc<TransferEnd>>, &mut Externals),
    address: IpAddr,
    slot: Slot,
    sources: &Sources<'_>,
) -> (Arc<TransferEnd>, bool) {
    if let Some(end) = ends.get(&(address, slot)) {
        return (Arc::clone(end), true);
    }
    let Sources { index, table, slots, time } = *sources;
    let settled = index.settled(address, time);
    let is_settled = settled.is_some();
    let endpoint = settled.unwrap_or_else(|| index.at(address, time));
    let external = if endpoint.is_none() { externals.at(address, table) } else { None };
    let end = Arc::new(TransferEnd { address: Some(address), endpoint, place: slots.place(slot), external });
    if is_settled {
        if ends.len() >= ENDS {
            ends.clear();
        }
        ends.insert((address, slot), Arc::clone(&end));
    }
    (end, is_settled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounting::ByLocality,
        identity::Endpoint,
        zones::{StaticTable, Zone},
    };
    use meridian_abi::flow::{PacketPath, ServiceSide, Verdict};
    use std::{path::Path, time::Duration};

    const WEB: [u8; 4] = [10, 0, 0, 1];
    const CART: [u8; 4] = [10, 0, 0, 2];

    fn entry(generation: u16, destination: Slot) -> Entry {
        Entry {
            slot: SlotId(7),
            generation,
            path: PacketPath::Sent,
            source: WEB.into(),
            destination: CART.into(),
            protocol: 6,
            service_port: 80,
            client_port: 40_000,
            side: ServiceSide::Destination,
            verdict: Verdict { epoch: 1, source: 2, destination },
            counter: Counter { bytes: 100, packets: 1 },
        }
    }

    fn endpoint(pod: &str, since: Option<SystemTime>) -> Arc<Endpoint> {
        Arc::new(Endpoint { namespace: "shop".into(), pod: pod.into(), since, ..Endpoint::default() })
    }

    struct Lab {
        resolver: Resolver,
        index: Index,
        table: Table,
        slots: Slots,
    }

    impl Lab {
        fn new() -> Self {
            let zone = |name: &str| Arc::new(Zone { name: name.into(), region: "r".into() });
            let table = StaticTable::parse(Path::new("z"), b"zones: [{name: a, region: r, cidrs: [10.0.0.0/24]}]\n");
            let slots = Slots::restore(vec![zone("a"), zone("b")]);
            Self { resolver: Resolver::default(), index: Index::default(), table: table.unwrap().zones, slots }
        }

        fn set(&self, address: [u8; 4], endpoint: Arc<Endpoint>) {
            self.index.apply([(address.into(), Some(endpoint))]);
        }

        fn resolve(&mut self, entry: &Entry, time: SystemTime) -> &mut Resolved {
            let sources = Sources { index: &self.index, table: &self.table, slots: &self.slots, time };
            self.resolver.begin(&self.index);
            self.resolver.resolve(entry, &sources)
        }

        fn destination(&mut self, entry: &Entry, time: SystemTime) -> (String, String) {
            let end = &self.resolve(entry, time).destination;
            let pod = end.endpoint.as_ref().map(|endpoint| endpoint.pod.to_string()).unwrap_or_default();
            (pod, end.place.name().to_owned())
        }
    }

    fn pair(pod: &str, zone: &str) -> (String, String) {
        (pod.into(), zone.into())
    }

    #[test]
    fn an_entry_follows_changes_of_its_endpoints_its_zones_and_its_slot() {
        let (mut lab, now) = (Lab::new(), SystemTime::now());
        assert_eq!(lab.destination(&entry(1, 2), now), pair("", "a"));
        lab.set(CART, endpoint("cart-0", None));
        assert_eq!(lab.destination(&entry(1, 2), now), pair("cart-0", "a"));
        assert_eq!(lab.destination(&entry(1, 3), now), pair("cart-0", "b"));
        lab.set(CART, endpoint("cart-1", None));
        assert_eq!(lab.destination(&entry(1, 3), now), pair("cart-1", "b"));
        lab.index.replace(&[]);
        assert_eq!(lab.destination(&entry(1, 3), now), pair("", "b"));
        lab.set(CART, endpoint("cart-1", None));
        // Another entry in the same slot.
        let other = Entry { destination: WEB.into(), ..entry(2, 3) };
        assert_eq!(lab.destination(&other, now), pair("", "b"));
    }

    #[test]
    fn an_address_that_moves_soon_is_that_of_the_earlier_endpoint_until_then() {
        let (mut lab, now) = (Lab::new(), SystemTime::now());
        let moves = now + Duration::from_secs(5);
        lab.set(CART, endpoint("old", None));
        lab.set(CART, endpoint("new", Some(moves)));
        assert_eq!(lab.destination(&entry(1, 2), now).0, "old");
        assert_eq!(lab.destination(&entry(1, 2), moves).0, "new");
    }

    #[test]
    fn the_rows_of_an_entry_are_found_again_when_the_sums_give_them_to_others() {
        let (mut lab, time, start) = (Lab::new(), SystemTime::now(), Instant::now());
        lab.set(WEB, endpoint("web-0", None));
        lab.set(CART, endpoint("cart-0", None));
        // Room for one series: the traffic of WEB to another address takes it first, and loses it to the heavier pair.
        let mut accounting = Accounting::new(1, true);
        let light = Entry { slot: SlotId(1), destination: [10, 0, 0, 9].into(), ..entry(1, 3) };
        let service = Service::new(80, 6, ServiceSide::Destination);
        let bytes = |bytes| Counter { bytes, packets: 1 };
        let mut sent = 0;
        for round in 0..6 {
            let now = start + Duration::from_secs(40 * round);
            for (entry, size) in [(&light, 10), (&entry(1, 3), 1000)] {
                lab.resolve(entry, time).add(&mut accounting, service, bytes(size), now);
                sent += size;
            }
            accounting.expire(now);
        }
        let pods = &accounting.totals().pods;
        let total = |sum: ByLocality| sum.total().bytes;
        let series: Vec<_> = pods.series().map(|(key, sum)| (key.destination.0.clone(), total(sum))).collect();
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].0.as_ref().map(|pod| pod.0.pod.to_string()), Some("cart-0".into()));
        assert!(series[0].1 >= 1000, "{series:?}");
        assert_eq!(series[0].1 + total(pods.other()) + total(pods.ended()), sent);
        let lines = accounting.take_interval();
        assert_eq!(lines.iter().map(|line| line.counter.bytes).collect::<Vec<_>>(), [6000, 60]);
        // The rows of an interval end with it.
        lab.resolve(&entry(1, 3), time).add(&mut accounting, service, bytes(7), start);
        assert_eq!(accounting.take_interval()[0].counter.bytes, 7);
    }
}
