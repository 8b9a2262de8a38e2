//! The chart's dashboards, recording rules and alerts, in a real Prometheus that scrapes a running demo.
//!
//! Counters begin at zero with the demo, so an expression without its window yields the total, which is compared with the
//! wire. The demo blocks on a full pipe between its result and further traffic, so a scrape has exactly these totals.

mod expressions;
pub mod prometheus;
mod truth;

use crate::{
    Scratch,
    documented::page,
    machine::{Machine, alone},
    meridian,
    running::Running,
};
use expressions::{Chart, Query};
use meridian::netlab::namespace::Namespace;
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::Signal,
};
use prometheus::{Prometheus, Series};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    process::{ChildStderr, ChildStdout, Command},
    time::{SystemTime, UNIX_EPOCH},
};
use truth::Truth;

/// Constants as the chart adds them from its values, at the demo's own prices.
const CONSTANTS: &str = "groups:
  - name: meridian-constants
    rules:
      - {record: 'meridian:price:usd_per_gb', expr: vector(0.02), labels: {locality: cross-zone}}
      - {record: 'meridian:price:usd_per_gb', expr: vector(0.02), labels: {locality: cross-region}}
      - {record: 'meridian:budget:usd_per_month', expr: vector(0.01)}
";
/// Less than the demo's result.
const PIPE_BYTES: i32 = 4096;

/// A demo that has compared its counts with the wire, and whose traffic stands still until its result is read.
struct Paused {
    demo: Running,
    stdout: BufReader<ChildStdout>,
    /// Read no further; open, so that the demo can write.
    _stderr: BufReader<ChildStderr>,
}

impl Paused {
    fn start() -> Self {
        let mut demo = Running::spawn(&mut meridian(&["demo", "--serve", "--output", "json", "--duration", "5s"]));
        let mut stdout = demo.stdout();
        fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).unwrap();
        let (_, stderr) = demo.stderr_until("comparing with the wire");
        // The metrics have the final counts before the first byte is written.
        let mut first = [0];
        stdout.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"{");
        Self { demo, stdout: BufReader::new(stdout), _stderr: stderr }
    }

    /// Reads the result, after which the traffic continues.
    fn result(&mut self) -> serde_json::Value {
        let mut rest = String::new();
        self.stdout.read_line(&mut rest).unwrap();
        assert!(rest.len() > PIPE_BYTES as usize, "the demo was not held by the pipe");
        serde_json::from_str(&format!("{{{rest}")).unwrap()
    }

    fn end(self) {
        self.demo.signal(Signal::SIGINT);
        drop(self.stdout);
        assert_eq!(self.demo.output().code, Some(0));
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn every_expression_runs_in_a_real_prometheus_and_totals_are_those_of_the_wire() {
    let _alone = alone();
    let before = Machine::now();
    // A network of its own has every port free.
    let network = Namespace::new("dashboards").unwrap();
    network.run(shows_the_demo).unwrap();
    drop(network);
    before.is_restored();
}

fn shows_the_demo() {
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let scratch = Scratch::new("prometheus");
    let chart = Chart::read();
    let constants = scratch.file("constants.yaml", CONSTANTS.as_bytes());
    let prometheus = Prometheus::start(&scratch, &[Chart::rules("alerts"), Chart::rules("recording"), constants]);
    let mut paused = Paused::start();
    // A rate needs two.
    let at = prometheus.scrape_after(prometheus.scrape_after(now()));
    let truth = Truth::new(&paused.result());

    let metrics = prometheus.label_values("__name__", "{job=\"meridian\"}");
    for query in &chart.queries {
        has_series(query, &prometheus.query(&query.expression(), at), &metrics);
        if query.is_range {
            has_series(query, &prometheus.query_range(&query.expression(), at - 2.0, at), &metrics);
        }
    }
    truth.is_shown(&chart.queries, |expression| prometheus.query(expression, at));
    has_variables(&chart, &prometheus, &truth);
    evaluates_rules(&chart, &prometheus, &truth);
    paused.end();
}

/// An expression has series if the demo has all its metrics. A comparison has them only while something is wrong.
fn has_series(query: &Query, found: &[Series], metrics: &BTreeSet<String>) {
    let is_comparison = query.template.ends_with("== 0)");
    if query.metrics().iter().all(|metric| metrics.contains(metric)) && !is_comparison {
        assert!(!found.is_empty(), "no series: {query:?}");
    }
    // A share of no traffic is no number: all scrapes may have been after the traffic. `Truth` compares shares of totals.
    let is_share = query.template.contains(" / ");
    for series in found.iter().filter(|_| !is_share) {
        assert!(!series.value.is_nan(), "{query:?}: {series:?}");
    }
}

fn has_variables(chart: &Chart, prometheus: &Prometheus, truth: &Truth) {
    for variable in &chart.variables {
        let found = prometheus.label_values(&variable.label, &variable.selector());
        match variable.label.as_str() {
            // Only a store of several clusters has the label.
            "cluster" => assert!(found.is_empty(), "{found:?}"),
            "source_zone" => assert_eq!(found, truth.source_zones()),
            _ => assert!(!found.is_empty(), "{variable:?}"),
        }
    }
}

fn evaluates_rules(chart: &Chart, prometheus: &Prometheus, truth: &Truth) {
    let rules = prometheus.evaluated_rules();
    assert_eq!(rules.len(), chart.rules.len() + CONSTANTS.matches("record:").count(), "{rules:?}");
    for (name, expression) in &chart.rules {
        assert!(rules.contains(name), "{name} is not evaluated");
        prometheus.query(expression, now());
    }
    // Rates need two scrapes before an evaluation, which the demo had.
    let recorded = |name: &str| prometheus.query(name, now());
    for (name, _) in chart.rules.iter().filter(|(name, _)| name.contains(':')) {
        assert!(!recorded(name).is_empty(), "{name} has no series");
    }
    let pairs: BTreeSet<String> = recorded("zone_pair:meridian_crossing_cost:usd_per_month")
        .iter()
        .map(|series| series.key(&["source_zone", "destination_zone"]))
        .collect();
    assert_eq!(pairs, truth.crossing_pairs());
}

#[test]
fn panels_are_of_grafanas_core_and_use_documented_metrics_and_labels() {
    const CORE: [&str; 5] = ["stat", "table", "timeseries", "bargauge", "row"];
    let (chart, docs) = (Chart::read(), page("docs/metrics.md"));
    let mut names = BTreeSet::new();
    for query in &chart.queries {
        assert!(CORE.contains(&query.panel_type.as_str()), "{query:?}");
        names.extend(query.metrics());
        for metric in query.metrics() {
            let row = docs.lines().find(|line| line.starts_with(&format!("| `{metric}` |")));
            let row = row.unwrap_or_else(|| panic!("{metric} is not documented: {query:?}"));
            // These rows refer to others, or to their section, for their labels.
            let refers = row.contains("as above") || row.contains("as `");
            for label in query.matched_labels(&metric) {
                let is_everywhere = ["cluster", "node"].contains(&label.as_str());
                assert!(refers || is_everywhere || row.contains(&format!("`{label}`")), "{label} of {metric}");
            }
        }
    }
    assert!(names.len() > 40, "{names:?}");
    let guide = page("docs/dashboards.md");
    for query in &chart.queries {
        assert!(guide.contains(&query.title), "docs/dashboards.md lacks the panel {}", query.title);
    }
}
