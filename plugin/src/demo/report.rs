//! The result of the demo: the kernel's counters beside the traffic on the wire.

use super::Cost;
use crate::{
    advice::{Advice, Finding},
    meter::Attribution,
    units::{grouped, human},
    zones::{Locality, Matrix, Pair, Place},
};
use meridian_abi::{Counter, IpVersion};
use serde::{Serialize, Serializer};
use std::{collections::BTreeMap, fmt::Write};

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    hook: &'static str,
    matrix: Vec<Cell>,
    sent: Vec<Cell>,
    exact: bool,
    attributed_bytes: u64,
    unattributed_bytes: u64,
    /// The cost; `None` if it was not priced.
    cost: Option<Cost>,
    /// The advice.
    #[serde(serialize_with = "findings")]
    advice: Advice,
}

/// Findings that the table shows.
const SHOWN: usize = 4;

fn findings<S: Serializer>(advice: &Advice, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(advice.findings.iter().map(Finding::json))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Cell {
    source_zone: String,
    destination_zone: String,
    locality: &'static str,
    ip_version: u8,
    bytes: u64,
    packets: u64,
}

impl Report {
    /// Compares the counters with the wire.
    pub fn new(hook: &'static str, counted: &Matrix, sent: &Matrix, attribution: Attribution) -> Self {
        Self {
            hook,
            matrix: cells(counted),
            sent: cells(sent),
            exact: counted == sent,
            attributed_bytes: attribution.attributed.bytes,
            unattributed_bytes: attribution.unattributed.bytes,
            cost: None,
            advice: Advice::default(),
        }
    }

    /// The same, with what to change.
    #[must_use]
    pub fn with_advice(self, advice: Advice) -> Self {
        Self { advice, ..self }
    }

    /// The same, with the cost of the traffic.
    #[must_use]
    pub fn with_cost(self, cost: Cost) -> Self {
        Self { cost: Some(cost), ..self }
    }

    /// Whether every cell equals the wire in bytes and packets.
    pub const fn is_exact(&self) -> bool {
        self.exact
    }

    /// The report as one line of JSON.
    ///
    /// # Errors
    /// No error is known: every field can be written.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The report for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{:<10} {:<11} {:<12} {:<4} {:>14} {:>9} {:>14} {:>9}  difference",
            "FROM", "TO", "LOCALITY", "IP", "COUNTED BYTES", "PACKETS", "WIRE BYTES", "PACKETS"
        );
        let mut keys: Vec<_> = self.matrix.iter().chain(&self.sent).map(Cell::key).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let (counted, sent) = (find(&self.matrix, key), find(&self.sent, key));
            let (locality, source, destination, version) = key;
            let difference = match (i128::from(counted.bytes) - i128::from(sent.bytes), counted.packets == sent.packets)
            {
                (0, true) => "0".to_owned(),
                (bytes, _) => {
                    format!("{bytes:+} B, {:+} packets", i128::from(counted.packets) - i128::from(sent.packets))
                }
            };
            let _ = writeln!(
                text,
                "{source:<10} {destination:<11} {:<12} v{version:<3} {:>14} {:>9} {:>14} {:>9}  {difference}",
                locality.name(),
                grouped(counted.bytes),
                grouped(counted.packets),
                grouped(sent.bytes),
                grouped(sent.packets),
            );
        }
        let total = |cells: &[Cell]| grouped(cells.iter().map(|cell| cell.bytes).sum());
        let _ = writeln!(
            text,
            "\n{}: the kernel counted {} bytes, the wire carried {}.\n{} bytes are attributed to addresses, {} are not.",
            if self.exact { "Exact" } else { "NOT EXACT" },
            total(&self.matrix),
            total(&self.sent),
            grouped(self.attributed_bytes),
            grouped(self.unattributed_bytes),
        );
        text.extend(self.cost.as_ref().map(Cost::table));
        if !self.advice.findings.is_empty() {
            text.push_str("\nWhat to change:\n");
            text.push_str(&self.advice.first(SHOWN).table());
        }
        text
    }
}

