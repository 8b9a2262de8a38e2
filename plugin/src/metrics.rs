//! Metrics of the nodes that this process measures, for Prometheus.
//!
//! The page is made of a sample that the agent takes once a second: whoever asks, however often or
//! slowly, disturbs nothing. The series are bounded by the zones, not by pods.

mod http;
mod text;

pub use http::{Listen, serve};

use crate::zones::{Matrix, Pair};
use meridian_abi::{Counter, IpVersion, stats::Stat};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// What is known of a node at one moment. Counters are since its programs were loaded.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The node's name.
    pub node: String,
    /// Where its packets are counted.
    pub hook: &'static str,
    /// By zone pair.
    pub matrix: Matrix,
    /// By reason.
    pub stats: Vec<(Stat, Counter)>,
    /// Entries of the flow maps, and how many they hold.
    pub flow_entries: (u64, u64),
    /// Flows in the ring, how many it holds, and how many have ever been in it.
    pub ring: (u64, u64, u64),
    /// The zone table.
    pub table: TableState,
    /// Seconds that the last drain took.
    pub drain_seconds: f64,
}

/// The zone table that is in force.
#[derive(Clone, Debug)]
pub struct TableState {
    /// Its prefixes, those of public and private address space included.
    pub prefixes: u64,
    /// When it was read.
    pub loaded: SystemTime,
    /// Tables that were taken and tables that were refused since the start.
    pub reloads: (u64, u64),
}

/// The samples of all nodes, renewed once a second.
pub type Samples = watch::Receiver<Vec<Sample>>;

/// Writes the samples as metrics.
#[derive(Debug)]
struct Page(Samples);

type Labels = Vec<(&'static str, String)>;

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = self.0.borrow().clone();
        let mut page = Writer(&mut encoder);
        page.info(&samples)?;
        page.matrix(&samples)?;
        page.stats(&samples)?;
        page.itself(&samples)
    }
}

struct Writer<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Writer<'_, '_> {
    fn counters(&mut self, name: &str, help: &str, unit: Option<Unit>, series: &[(Labels, u64)]) -> fmt::Result {
        self.family(name, help, unit, series.iter().map(|(labels, value)| (labels, ConstCounter::new(*value))))
    }

    fn gauges(&mut self, name: &str, help: &str, unit: Option<Unit>, series: &[(Labels, f64)]) -> fmt::Result {
        self.family(name, help, unit, series.iter().map(|(labels, value)| (labels, ConstGauge::new(*value))))
    }

