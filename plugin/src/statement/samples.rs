//! Sums of a range by the hour of the week, to compare it with another one. Estimates: numbers here are rounded.

use super::{comparison::Comparison, query::Query, summary::Summary};
use crate::{
    cost::PriceTable,
    history::{Block, Span},
};
use std::collections::BTreeMap;

/// Hours of a week, and of a month.
const WEEK: u64 = 7 * 24;
const MONTH: f64 = 730.0;
/// A part of the compared hours that a week needs to count as one.
const WEEK_PART: f64 = 0.5;

/// Sums of one range by the hour of the week.
#[derive(Debug)]
pub struct Samples<'a> {
    query: Query,
    prices: &'a PriceTable,
    range: (u64, u64),
    /// By the number of the week and the hour in it.
    hours: BTreeMap<(u64, u64), Rate>,
}

/// Traffic of some seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    seconds: f64,
    bytes: f64,
    dollars: f64,
}

impl Rate {
    fn add(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.bytes += other.bytes;
        self.dollars += other.dollars;
    }

    /// Bytes and dollars of an hour.
    fn hourly(self) -> [f64; 2] {
        [self.bytes, self.dollars].map(|sum| sum * f64::from(Span::HOUR) / self.seconds)
    }
}

impl<'a> Samples<'a> {
    /// Samples of a range, for a query with these prices.
    pub fn new(query: &Query, prices: &'a PriceTable, range: (u64, u64)) -> Self {
        Self { query: query.clone(), prices, range, hours: BTreeMap::new() }
    }

    /// Adds a block. A day counts for each of its hours alike.
    pub fn add(&mut self, block: &Block) {
        let seconds = f64::from(block.coverage.recorded_seconds);
        if seconds == 0.0 {
            return;
        }
        let mut summary = Summary::new(self.query.clone(), self.prices);
        summary.add(block);
        let total = summary.finish().total;
        let dollars: f64 = total.cost.rounded(10).parse().unwrap_or_default();
        let hours = u64::from(block.span.seconds / Span::HOUR);
        let part = |sum: f64| sum / hours as f64;
        let rate = Rate { seconds: part(seconds), bytes: part(total.counter.bytes as f64), dollars: part(dollars) };
        let first = block.span.start / u64::from(Span::HOUR);
        for hour in first..first + hours {
            self.hours.entry((hour / WEEK, hour % WEEK)).or_default().add(rate);
        }
    }

    /// The rate of each hour of the week.
    fn by_hour(&self) -> BTreeMap<u64, Rate> {
        let mut by_hour: BTreeMap<u64, Rate> = BTreeMap::new();
        self.hours.iter().for_each(|((_, hour), rate)| by_hour.entry(*hour).or_default().add(*rate));
        by_hour
    }

    /// Bytes and dollars of a month, of each week that has enough of these hours.
    fn weeks(&self, hours: &[u64]) -> Vec<f64> {
        let mut weeks: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for ((week, hour), rate) in &self.hours {
            if hours.contains(hour) {
                weeks.entry(*week).or_default().push(rate.hourly()[0]);
            }
        }
        let enough = |rates: &Vec<f64>| rates.len() as f64 >= WEEK_PART * hours.len() as f64;
        let monthly = |rates: Vec<f64>| rates.iter().sum::<f64>() / rates.len() as f64 * MONTH;
        weeks.into_values().filter(enough).map(monthly).collect()
    }

    /// The change since an earlier range; `None` if they have no hour of the week in common.
    pub fn compared_with(&self, before: &Samples<'_>) -> Option<Comparison> {
        let (rates_before, rates_after) = (before.by_hour(), self.by_hour());
        let hours: Vec<u64> = rates_before.keys().copied().filter(|hour| rates_after.contains_key(hour)).collect();
        if hours.is_empty() {
            return None;
        }
        let monthly = |rates: &BTreeMap<u64, Rate>, at: usize| {
            hours.iter().map(|hour| rates[hour].hourly()[at]).sum::<f64>() / hours.len() as f64 * MONTH
        };
        let both = |at: usize| [monthly(&rates_before, at), monthly(&rates_after, at)];
        Some(Comparison {
            before: before.range,
            matched_hours: hours.len(),
            bytes_per_month: both(0),
            dollars_per_month: both(1),
            noise: deviation(&before.weeks(&hours)),
        })
    }
}

