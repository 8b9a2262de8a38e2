//! What a calendar month has cost so far of each budget, and the projection to its end.

use super::query::Query;
use crate::{
    budget::{Budget, Budgets, Scope},
    cost::{Money, PriceTable, Quote},
    history::{Block, Span, Transfer, Workload},
    zones::Locality,
};
use ahash::AHashMap;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

/// The time before now whose rate the rest of the month is projected with.
const RECENT: u64 = 7 * Span::DAY as u64;

/// The state of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetState {
    /// The budget.
    pub budget: Budget,
    /// The cost of the recorded traffic of the month so far: each end's own price.
    pub spent: Money,
    /// The same at the end of the month, at the rate of the last seven days.
    pub projected: Money,
    /// Bytes of the month that have no price.
    pub unpriced_bytes: u64,
}

/// Sums blocks up by budget.
#[derive(Debug)]
pub struct BudgetSums<'a> {
    budgets: &'a Budgets,
    prices: &'a PriceTable,
    now: u64,
    /// The first second of the month, and that of the next one.
    month: (u64, u64),
    spent: Vec<Money>,
    recent: Vec<Money>,
    unpriced: Vec<u64>,
    recent_seconds: u64,
}

impl<'a> BudgetSums<'a> {
    /// Sums up for the calendar month of `now`, in UTC, in seconds since 1970.
    pub fn new(budgets: &'a Budgets, prices: &'a PriceTable, now: u64) -> Self {
        let (spent, unpriced) = (vec![Money::ZERO; budgets.len()], vec![0; budgets.len()]);
        let month = month(now);
        Self { budgets, prices, now, month, recent: spent.clone(), spent, unpriced, recent_seconds: 0 }
    }

    /// The range of blocks that is needed.
    pub fn range(&self) -> (u64, u64) {
        let recent = Span::day_of(self.now.saturating_sub(RECENT)).start;
        (self.month.0.min(recent), Span::hour_of(self.now).end())
    }

    /// Adds a block.
    pub fn add(&mut self, block: &Block) {
        let is_of_month = block.span.start >= self.month.0;
        let is_recent = block.span.end() > self.now.saturating_sub(RECENT);
        if is_recent {
            self.recent_seconds = self.recent_seconds.saturating_add(block.coverage.recorded_seconds.into());
        }
        let of_workloads: Vec<Vec<usize>> = block.workloads.iter().map(|workload| self.budgets_of(workload)).collect();
        let mut quotes: AHashMap<[u32; 2], Option<Quote<'_>>> = AHashMap::new();
        for Transfer { key, counter } in &block.transfers {
            let [sender, receiver] = key.workloads.map(|workload| &of_workloads[workload as usize]);
            if sender.is_empty() && receiver.is_empty() {
                continue;
            }
            let quote = quotes.entry(key.sites).or_insert_with(|| {
                let [source, destination] = key.sites.map(|site| &block.sites[site as usize]);
                let locality = Locality::between(&source.place, &destination.place);
                Query::LOCALITIES.contains(&locality).then(|| self.prices.quote(source, destination))
            });
            let Some(quote) = quote else { continue };
            let Some(charge) = quote.cost(counter.bytes) else {
                let of_month = sender.iter().filter(|_| is_of_month);
                of_month.for_each(|at| self.unpriced[*at] = self.unpriced[*at].saturating_add(counter.bytes));
                continue;
            };
            for (budgets, cost) in [(sender, charge.sender), (receiver, charge.receiver)] {
                for at in budgets {
                    self.spent[*at] += if is_of_month { cost } else { Money::ZERO };
                    self.recent[*at] += if is_recent { cost } else { Money::ZERO };
                }
            }
        }
    }

    fn budgets_of(&self, workload: &Workload) -> Vec<usize> {
        let is_of = |budget: &Budget| match &budget.scope {
            Scope::Namespace(name) => workload.namespace == *name,
            Scope::Label { key, value } => workload.labels.get(key).is_some_and(|of_workload| of_workload == value),
        };
        self.budgets.iter().enumerate().filter(|(_, budget)| is_of(budget)).map(|(at, _)| at).collect()
    }

    /// The states, in the order of the budgets.
    pub fn finish(self) -> Vec<BudgetState> {
        let rest = self.month.1.saturating_sub(self.now);
        let state = |(at, budget): (usize, &Budget)| {
            let mut projected = self.spent[at];
            if self.recent_seconds > 0 {
                projected += self.recent[at].scaled(rest, self.recent_seconds);
            }
            let (spent, unpriced_bytes) = (self.spent[at], self.unpriced[at]);
            BudgetState { budget: budget.clone(), spent, projected: projected.estimated(), unpriced_bytes }
        };
        self.budgets.iter().enumerate().map(state).collect()
    }
}

impl BudgetState {
    /// One line for people.
    pub fn line(&self) -> String {
        let Self { budget: Budget { name, scope, limit }, spent, projected, .. } = self;
        let verdict = match () {
            () if spent > limit => ": passed",
            () if projected > limit => ": will be passed",
            () => "",
        };
        let (spent, limit, projected) = (spent.human(), limit.human(), projected.human());
        let name = if scope.to_string().ends_with(name.as_str()) { String::new() } else { format!("{name}, ") };
        format!("Budget of {name}{scope}: {spent} of {limit} USD this month, {projected} projected{verdict}.")
    }

    /// The state as JSON.
    pub fn json(&self) -> Value {
        let Self { budget: Budget { name, scope, limit }, spent, projected, unpriced_bytes } = self;
        json!({
            "name": name,
            "scope": scope.to_string(),
            "usd_per_month": limit.exact(),
            "spent_usd": spent.exact(),
            "projected_usd": projected.exact(),
            "unpriced_bytes": unpriced_bytes,
        })
    }
}

/// The first second of the calendar month of a second, in UTC, and that of the next one.
fn month(now: u64) -> (u64, u64) {
    let now = i64::try_from(now).ok().and_then(|now| Timestamp::from_second(now).ok()).unwrap_or_default();
    let date = now.to_zoned(TimeZone::UTC).date();
    let start = |date: jiff::civil::Date| {
        let zoned = date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp().as_second()).unwrap_or_default();
        u64::try_from(zoned).unwrap_or_default()
    };
    let next = date.last_of_month().tomorrow().unwrap_or_else(|_| date.last_of_month());
    (start(date.first_of_month()), start(next))
}
