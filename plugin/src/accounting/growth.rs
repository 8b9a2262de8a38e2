//! Traffic since the last query, for the history: by workload pair, zone pair and service, and by node.
//!
//! Memory is bounded: what there is no room for is a sum of others for its pair of zones. The zone matrix is the truth:
//! bytes that it has and no flow entry are others, too. The matrix and the flow entries are read one after the other, so
//! what seems to be missing is others only after it has been missing for a while.

use super::ends::{Directed, Service, Transfer, TransferEnd, Workload};
use crate::zones::{Class, Place};
use ahash::AHashMap;
use meridian_abi::Counter;
use std::sync::Arc;

/// An end: its workload, if that is known, and its place.
pub type WorkloadAt = (Option<Workload>, Place);

/// A pair of workloads in two places that use a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrowthKey {
    /// Between whom.
    pub ends: Directed<WorkloadAt>,
    /// The service.
    pub service: Service,
}

/// A node at one end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeAt {
    /// Its name; empty where it is not known, or the end is no node's.
    pub name: Arc<str>,
    /// Where the end is.
    pub place: Place,
    /// The class of an external prefix.
    pub class: Option<Class>,
}

/// A pair of nodes.
pub type NodesAt = Directed<NodeAt>;

/// A pair of places.
pub type Places = Directed<Place>;

/// Traffic since the last query.
#[derive(Debug, Default)]
pub struct TrafficDelta {
    /// Between workloads.
    pub transfers: Vec<(GrowthKey, Counter)>,
    /// Between nodes: as much as between workloads.
    pub nodes: Vec<(NodesAt, Counter)>,
    /// Between places, without workloads.
    pub others: Vec<(Places, Counter)>,
}

/// Traffic since the last query.
#[derive(Debug, Default)]
pub struct TrafficAccumulator {
    transfers: AHashMap<GrowthKey, Counter>,
    nodes: AHashMap<NodesAt, Counter>,
    /// By pair of places: the bytes of the matrix beyond those of the flow entries.
    missing: AHashMap<Places, Missing>,
}

/// The bytes of the matrix minus those of the flow entries; negative if the entries were read later.
#[derive(Debug, Default)]
struct Missing {
    bytes: i128,
    packets: i128,
    /// The least of the last times.
    least: Vec<[i128; 2]>,
}

/// How often something must be missing until it is others.
const TIMES: usize = 6;

impl TrafficAccumulator {
    /// Pairs for which there is room, of workloads and of nodes.
    pub const ROOM: usize = 65_536;

    /// Adds the growth of a flow entry.
    pub(super) fn add(&mut self, transfer: &Transfer<'_>, new: Counter) {
        let Transfer { source, destination, service } = *transfer;
        let workload = |end: &TransferEnd| end.named().map(|endpoint| Workload(Arc::clone(endpoint)));
        let places = Directed { source: source.place.clone(), destination: destination.place.clone() };
        let ends = Directed {
            source: (workload(source), source.place.clone()),
            destination: (workload(destination), destination.place.clone()),
        };
        let key = GrowthKey { ends, service };
        // Traffic beyond the limit stays missing here, and becomes others later.
        if self.transfers.len() >= Self::ROOM && !self.transfers.contains_key(&key) {
            return;
        }
        *self.transfers.entry(key).or_default() += new;
        self.miss(places, new, -1);
        let node = |end: &TransferEnd| {
            let endpoint = end.named();
            NodeAt {
                name: endpoint.map(|endpoint| Arc::clone(&endpoint.node)).unwrap_or_default(),
                place: end.place.clone(),
                class: endpoint.and_then(|endpoint| endpoint.class()),
            }
        };
        let mut nodes = Directed { source: node(source), destination: node(destination) };
        if self.nodes.len() >= Self::ROOM && !self.nodes.contains_key(&nodes) {
            (nodes.source.name, nodes.destination.name) = (Arc::default(), Arc::default());
        }
        *self.nodes.entry(nodes).or_default() += new;
    }

    /// Adds the growth of a cell of the zone matrix.
    pub fn add_matrix(&mut self, source: &Place, destination: &Place, new: Counter) {
        if new != Counter::default() {
            self.miss(Directed { source: source.clone(), destination: destination.clone() }, new, 1);
        }
    }

    fn miss(&mut self, places: Places, new: Counter, sign: i128) {
        let missing = self.missing.entry(places).or_default();
        missing.bytes += sign * i128::from(new.bytes);
        missing.packets += sign * i128::from(new.packets);
    }

    /// Forgets everything so far.
    pub fn discard(&mut self) {
        *self = Self::default();
    }

