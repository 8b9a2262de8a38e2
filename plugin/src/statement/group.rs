//! The key of rows, and the row that each end of a transfer belongs to.

use crate::{
    history::{Block, Names, Server, TransferKey, Workload},
    zones::{Locality, Place},
};
use ahash::AHashMap;
use std::{fmt, str::FromStr};

/// The key of a statement's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// The zones of sender and receiver.
    ZonePair,
    /// The namespaces and zones of sender and receiver.
    NamespacePair,
    /// The workloads and zones of sender and receiver.
    WorkloadPair,
    /// The namespace of an end.
    Namespace,
    /// The workload of an end.
    Workload,
    /// The service that is used.
    Service,
    /// The node of an end.
    Node,
    /// The region of an end.
    Region,
    /// The value of a label of an end.
    Label(String),
}

/// A text that is no dimension.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is none of zone-pair, namespace-pair, workload-pair, namespace, workload, service, node, region and label:KEY"
)]
pub struct UnknownDimension(String);

impl FromStr for Dimension {
    type Err = UnknownDimension;

    fn from_str(text: &str) -> Result<Self, UnknownDimension> {
        Ok(match text {
            "zone-pair" => Self::ZonePair,
            "namespace-pair" => Self::NamespacePair,
            "workload-pair" => Self::WorkloadPair,
            "namespace" => Self::Namespace,
            "workload" => Self::Workload,
            "service" => Self::Service,
            "node" => Self::Node,
            "region" => Self::Region,
            _ => match text.strip_prefix("label:").filter(|key| !key.is_empty()) {
                Some(key) => Self::Label(key.to_owned()),
                None => return Err(UnknownDimension(text.chars().filter(|c| !c.is_control()).take(60).collect())),
            },
        })
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZonePair => f.write_str("zone-pair"),
            Self::NamespacePair => f.write_str("namespace-pair"),
            Self::WorkloadPair => f.write_str("workload-pair"),
            Self::Namespace => f.write_str("namespace"),
            Self::Workload => f.write_str("workload"),
            Self::Service => f.write_str("service"),
            Self::Node => f.write_str("node"),
            Self::Region => f.write_str("region"),
            Self::Label(key) => write!(f, "label:{key}"),
        }
    }
}

impl Dimension {
    /// Whether a row is of one end, so that a transfer is in two rows.
    pub const fn is_of_one_end(&self) -> bool {
        !matches!(self, Self::ZonePair | Self::NamespacePair | Self::WorkloadPair | Self::Service)
    }
}

/// The end that is charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChargeTo {
    /// The sender its price, the receiver its own: sums are those of the bill.
    #[default]
    Ends,
    /// Both prices to the client of the service. Where it is not known which end serves, as `Ends`.
    Client,
}

/// The parts of a row's key, by name.
pub type Key = Vec<(String, String)>;

/// The key of the rows that are not shown.
pub(super) fn others(count: usize) -> Key {
    key([("other", count.to_string())])
}

/// The key of the rows that a series sums up.
pub(super) fn others_of_a_series() -> Key {
    key([("other", String::new())])
}

fn key<const N: usize>(parts: [(&str, String); N]) -> Key {
    parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The rows so far, by number.
#[derive(Debug)]
pub(super) struct Groups {
    by: Dimension,
    charge: ChargeTo,
    numbers: AHashMap<Key, u32>,
    /// The rows of pairs of workloads. A report has far more of them than names, and a key takes far longer to build than
    /// the numbers of its names.
    ends: AHashMap<PairOfEnds, u32>,
    /// The same by row. Blocks mostly have the same pairs in the same order, so that the row behind the last one is tried
    /// before the map.
    ends_of_rows: Vec<PairOfEnds>,
    next_row: u32,
    names: Names<String>,
    keys: Vec<Key>,
}

/// A row of a pair of workloads: the numbers of their names and of their zones' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PairOfEnds {
    workloads: [u32; 2],
    zones: [u32; 2],
    locality: Locality,
}

