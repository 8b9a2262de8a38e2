//! The metrics of zone pairs, and of the agent itself.

use super::{
    outputs,
    sources::{Measured, Process, Sources},
    traffic,
    writer::{Labels, Writer, each},
};
use crate::{
    accounting::Totals,
    counters::{Counted, DeviceBytes, FeedState, Sample},
    flows::READERS,
    link::Tls,
    zones::{Pair, Place},
};
use meridian_abi::{Counter, IpVersion};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Unit};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Writes the sources as metrics.
#[derive(Debug)]
pub(super) struct Page(pub(super) Sources);

impl Measured for Sources {
    fn collector(&self) -> Box<dyn Collector> {
        Box::new(Page(self.clone()))
    }

    fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = Arc::clone(&self.0.samples.borrow());
        let mut page = Writer(&mut encoder);
        page.info(&samples)?;
        page.hook(&samples)?;
        page.matrix("meridian", &samples)?;
        traffic::write(&mut page, &samples, self.0.families)?;
        page.stats(&samples)?;
        page.itself(&samples)?;
        page.process(&self.0)?;
        page.tls(&self.0.tls)?;
        outputs::write(&mut page, &self.0.outputs, &self.0.ring)
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
        let help = "Number of foreign clsact filters that run before Meridian's and can hide packets from it.";
        self.gauges(
            "meridian_foreign_filters",
            help,
            None,
            &each(samples, |s| vec![(Vec::new(), s.foreign_filters as f64)]),
        )?;
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
    pub(super) fn matrix<S: AsRef<Counted>>(&mut self, whose: &str, samples: &[S]) -> fmt::Result {
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
    pub(super) fn series<S: AsRef<Counted>>(&mut self, samples: &[S]) -> fmt::Result {
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

    fn process(&mut self, Sources { ring, process, .. }: &Sources) -> fmt::Result {
        let gauge = |value: u64| vec![(Vec::new(), value as f64)];
        let counter = |value: u64| vec![(Vec::new(), value)];
        self.gauges("meridian_flow_ring_flows", "Number of flows in the flow ring.", None, &gauge(ring.len()))?;
        self.gauges("meridian_flow_ring_limit", "Capacity of the flow ring.", None, &gauge(ring.capacity()))?;
        let help = "Number of flows added to the flow ring.";
        self.counters("meridian_flow_ring_seen", help, None, &counter(ring.seen()))?;
        let help = "Number of flows overwritten before a client read them, summed over clients.";
        self.counters("meridian_flow_ring_lost", help, None, &counter(ring.overtaken()))?;
        let (readers, refused) = ring.readers();
        self.gauges("meridian_flow_ring_readers", "Number of flow streams to clients.", None, &gauge(readers))?;
        let help = "Limit of concurrent flow streams.";
        self.gauges("meridian_flow_ring_readers_limit", help, None, &gauge(READERS as u64))?;
        let help = "Number of flow requests refused because of the stream limit.";
        self.counters("meridian_flow_ring_refused_readers", help, None, &counter(refused))?;
        let counters = [
            (
                "meridian_counters_missed",
                "Number of intervals skipped for slow clients of Counters.Watch.",
                &process.missed.0,
            ),
            (
                "meridian_http_refused_connections",
                "Number of HTTP connections closed to make room for newer ones.",
                &process.http.0.displaced,
            ),
        ];
        for (name, help, value) in counters {
            self.counters(name, help, None, &counter(value.load(Ordering::Relaxed)))?;
        }
        self.pair_log(process)?;
        self.history(process)
    }

    /// The certificates of the servers, and failed handshakes.
    pub(super) fn tls(&mut self, servers: &[Arc<Tls>]) -> fmt::Result {
        let labels = |tls: &Tls| vec![("server", tls.server.to_owned())];
        let expires = servers.iter().filter_map(|tls| {
            let expires = tls.expires()?.duration_since(UNIX_EPOCH).ok()?;
            Some((labels(tls), expires.as_secs_f64()))
        });
        let help = "Unix time at which the server's certificate expires.";
        let expires: Vec<_> = expires.collect();
        self.gauges("meridian_tls_certificate_expiry_timestamp", help, Some(Unit::Seconds), &expires)?;
        let refused = servers.iter().map(|tls| (labels(tls), tls.refused.load(Ordering::Relaxed)));
        let help = "Number of connections refused during the TLS handshake.";
        self.counters("meridian_tls_refused_connections", help, None, &refused.collect::<Vec<_>>())
    }

    /// Lines of the pair log that were written, and lines that were lost.
    pub(super) fn pair_log(&mut self, process: &Process) -> fmt::Result {
        let counter = |value: &AtomicU64| vec![(Vec::new(), value.load(Ordering::Relaxed))];
        let help = "Number of pair log lines written.";
        self.counters("meridian_pair_log_lines", help, None, &counter(&process.pair_log.lines))?;
        let help = "Number of pair log lines not written, or not in time.";
        self.counters("meridian_pair_log_lost_lines", help, None, &counter(&process.pair_log.lost_lines))?;
        let help = "IP bytes in the lost lines of the pair log.";
        self.counters("meridian_pair_log_lost", help, Some(Unit::Bytes), &counter(&process.pair_log.lost_bytes))
    }

    /// The history, if it is kept.
    pub(super) fn history(&mut self, process: &Process) -> fmt::Result {
        let Some(historian) = process.history.get() else { return Ok(()) };
        let (blocks, bytes) = historian.size();
        let gauge = |value: f64| vec![(Vec::new(), value)];
        self.gauges(
            "meridian_history_blocks",
            "Number of hours and days in the history.",
            None,
            &gauge(blocks as f64),
        )?;
        let help = "Size of the history on disk.";
        self.gauges("meridian_history_size", help, Some(Unit::Bytes), &gauge(bytes as f64))?;
        let tally = historian.tally();
        let results = [("written", &tally.written), ("failed", &tally.failed)];
        let results = results.map(|(name, count)| (vec![("result", name.to_owned())], count.load(Ordering::Relaxed)));
        self.counters("meridian_history_writes", "Number of writes of an hour or day, by result.", None, &results)?;
        let counter = |value: &AtomicU64| vec![(Vec::new(), value.load(Ordering::Relaxed))];
        let help = "Number of hours and days set aside because they could not be read.";
        self.counters("meridian_history_damaged_blocks", help, None, &counter(&tally.damaged))?;
        let help = "Number of hours and days removed because of their age or the size limit.";
        self.counters("meridian_history_removed_blocks", help, None, &counter(&tally.removed))
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
