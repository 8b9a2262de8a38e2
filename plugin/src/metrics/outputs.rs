//! Hubble's own metrics of flows, and flow logs.

use super::{
    parts::Part,
    writer::{Labels, Writer},
};
use crate::{
    export::FlowLogOutputs,
    flows::Ring,
    hubble::metrics::{FlowMetrics, SERIES},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Hubble's metrics and flow logs.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The flows.
    pub ring: Arc<Ring>,
    /// Hubble's own metrics.
    pub metrics: Option<Arc<FlowMetrics>>,
    /// Flow logs.
    pub logs: Option<Arc<FlowLogOutputs>>,
    /// Reloads of their configuration files, after the first.
    pub reloads: Arc<Reloads>,
}

/// Files accepted and files refused.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Files of metrics.
    pub metrics: [AtomicU64; 2],
    /// Files of flow logs.
    pub logs: [AtomicU64; 2],
}

impl Part for Outputs {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        hubble(page, self)?;
        flow_logs(page, self)?;
        reloads(page, self)
    }
}

fn reloads(page: &mut Writer<'_, '_>, outputs: &Outputs) -> fmt::Result {
    let reloads = &outputs.reloads;
    let files = [
        ("metrics", &reloads.metrics, outputs.metrics.is_some()),
        ("flow_logs", &reloads.logs, outputs.logs.is_some()),
    ];
    let results = files.into_iter().filter(|(.., is_there)| *is_there).flat_map(|(file, results, _)| {
        ["taken", "refused"].into_iter().zip(results).map(move |(result, count)| {
            (vec![("file", file.to_owned()), ("result", result.to_owned())], count.load(Ordering::Relaxed))
        })
    });
    let help = "Number of times a configuration file of metrics or flow logs was reloaded, by result.";
    page.counters("meridian_hubble_config_reloads", help, None, &results.collect::<Vec<_>>())
}

fn hubble(page: &mut Writer<'_, '_>, outputs: &Outputs) -> fmt::Result {
    let Some(metrics) = &outputs.metrics else { return Ok(()) };
    let shown = metrics.shown();
    for family in &shown.families {
        page.counters(family.name, family.help, None, &family.series)?;
    }
    let lost = shown.lost.iter().map(|(source, count)| {
        // The ring counts the flows that its readers missed.
        let count = if *source == "hubble_ring_buffer" { count + outputs.ring.overtaken() } else { *count };
        (vec![("source", (*source).to_owned())], count)
    });
    page.counters(
        "hubble_lost_events",
        "Number of lost flows, by source of the loss.",
        None,
        &lost.collect::<Vec<_>>(),
    )?;
    let one = |value: usize| vec![(Vec::new(), value as f64)];
    page.gauges("meridian_hubble_metrics_series", "Number of series in Hubble's metrics.", None, &one(shown.series))?;
    let help = "Limit of series in all of Hubble's metrics together.";
    page.gauges("meridian_hubble_metrics_series_limit", help, None, &one(SERIES))?;
    let help = "Number of flows not counted by one of Hubble's metrics because of the series limit.";
    page.counters("meridian_hubble_metrics_refused", help, None, &[(Vec::new(), shown.refused)])
}

fn flow_logs(page: &mut Writer<'_, '_>, outputs: &Outputs) -> fmt::Result {
    let Some(known) = &outputs.logs else { return Ok(()) };
    let logs = known.all();
    let labels = |name: &str| -> Labels { vec![("name", name.to_owned())] };
    let active = logs.iter().map(|log| (labels(&log.log.name), f64::from(u8::from(log.is_active()))));
    page.gauges(
        "meridian_flow_log_active",
        "Whether the flow log is active. 1 until its end time.",
        None,
        &active.collect::<Vec<_>>(),
    )?;
    let count = |value: fn(&crate::export::FlowLogOutput) -> &AtomicU64| -> Vec<(Labels, u64)> {
        logs.iter().map(|log| (labels(&log.log.name), value(log).load(Ordering::Relaxed))).collect()
    };
    page.counters("meridian_flow_log_lines", "Number of flow log lines written.", None, &count(|log| &log.written))?;
    let help = "Number of flows missing from a flow log because it was slow or could not be written.";
    page.counters("meridian_flow_log_lost", help, None, &count(|log| &log.lost))
}
