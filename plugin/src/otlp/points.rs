//! The sums of a node or cluster, under the names that collectors get.

use crate::{
    accounting::{Top, Totals, series},
    counters::CounterSnapshot,
    zones::{Pair, Place},
};
use meridian_abi::{Counter, IpVersion, matrix::Direction};
use std::hash::Hash;

/// The attributes of a sum.
pub(super) type Attributes = Vec<(&'static str, String)>;

/// The sums by pod, workload and namespace to export beside those by zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// By pair of namespaces.
    pub namespaces: bool,
    /// By pair of workloads.
    pub workloads: bool,
    /// By pair of pods.
    pub pods: bool,
}

/// The sums of one metric.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: &'static str,
    /// Whether no sum of it ends before the programs' counters.
    pub(super) lasts: bool,
    pub(super) sums: Vec<(Attributes, u64)>,
}

/// All metrics of a node or cluster.
pub(super) fn families(counted: &CounterSnapshot, content: Content) -> Vec<Family> {
    let mut all = Vec::new();
    let zones = counted.matrix.cells().map(|(pair, counter)| (zone_attributes(pair), counter)).collect();
    let names = ["meridian.zone.bytes", "meridian.zone.packets"];
    let help = "that left a node or arrived from an external prefix, by source and destination zone.";
    add(&mut all, names, (help, true), zones);
    let Totals { pods, transfers: _, workloads, senders: _, namespaces } = &counted.totals;
    if content.namespaces {
        let names = ["meridian.namespace.bytes", "meridian.namespace.packets"];
        let sums = by_locality(namespaces, series::namespaces, NAMESPACES);
        add(&mut all, names, ("sent, by source and destination namespace.", false), sums);
    }
    if content.workloads {
        let names = ["meridian.workload.bytes", "meridian.workload.packets"];
        let sums = by_locality(workloads, series::workloads, WORKLOADS);
        add(&mut all, names, ("sent, by source and destination workload.", false), sums);
    }
    if content.pods {
        let names = ["meridian.pod.bytes", "meridian.pod.packets"];
        let sums = by_locality(pods, series::pods, PODS);
        add(&mut all, names, ("sent, by source and destination pod.", false), sums);
    }
    let ended = counted.totals.ended().map(|(sum, locality, counter)| {
        (vec![("meridian.sum", sum.to_owned()), ("meridian.locality", locality.to_string())], counter)
    });
    let names = ["meridian.ended_series.bytes", "meridian.ended_series.packets"];
    let help = "of series that ended because they were idle or displaced, by level.";
    add(&mut all, names, (help, false), ended.collect());
    for (is_outside, names, help) in [
        (true, ["meridian.outside.bytes", "meridian.outside.packets"], "seen but left out of the zones, by reason."),
        (false, ["meridian.noted.bytes", "meridian.noted.packets"], "counted with a caveat, by reason."),
    ] {
        let stats = counted.stats.iter().filter(|(stat, _)| stat.is_outside() == is_outside);
        let sums = stats.map(|(stat, counter)| (vec![("meridian.reason", stat.name().to_owned())], *counter)).collect();
        add(&mut all, names, (help, true), sums);
    }
    all
}

/// Adds a metric of bytes and one of packets.
fn add(
    all: &mut Vec<Family>,
    [bytes, packets]: [&'static str; 2],
    (help, lasts): (&'static str, bool),
    sums: Vec<(Attributes, Counter)>,
) {
    let of_bytes = sums.iter().map(|(attributes, counter)| (attributes.clone(), counter.bytes)).collect();
    let of_packets = sums.into_iter().map(|(attributes, counter)| (attributes, counter.packets)).collect();
    all.push(Family { name: bytes, help, unit: "By", lasts, sums: of_bytes });
    all.push(Family { name: packets, help, unit: "{packet}", lasts, sums: of_packets });
}

fn zone_attributes(pair: &Pair) -> Attributes {
    let version = match pair.version {
        IpVersion::V4 => "ipv4",
        IpVersion::V6 => "ipv6",
    };
    let direction = match pair.direction {
        Direction::Egress => "transmit",
        Direction::Ingress => "receive",
    };
    let region = |place: &Place| place.zone().map(|zone| zone.region.clone()).unwrap_or_default();
    vec![
        ("source.cloud.availability_zone", pair.source.to_string()),
        ("source.cloud.region", region(&pair.source)),
        ("destination.cloud.availability_zone", pair.destination.to_string()),
        ("destination.cloud.region", region(&pair.destination)),
        ("meridian.locality", pair.locality().to_string()),
        ("network.type", version.to_owned()),
        ("network.io.direction", direction.to_owned()),
    ]
}

/// The sums of each key and locality, and those of the others.
fn by_locality<K: Clone + Eq + Hash, const N: usize>(
    top: &Top<K>,
    values: fn(Option<&K>) -> [String; N],
    names: [&'static str; N],
) -> Vec<(Attributes, Counter)> {
    let sums = top.with_traffic().map(|(key, locality, counter)| {
        let attributes = names.into_iter().zip(values(key));
        (attributes.chain([("meridian.locality", locality.to_string())]).collect(), counter)
    });
    sums.collect()
}

const NAMESPACES: [&str; 2] = ["source.k8s.namespace.name", "destination.k8s.namespace.name"];
const WORKLOADS: [&str; 6] = [
    "source.k8s.namespace.name",
    "source.k8s.workload.kind",
    "source.k8s.workload.name",
    "destination.k8s.namespace.name",
    "destination.k8s.workload.kind",
    "destination.k8s.workload.name",
];
const PODS: [&str; 6] = [
    "source.k8s.namespace.name",
    "source.k8s.pod.name",
    "source.cloud.availability_zone",
    "destination.k8s.namespace.name",
    "destination.k8s.pod.name",
    "destination.cloud.availability_zone",
];
