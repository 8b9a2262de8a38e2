//! The bytes on the wire, and the panels that must show them.

use super::{Query, Series};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const CROSSING: [&str; 2] = ["cross-zone", "cross-region"];
const DOLLARS_PER_BYTE: f64 = 0.02 / 1e9;
/// A month of 730 hours, of the range of 60 seconds that the expressions are given.
const MONTHS: f64 = 730.0 * 3600.0 / 60.0;
const ZONES: [&str; 2] = ["source_zone", "destination_zone"];
const WORKLOAD: [&str; 2] = ["namespace", "workload"];

type Sums = BTreeMap<String, f64>;

/// The demo's result.
pub(super) struct Truth {
    /// The zones, the locality and the bytes of each cell, as the devices counted them.
    cells: Vec<(String, String, String, f64)>,
    rows: Vec<Value>,
}

impl Truth {
    pub fn new(result: &Value) -> Self {
        assert_eq!(result["unattributed_bytes"], 0, "sums of workloads would lack traffic");
        let text = |cell: &Value, key: &str| cell[key].as_str().unwrap().to_owned();
        let cell = |it: &Value| {
            let bytes = it["bytes"].as_u64().unwrap() as f64;
            (text(it, "source_zone"), text(it, "destination_zone"), text(it, "locality"), bytes)
        };
        let cells = result["sent"].as_array().unwrap().iter().map(cell).collect();
        Self { cells, rows: result["cost"]["rows"].as_array().unwrap().clone() }
    }

    pub fn source_zones(&self) -> BTreeSet<String> {
        self.cells.iter().map(|cell| cell.0.clone()).collect()
    }

    pub fn crossing_pairs(&self) -> BTreeSet<String> {
        self.by_pair(|locality| CROSSING.contains(&locality)).into_keys().collect()
    }

    fn bytes(&self, counts: impl Fn(&str) -> bool) -> f64 {
        self.cells.iter().filter(|cell| counts(&cell.2)).map(|cell| cell.3).sum()
    }

    fn by_pair(&self, counts: impl Fn(&str) -> bool) -> Sums {
        let cells = self.cells.iter().filter(|cell| counts(&cell.2));
        sums(cells.map(|cell| (format!("{}|{}", cell.0, cell.1), cell.3)))
    }

    fn by_locality(&self) -> Sums {
        sums(self.cells.iter().map(|cell| (cell.2.clone(), cell.3)))
    }

    /// A number of each workload of the cost report, without zeros.
    fn by_workload(&self, number: impl Fn(&Value) -> f64) -> Sums {
        let key = |row: &Value, key: &str| row["key"][key].as_str().unwrap().to_owned();
        sums(self.rows.iter().map(|row| (format!("{}|{}", key(row, "namespace"), key(row, "workload")), number(row))))
    }

