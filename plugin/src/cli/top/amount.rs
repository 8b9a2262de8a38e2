//! Bytes with their rate and their cost, and how a person reads them. Sums keep what has no price apart.

use crate::units::human;
use std::{collections::BTreeMap, ops::AddAssign};

/// Seconds of a month of 730 hours.
const MONTH: f64 = 730.0 * 3600.0;

/// The number that is shown for traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unit {
    #[default]
    Rate,
    Total,
    Cost,
    Month,
}

impl Unit {
    pub(super) const ALL: [Self; 4] = [Self::Rate, Self::Total, Self::Cost, Self::Month];

    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|unit| *unit == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// The head of a column.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Rate => "RATE",
            Self::Total => "BYTES",
            Self::Cost => "COST",
            Self::Month => "$/MONTH",
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "bytes a second",
            Self::Total => "bytes counted so far",
            Self::Cost => "dollars for these bytes",
            Self::Month => "dollars a month at this rate",
        }
    }
}

/// The price of a pair of zones: dollars for a byte, the mean of what was recorded between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Price {
    pub(super) usd_per_byte: f64,
    /// Whether a part of the bytes has no price.
    pub(super) is_partial: bool,
}

/// Prices by source and destination zone; `None` is traffic without a price. Empty while no server has said any.
pub(super) type Prices = BTreeMap<(String, String), Option<Price>>;

/// The traffic of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    /// Bytes a second; `None` until there are two readings.
    pub(super) rate: Option<f64>,
    pub(super) cost: Option<f64>,
    pub(super) month: Option<f64>,
    /// Whether some of the bytes have no price.
    pub(super) is_partial: bool,
    /// Whether prices are known, though perhaps not that of these bytes.
    pub(super) has_prices: bool,
}

impl Amount {
    /// The same, with what it costs between two zones.
    pub(super) fn priced(mut self, prices: &Prices, source: &str, destination: &str) -> Self {
        self.has_prices = !prices.is_empty();
        let price = prices.get(&(source.to_owned(), destination.to_owned())).copied().flatten();
        self.cost = price.map(|price| self.bytes as f64 * price.usd_per_byte);
        self.month = price.zip(self.rate).map(|(price, rate)| rate * MONTH * price.usd_per_byte);
        self.is_partial = price.is_none_or(|price| price.is_partial) && self.bytes > 0;
        self
    }

    /// The number to sort by; what is not known comes last.
    pub(super) fn value(&self, unit: Unit) -> f64 {
        let known = match unit {
            Unit::Rate => self.rate,
            Unit::Total => Some(self.bytes as f64),
            Unit::Cost => self.cost,
            Unit::Month => self.month,
        };
        known.unwrap_or(-1.0)
    }

    pub(super) fn text(&self, unit: Unit) -> String {
        let dollars = |usd: Option<f64>| match usd {
            Some(usd) => format!("{}{}", dollars(usd), if self.is_partial { "+" } else { "" }),
            None if self.bytes == 0 => dollars(0.0),
            None => "unpriced".to_owned(),
        };
        match unit {
            Unit::Rate => self.rate.map_or_else(|| "-".to_owned(), |rate| format!("{}/s", human(rate as u64))),
            Unit::Total => human(self.bytes),
            Unit::Cost | Unit::Month if !self.has_prices => "-".to_owned(),
            Unit::Cost => dollars(self.cost),
            Unit::Month if self.rate.is_none() => "-".to_owned(),
            Unit::Month => dollars(self.month),
        }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        let sum = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (None, other) => other,
            (one, None) => one,
            (Some(one), Some(other)) => Some(one + other),
        };
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.packets = self.packets.saturating_add(other.packets);
        self.rate = sum(self.rate, other.rate);
        self.cost = sum(self.cost, other.cost);
        self.month = sum(self.month, other.month);
        self.is_partial |= other.is_partial;
        self.has_prices |= other.has_prices;
    }
}

/// Dollars as people read them.
pub(super) fn dollars(usd: f64) -> String {
    if usd <= 0.0 {
        return "$0".to_owned();
    }
    if usd >= 1000.0 {
        return format!("${}", crate::units::grouped(usd.round() as u64));
    }
    if usd >= 0.01 {
        return format!("${usd:.2}");
    }
    // Two significant digits.
    let places = 1 - usd.log10().floor() as i32;
    format!("${usd:.*}", usize::try_from(places).unwrap_or_default().min(12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_short_and_never_zero_for_something() {
        let texts = [0.0, 0.000_638_4, 0.0099, 0.01, 12.5, 999.994, 1234.5].map(dollars);
        assert_eq!(texts, ["$0", "$0.00064", "$0.0099", "$0.01", "$12.50", "$999.99", "$1,235"]);
    }

    #[test]
    fn traffic_without_a_price_is_unpriced_and_marks_sums() {
        let price = Some(Price { usd_per_byte: 2e-11, is_partial: false });
        let prices = Prices::from([(("a".into(), "b".into()), price), (("a".into(), "unknown".into()), None)]);
        let traffic = Amount { bytes: 1_000_000_000, packets: 1, rate: Some(1000.0), ..Amount::default() };
        let known = traffic.priced(&prices, "a", "b");
        assert_eq!(known.text(Unit::Cost), "$0.02");
        assert_eq!(known.text(Unit::Month), "$0.05");
        let unknown = traffic.priced(&prices, "a", "unknown");
        assert_eq!([unknown.text(Unit::Cost), unknown.text(Unit::Month)], ["unpriced", "unpriced"]);
        let mut sum = known;
        sum += unknown;
        assert_eq!([sum.text(Unit::Cost), sum.text(Unit::Total)], ["$0.02+", "2.0 GB"]);
        let none = traffic.priced(&Prices::new(), "a", "b");
        assert_eq!(none.text(Unit::Cost), "-");
    }
}
