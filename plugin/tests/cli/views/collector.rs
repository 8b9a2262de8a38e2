//! A running OpenTelemetry Collector, and the messages that it got.

use crate::{Scratch, common::programs::program, running::Running};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread::sleep,
    time::Duration,
};

/// Where it takes OTLP, in the test's own network.
pub(super) const AT: &str = "127.0.0.1:4317";
const RETRY: Duration = Duration::from_millis(100);
/// After so many tries something is broken: two minutes.
const TRIES: usize = 1200;

/// A sum of one export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub attributes: BTreeMap<String, String>,
    pub start: u64,
    pub time: u64,
    pub value: u64,
}

/// The sums of an export of a node, by metric.
pub(super) type Export = BTreeMap<String, Vec<Sum>>;

/// The process. It ends with the value.
pub(super) struct Collector {
    _process: Running,
    file: PathBuf,
}

impl Collector {
    pub fn start(scratch: &Scratch) -> Self {
        let file = scratch.as_ref().join("otlp.json");
        let config = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{AT}'}}}}}}}}
exporters: {{file: {{path: '{}'}}}}
service: {{pipelines: {{metrics: {{receivers: [otlp], exporters: [file]}}}}}}
",
            file.display()
        );
        let config = scratch.file("collector.yaml", config.as_bytes());
        let log = scratch.file("collector.log", b"");
        let mut process = Running::spawn(
            Command::new(program("MERIDIAN_COLLECTOR")).arg(format!("--config=file:{}", config.display())),
        );
        process.drain_to(File::create(&log).unwrap());
        for _ in 0..TRIES {
            if TcpStream::connect(AT).is_ok() {
                return Self { _process: process, file };
            }
            assert!(!process.has_ended(), "{}", fs::read_to_string(log).unwrap());
            sleep(RETRY);
        }
        panic!("the collector does not listen: {}", fs::read_to_string(log).unwrap());
    }

    /// Every export so far, by node.
    pub fn exports(&self) -> BTreeMap<String, Vec<Export>> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let mut exports: BTreeMap<String, Vec<Export>> = BTreeMap::new();
        // The last line may not be complete.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        for message in lines {
            for resource in message["resourceMetrics"].as_array().unwrap() {
                let node = attributes(&resource["resource"]["attributes"]).remove("k8s.node.name").unwrap();
                exports.entry(node).or_default().push(export(resource));
            }
        }
        exports
    }

    /// Waits until the last exports are good ones.
    pub fn exports_until(&self, mut is_good: impl FnMut(&[&Export]) -> bool) -> BTreeMap<String, Vec<Export>> {
        for _ in 0..TRIES {
            let exports = self.exports();
            let last: Vec<&Export> = exports.values().filter_map(|of_node| of_node.last()).collect();
            if is_good(&last) {
                return exports;
            }
            sleep(RETRY);
        }
        panic!("the collector never got the last sums: {:?}", self.exports());
    }
}

fn export(resource: &Value) -> Export {
    let mut export = Export::new();
    for metric in
        resource["scopeMetrics"].as_array().unwrap().iter().flat_map(|scope| scope["metrics"].as_array().unwrap())
    {
        let sum = &metric["sum"];
        assert_eq!((&sum["aggregationTemporality"], &sum["isMonotonic"]), (&2.into(), &true.into()), "{metric}");
        let points = sum["dataPoints"].as_array().unwrap().iter().map(|point| Sum {
            attributes: attributes(&point["attributes"]),
            start: number(&point["startTimeUnixNano"]),
            time: number(&point["timeUnixNano"]),
            value: number(&point["asInt"]),
        });
        export.entry(metric["name"].as_str().unwrap().to_owned()).or_default().extend(points);
    }
    export
}

fn attributes(list: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value["stringValue"].as_str().unwrap().to_owned();
    let pairs = list.as_array().unwrap().iter();
    pairs.map(|pair| (pair["key"].as_str().unwrap().to_owned(), text(&pair["value"]))).collect()
}

/// 64-bit numbers are texts in this JSON.
fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}
