//! A statement over time: the sums of its rows in each hour or day that there is a block of. Pure.
//!
//! An hour without a block has no point, and is not zero.

use super::{
    group::{self, Key},
    json::object,
    query::Query,
    rows::{Statement, Sum},
    summary::Summary,
    time::time,
};
use crate::{
    cost::PriceTable,
    history::{Block, Span},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// The largest number of rows of a series, and of its points.
pub const MAX_ROWS: usize = 50;
/// The largest number of points.
pub const MAX_POINTS: usize = 2_000;

/// The length of the points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// As the history has it: hours, and days where there are no hours any more.
    #[default]
    Hour,
    /// Days in UTC.
    Day,
}

/// Sums by row and time.
#[derive(Debug)]
pub struct Series<'a> {
    query: Query,
    prices: &'a PriceTable,
    step: Step,
    /// The rows of their own by their place; all others are one.
    places: HashMap<Key, usize>,
    keys: Vec<Key>,
    points: BTreeMap<Span, Point>,
    omitted_points: usize,
}

/// The sums of one hour or day.
#[derive(Clone, Debug, Default)]
struct Point {
    recorded_seconds: u64,
    rows: Vec<Sum>,
    others: Sum,
    total: Sum,
}

impl<'a> Series<'a> {
    /// The series of the rows of a statement, of which at most [`MAX_ROWS`] are rows of their own.
    pub fn new(statement: &Statement, prices: &'a PriceTable, step: Step) -> Self {
        let is_row = |key: &&Key| key.first().is_none_or(|(name, _)| name != "other");
        let keys: Vec<Key> = statement.rows.iter().map(|row| &row.key).filter(is_row).take(MAX_ROWS).cloned().collect();
        let places = keys.iter().cloned().enumerate().map(|(place, key)| (key, place)).collect();
        let query = Query { top: None, explain: false, ..statement.query.clone() };
        Self { query, prices, step, places, keys, points: BTreeMap::new(), omitted_points: 0 }
    }

    /// Adds a block.
    pub fn add(&mut self, block: &Block) {
        let span = match self.step {
            Step::Hour => block.span,
            Step::Day => Span::day_of(block.span.start),
        };
        if self.points.len() >= MAX_POINTS && !self.points.contains_key(&span) {
            self.omitted_points += 1;
            return;
        }
        let mut summary = Summary::new(self.query.clone(), self.prices);
        summary.add(block);
        let statement = summary.finish();
        let point = self.points.entry(span).or_default();
        point.rows.resize(self.keys.len(), Sum::default());
        point.recorded_seconds += u64::from(block.coverage.recorded_seconds);
        point.total.add(&statement.total);
        for row in &statement.rows {
            match self.places.get(&row.key) {
                Some(place) => point.rows[*place].add(&row.sum),
                None => point.others.add(&row.sum),
            }
        }
    }

    /// The series as JSON.
    pub fn json(&self, from: u64, to: u64) -> Value {
        let point = |(span, point): (&Span, &Point)| json!({ "from": time(span.start), "seconds": span.seconds, "recorded_seconds": point.recorded_seconds });
        let row = |(place, key): (usize, &Key)| {
            let mut value = self.sums(|point| &point.rows[place]);
            value["key"] = object(key);
            value
        };
        let mut rows: Vec<Value> = self.keys.iter().enumerate().map(row).collect();
        if self.points.values().any(|point| point.others != Sum::default()) {
            let mut others = self.sums(|point| &point.others);
            others["key"] = object(&group::others_of_a_series());
            rows.push(others);
        }
        json!({
            "from": time(from),
            "to": time(to),
            "points": self.points.iter().map(point).collect::<Vec<_>>(),
            "omitted_points": self.omitted_points,
            "rows": rows,
            "total": self.sums(|point| &point.total),
        })
    }

    fn sums(&self, of: impl Fn(&Point) -> &Sum) -> Value {
        let all = |value: fn(&Sum) -> Value| self.points.values().map(|point| value(of(point))).collect::<Vec<_>>();
        json!({
            "bytes": all(|sum| sum.counter.bytes.into()),
            "usd": all(|sum| sum.cost.exact().into()),
            "unpriced_bytes": all(|sum| sum.unpriced_bytes.into()),
        })
    }
}
