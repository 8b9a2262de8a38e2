//! A statement for people: a table, or a table of Markdown.

use super::{
    grid,
    rows::{Row, Statement, Sum},
    time::time,
};
use crate::{
    cost::{Rule, RulePrice},
    units::{grouped, human},
};
use std::fmt::Write;

/// Nodes that are named as silent.
const MAX_NAMED: usize = 5;

impl Statement {
    /// The statement as a table.
    pub fn table(&self) -> String {
        grid::aligned(&self.cells(), self.names().len()) + "\n" + &self.footer()
    }

    /// The statement as a table of Markdown.
    pub fn markdown(&self) -> String {
        grid::markdown(&self.cells(), self.names().len()) + "\n" + &self.footer()
    }

    /// The names of the parts of keys.
    fn names(&self) -> Vec<&str> {
        let named =
            self.rows.iter().map(|row| &row.key).find(|key| key.first().is_some_and(|(name, _)| name != "other"));
        named.map_or_else(|| vec![""], |key| key.iter().map(|(name, _)| name.as_str()).collect())
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let names = self.names();
        let mut header: Vec<String> = names.iter().map(|name| name.replace('_', " ").to_uppercase()).collect();
        let of_one_end = self.query.by.is_of_one_end();
        header.extend(if of_one_end { vec!["SENT", "RECEIVED"] } else { vec!["BYTES"] }.into_iter().map(str::to_owned));
        header.extend(["USD", "USD/MONTH", "UNPRICED"].map(str::to_owned));
        let mut rows = vec![header];
        let sum = |key: Vec<String>, sum: &Sum| {
            let mut cells = key;
            cells.push(human(sum.counter.bytes));
            if of_one_end {
                cells.push(human(sum.received.bytes));
            }
            cells.push(sum.cost.human());
            cells.push(self.monthly(sum).map_or_else(|| "-".to_owned(), |cost| cost.human()));
            cells.push(if sum.unpriced_bytes == 0 { "-".to_owned() } else { human(sum.unpriced_bytes) });
            cells
        };
        for Row { key, sum: of_row } in &self.rows {
            let mut values: Vec<String> = match key.as_slice() {
                [(name, count)] if name == "other" => vec![format!("{count} others")],
                _ => {
                    key.iter().map(|(_, value)| if value.is_empty() { "-".to_owned() } else { value.clone() }).collect()
                }
            };
            values.resize(names.len(), String::new());
            rows.push(sum(values, of_row));
        }
        let mut values = vec!["total".to_owned()];
        values.resize(names.len(), String::new());
        rows.push(sum(values, &self.total));
        rows
    }

    /// The cost of a sum in a month of 730 hours at this rate, if anything was recorded.
    pub fn monthly(&self, sum: &Sum) -> Option<crate::cost::Money> {
        let seconds = self.coverage.recorded_seconds();
        (seconds > 0).then(|| sum.cost.scaled(730 * 3600, seconds))
    }

    /// When, and how much of it was seen.
    fn footer(&self) -> String {
        let coverage = &self.coverage;
        let (recorded, seconds) = (coverage.recorded_seconds(), coverage.seconds());
        let percent = recorded.saturating_mul(100).checked_div(seconds).unwrap_or_default().min(100);
        let mut text = format!(
            "{} to {}; recorded {percent} % of the time, {} nodes",
            time(self.from),
            time(self.to),
            coverage.nodes()
        );
        let silent: Vec<(&str, u64)> = coverage.silent().collect();
        if !silent.is_empty() {
            let named: Vec<String> = silent
                .iter()
                .take(MAX_NAMED)
                .map(|(node, percent)| format!("{} ({percent} %)", grid::one_line(node)))
                .collect();
            let more = silent.len().saturating_sub(MAX_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            // Writing to a string can't fail.
            let _ = write!(text, ", partly silent: {}{more}", named.join(", "));
        }
        let _ = write!(
            text,
            "\n{} bytes belong to no single workload, {} bytes have an unknown zone.\n",
            grouped(coverage.unattributed_bytes),
            grouped(coverage.unknown_bytes)
        );
        if let Some(reason) = &self.approximate {
            // Writing to a string can't fail.
            let _ = writeln!(text, "Approximate: {reason}.");
        }
        if let Some(comparison) = &self.comparison {
            // Writing to a string can't fail.
            let _ = writeln!(text, "\n{}", comparison.verdict());
        }
        for (at, state) in self.budgets.iter().enumerate() {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{}{}", if at == 0 { "\n" } else { "" }, state.line());
        }
        if self.query.explain {
            text.push_str(&self.explanation());
        }
        text
    }

    /// The rules with their prices, and why bytes have none.
    fn explanation(&self) -> String {
        let mut text = String::new();
        for Rule { id, terms, as_of, source, .. } in &self.rules {
            // Writing to a string can't fail.
            let _ = match terms {
                RulePrice::Prices { sender, receiver, unit } => {
                    let day = if as_of.is_empty() { String::new() } else { format!(", as of {as_of}") };
                    let unit = unit.name();
                    writeln!(text, "\n{id}: sender {sender}, receiver {receiver} USD per {unit}{day}\n  {source}")
                }
                RulePrice::Unpriced(_) => Ok(()),
            };
        }
        for (reason, bytes) in &self.unpriced {
            let _ = writeln!(text, "\n{} bytes are unpriced: {reason}", grouped(*bytes));
        }
        text
    }
}