    /// The cost report's dollars, of both ends.
    fn dollars(&self) -> f64 {
        self.rows.iter().map(|row| row["usd"].as_str().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Compares panels that show totals with the wire.
    pub fn is_shown(&self, queries: &[Query], ask: impl Fn(&str) -> Vec<Series>) {
        let shown = |dashboard: &str, title: &str, reference: &str| {
            let is_it = |it: &&Query| it.dashboard == dashboard && it.title == title && it.reference == reference;
            let query = queries.iter().find(is_it).unwrap_or_else(|| panic!("no panel {title} {reference}"));
            ask(&query.total())
        };
        for (dashboard, title, reference, value) in self.totals() {
            let sum: f64 = shown(dashboard, title, reference).iter().map(|series| series.value).sum();
            is_close(sum, value, title);
        }
        for (dashboard, title, reference, labels, values) in self.groups() {
            let found = shown(dashboard, title, reference);
            let found = sums(found.iter().map(|series| (series.key(&labels), series.value)));
            assert_eq!(found.keys().collect::<Vec<_>>(), values.keys().collect::<Vec<_>>(), "{title}");
            for (key, value) in &values {
                is_close(found[key], *value, &format!("{title}: {key}"));
            }
        }
    }

    /// Panels whose sum over all series is known.
    fn totals(&self) -> Vec<(&'static str, &'static str, &'static str, f64)> {
        let crossing = self.bytes(|locality| CROSSING.contains(&locality));
        let (all, unknown) = (self.bytes(|_| true), self.bytes(|locality| locality == "unknown"));
        let cost = crossing * DOLLARS_PER_BYTE;
        is_close(self.dollars(), cost, "the cost report");
        vec![
            ("overview", "Bytes across zones", "A", crossing),
            ("overview", "Share across zones", "A", crossing / all),
            ("overview", "Cost", "A", cost),
            ("overview", "Cost of a month at this rate", "A", cost * MONTHS),
            ("overview", "Share with an unknown zone", "A", unknown / all),
            ("overview", "Share without a sender", "A", 0.0),
            ("overview", "Top pairs of workloads across zones", "A", crossing),
            ("overview", "Top pairs of workloads across zones", "B", cost),
            ("overview", "Top pairs of workloads across zones", "C", 1.0),
            ("overview", "Across zones, by namespace", "A", crossing),
            ("workloads", "Sent across zones", "A", crossing),
            ("workloads", "Received across zones", "A", crossing),
            ("workloads", "Share of sent bytes", "A", crossing / all),
            ("workloads", "Cost", "A", cost),
            ("workloads", "Cost of a month at this rate", "A", cost * MONTHS),
            ("workloads", "Share to unknown zones", "A", unknown / all),
            ("workloads", "From namespace (row) to namespace (column), across zones", "A", crossing),
            ("workloads", "Workloads", "A", cost),
            ("workloads", "Pairs of workloads", "A", crossing),
            ("workloads", "Pairs of workloads", "B", cost),
            ("workloads", "Pairs of pods", "A", crossing),
            ("agents", "Agents", "A", 4.0),
        ]
    }

    /// Panels of which each series is known.
    fn groups(&self) -> Vec<(&'static str, &'static str, &'static str, Vec<&'static str>, Sums)> {
        let pairs = self.by_pair(|locality| CROSSING.contains(&locality));
        let between = self.by_pair(|locality| locality != "same-zone");
        let hourly = pairs.iter().map(|(pair, bytes)| (pair.clone(), bytes * DOLLARS_PER_BYTE * 3600.0)).collect();
        let bytes = |row: &Value, key: &str| row[key].as_u64().unwrap() as f64;
        let sent = self.by_workload(|row| bytes(row, "bytes") - bytes(row, "unpriced_bytes"));
        let mut received = self.by_workload(|row| bytes(row, "received_bytes"));
        // Traffic to unknown places has no price and did not cross.
        received.remove("|");
        let by_namespace = sums(sent.iter().map(|(key, bytes)| (key.split('|').next().unwrap().to_owned(), *bytes)));
        vec![
            ("overview", "From zone (row) to zone (column)", "A", ZONES.into(), between),
            ("overview", "By locality", "A", vec!["locality"], self.by_locality()),
            ("overview", "Across zones, by zone pair", "A", ZONES.into(), pairs.clone()),
            ("overview", "Cost an hour, by zone pair", "A", ZONES.into(), hourly),
            ("workloads", "Across zones, by sending namespace", "A", vec!["source_namespace"], by_namespace),
            ("workloads", "Workloads", "B", WORKLOAD.into(), sent),
            ("workloads", "Workloads", "C", WORKLOAD.into(), received),
            ("workloads", "Sent across zones, by zone pair", "A", ZONES.into(), pairs),
        ]
    }
}

fn sums(values: impl Iterator<Item = (String, f64)>) -> Sums {
    let mut sums = Sums::new();
    for (key, value) in values {
        *sums.entry(key).or_default() += value;
    }
    sums.retain(|_, sum| *sum != 0.0);
    sums
}

/// Equal, except for the rounding of a few divisions. Bytes are whole numbers, which have none.
#[track_caller]
fn is_close(found: f64, wanted: f64, of: &str) {
    if wanted.fract() == 0.0 {
        assert!((found - wanted).abs() < 1e-9, "{of}: {found}, but {wanted} on the wire");
    } else {
        assert!((found / wanted - 1.0).abs() < 1e-12, "{of}: {found}, but {wanted} on the wire");
    }
}
