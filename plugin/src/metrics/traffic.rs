//! Traffic by workload and by pod: our own series, and the series that other tools' dashboards use.

use super::{
    families::Families,
    writer::{Labels, Writer, each},
};
use crate::{
    accounting::{Between, ByLocality, Placed, Pod, Top, Totals, Workload},
    counters::Counted,
    zones::{Locality, Place},
};
use meridian_abi::Counter;
use prometheus_client::registry::Unit;
use std::{collections::BTreeMap, fmt, hash::Hash, sync::Arc};

/// The name for traffic without a series of its own. A real pod or workload of this name has a namespace.
const OTHER: &str = "other";

type Value = fn(Counter) -> u64;

pub(super) fn write<S: AsRef<Counted>>(page: &mut Writer<'_, '_>, samples: &[S], families: Families) -> fmt::Result {
    let both: [(&str, &str, Option<Unit>, Value); 2] = [
        ("", "IP bytes", Some(Unit::Bytes), |counter| counter.bytes),
        ("_packets", "Packets", None, |counter| counter.packets),
    ];
    for (suffix, what, unit, value) in both {
        if families.namespaces {
            let series =
                each(samples, |sample| by_locality(&sample.as_ref().totals.namespaces, namespace_labels, value));
            let help = format!("{what} sent, by source and destination namespace.");
            page.counters(&format!("meridian_namespace{suffix}"), &help, unit.clone(), &series)?;
        }
        if families.workloads {
            let series = each(samples, |sample| by_locality(&sample.as_ref().totals.workloads, workload_labels, value));
            let help = format!("{what} sent, by source and destination workload.");
            page.counters(&format!("meridian_workload{suffix}"), &help, unit.clone(), &series)?;
        }
        if families.pods {
            let series = each(samples, |sample| by_locality(&sample.as_ref().totals.pods, pod_labels, value));
            let help = format!("{what} sent, by source and destination pod.");
            page.counters(&format!("meridian_pod{suffix}"), &help, unit, &series)?;
        }
    }
    let ended = each(samples, |sample| {
        let Totals { pods, transfers: _, workloads, senders, namespaces } = &sample.as_ref().totals;
        let sums = [
            ("pod", pods.ended()),
            ("workload", workloads.ended()),
            ("sender", senders.ended()),
            ("namespace", namespaces.ended()),
        ];
        let series = |(sum, ended): (&'static str, ByLocality)| {
            let labels = move |locality: Locality| vec![("sum", sum.to_owned()), ("locality", locality.to_string())];
            ended.iter().map(move |(locality, counter)| (labels(locality), counter.bytes))
        };
        sums.into_iter().flat_map(series).collect()
    });
    let help = "IP bytes of series that ended because they were idle or displaced, by level.";
    page.counters("meridian_ended_series", help, Some(Unit::Bytes), &ended)?;
    if families.kubezonnet {
        let help = "IP bytes that the pod sent to other zones, including those of other regions.";
        page.counters("pod_cross_zone_network_traffic", help, Some(Unit::Bytes), &kubezonnet(samples))?;
    }
    if families.opencost {
        let help = "IP bytes that the pod sent, by destination class.";
        page.counters("kubecost_pod_network_egress", help, Some(Unit::Bytes), &opencost(samples))?;
    }
    Ok(())
}

/// One series for each locality with traffic, for each key and for the others together.
fn by_locality<K: Clone + Eq + Hash>(
    top: &Top<K>,
    labels: impl Fn(Option<&K>) -> Labels,
    value: Value,
) -> Vec<(Labels, u64)> {
    let totals = top.series().map(|(key, total)| (Some(key), total)).chain([(None, top.other())]);
    let mut series = Vec::new();
    for (key, total) in totals {
        for (locality, counter) in total.iter().filter(|(_, counter)| counter.packets > 0) {
            let mut labels = labels(key);
            labels.push(("locality", locality.to_string()));
            series.push((labels, value(counter)));
        }
    }
    series.sort_unstable();
    series
}

