//! The exporter and a collector in one process.

use super::{
    message::{Program, messages},
    points::Content,
    starts::Starts,
    *,
};
use crate::{
    accounting::{Accounting, Service, Transfer, TransferEnd},
    counters::{CounterScope, CounterSnapshot},
    demo::topology::place,
    identity::{Endpoint, Workload},
    zones::{Matrix, Pair},
};
use meridian_abi::{Counter, IpVersion, matrix::Direction, stats::Stat};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::any_value,
    metrics::v1::{NumberDataPoint, metric, number_data_point},
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    transport::{Identity, ServerTlsConfig},
};

const ALL: Content = Content { namespaces: true, workloads: true, pods: true };

fn end(n: usize, workload: &str) -> TransferEnd {
    let endpoint = Endpoint {
        namespace: "shop".into(),
        pod: format!("{workload}-{n}").into(),
        workload: Some(Arc::new(Workload { kind: "Deployment".into(), name: format!("{workload}-{n}") })),
        ..Endpoint::default()
    };
    TransferEnd { address: None, endpoint: Some(Arc::new(endpoint)), place: place(n % 3), external: None }
}

fn counted(pairs: usize) -> CounterSnapshot {
    let mut accounting = Accounting::new(pairs, false);
    for n in 0..pairs {
        let (source, destination) = (end(n, "web"), end(n + 1, &"cart".repeat(40)));
        let transfer = Transfer { source: &source, destination: &destination, service: Service::default() };
        accounting.add(&transfer, Counter { bytes: 1000 + n as u64, packets: 1 }, Instant::now());
    }
    let mut matrix = Matrix::default();
    let (version, direction) = (IpVersion::V6, Direction::Egress);
    // Beyond what a double has digits for.
    let counter = Counter { bytes: (1 << 60) + 1, packets: 3 };
    matrix.add(Pair { source: place(0), destination: place(2), version, direction }, counter);
    CounterSnapshot {
        whose: CounterScope::Node("node-1".into()),
        time: UNIX_EPOCH + Duration::from_secs(2000),
        began: Some(UNIX_EPOCH + Duration::from_secs(1000)),
        epoch: 0,
        matrix,
        stats: Stat::ALL.map(|stat| (stat, Counter { bytes: 7, packets: 1 })).into(),
        totals: accounting.totals().clone(),
    }
}

fn program() -> Program {
    Program { name: "meridian-agent", cluster: "production".into() }
}

/// The points of messages, by the metric's name.
fn points(messages: &[ExportMetricsServiceRequest]) -> BTreeMap<String, Vec<NumberDataPoint>> {
    let mut all: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let metrics = messages.iter().flat_map(|message| &message.resource_metrics).flat_map(|of| &of.scope_metrics);
    for metric in metrics.flat_map(|scope| &scope.metrics) {
        let Some(metric::Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2 && !sum.data_points.is_empty());
        all.entry(metric.name.clone()).or_default().extend(sum.data_points.clone());
    }
    all
}

fn attributes(point: &NumberDataPoint) -> BTreeMap<&str, &str> {
    let named = point.attributes.iter().map(|pair| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        let Some(any_value::Value::StringValue(value)) = value else { panic!("{pair:?}") };
        (pair.key.as_str(), value.as_str())
    });
    named.collect()
}

