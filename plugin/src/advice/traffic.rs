//! The traffic of a range, by client, server, zone pair and service, from blocks of the history; and the load of each
//! service by the zone of its clients, hour by hour.
//!
//! Sums do not depend on the order of the blocks, as long as there is room for all pairs.

use super::peaks::Peaks;
use crate::{
    history::{Block, Names, Party, Server, Span, Transfer},
    zones::{Locality, Location},
};
use ahash::AHashMap;
use std::{collections::BTreeMap, time::Duration};

/// The limit of pairs. Bytes of further pairs are `left_out`.
pub const MAX_PAIRS: usize = 1 << 18;
/// Services times zones of clients whose load is kept.
const MAX_LOADS: usize = 1 << 16;

/// The ends and the service of some traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PairKey {
    /// The client and the server.
    parties: [u32; 2],
    sites: [u32; 2],
    service: u32,
    port: u16,
    protocol: u8,
    /// Whether it is known which end serves. If not, the smaller end is the first.
    is_known: bool,
}

/// The traffic of a range.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    parties: Names<Party>,
    sites: Names<Location>,
    services: Names<String>,
    zones: Names<String>,
    pairs: AHashMap<PairKey, [u64; 2]>,
    /// By service and zone of the clients.
    loads: AHashMap<(u32, u32), Peaks>,
    /// By service.
    totals: AHashMap<u32, Peaks>,
    /// By service and zone of the clients: before and lately.
    shares: AHashMap<(u32, u32), [Share; 2]>,
    /// The second from which traffic is lately.
    lately_from: u64,
    recorded_ms: u64,
    hours: u64,
    left_out: u64,
}

/// Bytes between a client and a server.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// The client.
    pub client: &'a Party,
    /// The server.
    pub server: &'a Party,
    /// The client's and the server's place.
    pub sites: [&'a Location; 2],
    /// The service as `namespace/name`; empty where there is none.
    pub service: &'a str,
    /// The server's port; 0 where it is not known.
    pub port: u16,
    /// The IP protocol; 0 where it is not known.
    pub protocol: u8,
    /// Whether it is known which end serves.
    pub is_known: bool,
    /// Bytes to the server, and bytes to the client.
    pub bytes: [u64; 2],
}

impl Flow<'_> {
    /// The key by which flows are sorted.
    fn order(&self) -> impl Ord + '_ {
        (self.client, self.server, self.sites, self.service, self.port, self.protocol, self.is_known)
    }
}

/// The load of a service by the zone of its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The load of the 95th percentile hour of each zone.
    pub by_zone: BTreeMap<String, u64>,
    /// That of all zones together.
    pub total: u64,
}

/// Bytes of a service's clients in a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Those that went to or came from another zone.
    pub crossing: u64,
    /// All of them.
    pub all: u64,
}

impl Share {
    /// Adds another one.
    pub const fn add(&mut self, other: Self) {
        self.crossing = self.crossing.saturating_add(other.crossing);
        self.all = self.all.saturating_add(other.all);
    }
}

impl Traffic {
    /// Traffic of which the part since this second is what happens lately.
    pub fn lately_from(second: u64) -> Self {
        Self { lately_from: second, ..Self::default() }
    }

    /// Adds a block.
    pub fn add(&mut self, block: &Block) {
        self.recorded_ms = self.recorded_ms.saturating_add(u64::from(block.coverage.recorded_seconds) * 1000);
        let hours = u64::from(block.span.seconds / Span::HOUR).max(1);
        self.hours = self.hours.saturating_add(hours);
        let bare = |party: &Party| Party { labels: BTreeMap::new(), ..party.clone() };
        let parties: Vec<u32> = block.parties.iter().map(|party| self.parties.number(&bare(party))).collect();
        let sites: Vec<u32> = block.sites.iter().map(|site| self.sites.number(site)).collect();
        let zones: Vec<u32> = block.sites.iter().map(|site| self.zones.number(site.place.name())).collect();
        let services: Vec<u32> = block.services.iter().map(|service| self.services.number(service)).collect();
        let mut loads: AHashMap<(u32, u32), Share> = AHashMap::new();
        for Transfer { key, counter } in &block.transfers {
            if key.server != Server::Unknown && !block.services[key.service as usize].is_empty() {
                let client = if key.server == Server::Destination { key.sites[0] } else { key.sites[1] };
                let [from, to] = key.sites.map(|site| &block.sites[site as usize].place);
                let crosses = matches!(Locality::between(from, to), Locality::CrossZone | Locality::CrossRegion);
                let load = loads.entry((services[key.service as usize], zones[client as usize])).or_default();
                load.add(Share { crossing: if crosses { counter.bytes } else { 0 }, all: counter.bytes });
            }
            let pair = PairKey {
                parties: key.parties.map(|party| parties[party as usize]),
                sites: key.sites.map(|site| sites[site as usize]),
                service: services[key.service as usize],
                port: key.port,
                protocol: key.protocol,
                is_known: key.server != Server::Unknown,
            };
            self.add_pair(pair, key.server == Server::Source, counter.bytes);
        }
        self.add_loads(&loads, hours, usize::from(block.span.start >= self.lately_from));
    }

