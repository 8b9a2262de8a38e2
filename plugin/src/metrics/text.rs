//! The page in its two formats: OpenMetrics, and the older text format of Prometheus.

use super::parts::Page;
use prometheus_client::{encoding::text, registry::Registry};
use std::fmt;

/// The format of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpositionFormat {
    OpenMetrics,
    Prometheus,
}

impl ExpositionFormat {
    /// The format for an Accept header: OpenMetrics only if the client asks for it.
    pub(super) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The current page.
pub(super) fn page(page: &Page, form: ExpositionFormat) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page.clone()));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(match form {
        ExpositionFormat::OpenMetrics => page,
        ExpositionFormat::Prometheus => older(&page),
    })
}

/// Converts to the older format, which has `_total` in a counter's description, and neither units nor an end mark.
fn older(page: &str) -> String {
    let mut counters: Vec<&str> = Vec::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
            counters.push(name);
        }
    }
    let mut older = String::with_capacity(page.len());
    for line in page.lines() {
        let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match described.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if counters.contains(&name) => {
                older.push_str(&format!("{}{name}_total {rest}\n", &line[..7]));
            }
            None if line.starts_with("# ") => {}
            _ => {
                older.push_str(line);
                older.push('\n');
            }
        }
    }
    older
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        accounting::{Accounting, Service, Transfer, TransferEnd},
        api::SkippedIntervals,
        archive::Limits,
        atomic_file::Saves,
        budget::Budgets,
        cost::PriceTable,
        counters::{CounterScope, CounterSnapshot, FeedState, Sample, TableState},
        demo::topology::place,
        export::{FlowLog, FlowLogs, PairLogTally},
        flows::{Encoded, Ring},
        historian::{self, Historian},
        hubble::metrics::FlowMetrics,
        identity::{Endpoint, Workload},
        link::{Backlog, Budget, Files, Requests, Tls},
        metrics::{Families, Nodes, controller, process::HttpPlaces},
        otlp,
        proto::flow::{self, layer4::Protocol},
        zones::{Matrix, Pair, Place},
    };
    use meridian_abi::{Counter, IpVersion, stats::Stat};
    use std::{
        collections::BTreeMap,
        path::Path,
        sync::{Arc, OnceLock},
        time::{Duration, Instant, SystemTime, UNIX_EPOCH},
    };
    use tokio::sync::watch;

    fn end(n: u8, place: Place) -> TransferEnd {
        let workload = Some(Arc::new(Workload { kind: "Deployment".into(), name: "cart".into() }));
        let (namespace, pod) = ("shop".into(), format!("cart-{n}").into());
        let endpoint = Endpoint { namespace, pod, workload, ..Endpoint::default() };
        TransferEnd { address: Some([10, 0, 0, n].into()), endpoint: Some(Arc::new(endpoint)), place, external: None }
    }

    pub(in super::super) fn sample() -> Sample {
        let mut matrix = Matrix::default();
        let pair = |to| Pair {
            source: place(0),
            destination: to,
            version: IpVersion::V4,
            direction: meridian_abi::matrix::Direction::Egress,
        };
        matrix.add(pair(place(2)), Counter { bytes: 1500, packets: 3 });
        matrix.add(pair(Place::Unknown), Counter { bytes: 40, packets: 1 });
        let mut accounting = Accounting::new(4, false);
        let outside =
            |place| TransferEnd { address: Some([192, 0, 2, 1].into()), endpoint: None, place, external: None };
        let cart = end(0, place(0));
        for (destination, bytes) in [
            (end(1, place(1)), 1),
            (end(2, place(2)), 10),
            (end(3, place(3)), 100),
            (outside(Place::Internet), 1000),
            (outside(Place::Unknown), 10_000),
        ] {
            let transfer = Transfer { source: &cart, destination: &destination, service: Service::default() };
            accounting.add(&transfer, Counter { bytes, packets: 1 }, Instant::now());
        }
        Sample {
            counted: CounterSnapshot {
                whose: CounterScope::Node("node-1".into()),
                time: SystemTime::now(),
                began: Some(UNIX_EPOCH),
                epoch: 0,
                matrix,
                stats: Stat::ALL.into_iter().map(|stat| (stat, Counter { bytes: 7, packets: 1 })).collect(),
                totals: accounting.totals().clone(),
            },
            boot_id: [0; 16],
            hook: "netfilter",
            hook_reason: "test".into(),
            hook_changes: 0,
            refused_hook_steps: 0,
            device_bytes: Some(crate::counters::DeviceBytes { sent: 1500, seen: 1500 }),
            foreign_filters: 0,
            restored_filters: 0,
            flow_entries: (2, 131_072),
            table: TableState {
                prefixes: (25, 262_144),
                zones: (3, 30),
                loaded: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
                confirmed: UNIX_EPOCH + Duration::from_secs(1_700_000_100),
                reloads: (1, 2),
                addresses: 7,
                feed: Some(FeedState {
                    is_connected: true,
                    connects: 3,
                    failures: 2,
                    is_reported: true,
                    reports: 9,
                    report_failures: 1,
                }),
            },
            drain_seconds: 0.25,
        }
    }

    /// The page of an agent with all parts.
    fn of_agent(sample: Sample, families: Families) -> Page {
        // The sender can be dropped: the last value stays.
        let samples = watch::Sender::new(Arc::from([sample])).subscribe();
        Page::default()
            .with(Nodes { samples, families })
            .with(Arc::new(Ring::new(4095)))
            .with(Arc::new(SkippedIntervals::default()))
            .with(HttpPlaces::default())
            .with(Arc::new(Backlog::new(1 << 20)))
            .with(Arc::new(Requests::new(1, 1)))
            .with(Arc::new(Budget::new(1 << 20)))
            .with(vec![("counters", Arc::new(Saves::default()))])
            .with(Arc::new(PairLogTally::default()))
            .with(history())
            .with(Arc::new(otlp::Tally::default()))
            .with(vec![tls()])
            .with(outputs())
    }

    /// A history; its folder is removed at once.
    fn history() -> Arc<Historian> {
        static SHARED: OnceLock<Arc<Historian>> = OnceLock::new();
        let open = || {
            let folder = std::env::temp_dir().join(format!("meridian-metrics-history-{}", std::process::id()));
            let budgets = b"budgets: [{namespace: shop, usd_per_month: \"1\"}]";
            let settings = historian::Settings {
                budgets: Budgets::parse(Path::new("budgets.yaml"), budgets).unwrap(),
                budgets_file: Some(folder.join("budgets.yaml")),
                ..historian::Settings::default()
            };
            let historian = Historian::open(&folder, Limits::default(), PriceTable::default(), 0).unwrap();
            let historian = historian.following(&settings);
            historian.attend(1 << 20);
            std::fs::remove_dir_all(folder).unwrap();
            Arc::new(historian)
        };
        Arc::clone(SHARED.get_or_init(open))
    }

    /// All of Hubble's metrics after one flow of each kind, and a flow log.
    fn outputs() -> crate::metrics::Outputs {
        let ring = Arc::new(Ring::new(1));
        let metrics =
            FlowMetrics::new(&"flow drop tcp icmp port-distribution flows-to-world".parse().unwrap()).unwrap();
        let tcp = flow::Tcp { flags: Some(flow::TcpFlags { syn: true, ..Default::default() }), ..Default::default() };
        for protocol in [Protocol::Tcp(tcp), Protocol::IcmPv4(flow::IcmPv4 { r#type: 8, code: 0 })] {
            for verdict in [flow::Verdict::Forwarded, flow::Verdict::Dropped] {
                let world = flow::Endpoint { labels: vec!["reserved:world".into()], ..Default::default() };
                metrics.count(&Encoded::from(flow::Flow {
                    verdict: verdict.into(),
                    ip: Some(flow::Ip::default()),
                    l4: Some(flow::Layer4 { protocol: Some(protocol.clone()) }),
                    is_reply: Some(false),
                    event_type: Some(flow::CiliumEventType { r#type: 4, sub_type: 0 }),
                    destination: Some(world),
                    ..Default::default()
                }));
            }
        }
        let mut logs = FlowLogs::new(Arc::clone(&ring), "node-1".into());
        logs.apply(&[FlowLog { name: "none".into(), file_path: "/dev/null".into(), ..FlowLog::default() }]).unwrap();
        crate::metrics::Outputs {
            ring,
            metrics: Some(Arc::new(metrics)),
            logs: Some(logs.outputs()),
            reloads: Arc::default(),
        }
    }

    /// A server with a certificate.
    fn tls() -> Arc<Tls> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("meridian-page-tls-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let made = rcgen::generate_simple_self_signed(vec!["node-1".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls = Tls::new("hubble", Files { certificate, key, client_authorities: Vec::new() }).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        Arc::new(tls)
    }

    fn has(page: &str, line: &str) {
        assert!(page.lines().any(|has| has == line), "{line}\nis not in\n{page}");
    }

    #[test]
    fn the_older_form_passes_prometheus_check() {
        let page = page(&of_agent(sample(), Families::default()), ExpositionFormat::Prometheus).unwrap();
        for line in [
            "# TYPE meridian_zone_bytes_total counter",
            r#"meridian_zone_bytes_total{source_zone="eu-1a",source_region="eu-1",destination_zone="eu-1b",destination_region="eu-1",locality="cross-zone",ip_version="4",direction="egress",node="node-1"} 1500"#,
            r#"meridian_zone_packets_total{source_zone="eu-1a",source_region="eu-1",destination_zone="unknown",destination_region="",locality="unknown",ip_version="4",direction="egress",node="node-1"} 1"#,
            r#"meridian_outside_packets_total{reason="delivered",node="node-1"} 1"#,
            r#"meridian_noted_bytes_total{reason="unattributed",node="node-1"} 7"#,
            r#"meridian_zone_table_reloads_total{result="refused",node="node-1"} 2"#,
            r#"meridian_drain_duration_seconds{node="node-1"} 0.25"#,
            "meridian_flow_ring_lost_total 0",
        ] {
            has(&page, line);
        }
        assert!(!page.contains("# EOF") && !page.contains("# UNIT"));
    }

    #[test]
    fn open_metrics_is_served_on_request() {
        assert_eq!(ExpositionFormat::accepted("text/plain;version=0.0.4"), ExpositionFormat::Prometheus);
        assert_eq!(
            ExpositionFormat::accepted("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
            ExpositionFormat::OpenMetrics
        );
        let page = page(&of_agent(sample(), Families::default()), ExpositionFormat::OpenMetrics).unwrap();
        assert!(page.contains("# UNIT meridian_zone_bytes bytes\n") && page.ends_with("# EOF\n"));
    }

    #[test]
    fn pods_and_workloads_are_shown_under_our_names_and_others() {
        let shown =
            page(&of_agent(sample(), Families { pods: true, ..Families::default() }), ExpositionFormat::Prometheus)
                .unwrap();
        for line in [
            r#"meridian_namespace_bytes_total{source_namespace="shop",destination_namespace="shop",locality="cross-zone",node="node-1"} 10"#,
            r#"meridian_namespace_bytes_total{source_namespace="shop",destination_namespace="",locality="internet",node="node-1"} 1000"#,
            r#"meridian_workload_bytes_total{source_namespace="shop",source_kind="Deployment",source_workload="cart",destination_namespace="shop",destination_kind="Deployment",destination_workload="cart",locality="cross-zone",node="node-1"} 10"#,
            r#"meridian_workload_packets_total{source_namespace="shop",source_kind="Deployment",source_workload="cart",destination_namespace="",destination_kind="",destination_workload="",locality="internet",node="node-1"} 1"#,
            r#"meridian_pod_bytes_total{source_namespace="shop",source_pod="cart-0",source_zone="eu-1a",destination_namespace="shop",destination_pod="cart-2",destination_zone="eu-1b",locality="cross-zone",node="node-1"} 10"#,
            // The limit is four series.
            r#"meridian_pod_bytes_total{source_namespace="",source_pod="other",source_zone="unknown",destination_namespace="",destination_pod="other",destination_zone="unknown",locality="unknown",node="node-1"} 10000"#,
            r#"pod_cross_zone_network_traffic_bytes_total{namespace="shop",pod="cart-0"} 110"#,
            r#"kubecost_pod_network_egress_bytes_total{pod_name="cart-0",namespace="shop",internet="false",same_zone="true",same_region="true"} 1"#,
            r#"kubecost_pod_network_egress_bytes_total{pod_name="cart-0",namespace="shop",internet="false",same_zone="false",same_region="true"} 10"#,
            r#"kubecost_pod_network_egress_bytes_total{pod_name="cart-0",namespace="shop",internet="false",same_zone="false",same_region="false"} 100"#,
            r#"kubecost_pod_network_egress_bytes_total{pod_name="cart-0",namespace="shop",internet="true",same_zone="false",same_region="false"} 1000"#,
            r#"meridian_series{sum="pod",node="node-1"} 4.0"#,
        ] {
            has(&shown, line);
        }
        assert_eq!(shown.lines().filter(|line| line.starts_with("kubecost")).count(), 4, "unknown is in none");
        let hidden = page(&of_agent(sample(), Families::NONE), ExpositionFormat::Prometheus).unwrap();
        for name in ["meridian_namespace", "meridian_workload", "meridian_pod", "pod_cross_zone", "kubecost"] {
            assert!(!hidden.contains(name), "{name}");
        }
    }

    #[test]
    fn the_docs_name_every_metric_and_no_other() {
        let families = Families { pods: true, ..Families::default() };
        let agent = page(&of_agent(sample(), families), ExpositionFormat::Prometheus).unwrap();
        let controller =
            page(&Page::default().with(controller::tests::measured()), ExpositionFormat::Prometheus).unwrap();
        let both = agent + &controller;
        let types = both.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let exposed: BTreeMap<&str, &str> = types.collect();
        let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
        let rows = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let described: BTreeMap<&str, &str> =
            rows.map(|(name, rest)| (name, rest.split(" |").next().unwrap())).collect();
        assert_eq!(described, exposed);
    }

    #[test]
    fn the_page_of_ten_thousand_pods_is_bounded_and_sums_up() {
        const SERIES: usize = 200;
        let mut accounting = Accounting::new(SERIES, false);
        let pod = |n: usize| {
            let (namespace, pod) = (format!("ns{}", n % 40).into(), format!("p{n}").into());
            let endpoint = Endpoint { namespace, pod, workload: None, ..Endpoint::default() };
            TransferEnd { address: None, endpoint: Some(Arc::new(endpoint)), place: place(n % 4), external: None }
        };
        let pods: Vec<TransferEnd> = (0..10_000).map(pod).collect();
        let mut sent = 0;
        for (n, source) in pods.iter().enumerate() {
            let new = Counter { bytes: 100 + n as u64, packets: 1 };
            let destination = &pods[n * 7919 % pods.len()];
            accounting.add(&Transfer { source, destination, service: Service::default() }, new, Instant::now());
            sent += new.bytes;
        }
        let mut sample = sample();
        sample.counted.totals = accounting.totals().clone();
        let page = of_agent(sample, Families { pods: true, ..Families::default() });
        let page = super::page(&page, ExpositionFormat::Prometheus).unwrap();
        for name in
            ["meridian_workload_bytes_total{", "meridian_pod_bytes_total{", "kubecost_pod_network_egress_bytes_total{"]
        {
            let series: Vec<u64> = page
                .lines()
                .filter(|line| line.starts_with(name))
                .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
                .collect();
            assert!((SERIES..=SERIES + 5).contains(&series.len()), "{name} {}", series.len());
            assert_eq!(series.iter().sum::<u64>(), sent, "{name}");
        }
    }
}
