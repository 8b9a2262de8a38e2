//! Hubble's own flow metrics, with its names and options.
//!
//! Each handler of Hubble is a family here, with the same conditions and labels.

mod config;
mod context;
mod flow_view;
mod handler;

pub use config::{Config, ConfigError, MetricConfig, MetricError, filters, or_none};

use super::Filters;
use crate::{
    flows::{Encoded, Listener, Lost},
    proto::flow::LostEventSource,
};
use ahash::{AHashMap, AHashSet};
use context::Context;
use flow_view::FlowView;
use handler::Handler;
use std::{
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The limit of series of all families together. A flow that needs another series is counted as refused.
pub const SERIES: usize = 10_000;
/// Ends a label's value in the key of a series: no UTF-8 text contains this byte.
const END: u8 = 0xff;

/// Counts flows.
#[derive(Debug, Default)]
pub struct FlowMetrics(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    families: Vec<Family>,
    lost: [u64; 3],
    series: usize,
    refused: u64,
    /// The key buffer for lookups, reused.
    key: Vec<u8>,
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let config = Self::listed(text);
        // Invalid families are refused here, where the list is parsed.
        FlowMetrics::new(&config).map(|_| config)
    }
}

impl Listener for FlowMetrics {
    fn flow(&self, flow: &Encoded) {
        self.count(flow);
    }

    fn lost(&self, lost: &Lost) {
        self.count_lost(lost);
    }
}

/// A handler and its counts.
#[derive(Debug)]
struct Family {
    config: MetricConfig,
    handler: Handler,
    context: Context,
    filters: Filters,
    labels: Vec<&'static str>,
    /// By the labels' values, each with [`END`] after it.
    series: AHashMap<Box<[u8]>, u64>,
    /// Pods that were gone at the last check.
    gone: AHashSet<(String, String)>,
}