/// The standard deviation of some numbers, and how many there are.
fn deviation(numbers: &[f64]) -> Option<(f64, usize)> {
    let count = numbers.len();
    if count < 2 {
        return None;
    }
    let mean = numbers.iter().sum::<f64>() / count as f64;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    Some(((squares / (count - 1) as f64).sqrt(), count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Builder, Ends, TransferService, Workload},
        zones::{Location, Place, Provider, Zone},
    };
    use meridian_abi::Counter;
    use std::sync::Arc;

    fn block(hour: u64, gigabytes: f64, seconds: u32) -> Block {
        let site = |name: &str| Location {
            provider: Provider::new("aws"),
            place: Place::Zone(Arc::new(Zone { name: name.into(), region: "us-east-1".into() })),
            class: None,
        };
        let mut builder = Builder::new(Span::hour_of(hour * 3600), 10);
        let (workload, sites) = (Workload::default(), [site("us-east-1a"), site("us-east-1b")]);
        let counter = Counter { bytes: (gigabytes * 1e9) as u64, packets: 1 };
        builder.add(Ends { workloads: [&workload; 2], sites: sites.each_ref() }, TransferService::default(), counter);
        builder.add_recorded(seconds);
        builder.block()
    }

    /// Weeks of hours, busy by day; each week by another factor.
    fn samples<'a>(prices: &'a PriceTable, first: u64, factors: &[f64]) -> Samples<'a> {
        let mut samples = Samples::new(&Query::default(), prices, (first * 3600, 0));
        for (week, factor) in factors.iter().enumerate() {
            for hour in 0..WEEK {
                let load = if hour % 24 < 12 { 1.0 } else { 3.0 };
                samples.add(&block(first + week as u64 * WEEK + hour, load * factor, 3600));
            }
        }
        samples
    }

    #[test]
    fn a_change_is_shown_with_the_noise_of_the_weeks_before() {
        let prices = PriceTable::default();
        let before = samples(&prices, 0, &[1.0, 1.1, 0.9]);
        let after = samples(&prices, 3 * WEEK, &[0.5]);
        let comparison = after.compared_with(&before).unwrap();
        assert_eq!((comparison.matched_hours, comparison.is_beyond_noise()), (168, Some(true)));
        // 2 GB an hour on average, at 0.02.
        let [usd_before, usd_after] = comparison.dollars_per_month;
        assert!((usd_before - 29.2).abs() < 0.01 && (usd_after - 14.6).abs() < 0.01, "{comparison:?}");
        let verdict = comparison.verdict();
        assert!(
            verdict.starts_with(
                "730.0 GB a month less (-50.0 %) and 14.60 USD a month less than before: more than the 3 weeks"
            ),
            "{verdict}"
        );
        let same = samples(&prices, 3 * WEEK, &[1.05]).compared_with(&before).unwrap();
        assert_eq!(same.is_beyond_noise(), Some(false));
        assert_eq!(after.compared_with(&samples(&prices, 0, &[1.0])).unwrap().is_beyond_noise(), None);
    }

    #[test]
    fn only_hours_of_the_week_that_both_have_are_compared() {
        let prices = PriceTable::default();
        let before = samples(&prices, 0, &[1.0, 1.0]);
        let mut after = Samples::new(&Query::default(), &prices, (0, 0));
        // Two busy hours alone; one of them was half recorded.
        after.add(&block(2 * WEEK + 12, 3.0, 3600));
        after.add(&block(2 * WEEK + 13, 1.5, 1800));
        let comparison = after.compared_with(&before).unwrap();
        let [bytes_before, bytes_after] = comparison.bytes_per_month;
        assert!(comparison.matched_hours == 2 && (bytes_before - bytes_after).abs() < 1.0, "{comparison:?}");
        assert!(Samples::new(&Query::default(), &prices, (0, 0)).compared_with(&before).is_none());
    }
}
