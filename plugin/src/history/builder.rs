//! Builds a block in bounded memory: traffic beyond the limit is one sum of others for each pair of sites.

use super::{
    block::{Block, Coverage, NodeCoverage, NodeTransfer, Server, Span, Transfer, TransferKey, Workload},
    names::Names,
};
use crate::zones::Location;
use ahash::AHashMap;
use meridian_abi::Counter;

/// The two ends of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// The sender and the receiver.
    pub workloads: [&'a Workload; 2],
    /// The sender's and the receiver's.
    pub sites: [&'a Location; 2],
}

/// The service of a transfer, and the end that serves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransferService<'a> {
    /// The service as `namespace/name`; empty where there is none.
    pub service: &'a str,
    /// The service's port.
    pub port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// The end that serves.
    pub server: Server,
}

/// A block that is being made.
#[derive(Clone, Debug)]
pub struct Builder {
    span: Span,
    room: usize,
    workloads: Names<Workload>,
    sites: Names<Location>,
    services: Names<String>,
    transfers: AHashMap<TransferKey, Counter>,
    nodes: AHashMap<(u32, bool, [u32; 2]), Counter>,
    nodes_seen: Vec<NodeCoverage>,
    /// The machines that had a name, in the order in which they were seen: the last one has it.
    machines: AHashMap<String, Vec<u32>>,
    recorded_seconds: u32,
}

impl Builder {
    /// Rows of pairs for which a block has room beside those of others.
    pub const MAX_ROOM: usize = 1 << 17;

    /// A block of this span with at most so many rows with their own pair, and at most [`Self::MAX_ROOM`].
    pub fn new(span: Span, room: usize) -> Self {
        Self {
            span,
            room: room.min(Self::MAX_ROOM),
            workloads: Names::default(),
            sites: Names::default(),
            services: Names::default(),
            transfers: AHashMap::new(),
            nodes: AHashMap::new(),
            nodes_seen: Vec::new(),
            machines: AHashMap::new(),
            recorded_seconds: 0,
        }
    }

    /// The span.
    pub const fn span(&self) -> Span {
        self.span
    }

    /// Rows of pairs.
    pub fn len(&self) -> usize {
        self.transfers.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.transfers.is_empty() && self.nodes.is_empty()
    }

    /// Adds what went from one workload to another.
    pub fn add(&mut self, ends: Ends<'_>, serving: TransferService<'_>, counter: Counter) {
        if counter == Counter::default() {
            return;
        }
        let sites = ends.sites.map(|site| self.sites.number(site));
        let is_full = self.transfers.len() >= self.room;
        // A workload that is not known yet would be a row of its own.
        let is_known = ends.workloads.iter().all(|workload| self.workloads.find(*workload).is_some())
            && (serving.service.is_empty() || self.services.find(serving.service).is_some());
        if !is_full || is_known {
            let key = TransferKey {
                workloads: ends.workloads.map(|workload| self.workloads.number(workload)),
                sites,
                service: self.services.number(serving.service),
                port: serving.port,
                protocol: serving.protocol,
                server: serving.server,
            };
            if !is_full || self.transfers.contains_key(&key) {
                *self.transfers.entry(key).or_default() += counter;
                return;
            }
        }
        self.add_others(sites, counter);
    }

    fn add_others(&mut self, sites: [u32; 2], counter: Counter) {
        let workload = self.workloads.number(&Workload::default());
        let service = self.services.number("");
        let key =
            TransferKey { workloads: [workload; 2], sites, service, port: 0, protocol: 0, server: Server::Unknown };
        *self.transfers.entry(key).or_default() += counter;
    }

    /// Adds what went from a node to another one; an empty name is a node that is not known.
    pub fn add_nodes(&mut self, nodes: [&str; 2], sites: [&Location; 2], counter: Counter) {
        for (node, is_receiver) in nodes.into_iter().zip([false, true]) {
            self.add_node([node, ""], is_receiver, sites, counter);
        }
    }

    fn add_node(&mut self, [name, id]: [&str; 2], is_receiver: bool, sites: [&Location; 2], counter: Counter) {
        if counter != Counter::default() {
            let node = self.node(name, id);
            let sites = sites.map(|site| self.sites.number(site));
            *self.nodes.entry((node, is_receiver, sites)).or_default() += counter;
        }
    }

