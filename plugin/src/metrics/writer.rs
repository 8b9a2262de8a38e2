//! Writes families of series.

use crate::counters::{CounterScope, CounterSnapshot};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use std::fmt;

pub(super) type Labels = Vec<(&'static str, String)>;

/// Writes a page.
#[derive(Debug)]
pub struct Writer<'a, 'e>(pub(super) &'a mut DescriptorEncoder<'e>);

impl Writer<'_, '_> {
    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        series: &[(Labels, u64)],
    ) -> fmt::Result {
        self.family(name, help, unit, series.iter().map(|(labels, value)| (labels, ConstCounter::new(*value))))
    }

    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        series: &[(Labels, f64)],
    ) -> fmt::Result {
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
        let Some((labels, first)) = series.peek() else { return Ok(()) };
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), first.metric_type())?;
        if labels.is_empty() {
            return first.encode(family);
        }
        series.try_for_each(|(labels, metric)| metric.encode(family.encode_family(labels)?))
    }
}

/// The series of all nodes with the node's name as a label, or those of a cluster without it.
pub(super) fn each<S: AsRef<CounterSnapshot>, T>(
    samples: &[S],
    series: impl Fn(&S) -> Vec<(Labels, T)>,
) -> Vec<(Labels, T)> {
    let of_node = |sample| {
        let named = move |(mut labels, value): (Labels, T)| {
            let sample: &S = sample;
            if let CounterScope::Node(name) = &sample.as_ref().whose {
                labels.push(("node", name.clone()));
            }
            (labels, value)
        };
        series(sample).into_iter().map(named)
    };
    samples.iter().flat_map(of_node).collect()
}