    fn family<'l, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        series: impl Iterator<Item = (&'l Labels, M)>,
    ) -> fmt::Result {
        let mut series = series.peekable();
        let Some((_, first)) = series.peek() else { return Ok(()) };
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), first.metric_type())?;
        series.try_for_each(|(labels, metric)| metric.encode(family.encode_family(labels)?))
    }

    fn info(&mut self, samples: &[Sample]) -> fmt::Result {
        let series = each(samples, |sample| {
            vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("hook", sample.hook.to_owned())], 1.0)]
        });
        self.gauges("meridian_build_info", "The version and the hook that counts packets; always 1", None, &series)
    }

    fn matrix(&mut self, samples: &[Sample]) -> fmt::Result {
        let cells = |value: fn(Counter) -> u64| {
            each(samples, |sample| {
                sample.matrix.cells().map(|(pair, counter)| (pair_labels(pair), value(counter))).collect()
            })
        };
        let help = "IP bytes that left the node, by zone pair, as on the wire";
        self.counters("meridian_zone", help, Some(Unit::Bytes), &cells(|counter| counter.bytes))?;
        let help = "Packets that left the node, by zone pair, as on the wire";
        self.counters("meridian_zone_packets", help, None, &cells(|counter| counter.packets))
    }

    fn stats(&mut self, samples: &[Sample]) -> fmt::Result {
        let stats = |outside: bool, value: fn(Counter) -> u64| {
            each(samples, |sample| {
                let stats = sample.stats.iter().filter(|(stat, _)| stat.is_outside() == outside);
                stats.map(|(stat, counter)| (vec![("reason", stat.name().to_owned())], value(*counter))).collect()
            })
        };
        let help = "IP bytes that the hook saw and that are outside the sums, by reason";
        self.counters("meridian_outside", help, Some(Unit::Bytes), &stats(true, |counter| counter.bytes))?;
        let help = "Packets that the hook saw and that are outside the sums, by reason";
        self.counters("meridian_outside_packets", help, None, &stats(true, |counter| counter.packets))?;
        let help = "IP bytes in the sums of which something is to be said, by what it is";
        self.counters("meridian_noted", help, Some(Unit::Bytes), &stats(false, |counter| counter.bytes))?;
        let help = "Packets in the sums of which something is to be said, by what it is";
        self.counters("meridian_noted_packets", help, None, &stats(false, |counter| counter.packets))
    }

    fn itself(&mut self, samples: &[Sample]) -> fmt::Result {
        let one = |value: fn(&Sample) -> f64| each(samples, |sample| vec![(Vec::new(), value(sample))]);
        let count = |value: fn(&Sample) -> u64| each(samples, |sample| vec![(Vec::new(), value(sample))]);
        self.gauges("meridian_flow_entries", "Entries of the flow maps", None, &one(|s| s.flow_entries.0 as f64))?;
        let help = "Entries that the flow maps hold; bytes of further ones are unattributed";
        self.gauges("meridian_flow_entries_limit", help, None, &one(|s| s.flow_entries.1 as f64))?;
        self.gauges("meridian_flow_ring_flows", "Flows in the ring", None, &one(|s| s.ring.0 as f64))?;
        self.gauges("meridian_flow_ring_limit", "Flows that the ring holds", None, &one(|s| s.ring.1 as f64))?;
        self.counters("meridian_flow_ring_seen", "Flows that have ever been in the ring", None, &count(|s| s.ring.2))?;
        let help = "Prefixes of the zone table, public and private address space included";
        self.gauges("meridian_zone_table_prefixes", help, None, &one(|s| s.table.prefixes as f64))?;
        let help = "When the zone table in force was read, in seconds since 1970";
        let loaded = one(|s| s.table.loaded.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.gauges("meridian_zone_table_loaded_timestamp", help, Some(Unit::Seconds), &loaded)?;
        let reloads = each(samples, |sample| {
            let (taken, refused) = sample.table.reloads;
            [("taken", taken), ("refused", refused)].map(|(result, n)| (vec![("result", result.to_owned())], n)).into()
        });
        self.counters("meridian_zone_table_reloads", "Zone tables read after the first, by result", None, &reloads)?;
        let help = "How long the last drain of the flow maps took";
        self.gauges("meridian_drain_duration", help, Some(Unit::Seconds), &one(|s| s.drain_seconds))
    }
}

/// The series of every node, each with the node's name.
fn each<T>(samples: &[Sample], series: impl Fn(&Sample) -> Vec<(Labels, T)>) -> Vec<(Labels, T)> {
    let of_node = |sample| {
        let named = move |(mut labels, value): (Labels, T)| {
            let node: &Sample = sample;
            labels.push(("node", node.node.clone()));
            (labels, value)
        };
        series(sample).into_iter().map(named)
    };
    samples.iter().flat_map(of_node).collect()
}

fn pair_labels(pair: &Pair) -> Labels {
    let region = |place: &crate::zones::Place| place.zone().map_or_else(String::new, |zone| zone.region.clone());
    let version = match pair.version {
        IpVersion::V4 => "4",
        IpVersion::V6 => "6",
    };
    vec![
        ("source_zone", pair.source.to_string()),
        ("source_region", region(&pair.source)),
        ("destination_zone", pair.destination.to_string()),
        ("destination_region", region(&pair.destination)),
        ("locality", pair.locality().to_string()),
        ("ip_version", version.to_owned()),
        ("direction", "egress".to_owned()),
    ]
}
