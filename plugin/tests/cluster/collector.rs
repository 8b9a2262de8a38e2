//! A collector of OpenTelemetry in the test, which keeps the sums by zone that it gets.

use crate::{common::ports::free_port, nodes::CLUSTER};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::{KeyValue, any_value},
    metrics::v1::{NumberDataPoint, metric, number_data_point},
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};
use tonic::{Request, Response, Status, transport::Server};

/// A sum by pair of zones, with its other attributes.
type Key = BTreeMap<String, String>;

/// The sums of one start.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    /// The time and value of the last point.
    last: (u64, u64),
}

/// The collector, and the sums so far.
#[derive(Clone)]
pub struct Collector {
    pub endpoint: String,
    sums: Arc<Mutex<BTreeMap<Key, Vec<Span>>>>,
}

impl Collector {
    /// Starts it on the loopback.
    pub fn start() -> Self {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let collector = Self { endpoint: format!("http://{at}"), sums: Arc::default() };
        let service = MetricsServiceServer::new(collector.clone());
        tokio::spawn(Server::builder().add_service(service).serve(at));
        collector
    }

    /// The last totals between zones.
    pub fn totals(&self) -> BTreeMap<(String, String), u64> {
        let sums = self.sums.lock().unwrap();
        let crossing = sums.iter().filter(|(key, _)| key["meridian.locality"] == "cross-zone");
        let mut totals = BTreeMap::new();
        for (key, spans) in crossing {
            let zone = |end: &str| key[&format!("{end}.cloud.availability_zone")].clone();
            *totals.entry((zone("source"), zone("destination"))).or_default() += spans.last().unwrap().last.1;
        }
        totals
    }

    /// The number of starts of the sum with the most.
    pub fn starts(&self) -> usize {
        let sums = self.sums.lock().unwrap();
        sums.values().map(Vec::len).max().unwrap_or_default()
    }

    fn add(&self, point: &NumberDataPoint) {
        let Some(number_data_point::Value::AsInt(value)) = point.value else { panic!("{point:?}") };
        let (start, now) = (point.start_time_unix_nano, (point.time_unix_nano, u64::try_from(value).unwrap()));
        let mut sums = self.sums.lock().unwrap();
        let spans = sums.entry(texts(&point.attributes)).or_default();
        match spans.iter_mut().find(|span| span.start == start) {
            // A leader that was frozen may send its last sums late.
            Some(span) if now.0 < span.last.0 => {}
            Some(span) => {
                assert!(now.1 >= span.last.1, "a sum fell with the same start: {span:?}, {now:?}");
                span.last = now;
            }
            None => {
                assert!(spans.iter().all(|span| span.last.0 <= start), "sums overlap: {spans:?}, {start}");
                assert!(
                    spans.is_empty() || start == now.0,
                    "a leader's first point counts from zero: {start}, {now:?}"
                );
                spans.push(Span { start, last: now });
            }
        }
    }
}

fn texts(attributes: &[KeyValue]) -> Key {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.clone()) {
        Some(any_value::Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for of in &request.get_ref().resource_metrics {
            let resource = texts(&of.resource.as_ref().unwrap().attributes);
            assert_eq!(
                (&*resource["service.name"], &*resource["service.instance.id"]),
                ("meridian-controller", CLUSTER)
            );
            assert!(resource["k8s.cluster.name"] == CLUSTER && !resource.contains_key("k8s.node.name"));
            let metrics = of.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            for metric in metrics.filter(|metric| metric.name == "meridian.zone.bytes") {
                let Some(metric::Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
                sum.data_points.iter().for_each(|point| self.add(point));
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}
