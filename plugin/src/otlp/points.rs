//! The sums of a node or cluster, under the names that collectors get.

use crate::{
    accounting::{Between, ByLocality, Placed, Top, Totals, Workload},
    counters::Counted,
    zones::{Pair, Place},
};
use meridian_abi::{Counter, IpVersion, matrix::Direction};
use std::{hash::Hash, sync::Arc};

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
    pub(super) sums: Vec<(Attributes, u64)>,
}

/// What traffic without a series of its own is called, as in the metrics for Prometheus.
const OTHER: &str = "other";
const OTHER_NAMESPACE: &str = "(other)";

/// All metrics of a node or cluster.
pub(super) fn families(counted: &Counted, content: Content) -> Vec<Family> {
    let mut all = Vec::new();
    let zones = counted.matrix.cells().map(|(pair, counter)| (zone_attributes(pair), counter)).collect();
    let names = ["meridian.zone.bytes", "meridian.zone.packets"];
    add(&mut all, names, "that left a node or arrived from an external prefix, by source and destination zone.", zones);
    let Totals { pods, transfers: _, workloads, senders, namespaces } = &counted.totals;
    if content.namespaces {
        let names = ["meridian.namespace.bytes", "meridian.namespace.packets"];
        let sums = by_locality(namespaces, namespace_attributes);
        add(&mut all, names, "sent, by source and destination namespace.", sums);
    }
    if content.workloads {
        let names = ["meridian.workload.bytes", "meridian.workload.packets"];
        let sums = by_locality(workloads, workload_attributes);
        add(&mut all, names, "sent, by source and destination workload.", sums);
    }
    if content.pods {
        let names = ["meridian.pod.bytes", "meridian.pod.packets"];
        add(&mut all, names, "sent, by source and destination pod.", by_locality(pods, pod_attributes));
    }
    let ended = [
        ("pod", pods.ended()),
        ("workload", workloads.ended()),
        ("sender", senders.ended()),
        ("namespace", namespaces.ended()),
    ];
    let ended = ended.into_iter().flat_map(|(sum, ended)| with_traffic(ended, &vec![("meridian.sum", sum.to_owned())]));
    let names = ["meridian.ended_series.bytes", "meridian.ended_series.packets"];
    add(&mut all, names, "of series that ended because they were idle or displaced, by level.", ended.collect());
    for (is_outside, names, help) in [
        (true, ["meridian.outside.bytes", "meridian.outside.packets"], "seen but left out of the zones, by reason."),
        (false, ["meridian.noted.bytes", "meridian.noted.packets"], "counted with a caveat, by reason."),
    ] {
        let stats = counted.stats.iter().filter(|(stat, _)| stat.is_outside() == is_outside);
        let sums = stats.map(|(stat, counter)| (vec![("meridian.reason", stat.name().to_owned())], *counter)).collect();
        add(&mut all, names, help, sums);
    }
    all
}

/// Adds a metric of bytes and one of packets.
fn add(all: &mut Vec<Family>, names: [&'static str; 2], help: &'static str, sums: Vec<(Attributes, Counter)>) {
    let bytes = sums.iter().map(|(attributes, counter)| (attributes.clone(), counter.bytes)).collect();
    let packets = sums.into_iter().map(|(attributes, counter)| (attributes, counter.packets)).collect();
    let [of_bytes, of_packets] = names;
    all.push(Family { name: of_bytes, help, unit: "By", sums: bytes });
    all.push(Family { name: of_packets, help, unit: "{packet}", sums: packets });
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

/// The counters of each locality with traffic.
fn with_traffic(total: ByLocality, attributes: &Attributes) -> Vec<(Attributes, Counter)> {
    let with_traffic = total.iter().filter(|(_, counter)| counter.packets > 0);
    let named = with_traffic.map(|(locality, counter)| {
        let mut attributes = attributes.clone();
        attributes.push(("meridian.locality", locality.to_string()));
        (attributes, counter)
    });
    named.collect()
}

/// The series of each key, and that of the others.
fn by_locality<K: Clone + Eq + Hash>(
    top: &Top<K>,
    attributes: impl Fn(Option<&K>) -> Attributes,
) -> Vec<(Attributes, Counter)> {
    let totals = top.series().map(|(key, total)| (Some(key), total)).chain([(None, top.other())]);
    totals.flat_map(|(key, total)| with_traffic(total, &attributes(key))).collect()
}

fn namespace_attributes(key: Option<&Between<Arc<str>>>) -> Attributes {
    let end = |side: fn(&Between<Arc<str>>) -> &Arc<str>| key.map_or(OTHER_NAMESPACE, |key| side(key)).to_owned();
    vec![
        ("source.k8s.namespace.name", end(|key| &key.source)),
        ("destination.k8s.namespace.name", end(|key| &key.destination)),
    ]
}

fn workload_attributes(key: Option<&Between<Option<Workload>>>) -> Attributes {
    let end = |side: fn(&Between<Option<Workload>>) -> &Option<Workload>| match key.map(side) {
        Some(Some(workload)) => workload.0.workload_id(),
        Some(None) => ("", "", ""),
        None => ("", "", OTHER),
    };
    let (source, destination) = (end(|key| &key.source), end(|key| &key.destination));
    vec![
        ("source.k8s.namespace.name", source.0.to_owned()),
        ("source.k8s.workload.kind", source.1.to_owned()),
        ("source.k8s.workload.name", source.2.to_owned()),
        ("destination.k8s.namespace.name", destination.0.to_owned()),
        ("destination.k8s.workload.kind", destination.1.to_owned()),
        ("destination.k8s.workload.name", destination.2.to_owned()),
    ]
}

fn pod_attributes(key: Option<&Between<Placed>>) -> Attributes {
    let end = |side: fn(&Between<Placed>) -> &Placed| match key.map(side) {
        Some((Some(pod), place)) => (pod.0.namespace.to_string(), pod.0.pod.to_string(), place.to_string()),
        Some((None, place)) => (String::new(), String::new(), place.to_string()),
        None => (String::new(), OTHER.to_owned(), Place::Unknown.to_string()),
    };
    let (source, destination) = (end(|key| &key.source), end(|key| &key.destination));
    vec![
        ("source.k8s.namespace.name", source.0),
        ("source.k8s.pod.name", source.1),
        ("source.cloud.availability_zone", source.2),
        ("destination.k8s.namespace.name", destination.0),
        ("destination.k8s.pod.name", destination.1),
        ("destination.cloud.availability_zone", destination.2),
    ]
}
