//! The traffic of a range, by client, server, zone pair and service, from blocks of the history; and the load of each
//! service by the zone of its clients, hour by hour.
//!
//! Sums do not depend on the order of the blocks, as long as there is room for all pairs.

mod loads;
mod pairs;
mod peaks;

pub use loads::{Load, Share};
pub use pairs::MAX_PAIRS;

use crate::{
    history::{Block, Names, Server, Span, Transfer, Workload},
    zones::Location,
};
use loads::{BlockLoads, Loads};
use pairs::{PairKey, Pairs};
use std::{collections::BTreeMap, hash::Hash, time::Duration};

/// The traffic of a range.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    workloads: Names<Workload>,
    sites: Names<Location>,
    services: Names<String>,
    zones: Names<String>,
    pairs: Pairs,
    loads: Loads,
    /// The second from which traffic is recent.
    recent_from: u64,
    recorded_ms: u64,
}

/// A block's lists as numbers of the range.
struct Numbers {
    workloads: Vec<u32>,
    sites: Vec<u32>,
    zones: Vec<u32>,
    services: Vec<u32>,
}

/// Bytes between a client and a server.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// The client.
    pub client: &'a Workload,
    /// The server.
    pub server: &'a Workload,
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

/// The rank of each value.
fn ranks<T: Eq + Hash + Ord>(names: &Names<T>) -> Vec<u32> {
    let mut values: Vec<(&T, usize)> = names.iter().zip(0..).collect();
    values.sort_unstable();
    let mut ranks = vec![0; values.len()];
    (0..).zip(values).for_each(|(rank, (_, at))| ranks[at] = rank);
    ranks
}

impl Traffic {
    /// Traffic of which the part since this second is recent.
    pub fn recent_from(second: u64) -> Self {
        Self { recent_from: second, ..Self::default() }
    }

    /// Adds a block.
    pub fn add(&mut self, block: &Block) {
        self.recorded_ms = self.recorded_ms.saturating_add(u64::from(block.coverage.recorded_seconds) * 1000);
        let numbers = self.numbers(block);
        let mut loads = BlockLoads::default();
        for Transfer { key, counter } in &block.transfers {
            let pair = PairKey {
                workloads: key.workloads.map(|workload| numbers.workloads[workload as usize]),
                sites: key.sites.map(|site| numbers.sites[site as usize]),
                service: numbers.services[key.service as usize],
                port: key.port,
                protocol: key.protocol,
                is_known: key.server != Server::Unknown,
            };
            let is_turned = if pair.is_known { key.server == Server::Source } else { self.is_turned(&pair) };
            let pair = if is_turned { pair.turned() } else { pair };
            let Self { pairs, loads: of_range, .. } = self;
            let part = || {
                let sites = key.sites.map(|site| &block.sites[site as usize].place);
                let is_used = pair.is_known && !block.services[key.service as usize].is_empty();
                let client = numbers.zones[key.sites[usize::from(is_turned)] as usize];
                of_range.part(is_used.then_some(pair.service), client, sites)
            };
            let part = pairs.add(pair, (usize::from(is_turned), counter.bytes), part);
            loads.add(part, counter.bytes);
        }
        let hours = u64::from(block.span.seconds / Span::HOUR).max(1);
        self.loads.add(&loads, hours, usize::from(block.span.start >= self.recent_from));
    }

    fn numbers(&mut self, block: &Block) -> Numbers {
        let mut workload = |workload: &Workload| {
            // Flows do not tell labels apart.
            if workload.labels.is_empty() {
                self.workloads.number(workload)
            } else {
                self.workloads.number(&Workload { labels: BTreeMap::new(), ..workload.clone() })
            }
        };
        Numbers {
            workloads: block.workloads.iter().map(&mut workload).collect(),
            sites: block.sites.iter().map(|site| self.sites.number(site)).collect(),
            zones: block.sites.iter().map(|site| self.zones.number(site.place.name())).collect(),
            services: block.services.iter().map(|service| self.services.number(service)).collect(),
        }
    }

    /// Whether the smaller end of a pair is the second.
    fn is_turned(&self, pair: &PairKey) -> bool {
        let end = |at: usize| (&self.workloads[pair.workloads[at]], &self.sites[pair.sites[at]]);
        end(1) < end(0)
    }

    /// The flows, sorted.
    pub fn flows(&self) -> Vec<Flow<'_>> {
        let (workloads, sites, services) = (ranks(&self.workloads), ranks(&self.sites), ranks(&self.services));
        let order = |key: &PairKey| {
            let workloads = key.workloads.map(|workload| workloads[workload as usize]);
            let sites = key.sites.map(|site| sites[site as usize]);
            (workloads, sites, services[key.service as usize], key.port, key.protocol, key.is_known)
        };
        let mut pairs: Vec<_> = self.pairs.iter().map(|(key, sums)| (order(key), key, sums.bytes)).collect();
        pairs.sort_unstable_by_key(|(order, ..)| *order);
        let flow = |(_, key, bytes): (_, &PairKey, [u64; 2])| {
            let [client, server] = key.workloads.map(|workload| &self.workloads[workload]);
            let sites = key.sites.map(|site| &self.sites[site]);
            let service = self.services[key.service].as_str();
            let PairKey { port, protocol, is_known, .. } = *key;
            Flow { client, server, sites, service, port, protocol, is_known, bytes }
        };
        pairs.into_iter().map(flow).collect()
    }

    /// The load of a service.
    pub fn load(&self, service: &str) -> Load {
        let number = self.services.find(service);
        number.map(|service| self.loads.load(service, self.zones.iter())).unwrap_or_default()
    }

    /// The bytes of a service's clients in a zone: before, and recently.
    pub fn shares(&self, service: &str, zone: &str) -> [Share; 2] {
        let numbers = self.services.find(service).zip(self.zones.find(zone));
        numbers.and_then(|(service, zone)| self.loads.shares(service, zone)).unwrap_or_default()
    }

    /// Sets the recorded time, where it is known better than from the blocks, which have whole seconds.
    pub fn set_recorded(&mut self, time: Duration) {
        self.recorded_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    }

    /// Time that was recorded, in milliseconds.
    pub const fn recorded_ms(&self) -> u64 {
        self.recorded_ms
    }

    /// Bytes of pairs for which there was no room.
    pub const fn left_out(&self) -> u64 {
        self.pairs.left_out()
    }
}