    /// The number of a machine by its node's name and provider ID. Without an ID it is the last one of that name.
    fn node(&mut self, name: &str, id: &str) -> u32 {
        let of_name = self.machines.get(name).map_or(&[][..], Vec::as_slice);
        let known = of_name.iter().copied().find(|number| id == self.nodes_seen[*number as usize].provider_id);
        let unnamed =
            || of_name.iter().copied().find(|number| self.nodes_seen[*number as usize].provider_id.is_empty());
        let found = if id.is_empty() { of_name.last().copied() } else { known.or_else(unnamed) };
        let number = found.unwrap_or(self.nodes_seen.len() as u32);
        if found.is_none() {
            self.nodes_seen.push(NodeCoverage { name: name.to_owned(), ..NodeCoverage::default() });
        }
        let seen = &mut self.nodes_seen[number as usize];
        if seen.provider_id.is_empty() {
            id.clone_into(&mut seen.provider_id);
        }
        if self.machines.get(name).and_then(|of_name| of_name.last()) != Some(&number) {
            let of_name = self.machines.entry(name.to_owned()).or_default();
            of_name.retain(|known| *known != number);
            of_name.push(number);
        }
        number
    }

    /// Adds recorded seconds.
    pub const fn add_recorded(&mut self, seconds: u32) {
        let sum = self.recorded_seconds.saturating_add(seconds);
        self.recorded_seconds = if sum < self.span.seconds { sum } else { self.span.seconds };
    }

    /// Adds seconds that a node's reports cover: none for a node that is silent.
    pub fn cover(&mut self, node: &str, provider_id: &str, seconds: u32) {
        let (node, limit) = (self.node(node, provider_id) as usize, self.span.seconds);
        let sum = &mut self.nodes_seen[node].reported_seconds;
        *sum = sum.saturating_add(seconds).min(limit);
    }

    /// Adds all of a block.
    pub fn absorb(&mut self, block: &Block) {
        for Transfer { key, counter } in &block.transfers {
            let ends = Ends {
                workloads: key.workloads.map(|workload| &block.workloads[workload as usize]),
                sites: key.sites.map(|site| &block.sites[site as usize]),
            };
            let TransferKey { service, port, protocol, server, .. } = *key;
            let service = &block.services[service as usize];
            self.add(ends, TransferService { service, port, protocol, server }, *counter);
        }
        let nodes = &block.coverage.nodes;
        for NodeTransfer { node, is_receiver, sites, counter } in &block.nodes {
            let sites = sites.map(|site| &block.sites[site as usize]);
            let NodeCoverage { name, provider_id, .. } = &nodes[*node as usize];
            self.add_node([name, provider_id], *is_receiver, sites, *counter);
        }
        nodes.iter().for_each(|node| self.cover(&node.name, &node.provider_id, node.reported_seconds));
        self.add_recorded(block.coverage.recorded_seconds);
    }

    /// The block.
    pub fn block(&self) -> Block {
        let keys = self.transfers.keys();
        let (workloads, workload) = self.workloads.sorted(keys.clone().flat_map(|key| key.workloads));
        let of_nodes = self.nodes.keys().flat_map(|(_, _, sites)| *sites);
        let (sites, site) = self.sites.sorted(keys.clone().flat_map(|key| key.sites).chain(of_nodes));
        let (services, service) = self.services.sorted(keys.map(|key| key.service));
        let (seen, node) = self.sorted_nodes();
        let new = |numbers: &[u32], old: [u32; 2]| old.map(|old| numbers[old as usize]);
        let mut transfers: Vec<Transfer> = self
            .transfers
            .iter()
            .map(|(key, counter)| {
                let (workloads, sites) = (new(&workload, key.workloads), new(&site, key.sites));
                let key = TransferKey { workloads, sites, service: service[key.service as usize], ..*key };
                Transfer { key, counter: *counter }
            })
            .collect();
        transfers.sort_unstable_by_key(|transfer| transfer.key);
        let mut nodes: Vec<NodeTransfer> = self
            .nodes
            .iter()
            .map(|((of, is_receiver, sites), counter)| NodeTransfer {
                node: node[*of as usize],
                is_receiver: *is_receiver,
                sites: new(&site, *sites),
                counter: *counter,
            })
            .collect();
        nodes.sort_unstable_by_key(|transfer| (transfer.node, transfer.is_receiver, transfer.sites));
        let coverage = Coverage { recorded_seconds: self.recorded_seconds, nodes: seen };
        Block { span: self.span, workloads, sites, services, transfers, nodes, coverage }
    }

    /// The nodes in order, and the new number of each.
    fn sorted_nodes(&self) -> (Vec<NodeCoverage>, Vec<u32>) {
        let mut order: Vec<u32> = (0..self.nodes_seen.len() as u32).collect();
        order.sort_unstable_by_key(|number| &self.nodes_seen[*number as usize]);
        let mut numbers = vec![0; order.len()];
        order.iter().zip(0..).for_each(|(old, new)| numbers[*old as usize] = new);
        (order.iter().map(|old| self.nodes_seen[*old as usize].clone()).collect(), numbers)
    }
}