impl Cell {
    fn key(&self) -> (Locality, &str, &str, u8) {
        let locality = Locality::ALL.into_iter().find(|locality| locality.name() == self.locality);
        (locality.unwrap_or(Locality::Unknown), &self.source_zone, &self.destination_zone, self.ip_version)
    }
}

fn find(cells: &[Cell], key: (Locality, &str, &str, u8)) -> Counter {
    let cell = cells.iter().find(|cell| cell.key() == key);
    cell.map_or_else(Counter::default, |cell| Counter { bytes: cell.bytes, packets: cell.packets })
}

fn cells(matrix: &Matrix) -> Vec<Cell> {
    let cell = |(pair, counter): (&Pair, Counter)| Cell {
        source_zone: pair.source.to_string(),
        destination_zone: pair.destination.to_string(),
        locality: pair.locality().name(),
        ip_version: match pair.version {
            IpVersion::V4 => 4,
            IpVersion::V6 => 6,
        },
        bytes: counter.bytes,
        packets: counter.packets,
    };
    matrix.cells().map(cell).collect()
}

/// One line while the demo runs: bytes by locality.
pub fn progress(matrix: &Matrix) -> String {
    let localities = [Locality::SameZone, Locality::CrossZone, Locality::CrossRegion, Locality::Unknown];
    let parts = localities.map(|locality| format!("{locality} {}", human(matrix.total(locality).bytes)));
    parts.join("   ")
}

/// The table while the demo runs: a line for each pair of zones, with the traffic since `before`.
pub fn live(matrix: &Matrix, before: &Matrix, seconds: f64) -> Vec<String> {
    let sums = |matrix: &Matrix| {
        let mut sums: BTreeMap<(Locality, Place, Place), Counter> = BTreeMap::new();
        for (pair, counter) in matrix.cells() {
            let key = (pair.locality(), pair.source.clone(), pair.destination.clone());
            *sums.entry(key).or_default() += counter;
        }
        sums
    };
    let before = sums(before);
    let header =
        format!("{:<10} {:<11} {:<12} {:>10} {:>9} {:>12}", "FROM", "TO", "LOCALITY", "BYTES", "PACKETS", "RATE");
    let lines = sums(matrix).into_iter().map(|(key, sum)| {
        let new = sum.bytes.saturating_sub(before.get(&key).copied().unwrap_or_default().bytes);
        let (locality, source, destination) = key;
        format!(
            "{:<10} {:<11} {:<12} {:>10} {:>9} {:>10}/s",
            source.to_string(),
            destination.to_string(),
            locality.name(),
            human(sum.bytes),
            grouped(sum.packets),
            human((new as f64 / seconds.max(0.001)) as u64),
        )
    });
    std::iter::once(header).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::topology::place;

    fn matrix(bytes: u64) -> Matrix {
        let mut matrix = Matrix::default();
        let pair = Pair {
            source: place(0),
            destination: place(2),
            version: IpVersion::V4,
            direction: meridian_abi::matrix::Direction::Egress,
        };
        matrix.add(pair, Counter { bytes, packets: 3 });
        matrix
    }

    #[test]
    fn one_byte_of_difference_is_not_exact() {
        let report = |counted, sent| Report::new("netfilter", &matrix(counted), &matrix(sent), Attribution::default());
        assert!(report(1500, 1500).is_exact());
        let wrong = report(1499, 1500);
        assert!(!wrong.is_exact() && wrong.table().contains("-1 B, +0 packets"));
        assert!(!Report::new("netfilter", &matrix(1), &Matrix::default(), Attribution::default()).is_exact());
    }

    #[test]
    fn the_json_has_the_promised_form() {
        let attribution = Attribution { attributed: Counter { bytes: 1500, packets: 3 }, ..Attribution::default() };
        let json = Report::new("netfilter", &matrix(1500), &matrix(1500), attribution).json().unwrap();
        let cell = r#"{"source_zone":"eu-1a","destination_zone":"eu-1b","locality":"cross-zone","ip_version":4,"bytes":1500,"packets":3}"#;
        let expected = format!(
            r#"{{"hook":"netfilter","matrix":[{cell}],"sent":[{cell}],"exact":true,"attributed_bytes":1500,"unattributed_bytes":0,"cost":null,"advice":[]}}"#
        );
        assert_eq!(json, expected);
    }
}
