//! Every view of the demo's traffic has the bytes of the wire.
//!
//! `--still` ends the traffic after the comparison with the wire, so that all views have the totals of the result.

mod collector;

use crate::{
    Scratch,
    dashboards::prometheus::{AT, Prometheus},
    machine::{Machine, alone},
    meridian, run,
    running::Running,
};
use collector::{Collector, Export};
use meridian::netlab::namespace::Namespace;
use nix::sys::signal::Signal;
use regex::Regex;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

/// Bytes by source zone, destination zone and locality.
type Cells = BTreeMap<[String; 3], u64>;

/// The demo, with its result.
struct Still {
    demo: Running,
    result: Value,
}

impl Still {
    fn start() -> Self {
        let otlp = format!("http://{}", collector::AT);
        let args = ["demo", "--serve", "--still", "--output", "json", "--duration", "4s"];
        let args = [&args[..], &["--otlp-endpoint", &otlp, "--otlp-interval", "1s"]].concat();
        let mut demo = Running::spawn(&mut meridian(&args));
        let mut line = String::new();
        BufReader::new(demo.stdout()).read_line(&mut line).unwrap();
        let result = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { demo, result }
    }

    /// The wire's own bytes.
    fn wire(&self) -> Cells {
        let mut cells = Cells::new();
        for cell in self.result["sent"].as_array().unwrap() {
            let text = |key: &str| cell[key].as_str().unwrap().to_owned();
            let bytes = cell["bytes"].as_u64().unwrap();
            *cells.entry(["source_zone", "destination_zone", "locality"].map(text)).or_default() += bytes;
        }
        cells.retain(|_, bytes| *bytes > 0);
        cells
    }
}

#[test]
fn every_view_has_the_bytes_of_the_wire() {
    let _alone = alone();
    let before = Machine::now();
    // A network of its own has every port free.
    let network = Namespace::new("views").unwrap();
    network.run(compare).unwrap();
    drop(network);
    before.is_restored();
}

fn compare() {
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let scratch = Scratch::new("views");
    let collector = Collector::start(&scratch);
    let rules = scratch.file("rules.yaml", totals_as_rules().as_bytes());
    let prometheus = Prometheus::start(&scratch, &[rules]);
    let still = Still::start();
    let wire = still.wire();
    is_exported(&collector, &wire);
    is_reported(&wire);
    is_charged(&wire);
    is_scraped(&prometheus, &wire);
    still.demo.signal(Signal::SIGINT);
    assert_eq!(still.demo.output().code, Some(0));
}

const SERVER: [&str; 2] = ["--server", "127.0.0.1:9980"];

fn output(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
    output.stdout
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&output(&[args, &["--output", "json", "--locality", "all", "--from", "2h"]].concat())).unwrap()
}

/// The sums of the rows of a report by pair of zones.
fn cells(report: &Value) -> Cells {
    let mut cells = Cells::new();
    for row in report["rows"].as_array().unwrap() {
        let text = |key: &str| row["key"][key].as_str().unwrap().to_owned();
        let bytes = row["bytes"].as_u64().unwrap();
        *cells.entry(["source_zone", "destination_zone", "locality"].map(text)).or_default() += bytes;
    }
    cells.retain(|_, bytes| *bytes > 0);
    cells
}

/// Reports by each key have the wire's bytes, from the API and from Prometheus.
fn is_reported(wire: &Cells) {
    let of_wire: u64 = wire.values().sum();
    let keys = ["namespace", "workload", "service", "node", "region", "namespace-pair", "workload-pair", "label:app"];
    for by in keys {
        let report = json(&[&["report", "--by", by], &SERVER[..]].concat());
        let rows = report["rows"].as_array().unwrap();
        let sum: u64 = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
        assert_eq!((sum, report["total"]["bytes"].as_u64().unwrap()), (of_wire, of_wire), "{by}");
        assert!(report["approximate"].is_null());
    }
    assert_eq!(cells(&json(&[&["report"], &SERVER[..]].concat())), *wire);
}

/// Charges have the wire's bytes, once as sent and once as received, and the report's money.
fn is_charged(wire: &Cells) {
    let charges = output(&[&["export", "focus", "--locality", "all", "--from", "2h"], &SERVER[..]].concat());
    let mut lines = charges.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let at = |name: &str| names.iter().position(|known| *known == name).unwrap();
    let [direction, bytes, cost] = ["x_Direction", "ConsumedQuantity", "BilledCost"].map(at);
    let (mut sent, mut received, mut dollars) = (0, 0, 0_f64);
    for line in lines {
        // Only tags are quoted; they are behind these columns, and the direction is behind them.
        let direction = line[line.len() + direction - names.len()];
        let bytes: u64 = line[bytes].parse().unwrap();
        *(if direction == "sent" { &mut sent } else { &mut received }) += bytes;
        dollars += line[cost].parse::<f64>().unwrap_or_default();
    }
    let of_wire: u64 = wire.values().sum();
    assert_eq!((sent, received), (of_wire, of_wire));
    let report = json(&[&["report"], &SERVER[..]].concat());
    let of_report: f64 = report["total"]["cost"]["usd"].as_str().unwrap().parse().unwrap();
    assert!(dollars > 0.0 && (dollars / of_report - 1.0).abs() < 1e-9, "{dollars} {of_report}");
}

