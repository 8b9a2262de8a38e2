//! The forms of a reconciliation: tables, JSON and CSV.

use super::reconciliation::{Reason, Reconciliation, Row};
use crate::{
    statement::{OutputFormat, csv_field, grid},
    units::human,
};
use serde_json::{Value, json};
use std::fmt::Write;

/// Columns of text.
const LEFT: usize = 4;

impl Reconciliation {
    /// The reconciliation in a form.
    pub fn form(&self, form: OutputFormat) -> String {
        match form {
            OutputFormat::Table => grid::aligned(&self.cells(), LEFT) + "\n" + &self.footer(),
            OutputFormat::Markdown => grid::markdown(&self.cells(), LEFT) + "\n" + &self.footer(),
            OutputFormat::Json => self.json().to_string() + "\n",
            OutputFormat::Csv => self.csv(),
        }
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let names = ["DAY", "NODE", "RESOURCE", "POSSIBLE CAUSES", "BILLED", "MEASURED", "COVERAGE", "DIFFERENCE"];
        let mut rows = vec![names.map(str::to_owned).to_vec()];
        let total = Row { node: "total".to_owned(), ..self.total.clone() };
        for row in self.rows.iter().chain([&total]) {
            let name = |name: &str| if name.is_empty() { "-".to_owned() } else { name.to_owned() };
            let day = row.day.map_or_else(|| "-".to_owned(), |day| day.to_string());
            let coverage = row.coverage().map_or_else(|| "-".to_owned(), |hundredths| percent(hundredths) + " %");
            let reasons: Vec<&str> = row.reasons.keys().map(|reason| reason.name()).collect();
            rows.push(vec![
                day,
                name(&row.node),
                name(&row.resource),
                name(&reasons.join(", ")),
                human(row.billed),
                human(row.measured),
                coverage,
                rest(row),
            ]);
        }
        rows
    }

    /// The sums of the reasons, and a hint.
    fn footer(&self) -> String {
        let (first, last) = self.days;
        // Writing to a string can't fail.
        let mut text = format!("{first} to {last}, in UTC.");
        for (reason, bytes) in &self.total.reasons {
            let _ = write!(text, " {}: {}.", reason.name(), human(*bytes));
        }
        text.push('\n');
        text.push_str(&self.note().map(|note| note.to_owned() + "\n").unwrap_or_default());
        text
    }

    fn note(&self) -> Option<&'static str> {
        self.looks_binary()
            .then_some("The measured bytes are 1.07 times those billed: the bill's GB are 2^30 bytes. Try --unit GiB.")
    }

    fn json(&self) -> Value {
        let (first, last) = self.days;
        json!({
            "from": first.to_string(),
            "to": last.to_string(),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "total": sums(&self.total),
            "note": self.note(),
        })
    }

    fn csv(&self) -> String {
        let mut text = "day,node,resource,billed_bytes,measured_bytes,coverage_percent,reasons\n".to_owned();
        for row in &self.rows {
            let reasons: Vec<String> =
                row.reasons.iter().map(|(reason, bytes)| format!("{}: {bytes}", reason.name())).collect();
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{}",
                row.day.map(|day| day.to_string()).unwrap_or_default(),
                csv_field(&row.node),
                csv_field(&row.resource),
                row.billed,
                row.measured,
                row.coverage().map(percent).unwrap_or_default(),
                csv_field(&reasons.join("; ")),
            );
        }
        text
    }
}

fn row(row: &Row) -> Value {
    let mut value = sums(row);
    value["day"] = row.day.map(|day| day.to_string()).into();
    value["node"] = row.node.as_str().into();
    value["resource"] = row.resource.as_str().into();
    value
}

fn sums(row: &Row) -> Value {
    let reason = |(reason, bytes): (&Reason, &u64)| json!({ "reason": reason.name(), "bytes": bytes });
    json!({
        "billed_bytes": row.billed,
        "measured_bytes": row.measured,
        "coverage_percent": row.coverage().map(percent),
        "reasons": row.reasons.iter().map(reason).collect::<Vec<_>>(),
    })
}

/// Hundredths of a percent as a number.
fn percent(hundredths: u64) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// The billed bytes that were not measured; a plus for bytes beyond the bill.
fn rest(row: &Row) -> String {
    let sign = if row.measured > row.billed { "+" } else { "" };
    sign.to_owned() + &human(row.billed.abs_diff(row.measured))
}