    /// Sets the recorded time, where it is known better than from the blocks, which have whole seconds.
    pub fn set_recorded(&mut self, time: Duration) {
        self.recorded_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    }

    fn add_pair(&mut self, pair: PairKey, is_answer: bool, bytes: u64) {
        let end = |at: usize| (&self.parties[pair.parties[at]], &self.sites[pair.sites[at]]);
        let is_turned = if pair.is_known { is_answer } else { end(1) < end(0) };
        let [a, b] = pair.parties;
        let [from, to] = pair.sites;
        let pair = if is_turned { PairKey { parties: [b, a], sites: [to, from], ..pair } } else { pair };
        if self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&pair) {
            self.left_out = self.left_out.saturating_add(bytes);
            return;
        }
        let sums = self.pairs.entry(pair).or_default();
        let sum = &mut sums[usize::from(is_turned)];
        *sum = sum.saturating_add(bytes);
    }

    fn add_loads(&mut self, loads: &AHashMap<(u32, u32), Share>, hours: u64, part: usize) {
        let mut totals: AHashMap<u32, u64> = AHashMap::new();
        for (key, share) in loads {
            if self.loads.len() < MAX_LOADS || self.loads.contains_key(key) {
                self.loads.entry(*key).or_default().add(share.all / hours, hours);
                self.shares.entry(*key).or_default()[part].add(*share);
            }
            let total = totals.entry(key.0).or_default();
            *total = total.saturating_add(share.all);
        }
        for (service, bytes) in totals {
            if self.totals.len() < MAX_LOADS || self.totals.contains_key(&service) {
                self.totals.entry(service).or_default().add(bytes / hours, hours);
            }
        }
    }

    /// The flows, sorted.
    pub fn flows(&self) -> Vec<Flow<'_>> {
        let flow = |(key, bytes): (&PairKey, &[u64; 2])| {
            let [client, server] = key.parties.map(|party| &self.parties[party]);
            let sites = key.sites.map(|site| &self.sites[site]);
            let service = self.services[key.service].as_str();
            let PairKey { port, protocol, is_known, .. } = *key;
            Flow { client, server, sites, service, port, protocol, is_known, bytes: *bytes }
        };
        let mut flows: Vec<_> = self.pairs.iter().map(flow).collect();
        flows.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        flows
    }

    /// The load of a service.
    pub fn load(&self, service: &str) -> Load {
        let Some(number) = self.services.find(service) else { return Load::default() };
        let peak = |zone: usize| self.loads.get(&(number, zone as u32)).map(|peaks| peaks.percentile_95(self.hours));
        let zones = self.zones.iter().enumerate();
        Load {
            by_zone: zones.filter_map(|(at, zone)| Some((zone.clone(), peak(at)?))).collect(),
            total: self.totals.get(&number).map_or(0, |peaks| peaks.percentile_95(self.hours)),
        }
    }

    /// The bytes of a service's clients in a zone: before, and lately.
    pub fn shares(&self, service: &str, zone: &str) -> [Share; 2] {
        let numbers = self.services.find(service).zip(self.zones.find(zone));
        let shares = numbers.and_then(|(service, zone)| self.shares.get(&(service, zone)));
        shares.copied().unwrap_or_default()
    }

    /// Time that was recorded, in milliseconds.
    pub const fn recorded_ms(&self) -> u64 {
        self.recorded_ms
    }

    /// Bytes of pairs for which there was no room.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}