/// The chart's recording rules with totals in place of their growth in five minutes.
fn totals_as_rules() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/meridian/files/recording.yaml");
    let window = Regex::new(r"rate\(\s*([a-z_]+\{[^}]*\})\[5m\]\s*\)").unwrap();
    let rules = fs::read_to_string(path).unwrap();
    let totals = window.replace_all(&rules, "$1");
    assert!(!totals.contains("[5m]"), "{totals}");
    totals.into_owned()
}

/// Prometheus has the wire's bytes: in recorded series, by OpenCost's arithmetic, and in a report.
fn is_scraped(prometheus: &Prometheus, wire: &Cells) {
    let at = prometheus.scrape_after(prometheus.scrape_after(now()));
    let crossing: BTreeMap<String, u64> = wire
        .iter()
        .filter(|([_, _, locality], _)| locality.starts_with("cross-"))
        .map(|(key, bytes)| (key.join("|"), *bytes))
        .collect();
    let labels = ["source_zone", "destination_zone", "locality"];
    let recorded = || -> BTreeMap<String, u64> {
        let series = prometheus.query("zone_pair:meridian_crossing_bytes:rate5m", now());
        series.iter().map(|series| (series.key(&labels), series.value as u64)).collect()
    };
    prometheus.until(|| recorded() == crossing, "the recorded series lack bytes");
    let total: u64 = crossing.values().sum();
    for name in ["cluster", "namespace_pair", "workload_pair"] {
        let series = prometheus.query(&format!("{name}:meridian_crossing_bytes:rate5m"), now());
        assert_eq!(series.iter().map(|series| series.value as u64).sum::<u64>(), total, "{name}");
    }
    for (selector, locality) in [
        (r#"internet="false", same_zone="false", same_region="true""#, "cross-zone"),
        (r#"internet="false", same_zone="false", same_region="false""#, "cross-region"),
        (r#"internet="true""#, "internet"),
    ] {
        let metric = format!("kubecost_pod_network_egress_bytes_total{{{selector}}}");
        let gib = prometheus.query(&format!("sum({metric}) by (pod_name, namespace) / 1024 / 1024 / 1024"), at);
        // Divisions by powers of two are exact.
        let bytes: f64 = gib.iter().map(|series| series.value * 1024.0 * 1024.0 * 1024.0).sum();
        let of_wire: u64 = wire.iter().filter(|([.., known], _)| known == locality).map(|(_, bytes)| bytes).sum();
        assert_eq!(bytes as u64, of_wire, "{locality}");
    }
    let url = format!("http://{AT}");
    let of_prometheus = |by: &str| json(&["report", "--prometheus", &url, "--by", by]);
    let report = of_prometheus("zone-pair");
    assert_eq!(cells(&report), *wire);
    assert!(report["approximate"].as_str().unwrap().contains("restart"));
    let of_wire: u64 = wire.values().sum();
    for by in ["region", "namespace", "workload"] {
        assert_eq!(of_prometheus(by)["total"]["bytes"], of_wire, "{by}");
    }
    let table = output(&["report", "--prometheus", &url, "--output", "markdown"]);
    assert!(table.contains("Approximate: "), "{table}");
    let refused = run(&["report", "--prometheus", &url, "--by", "service"]);
    assert_eq!((refused.code, refused.stderr.lines().count()), (Some(2), 1), "{refused:?}");
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The collector has the wire's bytes, each sum with one start, and no sum ever fell.
fn is_exported(collector: &Collector, wire: &Cells) {
    let cells = |exports: &[&Export]| {
        let mut cells = Cells::new();
        for sum in exports.iter().filter_map(|export| export.get("meridian.zone.bytes")).flatten() {
            let keys = ["source.cloud.availability_zone", "destination.cloud.availability_zone", "meridian.locality"];
            *cells.entry(keys.map(|key| sum.attributes[key].clone())).or_default() += sum.value;
        }
        cells.retain(|_, bytes| *bytes > 0);
        cells
    };
    let exports = collector.exports_until(|last| cells(last) == *wire);
    assert_eq!(exports.len(), 4);
    let of_wire: u64 = wire.values().sum();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for of_node in exports.values() {
        assert!(of_node.len() > 2, "{}", of_node.len());
        let mut before: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for (name, sum) in of_node
            .iter()
            .flat_map(|export| export.iter().flat_map(|(name, sums)| sums.iter().map(move |sum| (name, sum))))
        {
            assert!(sum.start > 0 && sum.start <= sum.time);
            let (start, value) = before.entry((name, &sum.attributes)).or_insert((sum.start, 0));
            assert!(*start == sum.start && *value <= sum.value, "{name}: {sum:?}");
            *value = sum.value;
        }
        for (name, of_metric) in of_node.last().unwrap() {
            *sums.entry(name.clone()).or_default() += of_metric.iter().map(|sum| sum.value).sum::<u64>();
        }
    }
    for family in ["namespace", "workload", "pod"] {
        assert_eq!(sums[&format!("meridian.{family}.bytes")], of_wire, "{family}");
    }
}
