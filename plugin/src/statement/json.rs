//! A statement as JSON and as CSV. Money is a decimal number with all its digits, as a text.

use super::{
    budgets::BudgetState,
    coverage::Coverage,
    grid,
    group::Key,
    rows::{Row, Statement, Sum},
    time::time,
};
use crate::cost::Rule;
use serde_json::{Map, Value, json};
use std::fmt::Write;

impl Statement {
    /// The statement as JSON.
    pub fn json(&self) -> Value {
        let mut value = json!({
            "from": time(self.from),
            "to": time(self.to),
            "coverage": coverage(&self.coverage),
            "rows": self.rows.iter().map(|row| self.row(row)).collect::<Vec<_>>(),
            "total": self.sum(&self.total),
        });
        if let Some(reason) = &self.approximate {
            value["approximate"] = reason.as_str().into();
        }
        if let Some(comparison) = &self.comparison {
            value["comparison"] = comparison.json();
        }
        if !self.budgets.is_empty() {
            value["budgets"] = self.budgets.iter().map(BudgetState::json).collect();
        }
        if self.query.explain {
            value["rules"] = self.rules.iter().map(rule).collect();
            value["unpriced"] = json!(self.unpriced);
        }
        value
    }

    fn row(&self, row: &Row) -> Value {
        let mut value = Map::new();
        value.insert("key".into(), object(&row.key));
        if let Value::Object(sum) = self.sum(&row.sum) {
            value.extend(sum);
        }
        Value::Object(value)
    }

    fn sum(&self, sum: &Sum) -> Value {
        let mut value = json!({
            "bytes": sum.counter.bytes,
            "packets": sum.counter.packets,
            "cost": {
                "usd": sum.cost.exact(),
                "usd_per_month": self.monthly(sum).map(|cost| cost.estimated().exact()),
                "unpriced_bytes": sum.unpriced_bytes,
                "rules": sum.rules,
            },
        });
        if self.query.by.is_of_one_end() {
            value["received_bytes"] = sum.received.bytes.into();
            value["received_packets"] = sum.received.packets.into();
        }
        value
    }

    /// The rows as CSV, with a line of names.
    pub fn csv(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|row| &row.key) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let mut text: String = names.iter().flat_map(|name| [field(name), ",".to_owned()]).collect();
        text.push_str("bytes,packets,received_bytes,received_packets,usd,unpriced_bytes,rules\n");
        for Row { key, sum } in &self.rows {
            for name in &names {
                let value = key.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
                text.push_str(&field(&grid::one_line(value)));
                text.push(',');
            }
            let rules: Vec<&str> = sum.rules.iter().map(String::as_str).collect();
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{}",
                sum.counter.bytes,
                sum.counter.packets,
                sum.received.bytes,
                sum.received.packets,
                sum.cost.exact(),
                sum.unpriced_bytes,
                field(&rules.join(" "))
            );
        }
        text
    }
}

/// A field of CSV. Text that a spreadsheet would take for a formula is quoted with an apostrophe.
pub(crate) fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// A price rule as JSON.
fn rule(rule: &Rule) -> Value {
    let mut value = json!({ "id": rule.id, "as_of": rule.as_of, "source": rule.source });
    rule.terms.add_to(&mut value);
    value
}

pub(super) fn object(key: &Key) -> Value {
    Value::Object(key.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect())
}

fn coverage(coverage: &Coverage) -> Value {
    let silent: Vec<Value> =
        coverage.silent().map(|(node, percent)| json!({ "node": node, "percent": percent })).collect();
    json!({
        "seconds": coverage.seconds(),
        "recorded_seconds": coverage.recorded_seconds(),
        "nodes": coverage.nodes(),
        "silent_nodes": silent,
        "unattributed_bytes": coverage.unattributed_bytes,
        "unknown_bytes": coverage.unknown_bytes,
    })
}
