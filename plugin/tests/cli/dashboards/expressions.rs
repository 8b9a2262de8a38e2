//! The expressions of the chart's dashboards and rules, as its files have them.

use regex::Regex;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Values of Grafana's variables: everything is chosen, and the prices are the demo's.
const VARIABLES: [(&str, &str); 8] = [
    ("$__rate_interval", "1m"),
    ("$__range_s", "60"),
    ("$__range", "60s"),
    ("$region_price", "0.02"),
    ("$price", "0.02"),
    ("$cluster", ".*"),
    ("$namespace", ".*"),
    ("$node", ".*"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/meridian/files")
}

/// An expression of a panel.
#[derive(Debug)]
pub(super) struct Query {
    pub dashboard: String,
    pub title: String,
    pub panel_type: String,
    pub reference: String,
    pub template: String,
    pub is_range: bool,
}

impl Query {
    /// The expression with values in place of Grafana's variables.
    pub fn expression(&self) -> String {
        substitute(&self.template)
    }

    /// The expression with counters in place of their growth in a window.
    pub fn total(&self) -> String {
        let window = Regex::new(r"\b(?:rate|increase)\(([a-z_]+\{[^}]*\})\[[^\]]+\]\)").unwrap();
        let total = substitute(&window.replace_all(&self.template, "$1"));
        assert!(!total.contains('['), "a window is left: {total}");
        total
    }

    /// The names of its metrics.
    pub fn metrics(&self) -> BTreeSet<String> {
        let name = Regex::new(r"\b([a-z_]+)\{").unwrap();
        name.captures_iter(&self.template).map(|found| found[1].to_owned()).collect()
    }

    /// The labels by which it selects series of a metric.
    pub fn matched_labels(&self, metric: &str) -> BTreeSet<String> {
        let selector = Regex::new(&format!(r"\b{metric}\{{([^}}]*)\}}")).unwrap();
        let label = Regex::new(r#"([a-z_]+)\s*(?:=~|!=|=)\s*""#).unwrap();
        let selectors = selector.captures_iter(&self.template).map(|found| found[1].to_owned());
        selectors.flat_map(|text| label.captures_iter(&text).map(|it| it[1].to_owned()).collect::<Vec<_>>()).collect()
    }
}

fn substitute(template: &str) -> String {
    let zone = ("$zone", ".*");
    let text =
        VARIABLES.into_iter().chain([zone]).fold(template.to_owned(), |text, (name, value)| text.replace(name, value));
    // `$1` is of label_replace.
    assert!(!text.replace("\"$1\"", "").contains('$'), "a variable is left: {text}");
    text
}

/// A variable whose values are those of a label.
#[derive(Debug)]
pub(super) struct Variable {
    pub label: String,
    template: String,
}

impl Variable {
    pub fn selector(&self) -> String {
        substitute(&self.template)
    }
}

/// The chart's dashboards and rules.
pub(super) struct Chart {
    pub queries: Vec<Query>,
    pub variables: Vec<Variable>,
    /// The name and expression of each recording rule and alert.
    pub rules: Vec<(String, String)>,
}

impl Chart {
    pub fn read() -> Self {
        let mut chart = Self { queries: Vec::new(), variables: Vec::new(), rules: Vec::new() };
        for name in ["overview", "workloads", "agents"] {
            let text = fs::read_to_string(folder().join(format!("dashboards/{name}.json"))).unwrap();
            chart.add_dashboard(name, &serde_json::from_str(&text).unwrap());
        }
        for name in ["alerts", "recording"] {
            chart.add_rules(&fs::read_to_string(Self::rules(name)).unwrap());
        }
        chart
    }

    /// The path of a file of rules.
    pub fn rules(name: &str) -> PathBuf {
        folder().join(format!("{name}.yaml"))
    }

    fn add_dashboard(&mut self, name: &str, dashboard: &Value) {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        for panel in dashboard["panels"].as_array().unwrap() {
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            assert_eq!(targets.is_empty(), panel["type"] == "row", "{panel}");
            self.queries.extend(targets.iter().map(|target| Query {
                dashboard: name.to_owned(),
                title: text(panel, "title"),
                panel_type: text(panel, "type"),
                reference: text(target, "refId"),
                template: text(target, "expr"),
                is_range: target["range"] == true,
            }));
        }
        let query = Regex::new(r"^label_values\((.*), ([a-z_]+)\)$").unwrap();
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if variable["type"] == "query" {
                let text = variable["query"]["query"].as_str().unwrap();
                let found = query.captures(text).unwrap_or_else(|| panic!("{text}"));
                self.variables.push(Variable { label: found[2].to_owned(), template: found[1].to_owned() });
            }
        }
    }

    fn add_rules(&mut self, text: &str) {
        let parsed: Value = serde_saphyr::from_str(text).unwrap();
        for rule in parsed["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
            let name = rule["record"].as_str().or(rule["alert"].as_str()).unwrap();
            self.rules.push((name.to_owned(), rule["expr"].as_str().unwrap().to_owned()));
        }
    }
}
