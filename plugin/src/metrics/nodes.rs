//! The metrics of the nodes that a process measures: zone pairs, hooks, tables and the agent itself.

use super::{
    families::Families,
    parts::Part,
    traffic,
    writer::{Labels, Writer, each},
};
use crate::{
    accounting::Totals,
    counters::{CounterSnapshot, DeviceBytes, FeedState, Sample, Samples},
    zones::{Pair, Place},
};
use meridian_abi::{Counter, IpVersion};
use prometheus_client::registry::Unit;
use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The nodes that a process measures.
#[derive(Debug)]
pub struct Nodes {
    /// Their samples.
    pub samples: Samples,
    /// The series of pods and workloads.
    pub families: Families,
}

impl Part for Nodes {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let samples = Arc::clone(&self.samples.borrow());
        page.info(&samples)?;
        page.hook(&samples)?;
        page.matrix("meridian", &samples)?;
        traffic::write(page, &samples, self.families)?;
        page.stats(&samples)?;
        page.itself(&samples)
    }
}

impl Writer<'_, '_> {
    fn info(&mut self, samples: &[Sample]) -> fmt::Result {
        let series = each(samples, |sample| {
            vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("hook", sample.hook.to_owned())], 1.0)]
        });
        self.gauges("meridian_build_info", "The version and the hook that counts packets. Always 1.", None, &series)
    }

    fn hook(&mut self, samples: &[Sample]) -> fmt::Result {
        let series = each(samples, |sample| {
            vec![(vec![("hook", sample.hook.to_owned()), ("reason", sample.hook_reason.to_string())], 1.0)]
        });
        self.gauges(
            "meridian_hook_info",
            "The hook that counts packets, with the reason for the choice. Always 1.",
            None,
            &series,
        )?;
        let help = "Number of times a blind hook was replaced.";
        self.counters("meridian_hook_changes", help, None, &each(samples, |s| vec![(Vec::new(), s.hook_changes)]))?;
        let help = "Number of steps of hook changes that the kernel refused. Each is tried again.";
        let refused = each(samples, |sample| vec![(Vec::new(), sample.refused_hook_steps)]);
        self.counters("meridian_hook_steps_refused", help, None, &refused)?;
        let help = "Number of foreign clsact filters that run before Meridian's and can hide packets from it.";
        self.gauges(
            "meridian_foreign_filters",
            help,
            None,
            &each(samples, |s| vec![(Vec::new(), s.foreign_filters as f64)]),
        )?;
        let help = "Number of clsact filters that were attached again because another program had removed them.";
        let restored = each(samples, |sample| vec![(Vec::new(), sample.restored_filters)]);
        self.counters("meridian_filters_restored", help, None, &restored)?;
        let compared = |value: fn(DeviceBytes) -> u64| {
            each(samples, |sample| sample.device_bytes.map(|seen| (Vec::new(), value(seen))).into_iter().collect())
        };
        let help = "IP bytes sent through uplinks and overlay devices, by the devices' own counters, without the outer packets of overlays.";
        self.counters("meridian_device_sent", help, Some(Unit::Bytes), &compared(|seen| seen.sent))?;
        let help = "IP bytes seen by the hook, of those sent through uplinks and overlay devices.";
        self.counters("meridian_device_seen", help, Some(Unit::Bytes), &compared(|seen| seen.seen))
    }

    /// The counters by zone pair. `whose` is the prefix of the names, which differs between nodes and clusters so that
    /// no query sums both.
    pub(super) fn matrix<S: AsRef<CounterSnapshot>>(&mut self, whose: &str, samples: &[S]) -> fmt::Result {
        let cells = |value: fn(Counter) -> u64| {
            each(samples, |sample| {
                let cells = sample.as_ref().matrix.cells();
                cells.map(|(pair, counter)| (pair_labels(pair), value(counter))).collect()
            })
        };
        let help = "IP bytes that left a node or arrived from an external prefix, by source and destination zone.";
        self.counters(&format!("{whose}_zone"), help, Some(Unit::Bytes), &cells(|counter| counter.bytes))?;
        let help = "Packets that left a node or arrived from an external prefix, by source and destination zone.";
        self.counters(&format!("{whose}_zone_packets"), help, None, &cells(|counter| counter.packets))
    }

    fn stats(&mut self, samples: &[Sample]) -> fmt::Result {
        let stats = |outside: bool, value: fn(Counter) -> u64| {
            each(samples, |sample| {
                let stats = sample.counted.stats.iter().filter(|(stat, _)| stat.is_outside() == outside);
                stats.map(|(stat, counter)| (vec![("reason", stat.name().to_owned())], value(*counter))).collect()
            })
        };
        let help = "IP bytes seen but left out of the zone counters, by reason.";
        self.counters("meridian_outside", help, Some(Unit::Bytes), &stats(true, |counter| counter.bytes))?;
        let help = "Packets seen but left out of the zone counters, by reason.";
        self.counters("meridian_outside_packets", help, None, &stats(true, |counter| counter.packets))?;
        let help = "IP bytes counted with a caveat, by reason.";
        self.counters("meridian_noted", help, Some(Unit::Bytes), &stats(false, |counter| counter.bytes))?;
        let help = "Packets counted with a caveat, by reason.";
        self.counters("meridian_noted_packets", help, None, &stats(false, |counter| counter.packets))
    }

    fn itself(&mut self, samples: &[Sample]) -> fmt::Result {
        let one = |value: fn(&Sample) -> f64| each(samples, |sample| vec![(Vec::new(), value(sample))]);
        let time = |value: fn(&Sample) -> SystemTime| {
            each(samples, |sample| {
                vec![(Vec::new(), value(sample).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())]
            })
        };
        let began = each(samples, |sample| {
            let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            sample.counted.began.map(|at| (Vec::new(), seconds(at))).into_iter().collect()
        });
        let help = "Unix time at which the node's counters began.";
        self.gauges("meridian_counters_start_timestamp", help, Some(Unit::Seconds), &began)?;
        self.gauges(
            "meridian_flow_entries",
            "Number of entries in the flow maps.",
            None,
            &one(|s| s.flow_entries.0 as f64),
        )?;
        let help = "Capacity of the flow maps. Bytes of further flows are unattributed.";
        self.gauges("meridian_flow_entries_limit", help, None, &one(|s| s.flow_entries.1 as f64))?;
        let help = "Number of prefixes in the zone table, including the public and private address ranges.";
        self.gauges("meridian_zone_table_prefixes", help, None, &one(|s| s.table.prefixes.0 as f64))?;
        let help = "Capacity of the kernel's prefix maps. A larger table is refused.";
        self.gauges("meridian_zone_table_prefixes_limit", help, None, &one(|s| s.table.prefixes.1 as f64))?;
        let help = "Number of zones named by zone tables since the start.";
        self.gauges("meridian_zones", help, None, &one(|s| s.table.zones.0 as f64))?;
        let help = "Capacity for zones. Further zones count as unknown until a restart.";
        self.gauges("meridian_zones_limit", help, None, &one(|s| s.table.zones.1 as f64))?;
        let help = "Unix time at which the current zone table was read.";
        self.gauges("meridian_zone_table_loaded_timestamp", help, Some(Unit::Seconds), &time(|s| s.table.loaded))?;
        let help = "Unix time at which the current zone table was last confirmed by its source.";
        let confirmed = time(|s| s.table.confirmed);
        self.gauges("meridian_zone_table_confirmed_timestamp", help, Some(Unit::Seconds), &confirmed)?;
        let reloads = each(samples, |sample| {
            let (taken, refused) = sample.table.reloads;
            [("taken", taken), ("refused", refused)].map(|(result, n)| (vec![("result", result.to_owned())], n)).into()
        });
        self.counters(
            "meridian_zone_table_reloads",
            "Number of zone tables read after the first, by result.",
            None,
            &reloads,
        )?;
        let help = "Number of addresses with a known endpoint.";
        self.gauges("meridian_addresses", help, None, &one(|s| s.table.addresses as f64))?;
        self.feed(samples)?;
        let help = "Duration of the last read of the flow maps in seconds.";
        self.gauges("meridian_drain_duration", help, Some(Unit::Seconds), &one(|s| s.drain_seconds))?;
        self.series(samples)
    }

    /// The number of series, and their limit.
    pub(super) fn series<S: AsRef<CounterSnapshot>>(&mut self, samples: &[S]) -> fmt::Result {
        let sizes = |Totals { pods, transfers, workloads, senders, namespaces }: &Totals| {
            [("pod", pods.len(), pods.room()), ("workload", workloads.len(), workloads.room())]
                .into_iter()
                .chain([("transfer", transfers.len(), transfers.room())])
                .chain([("sender", senders.len(), senders.room())])
                .chain([("namespace", namespaces.len(), namespaces.room())])
        };
        let by_sum = |value: fn((usize, usize)) -> usize| {
            each(samples, |sample| {
                let series =
                    |(sum, len, room): (&str, usize, usize)| (vec![("sum", sum.to_owned())], value((len, room)) as f64);
                sizes(&sample.as_ref().totals).map(series).collect()
            })
        };
        self.gauges("meridian_series", "Number of series, by level.", None, &by_sum(|(len, _)| len))?;
        let help = "Capacity for series, by level. Further series are added up in `other`.";
        self.gauges("meridian_series_limit", help, None, &by_sum(|(_, room)| room))
    }

    /// The connection to the controller, for agents that have one.
    fn feed(&mut self, samples: &[Sample]) -> fmt::Result {
        fn of<T>(samples: &[Sample], value: fn(FeedState) -> T) -> Vec<(Labels, T)> {
            each(samples, |sample| sample.table.feed.map(|feed| (Vec::new(), value(feed))).into_iter().collect())
        }
        let help = "Whether the agent follows its controller's zone table.";
        let connected = of(samples, |feed| f64::from(u8::from(feed.is_connected)));
        self.gauges("meridian_feed_connected", help, None, &connected)?;
        let help = "Number of connections made to the controller.";
        self.counters("meridian_feed_connections", help, None, &of(samples, |feed| feed.connects))?;
        let help = "Number of connections to the controller that failed.";
        self.counters("meridian_feed_failures", help, None, &of(samples, |feed| feed.failures))?;
        let help = "Whether the controller accepted the last report.";
        let taken = of(samples, |feed| f64::from(u8::from(feed.is_reported)));
        self.gauges("meridian_reports_connected", help, None, &taken)?;
        let help = "Number of reports accepted by the controller.";
        self.counters("meridian_reports_taken", help, None, &of(samples, |feed| feed.reports))?;
        let help = "Number of report streams to the controller that failed.";
        self.counters("meridian_reports_failures", help, None, &of(samples, |feed| feed.report_failures))
    }
}

fn pair_labels(pair: &Pair) -> Labels {
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
        ("direction", pair.direction.name().to_owned()),
    ]
}

fn region(place: &Place) -> String {
    place.zone().map_or_else(String::new, |zone| zone.region.clone())
}
