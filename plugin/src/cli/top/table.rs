//! A table with columns that can be sorted, and the lines of each view. Pure.

use super::{
    amount::{Amount, Unit, dollars},
    readings::{PodRoute, Readings, WorkloadTraffic, ZoneRoute},
    update::{Advice, Finding},
};
use crate::units::human;
use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    #[default]
    Zones,
    Pairs,
    Workloads,
    Findings,
}

impl View {
    pub(super) const ALL: [Self; 4] = [Self::Zones, Self::Pairs, Self::Workloads, Self::Findings];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Zones => "Zones",
            Self::Pairs => "Pairs",
            Self::Workloads => "Workloads",
            Self::Findings => "Findings",
        }
    }
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) is_number: bool,
    /// Left out where the screen is narrow.
    pub(super) is_wide: bool,
}

/// A cell: a number is sorted by its value, everything else by its text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) value: f64,
}

/// A line; the key stays the same while its numbers change.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) cells: Vec<Cell>,
    /// The locality of its traffic, if it has one.
    pub(super) locality: String,
}

/// The lines of a view.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) lines: Vec<Line>,
}

/// The order of the lines: a column by its title, from its largest number or its first text on, or the other way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sort {
    /// `None`: by the number that is shown.
    pub(super) title: Option<&'static str>,
    pub(super) is_reversed: bool,
}

const fn text(title: &'static str) -> Column {
    Column { title, is_number: false, is_wide: false }
}

const fn number(title: &'static str) -> Column {
    Column { title, is_number: true, is_wide: false }
}

fn cell(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), value: 0.0 }
}

/// The unit's column, and those of the other units where there is room.
fn units(shown: Unit) -> Vec<Column> {
    Unit::ALL.iter().map(|unit| Column { is_wide: *unit != shown, ..number(unit.title()) }).collect()
}

fn cells_of(amount: &Amount) -> Vec<Cell> {
    Unit::ALL.iter().map(|unit| Cell { text: amount.text(*unit), value: amount.value(*unit) }).collect()
}

fn amount_cell(amount: &Amount, unit: Unit) -> Cell {
    Cell { text: amount.text(unit), value: amount.value(unit) }
}

impl Table {
    pub(super) fn zones(readings: &Readings, unit: Unit) -> Self {
        let columns = [text("FROM"), text("TO"), text("LOCALITY")].into_iter().chain(units(unit)).collect();
        let line = |(pair, amount): (&ZoneRoute, &Amount)| Line {
            key: format!("{}\n{}\n{}", pair.source, pair.destination, pair.locality),
            cells: [&pair.source, &pair.destination, &pair.locality]
                .into_iter()
                .map(cell)
                .chain(cells_of(amount))
                .collect(),
            locality: pair.locality.clone(),
        };
        Self { columns, lines: readings.zones.iter().map(line).collect() }
    }

    /// The pairs of pods that are shown.
    pub(super) fn pairs(readings: &Readings, is_shown: impl Fn(&PodRoute) -> bool, unit: Unit) -> Self {
        let names = [text("SOURCE"), text("ZONE"), text("DESTINATION"), text("TO ZONE")];
        let locality = Column { is_wide: true, ..text("LOCALITY") };
        let columns = names.into_iter().chain([locality]).chain(units(unit)).collect();
        let line = |(pair, amount): (&PodRoute, &Amount)| {
            let (from, to) = (&pair.source, &pair.destination);
            let names = [from.name(), from.zone.clone(), to.name(), to.zone.clone(), pair.locality.clone()];
            Line {
                key: names.join("\n"),
                cells: names.into_iter().map(cell).chain(cells_of(amount)).collect(),
                locality: pair.locality.clone(),
            }
        };
        Self { columns, lines: readings.pairs.iter().filter(|(pair, _)| is_shown(pair)).map(line).collect() }
    }

    pub(super) fn workloads(readings: &Readings, unit: Unit) -> Self {
        let kind = Column { is_wide: true, ..text("KIND") };
        let sent = [number("SENT"), number("RECEIVED")];
        let columns = [text("WORKLOAD"), kind].into_iter().chain(sent).chain(units(unit)).collect();
        let line = |((workload, kind), traffic): ((String, String), WorkloadTraffic)| {
            let mut both = traffic.sent;
            both += traffic.received;
            let parts = [traffic.sent, traffic.received].map(|part| amount_cell(&part, unit));
            let key = format!("{workload}\n{kind}");
            let names = [cell(workload), cell(kind)];
            let cells = names.into_iter().chain(parts).chain(cells_of(&both)).collect();
            Line { key, cells, locality: "cross-zone".to_owned() }
        };
        Self { columns, lines: readings.workloads().into_iter().map(line).collect() }
    }

    pub(super) fn findings(advice: &Advice) -> Self {
        let confidence = Column { is_wide: true, ..text("CONFIDENCE") };
        let bytes = Column { is_wide: true, ..number("BYTES A MONTH") };
        let columns = vec![text("RULE"), text("SUBJECT"), text("CHANGE"), confidence, bytes, number("$/MONTH")];
        let line = |finding: &Finding| Line {
            key: finding.id.clone(),
            cells: vec![
                cell(&finding.rule),
                cell(&finding.subject),
                cell(&finding.action),
                cell(&finding.confidence),
                Cell { text: human(finding.bytes_per_month), value: finding.bytes_per_month as f64 },
                Cell { text: dollars(finding.usd_per_month), value: finding.usd_per_month },
            ],
            locality: String::new(),
        };
        Self { columns, lines: advice.findings.iter().map(line).collect() }
    }

    /// Keeps the lines that hold every word of a filter, in whatever case.
    pub(super) fn filter(&mut self, filter: &str) {
        let words: Vec<String> = filter.split_whitespace().map(str::to_lowercase).collect();
        let columns = &self.columns;
        let holds = |line: &Line, word: &String| {
            let names = line.cells.iter().zip(columns).filter(|(_, column)| !column.is_number);
            names.into_iter().any(|(cell, _)| cell.text.to_lowercase().contains(word))
        };
        self.lines.retain(|line| words.iter().all(|word| holds(line, word)));
    }

    /// The column that a table is sorted by.
    pub(super) fn sorted_column(&self, sort: Sort, unit: Unit) -> usize {
        let at = |title: &str| self.columns.iter().position(|column| column.title == title);
        sort.title.and_then(at).or_else(|| at(unit.title())).unwrap_or(self.columns.len().saturating_sub(1))
    }

    pub(super) fn sort(&mut self, sort: Sort, unit: Unit) {
        let at = self.sorted_column(sort, unit);
        let is_number = self.columns.get(at).is_some_and(|column| column.is_number);
        self.lines.sort_by(|one, other| {
            let (Some(a), Some(b)) = (one.cells.get(at), other.cells.get(at)) else { return Ordering::Equal };
            let order = if is_number { b.value.total_cmp(&a.value) } else { a.text.cmp(&b.text) };
            let order = if sort.is_reversed { order.reverse() } else { order };
            order.then_with(|| one.key.cmp(&other.key))
        });
    }
}