impl Groups {
    pub(super) fn new(by: Dimension, charge: ChargeTo) -> Self {
        Self {
            by,
            charge,
            numbers: AHashMap::new(),
            ends: AHashMap::new(),
            ends_of_rows: Vec::new(),
            next_row: 0,
            names: Names::default(),
            keys: Vec::new(),
        }
    }

    fn number(&mut self, key: Key) -> u32 {
        *self.numbers.entry(key).or_insert_with_key(|key| {
            self.keys.push(key.clone());
            self.keys.len() as u32 - 1
        })
    }

    /// The row of a pair of workloads, whose key is only built if it is new.
    fn row_of_ends(&mut self, ends: PairOfEnds, key: impl FnOnce() -> Key) -> u32 {
        let row = match self.ends_of_rows.get(self.next_row as usize) {
            Some(expected) if *expected == ends => self.next_row,
            _ => *self.ends.entry(ends).or_insert_with(|| {
                // Reports by pairs have no other rows.
                debug_assert_eq!(self.ends_of_rows.len(), self.keys.len());
                self.ends_of_rows.push(ends);
                self.keys.push(key());
                self.keys.len() as u32 - 1
            }),
        };
        self.next_row = row + 1;
        row
    }

    /// The number of a workload's name, as far as the rows have it.
    fn workload_name(&mut self, Workload { namespace, kind, name, .. }: &Workload) -> u32 {
        match self.by {
            Dimension::WorkloadPair => {
                // With their lengths, so that no two workloads have one text.
                let text = format!("{}:{}:{namespace}{kind}{name}", namespace.len(), kind.len());
                self.names.number(text.as_str())
            }
            _ => self.names.number(namespace.as_str()),
        }
    }

    pub(super) fn into_keys(self) -> Vec<Key> {
        self.keys
    }

    fn workload(&mut self, workload: &Workload) -> u32 {
        let Workload { namespace, kind, name, labels } = workload;
        let key = match &self.by {
            Dimension::Workload => {
                key([("namespace", namespace.clone()), ("kind", kind.clone()), ("workload", name.clone())])
            }
            Dimension::Label(label) => {
                let value = labels.get(label).cloned().unwrap_or_default();
                vec![(label.clone(), value)]
            }
            _ => key([("namespace", namespace.clone())]),
        };
        self.number(key)
    }
}

/// The rows of a block's workloads, sites and services, as far as the query needs them.
pub(super) struct BlockGroups<'a> {
    block: &'a Block,
    workloads: Vec<Option<u32>>,
    services: Vec<Option<u32>>,
    sites: Vec<Option<u32>>,
    nodes: Vec<Option<u32>>,
    pairs: AHashMap<[u32; 2], u32>,
    localities: AHashMap<[u32; 2], Locality>,
}

impl<'a> BlockGroups<'a> {
    pub(super) fn new(block: &'a Block) -> Self {
        Self {
            block,
            workloads: vec![None; block.workloads.len()],
            services: vec![None; block.services.len()],
            sites: vec![None; block.sites.len()],
            nodes: vec![None; block.coverage.nodes.len()],
            pairs: AHashMap::new(),
            localities: AHashMap::new(),
        }
    }

    pub(super) fn node(&mut self, groups: &mut Groups, node: u32) -> u32 {
        let name = || key([("node", self.block.coverage.nodes[node as usize].name.clone())]);
        *self.nodes[node as usize].get_or_insert_with(|| groups.number(name()))
    }

    /// The rows of the sender's and of the receiver's part.
    pub(super) fn transfer(&mut self, groups: &mut Groups, transfer: &TransferKey) -> [u32; 2] {
        match groups.by {
            Dimension::ZonePair => [self.pair(groups, transfer.sites); 2],
            Dimension::NamespacePair | Dimension::WorkloadPair => [self.ends(groups, transfer); 2],
            Dimension::Service => [self.service(groups, transfer.service); 2],
            Dimension::Region => {
                charged(groups.charge, transfer.server, transfer.sites).map(|site| self.region(groups, site))
            }
            _ => charged(groups.charge, transfer.server, transfer.workloads)
                .map(|workload| self.workload(groups, workload)),
        }
    }