fn namespace_labels(key: Option<&Between<Arc<str>>>) -> Labels {
    // Ends without a namespace and ends without a series need different names; no namespace can be named like this.
    let end = |side: fn(&Between<Arc<str>>) -> &Arc<str>| key.map_or("(other)", |key| side(key)).to_owned();
    vec![("source_namespace", end(|key| &key.source)), ("destination_namespace", end(|key| &key.destination))]
}

fn workload_labels(key: Option<&Between<Option<Workload>>>) -> Labels {
    let end = |side: fn(&Between<Option<Workload>>) -> &Option<Workload>| match key.map(side) {
        Some(Some(workload)) => workload.0.workload_id(),
        Some(None) => ("", "", ""),
        None => ("", "", OTHER),
    };
    let (source, destination) = (end(|key| &key.source), end(|key| &key.destination));
    vec![
        ("source_namespace", source.0.to_owned()),
        ("source_kind", source.1.to_owned()),
        ("source_workload", source.2.to_owned()),
        ("destination_namespace", destination.0.to_owned()),
        ("destination_kind", destination.1.to_owned()),
        ("destination_workload", destination.2.to_owned()),
    ]
}

fn pod_labels(key: Option<&Between<Placed>>) -> Labels {
    let end = |side: fn(&Between<Placed>) -> &Placed| match key.map(side) {
        Some((Some(pod), place)) => (pod.0.namespace.to_string(), pod.0.pod.to_string(), place.to_string()),
        Some((None, place)) => (String::new(), String::new(), place.to_string()),
        None => (String::new(), OTHER.to_owned(), Place::Unknown.to_string()),
    };
    let (source, destination) = (end(|key| &key.source), end(|key| &key.destination));
    vec![
        ("source_namespace", source.0),
        ("source_pod", source.1),
        ("source_zone", source.2),
        ("destination_namespace", destination.0),
        ("destination_pod", destination.1),
        ("destination_zone", destination.2),
    ]
}

/// The traffic that each pod sent, summed over the nodes, and the traffic of pods without a series.
fn senders<S: AsRef<Counted>>(samples: &[S]) -> impl Iterator<Item = ((String, String), ByLocality)> {
    let mut sums: BTreeMap<(String, String), ByLocality> = BTreeMap::new();
    for sample in samples {
        let senders = &sample.as_ref().totals.senders;
        for (Pod(pod), total) in senders.series() {
            *sums.entry((pod.namespace.to_string(), pod.pod.to_string())).or_default() += total;
        }
        if senders.other() != ByLocality::default() {
            *sums.entry((String::new(), OTHER.to_owned())).or_default() += senders.other();
        }
    }
    sums.into_iter()
}

/// A pod's series begins with its first bytes to another zone.
fn kubezonnet<S: AsRef<Counted>>(samples: &[S]) -> Vec<(Labels, u64)> {
    let series = |((namespace, pod), total): ((String, String), ByLocality)| {
        let bytes = total.get(Locality::CrossZone).bytes + total.get(Locality::CrossRegion).bytes;
        (bytes > 0).then(|| (vec![("namespace", namespace), ("pod", pod)], bytes))
    };
    senders(samples).filter_map(series).collect()
}

/// OpenCost multiplies these by its prices. Unknown traffic is in none of them.
fn opencost<S: AsRef<Counted>>(samples: &[S]) -> Vec<(Labels, u64)> {
    // internet, same_zone, same_region
    let classes = [
        (Locality::SameZone, ["false", "true", "true"]),
        (Locality::CrossZone, ["false", "false", "true"]),
        (Locality::CrossRegion, ["false", "false", "false"]),
        (Locality::Internet, ["true", "false", "false"]),
    ];
    let mut series = Vec::new();
    for ((namespace, pod), total) in senders(samples) {
        for (locality, [internet, same_zone, same_region]) in classes {
            let Counter { bytes, .. } = total.get(locality);
            if bytes > 0 {
                let labels = vec![
                    ("pod_name", pod.clone()),
                    ("namespace", namespace.clone()),
                    ("internet", internet.to_owned()),
                    ("same_zone", same_zone.to_owned()),
                    ("same_region", same_region.to_owned()),
                ];
                series.push((labels, bytes));
            }
        }
    }
    series
}