    /// The traffic since the last call. With `all`, bytes without a flow entry are included as others.
    pub fn take(&mut self, all: bool) -> TrafficDelta {
        let transfers = std::mem::take(&mut self.transfers).into_iter().collect();
        let nodes: Vec<_> = std::mem::take(&mut self.nodes).into_iter().collect();
        let mut grown = TrafficDelta { transfers, nodes, others: Vec::new() };
        self.missing.retain(|places, missing| {
            let others = missing.take(all);
            if others != Counter::default() {
                grown.others.push((places.clone(), others));
            }
            missing.bytes != 0 || missing.packets != 0
        });
        grown
    }
}

impl Missing {
    /// Bytes without a flow entry since the call before the last.
    fn take(&mut self, all: bool) -> Counter {
        self.least.push([self.bytes, self.packets]);
        if self.least.len() < TIMES && !all {
            return Counter::default();
        }
        let least = |at: usize| {
            let now = self.least.iter().map(|missing| missing[at]).min().unwrap_or_default();
            if all { [self.bytes, self.packets][at] } else { now }
        };
        // A time is never so long that this is more than a counter holds.
        let positive = |number: i128| u64::try_from(number.max(0)).unwrap_or(u64::MAX);
        let others = Counter { bytes: positive(least(0)), packets: positive(least(1)) };
        self.bytes -= i128::from(others.bytes);
        self.packets -= i128::from(others.packets);
        self.least.clear();
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity, zones::Zone};

    fn end(name: &str, zone: &str) -> TransferEnd {
        let workload = identity::Workload { kind: "Deployment".into(), name: name.into() };
        let endpoint = identity::Endpoint {
            namespace: "shop".into(),
            pod: format!("{name}-0").into(),
            workload: Some(Arc::new(workload)),
            node: format!("node-of-{name}").into(),
            ..identity::Endpoint::default()
        };
        let place = Place::Zone(Arc::new(Zone { name: zone.into(), region: "r".into() }));
        TransferEnd { address: None, endpoint: Some(Arc::new(endpoint)), place, external: None }
    }

    fn bytes(bytes: u64) -> Counter {
        Counter { bytes, packets: bytes / 10 }
    }

    fn total(grown: &TrafficDelta) -> u64 {
        let others: u64 = grown.others.iter().map(|(_, counter)| counter.bytes).sum();
        grown.transfers.iter().map(|(_, counter)| counter.bytes).sum::<u64>() + others
    }

    #[test]
    fn bytes_that_only_the_matrix_has_belong_to_others_after_a_while() {
        let (web, cart) = (end("web", "a"), end("cart", "b"));
        let mut growth = TrafficAccumulator::default();
        let transfer = Transfer { source: &web, destination: &cart, service: Service::default() };
        let mut sum = 0;
        for round in 0..20 {
            // The matrix is read before the flow entries, and 30 bytes a round have none.
            growth.add_matrix(&web.place, &cart.place, bytes(100));
            let grown = growth.take(false);
            growth.add(&transfer, bytes(70));
            assert!(round >= TIMES - 1 || grown.others.is_empty(), "{round}: {grown:?}");
            sum += total(&grown);
        }
        assert!((20 * 100 - 70 - 30 * 2 * TIMES as u64..2000).contains(&sum), "{sum}");
        sum += total(&growth.take(true));
        assert_eq!(sum, 2000);
        assert_eq!(total(&growth.take(true)), 0);
    }

    #[test]
    fn flow_entries_that_are_read_later_than_the_matrix_are_counted_once() {
        let (web, cart) = (end("web", "a"), end("cart", "b"));
        let mut growth = TrafficAccumulator::default();
        let transfer = Transfer { source: &web, destination: &cart, service: Service::default() };
        growth.add(&transfer, bytes(500));
        let mut sum = total(&growth.take(false));
        growth.add_matrix(&web.place, &cart.place, bytes(500));
        for _ in 0..20 {
            sum += total(&growth.take(false));
        }
        assert_eq!(sum + total(&growth.take(true)), 500);
    }

    #[test]
    fn pairs_beyond_the_room_are_others_to_the_byte() {
        let cart = end("cart", "b");
        let mut growth = TrafficAccumulator::default();
        let ends: Vec<TransferEnd> = (0..TrafficAccumulator::ROOM + 100).map(|n| end(&format!("w{n}"), "a")).collect();
        for source in &ends {
            growth.add(&Transfer { source, destination: &cart, service: Service::default() }, bytes(10));
            growth.add_matrix(&source.place, &cart.place, bytes(10));
        }
        let grown = growth.take(true);
        assert_eq!((grown.transfers.len(), grown.others.len()), (TrafficAccumulator::ROOM, 1));
        assert_eq!((total(&grown), grown.others[0].1.bytes), (10 * ends.len() as u64, 1000));
        assert_eq!(
            grown.nodes.iter().map(|(_, counter)| counter.bytes).sum::<u64>(),
            10 * TrafficAccumulator::ROOM as u64
        );
    }
}