    fn workload(&mut self, groups: &mut Groups, workload: u32) -> u32 {
        *self.workloads[workload as usize]
            .get_or_insert_with(|| groups.workload(&self.block.workloads[workload as usize]))
    }

    fn region(&mut self, groups: &mut Groups, site: u32) -> u32 {
        let region = |site: &crate::zones::Location| match &site.place {
            Place::Zone(zone) => zone.region.clone(),
            place => place.name().to_owned(),
        };
        let site_of = &self.block.sites[site as usize];
        *self.sites[site as usize].get_or_insert_with(|| groups.number(key([("region", region(site_of))])))
    }

    fn service(&mut self, groups: &mut Groups, service: u32) -> u32 {
        let name = &self.block.services[service as usize];
        *self.services[service as usize].get_or_insert_with(|| {
            let (namespace, name) = name.split_once('/').unwrap_or(("", name));
            groups.number(key([("namespace", namespace.to_owned()), ("service", name.to_owned())]))
        })
    }

    fn ends(&mut self, groups: &mut Groups, transfer: &TransferKey) -> u32 {
        let (block, TransferKey { workloads, sites, .. }) = (self.block, *transfer);
        let places = sites.map(|site| &block.sites[site as usize].place);
        let ends = PairOfEnds {
            workloads: workloads.map(|workload| {
                *self.workloads[workload as usize]
                    .get_or_insert_with(|| groups.workload_name(&block.workloads[workload as usize]))
            }),
            zones: sites.map(|site| {
                let name = || block.sites[site as usize].place.to_string();
                *self.sites[site as usize].get_or_insert_with(|| groups.names.number(name().as_str()))
            }),
            locality: *self.localities.entry(sites).or_insert_with(|| Locality::between(places[0], places[1])),
        };
        let has_workloads = groups.by == Dimension::WorkloadPair;
        let workloads = workloads.map(|workload| &block.workloads[workload as usize]);
        groups.row_of_ends(ends, || key_of_ends(workloads, places, has_workloads))
    }

    fn pair(&mut self, groups: &mut Groups, sites: [u32; 2]) -> u32 {
        let [source, destination] = sites.map(|site| &self.block.sites[site as usize].place);
        *self.pairs.entry(sites).or_insert_with(|| {
            let locality = Locality::between(source, destination).name();
            groups.number(key([
                ("source_zone", source.to_string()),
                ("destination_zone", destination.to_string()),
                ("locality", locality.to_owned()),
            ]))
        })
    }
}

fn key_of_ends([source, destination]: [&Workload; 2], [from, to]: [&Place; 2], has_workloads: bool) -> Key {
    let mut parts = vec![("source_namespace", source.namespace.clone())];
    if has_workloads {
        parts.extend([("source_kind", source.kind.clone()), ("source_workload", source.name.clone())]);
    }
    parts.push(("source_zone", from.to_string()));
    parts.push(("destination_namespace", destination.namespace.clone()));
    if has_workloads {
        let kind = destination.kind.clone();
        parts.extend([("destination_kind", kind), ("destination_workload", destination.name.clone())]);
    }
    parts.push(("destination_zone", to.to_string()));
    parts.push(("locality", Locality::between(from, to).name().to_owned()));
    parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The ends that are charged with the sender's price and the receiver's price.
const fn charged(charge: ChargeTo, server: Server, [source, destination]: [u32; 2]) -> [u32; 2] {
    match (charge, server) {
        (ChargeTo::Client, Server::Source) => [destination; 2],
        (ChargeTo::Client, Server::Destination) => [source; 2],
        _ => [source, destination],
    }
}
