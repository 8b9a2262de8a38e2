//! A block of traffic from the metrics. Which rows are possible depends on their labels: those by zone have no workload,
//! and those by namespace and workload have no zone.

use super::{
    client::{AskError, Server},
    edges::{Edge, Edges, Labels, TooMany},
};
use crate::{
    accounting::series::{NAMESPACE_LABELS, OTHER_NAMESPACE, WORKLOAD_LABELS},
    cost::PriceTable,
    history::{Block, Builder, Ends, Span, TransferService, Workload},
    statement::{ChargeTo, Dimension, Query},
    zones::{Locality, Location, Place, Provider, Zone},
};
use meridian_abi::Counter;
use std::{collections::BTreeMap, sync::Arc};

/// The distance of edges.
const HOUR: u64 = 3600;
/// Edges in one answer.
const EDGES: u64 = 12;
/// The longest range, in hours: 13 months.
const MAX_HOURS: u64 = 400 * 24;
/// The labels of zones, after the node.
const ZONE_LABELS: [&str; 7] =
    ["node", "source_zone", "source_region", "destination_zone", "destination_region", "ip_version", "direction"];

/// A report that the metrics can't give.
#[derive(Debug, thiserror::Error)]
pub enum Unsupported {
    /// The rows need labels that no metric has.
    #[error(
        "--by {0}: the metrics lack what it needs, and only a history has it: with --prometheus there are zone-pair, \
         region, namespace and workload"
    )]
    By(Dimension),
    /// The serving end is in no metric.
    #[error("--charge client: no metric names the end that serves, and only a history does")]
    Charge,
    /// Comparisons need hours.
    #[error("--compare: it needs a history")]
    Compare,
    /// The range is too long.
    #[error("the range has more than {MAX_HOURS} hours: --from names a later time")]
    Long,
}

/// Reads the traffic of a range.
#[derive(Debug)]
pub struct Reader<'a> {
    /// The server.
    pub server: &'a Server,
    /// Matchers of labels that select a cluster's series, such as `cluster="production"`; or nothing.
    pub selector: &'a str,
    /// The prices, for rows without zones.
    pub prices: &'a PriceTable,
    /// The provider of a zone.
    pub provider: fn(&str) -> Option<Provider>,
}

