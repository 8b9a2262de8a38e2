//! Advice for people: a table, one finding in full, and Markdown.

use super::{
    Advice,
    finding::{Finding, Monthly},
    form::line,
};
use crate::{statement::grid, units::human};
use std::fmt::Write;

impl Advice {
    /// The findings, two lines each, and the sum.
    pub fn table(&self) -> String {
        if self.is_too_early() {
            return self.too_early();
        }
        let mut text = String::new();
        // Writing to a string can't fail.
        if !self.findings.is_empty() {
            let _ = writeln!(text, "{:<12} {:>10} {:>10}  {:<10} SUBJECT", "ID", "USD/MONTH", "A MONTH", "CONFIDENCE");
        }
        for finding in &self.findings {
            let Finding { id, subject, action, confidence, .. } = finding;
            let (usd, bytes) = (finding.usd(), human(finding.shown().bytes));
            let _ = writeln!(text, "{id:<12} {usd:>10} {bytes:>10}  {:<10} {}", confidence.name(), line(subject));
            let _ = writeln!(text, "{:>36}{}", "", line(action));
        }
        let _ = writeln!(text, "{}{}", if self.findings.is_empty() { "" } else { "\n" }, self.sum());
        text
    }

    fn too_early(&self) -> String {
        let hours = |ms: u64| format!("{}.{} h", ms / 3_600_000, ms % 3_600_000 / 360_000);
        format!(
            "Too early: {} of this range are recorded, and advice needs {}; --min-data asks for less.\n",
            hours(self.recorded_ms),
            hours(self.needed_ms)
        )
    }

    fn sum(&self) -> String {
        let Monthly { cost, bytes, unpriced_bytes } = self.crossing;
        let mut text = format!(
            "{} of {} USD a month between zones and regions ({}) could be saved.",
            self.saving.cost.rounded(2),
            cost.rounded(2),
            human(bytes)
        );
        if unpriced_bytes > 0 {
            let _ = write!(text, " {} a month have no price.", human(unpriced_bytes));
        }
        if self.below_floor + self.above_cap > 0 {
            let (below, above) = (self.below_floor, self.above_cap);
            let _ = write!(text, " Not shown: {below} below the floor, {above} above the cap.");
        }
        if self.left_out_bytes > 0 {
            let _ = write!(text, " {} are of pairs for which there was no room.", human(self.left_out_bytes));
        }
        text
    }

    /// The findings as Markdown.
    pub(super) fn markdown(&self) -> String {
        if self.is_too_early() {
            return self.too_early();
        }
        let mut text = String::from(
            "| id | USD a month | subject | what to do | confidence | state |\n|---|---:|---|---|---|---|\n",
        );
        for finding in &self.findings {
            let Finding { id, subject, action, confidence, state, .. } = finding;
            let (subject, action) = (cell(subject), cell(action));
            let (confidence, state) = (confidence.name(), state.name());
            let _ = writeln!(text, "| {id} | {} | {subject} | {action} | {confidence} | {state} |", finding.usd());
        }
        let _ = writeln!(text, "\n{}", self.sum());
        text
    }
}

impl Finding {
    /// The saving, or the explained traffic if nothing is saved.
    fn shown(&self) -> Monthly {
        if self.is_explained() { self.traffic } else { self.saving }
    }

    fn is_explained(&self) -> bool {
        self.saving == Monthly::default()
    }

    /// The dollars of a month; a dash where nothing has a price.
    fn usd(&self) -> String {
        let shown = self.shown();
        if self.is_explained() {
            "0.00".to_owned()
        } else if shown.bytes > 0 && shown.unpriced_bytes == shown.bytes {
            "unpriced".to_owned()
        } else {
            shown.cost.rounded(2)
        }
    }

    /// All of a finding.
    pub(super) fn explanation(&self) -> String {
        let Self { id, rule, subject, action, saving, traffic, evidence, risk, patch, confidence, state } = self;
        let mut text = String::new();
        let mut add = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<11} {}", line(value));
        };
        add("finding", &format!("{id} (rule {}, {})", rule.number(), state.name()));
        add("subject", subject);
        add("do", action);
        let of = |amount: &Monthly| {
            let unpriced = amount.unpriced_bytes;
            let unpriced = if unpriced > 0 { format!(", {} without a price", human(unpriced)) } else { String::new() };
            format!("{} USD a month, {}{unpriced}", amount.cost.rounded(2), human(amount.bytes))
        };
        add("saves", &of(saving));
        add("of", &format!("{} between zones", of(traffic)));
        add("confidence", confidence.name());
        for (name, lines) in [("evidence", evidence), ("risk", risk)] {
            for (at, one) in lines.iter().enumerate() {
                add(if at == 0 { name } else { "" }, one);
            }
        }
        match patch {
            Some(patch) => text.push_str(&format!("\n{}", patch.shell())),
            None => text.push_str("\nNo change of an object does this.\n"),
        }
        text
    }
}

fn cell(text: &str) -> String {
    grid::markdown_cell(&line(text))
}
