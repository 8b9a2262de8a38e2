//! Messages of OTLP, each below the size that collectors accept by default (4 MiB).

use super::{
    points::{Content, Family, families},
    starts::Starts,
};
use crate::counters::{CounterScope, CounterSnapshot};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// The largest message, but for one sum and the names of its resource and metric.
const MESSAGE_BYTES: usize = 2 << 20;

/// The program that exports.
#[derive(Clone, Debug)]
pub struct Program {
    /// The name: `service.name`.
    pub name: &'static str,
    /// The cluster's name: `k8s.cluster.name`.
    pub cluster: String,
}

/// The messages with the sums of a node or cluster, and the number of sums.
pub(super) fn messages(
    program: &Program,
    counted: &CounterSnapshot,
    content: Content,
    starts: &mut Starts,
) -> (Vec<ExportMetricsServiceRequest>, u64) {
    let time = nanoseconds(counted.time);
    starts.begin(time, counted.epoch);
    // The counters of a cluster's nodes began with their programs; its sums also have those of removed nodes.
    let began = counted.began.filter(|_| counted.whose.node().is_some()).map(nanoseconds);
    let mut messages =
        Messages { resource: resource(program, &counted.whose), done: Vec::new(), open: Vec::new(), bytes: 0 };
    let mut count = 0;
    for Family { name, help, unit, lasts, sums } in families(counted, content) {
        count += sums.len() as u64;
        let metric = |points| sum(name, help, unit, points);
        let mut points = Vec::new();
        for (attributes, total) in sums {
            let start = starts.start((name, attributes.clone()), total, began.filter(|_| lasts));
            let point = NumberDataPoint {
                attributes: attributes.into_iter().map(|(key, value)| text(key, value)).collect(),
                start_time_unix_nano: start,
                time_unix_nano: time,
                // No counter reaches 2⁶³ bytes: at 100 Gbit/s this takes 23 years.
                value: Some(number_data_point::Value::AsInt(i64::try_from(total).unwrap_or(i64::MAX))),
                ..NumberDataPoint::default()
            };
            let bytes = point.encoded_len() + 8;
            if messages.bytes + bytes > MESSAGE_BYTES {
                messages.open.push(metric(std::mem::take(&mut points)));
                messages.close();
            }
            messages.bytes += bytes;
            points.push(point);
        }
        if !points.is_empty() {
            messages.open.push(metric(points));
        }
    }
    messages.close();
    starts.end();
    (messages.done, count)
}

/// The messages so far, and the open one.
struct Messages {
    resource: Resource,
    done: Vec<ExportMetricsServiceRequest>,
    open: Vec<Metric>,
    bytes: usize,
}

impl Messages {
    fn close(&mut self) {
        self.bytes = 0;
        let mut metrics = std::mem::take(&mut self.open);
        metrics.retain(|metric| !matches!(&metric.data, Some(metric::Data::Sum(sum)) if sum.data_points.is_empty()));
        if metrics.is_empty() {
            return;
        }
        let scope = InstrumentationScope {
            name: "meridian".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
        let resource = Some(self.resource.clone());
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        self.done.push(ExportMetricsServiceRequest { resource_metrics });
    }
}

fn sum(name: &str, help: &str, unit: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    let what = if unit == "By" { "IP bytes" } else { "Packets" };
    Metric {
        name: name.to_owned(),
        description: format!("{what} {help}"),
        unit: unit.to_owned(),
        data: Some(metric::Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        })),
        ..Metric::default()
    }
}

/// The counters of a cluster are one stream, whichever replica is the leader.
fn resource(program: &Program, whose: &CounterScope) -> Resource {
    let mut attributes = vec![
        text("service.name", program.name.to_owned()),
        text("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        text("k8s.cluster.name", program.cluster.clone()),
    ];
    let instance = match whose {
        CounterScope::Node(name) => {
            attributes.push(text("k8s.node.name", name.clone()));
            name
        }
        CounterScope::Cluster(_) => &program.cluster,
    };
    attributes.push(text("service.instance.id", instance.clone()));
    Resource { attributes, ..Resource::default() }
}

fn text(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Nanoseconds since 1970; they suffice until 2554.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