impl Reader<'_> {
    /// Whether the metrics can answer.
    ///
    /// # Errors
    /// They can't.
    pub fn check(query: &Query, (from, to): (u64, u64), is_compared: bool) -> Result<(), Unsupported> {
        match query.by {
            Dimension::ZonePair | Dimension::Region | Dimension::Namespace | Dimension::Workload => {}
            ref by => return Err(Unsupported::By(by.clone())),
        }
        if query.charge == ChargeTo::Client {
            return Err(Unsupported::Charge);
        }
        if is_compared {
            return Err(Unsupported::Compare);
        }
        if to.saturating_sub(from) / HOUR > MAX_HOURS { Err(Unsupported::Long) } else { Ok(()) }
    }

    /// The traffic from a whole hour to another, or to `now` if that is earlier.
    ///
    /// # Errors
    /// The server can't be reached, or has another answer.
    pub async fn read(&self, by: &Dimension, (from, to): (u64, u64), now: u64) -> Result<Block, AskError> {
        let range = (from, to.min(now));
        let zones = self.counters("meridian_zone", &ZONE_LABELS, range).await?;
        let seconds = u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
        let mut builder = Builder::new(Span { start: from, seconds }, Builder::MAX_ROOM);
        match by {
            Dimension::Namespace => {
                let sums = self.counters("meridian_namespace", &labels(&NAMESPACE_LABELS), range).await?;
                cover(&mut builder, &sums.bytes);
                self.add_workloads(&mut builder, &zones, &sums);
            }
            Dimension::Workload => {
                let sums = self.counters("meridian_workload", &labels(&WORKLOAD_LABELS), range).await?;
                cover(&mut builder, &sums.bytes);
                self.add_workloads(&mut builder, &zones, &sums);
            }
            _ => {
                cover(&mut builder, &zones.bytes);
                // It is no workload, and not the sum of others either.
                let workload = Workload { kind: "Zone".into(), ..Workload::default() };
                for (labels, counter) in zones.growth() {
                    let sites = self.sites(labels);
                    let ends = Ends { workloads: [&workload; 2], sites: [&sites[0], &sites[1]] };
                    builder.add(ends, TransferService::default(), counter);
                }
            }
        }
        Ok(builder.block())
    }

    async fn counters(&self, name: &str, labels: &[&str], range: (u64, u64)) -> Result<Counters, AskError> {
        Ok(Counters {
            bytes: self.edges(&format!("{name}_bytes_total"), labels, range).await?,
            packets: self.edges(&format!("{name}_packets_total"), labels, range).await?,
        })
    }

    /// The growth of a metric's counters. The labels of scrapes are left out: a restarted pod goes on with the counters.
    async fn edges(&self, metric: &str, labels: &[&str], (from, to): (u64, u64)) -> Result<Edges, AskError> {
        let by = labels.join(", ");
        let query = format!("max by ({by}) ({metric}{{{}}})", self.selector);
        let began = format!(
            "max by (node) (meridian_counters_start_timestamp_seconds{{{0}}} or \
             meridian_cluster_counters_start_timestamp_seconds{{{0}}})",
            self.selector
        );
        let mut edges = Edges::default();
        for times in chunks(from, to) {
            let mut at: BTreeMap<u64, Edge> = BTreeMap::new();
            for series in self.server.query_range(&query, times, HOUR).await? {
                let values: Labels =
                    labels.iter().map(|label| series.labels.get(*label).cloned().unwrap_or_default()).collect();
                for (time, value) in series.values() {
                    // Counters are whole numbers, exact up to 2⁵³.
                    at.entry(time).or_default().values.push((values[0].clone(), values.clone(), value as u64));
                }
            }
            for series in self.server.query_range(&began, times, HOUR).await? {
                let node = series.labels.get("node").cloned().unwrap_or_default();
                for (time, value) in series.values() {
                    at.entry(time).or_default().began.insert(node.clone(), value);
                }
            }
            // Also edges at which there was nothing.
            for time in (times.0..=times.1).step_by(HOUR as usize) {
                let edge = at.remove(&time).unwrap_or_default();
                edges.add(time, &edge).map_err(|TooMany| AskError::TooLarge(self.server.url()))?;
            }
        }
        Ok(edges)
    }

    fn sites(&self, labels: &Labels) -> [Location; 2] {
        [&labels[1..3], &labels[3..5]].map(|names| {
            let place = match names[0].as_str() {
                "internet" => Place::Internet,
                "unknown" | "" => Place::Unknown,
                name => Place::Zone(Arc::new(Zone { name: name.to_owned(), region: names[1].clone() })),
            };
            let provider = place.zone().and_then(|zone| (self.provider)(&zone.name));
            Location { provider, place, class: None }
        })
    }

    /// Adds sums by namespace or workload. They have a locality and no zones, so they have a price only where all pairs
    /// of zones of that locality have the same one.
    fn add_workloads(&self, builder: &mut Builder, zones: &Counters, sums: &Counters) {
        let sites = self.sites_by_locality(zones);
        for (labels, counter) in sums.growth() {
            let Some(locality) = labels.last().and_then(|name| Locality::ALL.into_iter().find(|it| it.name() == name))
            else {
                continue;
            };
            let [source, destination] = &sites[locality as usize];
            let workloads = workloads(labels);
            let ends = Ends { workloads: [&workloads[0], &workloads[1]], sites: [source, destination] };
            builder.add(ends, TransferService::default(), counter);
        }
    }

    /// A pair of sites for each locality: any, if all have the same price; otherwise one without a price.
    fn sites_by_locality(&self, zones: &Counters) -> [[Location; 2]; Locality::ALL.len()] {
        let mut pairs: BTreeMap<Locality, Vec<[Location; 2]>> = BTreeMap::new();
        for (labels, counter) in zones.growth() {
            let sites = self.sites(labels);
            if counter.bytes > 0 {
                pairs.entry(Locality::between(&sites[0].place, &sites[1].place)).or_default().push(sites);
            }
        }
        let price = |[source, destination]: &[Location; 2]| {
            let (rule, quote) = self.prices.numbered_quote(source, destination);
            (rule, quote.cost(1 << 40).map(|charge| (charge.sender, charge.receiver)))
        };
        Locality::ALL.map(|locality| {
            let pairs = pairs.remove(&locality).unwrap_or_default();
            match pairs.split_first() {
                Some((first, others)) if others.iter().all(|pair| price(pair) == price(first)) => first.clone(),
                _ => unpriced(locality),
            }
        })
    }
}