/// A family with its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyCounts {
    /// The family's name, without the `_total` of a counter.
    pub name: &'static str,
    /// The help text.
    pub help: &'static str,
    /// The labels with their values, and the count.
    pub series: Vec<(Vec<(&'static str, String)>, u64)>,
}

/// All counts, and the counts of refused series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// The families, in the order of the configuration.
    pub families: Vec<FamilyCounts>,
    /// Flows lost before they were counted, by [`LostEventSource`].
    pub lost: Vec<(&'static str, u64)>,
    /// The number of series.
    pub series: usize,
    /// Flows that a family did not count because of the limit of series.
    pub refused: u64,
}

impl FlowMetrics {
    /// Counts these families.
    ///
    /// # Errors
    /// A family is invalid.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let metrics = Self::default();
        metrics.configure(config)?;
        Ok(metrics)
    }

    /// Changes the families. A family that stays keeps its counts, and gets the new filters.
    ///
    /// # Errors
    /// A family is invalid, or a family that stays would get other labels: nothing changes then.
    pub fn configure(&self, config: &Config) -> Result<(), ConfigError> {
        let mut new: Vec<Family> = Vec::new();
        for metric in &config.metrics {
            if let Some(family) = Family::new(metric)? {
                if new.iter().any(|other| other.config.name == family.config.name) {
                    return Err(ConfigError::Twice(family.config.name));
                }
                new.push(family);
            }
        }
        let mut inner = self.lock();
        for family in &mut new {
            let known = inner.families.iter().position(|known| known.config.name == family.config.name);
            let Some(known) = known.map(|at| &mut inner.families[at]) else { continue };
            if known.config.context_options != family.config.context_options {
                return Err(ConfigError::Labels(family.config.name.clone()));
            }
            family.series.clone_from(&known.series);
        }
        inner.series = new.iter().map(|family| family.series.len()).sum();
        inner.families = new;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each step leaves the counts consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a flow.
    pub fn count(&self, flow: &Encoded) {
        let inner = &mut *self.lock();
        if inner.families.is_empty() {
            return;
        }
        let view = FlowView::new(flow);
        for family in &mut inner.families {
            family.count(&view, flow, &mut inner.key, (&mut inner.series, &mut inner.refused));
        }
    }

    /// Counts lost flows.
    pub fn count_lost(&self, lost: &Lost) {
        let mut inner = self.lock();
        // The first source, 0, is unset.
        if let Some(count) = (lost.source as usize).checked_sub(1).and_then(|at| inner.lost.get_mut(at)) {
            *count += lost.count;
        }
    }

    /// The current counts.
    pub fn shown(&self) -> MetricsSnapshot {
        let inner = self.lock();
        let sources = [
            LostEventSource::PerfEventRingBuffer,
            LostEventSource::ObserverEventsQueue,
            LostEventSource::HubbleRingBuffer,
        ];
        let name = |source| match source {
            LostEventSource::PerfEventRingBuffer => "perf_event_ring_buffer",
            LostEventSource::ObserverEventsQueue => "observer_events_queue",
            _ => "hubble_ring_buffer",
        };
        MetricsSnapshot {
            families: inner.families.iter().map(Family::shown).collect(),
            lost: sources.map(name).into_iter().zip(inner.lost).collect(),
            series: inner.series,
            refused: inner.refused,
        }
    }

    /// Whether the labels name pods, which come and go.
    pub fn has_pods(&self) -> bool {
        self.lock().families.iter().any(|family| family.context.has_pods())
    }

    /// Removes the series of pods that are gone now and were already gone at the last call.
    pub fn forget_pods(&self, lives: impl Fn(&str, &str) -> bool) {
        let inner = &mut *self.lock();
        for family in inner.families.iter_mut().filter(|family| family.context.has_pods()) {
            family.forget_pods(&lives);
        }
        inner.series = inner.families.iter().map(|family| family.series.len()).sum();
    }
}

impl Family {
    /// `None` for a handler of Hubble that has nothing to count here.
    fn new(config: &MetricConfig) -> Result<Option<Self>, ConfigError> {
        let of = |reason| ConfigError::Metric(config.name.clone(), reason);
        let (context, own) = Context::new(&config.context_options).map_err(of)?;
        let Some(handler) = Handler::new(&config.name, &own).map_err(of)? else { return Ok(None) };
        let filters = Filters::new(&config.include_filters, &config.exclude_filters)
            .map_err(|error| of(MetricError::Filter(error)))?;
        let mut labels = handler.labels();
        labels.extend(context.labels());
        let (series, gone) = (AHashMap::default(), AHashSet::default());
        Ok(Some(Self { config: config.clone(), handler, context, filters, labels, series, gone }))
    }

    fn count(
        &mut self,
        view: &FlowView<'_>,
        flow: &Encoded,
        key: &mut Vec<u8>,
        (total, refused): (&mut usize, &mut u64),
    ) {
        let Self { handler, context, filters, series, .. } = self;
        if !handler.wants(view) || !filters.match_flow(flow) {
            return;
        }
        handler.each(view, &mut |values: &[&str]| {
            key.clear();
            let mut put = |value: &str| {
                key.extend_from_slice(value.as_bytes());
                key.push(END);
            };
            values.iter().for_each(|value| put(value));
            context.values(view, &mut put);
            match series.get_mut(key.as_slice()) {
                Some(count) => *count += 1,
                None if *total >= SERIES => *refused += 1,
                None => {
                    *total += 1;
                    series.insert(key.as_slice().into(), 1);
                }
            }
        });
    }

    fn shown(&self) -> FamilyCounts {
        let (name, help) = self.handler.name_and_help();
        let named = |key: &[u8]| -> Vec<(&'static str, String)> {
            self.labels.iter().copied().zip(values(key).map(str::to_owned)).collect()
        };
        FamilyCounts { name, help, series: self.series.iter().map(|(key, count)| (named(key), *count)).collect() }
    }

    fn forget_pods(&mut self, lives: &impl Fn(&str, &str) -> bool) {
        let Self { series, labels, context, gone, .. } = self;
        let before = std::mem::take(gone);
        series.retain(|key, _| {
            let value = |name: &str| labels.iter().position(|label| *label == name).and_then(|at| values(key).nth(at));
            let pods = context.pods(value);
            let mut keep = true;
            for (namespace, pod) in pods.into_iter().flatten().filter(|(namespace, pod)| !lives(namespace, pod)) {
                let pod = (namespace.to_owned(), pod.to_owned());
                keep &= !before.contains(&pod);
                gone.insert(pod);
            }
            keep
        });
    }
}

/// The label values in the key of a series.
fn values(key: &[u8]) -> impl Iterator<Item = &str> {
    key.split(|byte| *byte == END).map(|value| std::str::from_utf8(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::{CiliumEventType, Endpoint, Flow, Layer4, Udp, layer4::Protocol};

    fn flow(pod: &str, port: u32) -> Encoded {
        let end = |name: &str| {
            let labels =
                vec!["k8s:topology.kubernetes.io/zone=eu-1a".into(), "k8s:meridian.io/locality=cross-zone".into()];
            let (namespace, pod_name) = ("shop".into(), name.into());
            Some(Endpoint { namespace, pod_name, labels, ..Endpoint::default() })
        };
        Encoded::from(Flow {
            verdict: 1,
            is_reply: Some(false),
            event_type: Some(CiliumEventType { r#type: 4, sub_type: 11 }),
            l4: Some(Layer4 { protocol: Some(Protocol::Udp(Udp { source_port: 9, destination_port: port })) }),
            source: end(pod),
            destination: end("db-0"),
            ..Flow::default()
        })
    }

    fn series(metrics: &FlowMetrics) -> Vec<(String, u64)> {
        let shown = metrics.shown();
        let mut all: Vec<_> = shown
            .families
            .into_iter()
            .flat_map(|family| family.series)
            .map(|(labels, count)| {
                let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                (labels.join(","), count)
            })
            .collect();
        all.sort();
        all
    }

    fn metrics(text: &str) -> FlowMetrics {
        FlowMetrics::new(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn labels_are_asked_for_as_of_hubble_and_zones_beside_them() {
        let metrics = metrics("flow:sourceContext=pod;labelsContext=source_zone,locality port-distribution");
        (0..3).for_each(|_| metrics.count(&flow("cart-0", 53)));
        assert_eq!(
            series(&metrics),
            [
                ("protocol=UDP,port=53".to_owned(), 3),
                (
                    "protocol=UDP,type=Trace,subtype=to-network,verdict=FORWARDED,source_zone=eu-1a,locality=cross-zone,\
                     source=shop/cart-0"
                        .to_owned(),
                    3
                ),
            ]
        );
    }

    #[test]
    fn series_are_bounded_and_refused_ones_are_counted() {
        let metrics = metrics("port-distribution");
        for port in 0..SERIES as u32 + 5 {
            metrics.count(&flow("cart-0", port));
        }
        let shown = metrics.shown();
        assert_eq!((shown.series, shown.refused, shown.families[0].series.len()), (SERIES, 5, SERIES));
    }

    #[test]
    fn the_series_of_a_pod_that_is_gone_are_forgotten_after_a_while() {
        let metrics = metrics("port-distribution:sourceContext=pod|ip;destinationContext=pod");
        assert!(metrics.has_pods());
        metrics.count(&flow("cart-0", 53));
        metrics.count(&flow("cart-1", 53));
        let lives = |_: &str, pod: &str| pod != "cart-0";
        metrics.forget_pods(lives);
        assert_eq!(metrics.shown().series, 2, "it may have gone a moment ago");
        metrics.forget_pods(lives);
        assert_eq!(series(&metrics)[0].0, "protocol=UDP,port=53,source=shop/cart-1,destination=shop/db-0");
        assert_eq!(metrics.shown().series, 1);
    }

    #[test]
    fn a_family_that_stays_keeps_its_values_and_labels() {
        let metrics = metrics("port-distribution flow");
        metrics.count(&flow("cart-0", 53));
        let config: Config = "port-distribution".parse().unwrap();
        metrics.configure(&config).unwrap();
        assert_eq!(series(&metrics), [("protocol=UDP,port=53".to_owned(), 1)]);
        let other = "port-distribution:sourceContext=ip".parse().unwrap();
        let refused = metrics.configure(&other).unwrap_err().to_string();
        assert_eq!(refused, "port-distribution: its labels can't change without a restart");
        assert_eq!(metrics.shown().series, 1);
    }
}
