//! Traffic by workload and by pod: our own series, and the series that other tools' dashboards use.

use super::{
    families::Families,
    writer::{Labels, Writer, each},
};
use crate::{
    accounting::{
        ByLocality, Pod, Top,
        series::{self, NAMESPACE_LABELS, OTHER, POD_LABELS, WORKLOAD_LABELS},
    },
    counters::CounterSnapshot,
    zones::Locality,
};
use meridian_abi::Counter;
use prometheus_client::registry::Unit;
use std::{collections::BTreeMap, fmt, hash::Hash};

type Value = fn(Counter) -> u64;

pub(super) fn write<S: AsRef<CounterSnapshot>>(
    page: &mut Writer<'_, '_>,
    samples: &[S],
    families: Families,
) -> fmt::Result {
    let both: [(&str, &str, Option<Unit>, Value); 2] = [
        ("", "IP bytes", Some(Unit::Bytes), |counter| counter.bytes),
        ("_packets", "Packets", None, |counter| counter.packets),
    ];
    for (suffix, what, unit, value) in both {
        if families.namespaces {
            let series = each(samples, |sample| {
                by_locality(&sample.as_ref().totals.namespaces, series::namespaces, NAMESPACE_LABELS, value)
            });
            let help = format!("{what} sent, by source and destination namespace.");
            page.counters(&format!("meridian_namespace{suffix}"), &help, unit.clone(), &series)?;
        }
        if families.workloads {
            let series = each(samples, |sample| {
                by_locality(&sample.as_ref().totals.workloads, series::workloads, WORKLOAD_LABELS, value)
            });
            let help = format!("{what} sent, by source and destination workload.");
            page.counters(&format!("meridian_workload{suffix}"), &help, unit.clone(), &series)?;
        }
        if families.pods {
            let series =
                each(samples, |sample| by_locality(&sample.as_ref().totals.pods, series::pods, POD_LABELS, value));
            let help = format!("{what} sent, by source and destination pod.");
            page.counters(&format!("meridian_pod{suffix}"), &help, unit, &series)?;
        }
    }
    let ended = each(samples, |sample| {
        let ended = sample.as_ref().totals.ended();
        let series = ended.map(|(sum, locality, counter)| {
            (vec![("sum", sum.to_owned()), ("locality", locality.to_string())], counter.bytes)
        });
        series.collect()
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
fn by_locality<K: Clone + Eq + Hash, const N: usize>(
    top: &Top<K>,
    values: fn(Option<&K>) -> [String; N],
    names: [&'static str; N],
    value: Value,
) -> Vec<(Labels, u64)> {
    let series = top.with_traffic().map(|(key, locality, counter)| {
        let labels = names.into_iter().zip(values(key));
        (labels.chain([("locality", locality.to_string())]).collect(), value(counter))
    });
    let mut series: Vec<_> = series.collect();
    series.sort_unstable();
    series
}

/// The traffic that each pod sent, summed over the nodes, and the traffic of pods without a series.
fn senders<S: AsRef<CounterSnapshot>>(samples: &[S]) -> impl Iterator<Item = ((String, String), ByLocality)> {
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
fn kubezonnet<S: AsRef<CounterSnapshot>>(samples: &[S]) -> Vec<(Labels, u64)> {
    let series = |((namespace, pod), total): ((String, String), ByLocality)| {
        let bytes = total.get(Locality::CrossZone).bytes + total.get(Locality::CrossRegion).bytes;
        (bytes > 0).then(|| (vec![("namespace", namespace), ("pod", pod)], bytes))
    };
    senders(samples).filter_map(series).collect()
}

/// OpenCost multiplies these by its prices. Unknown traffic is in none of them.
fn opencost<S: AsRef<CounterSnapshot>>(samples: &[S]) -> Vec<(Labels, u64)> {
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