/// Any sites of a locality, without a provider.
fn unpriced(locality: Locality) -> [Location; 2] {
    let zone = |name: &str, region: &str| Place::Zone(Arc::new(Zone { name: name.into(), region: region.into() }));
    let places = match locality {
        Locality::SameZone => [zone("(zone)", "(region)"), zone("(zone)", "(region)")],
        Locality::CrossZone => [zone("(zone)", "(region)"), zone("(other zone)", "(region)")],
        Locality::CrossRegion => [zone("(zone)", "(region)"), zone("(zone of another)", "(other region)")],
        Locality::Internet => [zone("(zone)", "(region)"), Place::Internet],
        Locality::Unknown => [zone("(zone)", "(region)"), Place::Unknown],
    };
    places.map(|place| Location { provider: None, place, class: None })
}

/// All labels of a series with these of its ends.
fn labels(ends: &[&'static str]) -> Vec<&'static str> {
    [&["node"], ends, &["locality"]].concat()
}

/// The ends in the labels of namespaces or of workloads.
fn workloads(labels: &Labels) -> [Workload; 2] {
    let workload = |namespace: &str, kind: &str, name: &str| Workload {
        namespace: namespace.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        ..Workload::default()
    };
    match labels.as_slice() {
        [_, source, destination, _] => [source, destination].map(|namespace| {
            // Ends without a namespace, and those beyond the limit of series, are known to be no workload's.
            let is_other = namespace.is_empty() || namespace == OTHER_NAMESPACE;
            workload(namespace, if is_other { "" } else { "Namespace" }, "")
        }),
        [_, a, b, c, d, e, f, _] => [workload(a, b, c), workload(d, e, f)],
        _ => [Workload::default(), Workload::default()],
    }
}

/// Notes for how long the nodes, or the cluster, were seen.
fn cover(builder: &mut Builder, edges: &Edges) {
    let seconds = |recorded: u64| u32::try_from(recorded).unwrap_or(u32::MAX);
    builder.add_recorded(seconds(edges.recorded().map(|(_, recorded)| recorded).max().unwrap_or_default()));
    for (node, recorded) in edges.recorded().filter(|(node, _)| !node.is_empty()) {
        builder.cover(node, "", seconds(recorded));
    }
}

/// The bytes and packets of a metric.
struct Counters {
    bytes: Edges,
    packets: Edges,
}

impl Counters {
    fn growth(&self) -> impl Iterator<Item = (&Labels, Counter)> {
        self.bytes.growth().map(|(labels, bytes)| (labels, Counter { bytes, packets: self.packets.of(labels) }))
    }
}

/// Ranges of edges, the last of which ends at `to`, which may be no hour.
fn chunks(from: u64, to: u64) -> Vec<(u64, u64)> {
    let (mut chunks, mut start) = (Vec::new(), from);
    let last_hour = to - to.saturating_sub(from) % HOUR;
    while start <= last_hour {
        let end = last_hour.min(start + (EDGES - 1) * HOUR);
        chunks.push((start, end));
        start = end + HOUR;
    }
    if to > last_hour {
        chunks.push((to, to));
    }
    chunks
}
