//! The monthly cost of the demo's traffic at its rate.

use crate::{
    cost::Money,
    statement::{Row, Statement},
    units::human,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// A month of 730 hours, in milliseconds.
const MONTH_MS: u64 = 730 * 3600 * 1000;

/// The cost of the demo's traffic, by workload.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// The sum of the rows.
    usd_per_month_at_this_rate: String,
    rows: Vec<CostRow>,
    unpriced_bytes: u64,
    #[serde(skip)]
    total: Money,
}

#[derive(Clone, Debug, Serialize)]
struct CostRow {
    key: BTreeMap<String, String>,
    /// Sent and received between zones and regions.
    bytes: u64,
    received_bytes: u64,
    usd: String,
    usd_per_month_at_this_rate: String,
    unpriced_bytes: u64,
    rules: Vec<String>,
    #[serde(skip)]
    monthly: Money,
}

impl Cost {
    /// The monthly cost of a statement.
    pub fn new(statement: &Statement, elapsed: Duration) -> Self {
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let row = |Row { key, sum }: &Row| {
            let monthly = sum.cost.scaled(MONTH_MS, elapsed).estimated();
            CostRow {
                key: key.iter().cloned().collect(),
                bytes: sum.counter.bytes,
                received_bytes: sum.received.bytes,
                usd: sum.cost.exact(),
                usd_per_month_at_this_rate: monthly.exact(),
                unpriced_bytes: sum.unpriced_bytes,
                rules: sum.rules.iter().cloned().collect(),
                monthly,
            }
        };
        let rows: Vec<CostRow> = statement.rows.iter().map(row).collect();
        let total: Money = rows.iter().map(|row| row.monthly).sum();
        let unpriced_bytes = statement.total.unpriced_bytes;
        Self { usd_per_month_at_this_rate: total.exact(), rows, unpriced_bytes, total }
    }

    /// The cost for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "\n{:<12} {:<24} {:>10} {:>10} {:>12}  RULES\n",
            "NAMESPACE", "WORKLOAD", "SENT", "RECEIVED", "USD/MONTH"
        );
        for row in &self.rows {
            let part = |name: &str| row.key.get(name).filter(|value| !value.is_empty()).map_or("-", |value| value);
            let kind = part("kind");
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "{:<12} {:<24} {:>10} {:>10} {:>12}  {}",
                part("namespace"),
                if kind == "-" { "-".to_owned() } else { format!("{kind} {}", part("workload")) },
                human(row.bytes),
                human(row.received_bytes),
                row.monthly.rounded(2),
                row.rules.join(", "),
            );
        }
        let _ = writeln!(
            text,
            "\nAt this rate the traffic between zones and regions costs {} USD a month; {} bytes have no price.",
            self.total.rounded(2),
            crate::units::grouped(self.unpriced_bytes)
        );
        text
    }
}