fn value(point: &NumberDataPoint) -> i64 {
    match point.value {
        Some(number_data_point::Value::AsInt(value)) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sums_are_whole_numbers_with_their_names_and_their_start() {
    let (messages, count) = messages(&program(), &counted(3), ALL, &mut Starts::default());
    assert_eq!(messages.len(), 1);
    let resource = messages[0].resource_metrics[0].resource.clone().unwrap();
    let names: Vec<&str> = resource.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    let expected = ["service.name", "service.version", "k8s.cluster.name", "k8s.node.name", "service.instance.id"];
    assert_eq!(names, expected);
    let points = points(&messages);
    assert_eq!(points.values().map(Vec::len).sum::<usize>() as u64, count);
    let zone = &points["meridian.zone.bytes"];
    assert_eq!((zone.len(), value(&zone[0])), (1, (1 << 60) + 1));
    assert_eq!((zone[0].start_time_unix_nano, zone[0].time_unix_nano), (1_000_000_000_000, 2_000_000_000_000));
    let expected = BTreeMap::from([
        ("source.cloud.availability_zone", "eu-1a"),
        ("source.cloud.region", "eu-1"),
        ("destination.cloud.availability_zone", "eu-1b"),
        ("destination.cloud.region", "eu-1"),
        ("meridian.locality", "cross-zone"),
        ("network.type", "ipv6"),
        ("network.io.direction", "transmit"),
    ]);
    assert_eq!(attributes(&zone[0]), expected);
    let sent: i64 = points["meridian.workload.bytes"].iter().map(value).sum();
    assert_eq!((sent, points["meridian.pod.bytes"].iter().map(value).sum::<i64>()), (3003, 3003));
    let reasons: BTreeSet<_> =
        points["meridian.noted.bytes"].iter().map(|it| attributes(it)["meridian.reason"]).collect();
    assert!(reasons.contains("unattributed") && !reasons.contains("loopback"));
}

#[test]
fn messages_stay_below_the_size_that_collectors_take_and_no_sum_is_lost() {
    let (messages, count) = messages(&program(), &counted(10_000), ALL, &mut Starts::default());
    assert!(messages.len() > 3, "{}", messages.len());
    assert!(messages.iter().all(|message| message.encoded_len() < 3 << 20));
    let points = points(&messages);
    let distinct: BTreeSet<_> = points["meridian.pod.bytes"].iter().map(attributes).collect();
    assert_eq!((distinct.len(), points["meridian.workload.packets"].len()), (10_000, 10_000));
    assert_eq!(points.values().map(Vec::len).sum::<usize>() as u64, count);
}

/// A collector that keeps the messages it gets, with the header `x-tenant`, and answers with a script.
struct Collector {
    got: mpsc::UnboundedSender<(ExportMetricsServiceRequest, Option<String>)>,
    refuses: Arc<std::sync::atomic::AtomicBool>,
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        if self.refuses.swap(false, Ordering::SeqCst) {
            return Err(Status::unavailable("not\nnow"));
        }
        let tenant = request.metadata().get("x-tenant").map(|value| value.to_str().unwrap().to_owned());
        self.got.send((request.into_inner(), tenant)).unwrap();
        let partial = ExportMetricsPartialSuccess { rejected_data_points: 2, error_message: "too old".into() };
        Ok(Response::new(ExportMetricsServiceResponse { partial_success: Some(partial) }))
    }
}

fn exporter(
    endpoint: String,
    headers: Option<PathBuf>,
) -> (Exporter<CounterSnapshot>, watch::Sender<Arc<[CounterSnapshot]>>) {
    let counters = watch::Sender::new(Arc::from([counted(3)]));
    let settings = Settings { endpoint, authority: None, headers, every: Duration::from_secs(1) };
    let (tally, shutdown) = (Arc::default(), CancellationToken::new());
    let counted = counters.subscribe();
    (Exporter { settings, program: program(), content: ALL, counters: counted, tally, shutdown }, counters)
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_the_totals_with_the_headers_of_the_moment() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = std::env::temp_dir().join(format!("meridian-otlp-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let headers = folder.join("headers");
    std::fs::write(&headers, "x-tenant: one\n").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (exporter, counters) = exporter(endpoint, Some(headers.clone()));
    let (tally, shutdown) = (Arc::clone(&exporter.tally), exporter.shutdown.clone());
    let (got, mut messages) = mpsc::unbounded_channel();
    let refuses = Arc::new(true.into());
    let collector = Collector { got, refuses: Arc::clone(&refuses) };
    let server = tonic::transport::Server::builder().add_service(MetricsServiceServer::new(collector));
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let running = tokio::spawn(exporter.run());
    let (first, tenant) = messages.recv().await.unwrap();
    assert_eq!(tenant.as_deref(), Some("one"));
    assert_eq!(value(&points(&[first])["meridian.zone.bytes"][0]), (1 << 60) + 1);
    assert_eq!((tally.failed.load(Ordering::Relaxed), refuses.load(Ordering::Relaxed)), (1, false));
    std::fs::write(&headers, "x-tenant: two\n").unwrap();
    counters.send_modify(|counters| {
        let mut later = counters[0].clone();
        later.time = SystemTime::UNIX_EPOCH + Duration::from_secs(2060);
        let growth = later.matrix.clone();
        later.matrix.merge(&growth);
        *counters = Arc::from([later]);
    });
    // The last export is at the end, whatever the interval.
    shutdown.cancel();
    running.await.unwrap();
    let (last, tenant) = messages.recv().await.unwrap();
    assert_eq!(tenant.as_deref(), Some("two"));
    let points = points(&[last]);
    let zone = &points["meridian.zone.bytes"][0];
    assert_eq!((value(zone), zone.start_time_unix_nano), ((1 << 61) + 2, 1_000_000_000_000));
    assert_eq!((tally.accepted.load(Ordering::Relaxed), tally.rejected.load(Ordering::Relaxed)), (2, 4));
    serving.abort();
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_collector_with_tls_gets_secrets_once_its_authority_is_the_right_one() {
    let folder = std::env::temp_dir().join(format!("meridian-otlp-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [authority, headers] = ["authority.crt", "headers"].map(|name| folder.join(name));
    let [ours, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap());
    std::fs::write(&authority, other.cert.pem()).unwrap();
    std::fs::write(&headers, "Authorization: Bearer x\nx-tenant: one\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (mut exporter, _counters) = exporter(endpoint, Some(headers));
    exporter.settings.authority = Some(authority.clone());
    let (tally, shutdown) = (Arc::clone(&exporter.tally), exporter.shutdown.clone());
    let (got, mut messages) = mpsc::unbounded_channel();
    let collector = MetricsServiceServer::new(Collector { got, refuses: Arc::default() });
    let identity = Identity::from_pem(ours.cert.pem(), ours.signing_key.serialize_pem());
    let mut server = tonic::transport::Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let serving = server.add_service(collector).serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(serving);
    let running = tokio::spawn(exporter.run());
    while tally.failed.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(messages.try_recv().is_err());
    // The authority is read again after a failure.
    std::fs::write(authority, ours.cert.pem()).unwrap();
    let (message, tenant) = messages.recv().await.unwrap();
    assert_eq!(tenant.as_deref(), Some("one"));
    assert_eq!(value(&points(&[message])["meridian.zone.bytes"][0]), (1 << 60) + 1);
    shutdown.cancel();
    running.await.unwrap();
    serving.abort();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_sums_of_a_cluster_have_an_unknown_start_whenever_a_replica_begins_to_lead() {
    let mut starts = Starts::default();
    let mut export = |epoch: u64, seconds: u64, lost: bool| {
        let (whose, time) = (CounterScope::Cluster(vec!["node-1".into()]), UNIX_EPOCH + Duration::from_secs(seconds));
        let counted = CounterSnapshot { whose, epoch, time, ..counted(3) };
        let (messages, _) = messages(&program(), &counted, ALL, &mut starts);
        if !lost {
            starts.arrived();
        }
        let all = points(&messages).into_values().flatten();
        let starts: BTreeSet<u64> = all.map(|point| point.start_time_unix_nano / 1_000_000_000).collect();
        starts.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(
        (export(1, 2000, true), export(1, 2060, false), export(1, 2120, false)),
        (vec![2000], vec![2060], vec![2060])
    );
    // It leads again, after another replica has served the sums.
    assert_eq!((export(2, 2180, false), export(2, 2240, false)), (vec![2180], vec![2180]));
}

#[tokio::test]
async fn a_standby_replica_exports_nothing() {
    let (exporter, counters) = exporter("http://127.0.0.1:1".into(), None);
    counters.send_replace(Arc::from([]));
    let (tally, shutdown) = (Arc::clone(&exporter.tally), exporter.shutdown.clone());
    shutdown.cancel();
    exporter.run().await;
    assert_eq!(tally.failed.load(Ordering::Relaxed) + tally.accepted.load(Ordering::Relaxed), 0);
}
