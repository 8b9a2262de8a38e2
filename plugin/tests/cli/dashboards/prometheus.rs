//! A running Prometheus, and its HTTP API.

use crate::{Scratch, common::programs::program, running::Running};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread::sleep,
    time::Duration,
};

/// In the test's own network.
pub const AT: &str = "127.0.0.1:9090";
/// How often something is tried again that needs another scrape or evaluation.
const RETRY: Duration = Duration::from_millis(100);
/// After so many tries something is broken: two minutes.
const TRIES: usize = 1200;

/// A sample of a query's answer.
#[derive(Debug)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Series {
    /// The values of some labels, as a text.
    pub fn key(&self, labels: &[&str]) -> String {
        let value = |label: &&str| self.labels.get(*label).cloned().unwrap_or_default();
        labels.iter().map(value).collect::<Vec<_>>().join("|")
    }
}

/// The process. It ends with the value.
pub struct Prometheus(#[expect(dead_code, reason = "ends when it is dropped")] Running);

impl Prometheus {
    /// Starts it with files of rules. It scrapes the demo every second.
    pub fn start(scratch: &Scratch, rules: &[PathBuf]) -> Self {
        let rules: String = rules.iter().fold(String::new(), |mut text, path| {
            let _ = write!(text, "\n  - {}", path.display());
            text
        });
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files:{rules}
scrape_configs:
  - job_name: meridian
    honor_labels: true
    static_configs: [{{targets: ['127.0.0.1:9980']}}]
"
        );
        let config = scratch.file("prometheus.yml", config.as_bytes());
        let storage = scratch.as_ref().join("storage");
        let log = scratch.file("prometheus.log", b"");
        let mut command = Command::new(program("MERIDIAN_PROMETHEUS"));
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", storage.display()));
        command.arg(format!("--web.listen-address={AT}"));
        let mut running = Running::spawn(&mut command);
        running.drain_to(File::create(&log).unwrap());
        let started = Self(running);
        until(|| get("/-/ready").is_ok_and(|(code, _)| code == 200), "Prometheus is not ready");
        started
    }

    /// Waits for a scrape of the demo after a moment, and returns its time.
    pub fn scrape_after(&self, moment: f64) -> f64 {
        let mut at = 0.0;
        until(
            || {
                let answer = ask("query", &[("query", "min(timestamp(meridian_build_info))")]);
                at = answer["result"][0]["value"][1].as_str().map_or(0.0, |value| value.parse().unwrap());
                at > moment
            },
            "the demo is not scraped",
        );
        at
    }

    /// The answer to an expression at a moment.
    pub fn query(&self, expression: &str, at: f64) -> Vec<Series> {
        let answer = ask("query", &[("query", expression), ("time", &at.to_string())]);
        assert_eq!(answer["resultType"], "vector", "{expression}");
        series(&answer, |sample| sample["value"].clone())
    }

    /// The last samples of the answer to an expression in a range.
    pub fn query_range(&self, expression: &str, start: f64, end: f64) -> Vec<Series> {
        let (start, end) = (start.to_string(), end.to_string());
        let parameters = [("query", expression), ("start", &start), ("end", &end), ("step", "1")];
        series(&ask("query_range", &parameters), |sample| sample["values"].as_array().unwrap().last().unwrap().clone())
    }

    /// Tries until it is so.
    #[track_caller]
    pub fn until(&self, is_so: impl FnMut() -> bool, otherwise: &str) {
        until(is_so, otherwise);
    }

    /// The values of a label, of the series of a selector.
    pub fn label_values(&self, label: &str, selector: &str) -> BTreeSet<String> {
        let answer = ask(&format!("label/{label}/values"), &[("match[]", selector)]);
        answer.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    /// The names of the rules, once all were evaluated without an error and the recorded ones have had a second turn.
    pub fn evaluated_rules(&self) -> Vec<String> {
        let recorded = "zone_pair:meridian_crossing_cost:usd_per_month";
        let mut rules = Vec::new();
        until(
            || {
                let answer = ask("rules", &[]);
                rules = answer["groups"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .flat_map(|group| group["rules"].as_array().unwrap().clone())
                    .collect();
                rules.iter().all(|rule| rule["health"] == "ok")
                    && !ask("query", &[("query", recorded)])["result"].as_array().unwrap().is_empty()
            },
            "some rules are not evaluated",
        );
        rules.iter().map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn series(answer: &Value, sample: impl Fn(&Value) -> Value) -> Vec<Series> {
    let of = |found: &Value| Series {
        labels: serde_json::from_value(found["metric"].clone()).unwrap(),
        value: sample(found)[1].as_str().unwrap().parse().unwrap(),
    };
    answer["result"].as_array().unwrap().iter().map(of).collect()
}

/// The data of an answer, which must be a success.
#[track_caller]
fn ask(path: &str, parameters: &[(&str, &str)]) -> Value {
    let parameters: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    let (code, body) = get(&format!("/api/v1/{path}?{}", parameters.join("&"))).unwrap();
    assert_eq!(code, 200, "{parameters:?}: {body}");
    let mut answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["status"], "success", "{body}");
    answer["data"].take()
}

fn get(path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(AT)?;
    // HTTP/1.0, so that the answer is in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Ok((code, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() {
            escaped.push(byte as char);
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

/// Tries until it is so.
#[track_caller]
fn until(mut is_so: impl FnMut() -> bool, otherwise: &str) {
    for _ in 0..TRIES {
        if is_so() {
            return;
        }
        sleep(RETRY);
    }
    panic!("{otherwise}");
}
