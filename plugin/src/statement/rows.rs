//! A statement and its rows.

use super::{budgets::BudgetState, comparison::Comparison, coverage::Coverage, group::Key, query::Query};
use crate::cost::{Money, Rule};
use meridian_abi::Counter;
use std::collections::{BTreeMap, BTreeSet};

/// A sum with its cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Bytes and packets. Where rows are of one end each, those that it sent.
    pub counter: Counter,
    /// With a key of one end, the received bytes; otherwise the same.
    pub received: Counter,
    /// The cost, as far as there are prices.
    pub cost: Money,
    /// Bytes that have no price.
    pub unpriced_bytes: u64,
    /// The rules that were used.
    pub rules: BTreeSet<String>,
}

impl Sum {
    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.counter, other.counter);
        add(&mut self.received, other.received);
        self.cost += other.cost;
        self.unpriced_bytes = self.unpriced_bytes.saturating_add(other.unpriced_bytes);
        self.rules.extend(other.rules.iter().cloned());
    }
}

/// A row of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key of the row, by the names of its parts; empty for the row of further rows.
    pub key: Key,
    /// Its sum.
    pub sum: Sum,
}

/// Traffic, with its cost.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The query.
    pub query: Query,
    /// The first second, since 1970 in UTC.
    pub from: u64,
    /// The second after the last one.
    pub to: u64,
    /// How much of that was seen.
    pub coverage: Coverage,
    /// The rows, the most expensive first, then those with the most bytes.
    pub rows: Vec<Row>,
    /// The sum of all rows.
    pub total: Sum,
    /// The rules that were used, in the order of the price table.
    pub rules: Vec<Rule>,
    /// Bytes without a price, by the reason.
    pub unpriced: BTreeMap<String, u64>,
    /// The change since an earlier range, if requested.
    pub comparison: Option<Comparison>,
    /// Why the sums are approximate, if they are.
    pub approximate: Option<String>,
    /// The budgets, if there are any: of the present month, whatever was asked.
    pub budgets: Vec<BudgetState>,
}

/// Adds to a sum; one that is too large stays at the largest number.
pub(super) const fn add(sum: &mut Counter, counter: Counter) {
    sum.bytes = sum.bytes.saturating_add(counter.bytes);
    sum.packets = sum.packets.saturating_add(counter.packets);
}
