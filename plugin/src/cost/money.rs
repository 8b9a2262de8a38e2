//! Amounts of money that are exact: prices, and the bytes times them.
//!
//! A byte costs a price divided by 10⁹ or by 2³⁰. The unit of [`Money`] divides both, so that the cost of any
//! number of bytes is a whole number of it, and sums do not depend on how they are grouped. Only displayed numbers are
//! rounded.

use std::{fmt, iter::Sum, ops::AddAssign};

/// Decimal places of a price after the discount.
const PLACES: u32 = 10;
/// Decimal places of a price in a file; the others are the discount's.
const PRICE_PLACES: u32 = 6;
/// Units in a dollar: 2³⁰ · 5⁹ times 10 to the power of [`PLACES`]. The largest amount is 16 · 10¹² dollars.
const DOLLAR: u128 = (1 << 40) * 5_u128.pow(19);
/// Units in 10⁻¹⁰ dollars for 10⁹ bytes, by byte: `DOLLAR` / 10¹⁹.
const BY_GB: u128 = 1 << 21;
/// Units in 10⁻¹⁰ dollars for 2³⁰ bytes, by byte: `DOLLAR` / (2³⁰ · 10¹⁰).
const BY_GIB: u128 = 5_u128.pow(9);
/// The highest price, in dollars: the cost of 2⁶⁴ bytes at it is an amount.
const MAX_DOLLARS: u64 = 100;

/// An amount of money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u128);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The dollars as a decimal number with all its digits.
    pub fn exact(self) -> String {
        let (mut rest, mut digits) = (self.0 % DOLLAR, String::new());
        while rest > 0 {
            rest *= 10;
            digits.push(char::from(b'0' + (rest / DOLLAR) as u8));
            rest %= DOLLAR;
        }
        let dollars = self.0 / DOLLAR;
        if digits.is_empty() { dollars.to_string() } else { format!("{dollars}.{digits}") }
    }

    /// The dollars with this many decimal places, at most 10, for people: a half is rounded up.
    pub fn rounded(self, places: u32) -> String {
        let places = places.min(PLACES);
        let scale = 10_u128.pow(places);
        let (dollars, rest) = (self.0 / DOLLAR, self.0 % DOLLAR);
        let parts = (rest * scale + DOLLAR / 2) / DOLLAR;
        let (dollars, parts) = (dollars + parts / scale, parts % scale);
        if places == 0 { dollars.to_string() } else { format!("{dollars}.{parts:0>width$}", width = places as usize) }
    }

    /// The dollars for display: cents, or two significant digits below one cent.
    pub fn human(self) -> String {
        let cent = DOLLAR / 100;
        let places = (2..PLACES).find(|places| self.0 == 0 || self.0 >= cent / 10_u128.pow(places - 2));
        self.rounded(places.map_or(PLACES, |places| if places == 2 { 2 } else { places + 1 }))
    }

    /// This amount times a fraction, without its remainder: a projection.
    #[must_use]
    pub fn scaled(self, numerator: u64, denominator: u64) -> Self {
        let (numerator, denominator) = (u128::from(numerator), u128::from(denominator.max(1)));
        let (whole, rest) = (self.0 / denominator, self.0 % denominator);
        Self(whole.saturating_mul(numerator).saturating_add(rest * numerator / denominator))
    }

    /// This amount, cut to millionths of a dollar: an estimate has no more digits.
    #[must_use]
    pub const fn estimated(self) -> Self {
        Self(self.0 - self.0 % (DOLLAR / 1_000_000))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, |mut sum, amount| {
            sum += amount;
            sum
        })
    }
}

/// Why a text is not an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount in dollars like \"1200.50\": at most 10^12, with at most six decimal places")]
pub struct AmountError(String);

/// The digits of the largest whole dollars of an amount in a file.
const AMOUNT_DIGITS: usize = 12;

impl Money {
    /// The amount that a decimal number of dollars gives.
    ///
    /// # Errors
    /// It is not a number of this form and size.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let invalid = || AmountError(text.chars().filter(|c| !c.is_control()).take(QUOTED).collect());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(whole, AMOUNT_DIGITS) || !is_number(fraction, PRICE_PLACES as usize) {
            return Err(invalid());
        }
        let number = |part: &str| part.parse::<u128>().map_err(|_| invalid());
        let parts = number(fraction)? * 10_u128.pow(PRICE_PLACES - fraction.len() as u32);
        Ok(Self(number(whole)? * DOLLAR + parts * (DOLLAR / 10_u128.pow(PRICE_PLACES))))
    }

    /// The dollars as a number of a metric.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / DOLLAR as f64
    }
}

/// The bytes that a price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum Unit {
    /// 10⁹ bytes.
    #[serde(rename = "GB")]
    Gigabyte,
    /// 2³⁰ bytes.
    #[serde(rename = "GiB")]
    Gibibyte,
}

impl Unit {
    /// The name in price files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gigabyte => "GB",
            Self::Gibibyte => "GiB",
        }
    }
}

/// A price in dollars. Its owner has the unit of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u64);

/// Why a text is not a price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// Not a number like 0.0085.
    #[error("`{0}` is not a price like \"0.01\": digits, and at most one point between them")]
    NotDecimal(String),
    /// More decimal places than there is room for.
    #[error("the price {0} has more than {PRICE_PLACES} decimal places")]
    TooFine(String),
    /// Larger than any price of a gigabyte.
    #[error("the price {0} is more than {MAX_DOLLARS} dollars")]
    TooHigh(String),
}

/// Characters of a text that an error repeats.
const QUOTED: usize = 40;

impl Price {
    /// The price that a decimal number gives.
    ///
    /// # Errors
    /// It is not a number of this form and size.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let quoted = || text.chars().filter(|c| !c.is_control()).take(QUOTED).collect::<String>();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return Err(PriceError::NotDecimal(quoted()));
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > PRICE_PLACES as usize {
            return Err(PriceError::TooFine(quoted()));
        }
        let digits = |part: &str| {
            part.bytes().try_fold(0_u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        };
        let dollars = digits(whole).filter(|dollars| *dollars <= MAX_DOLLARS);
        let dollars = dollars.ok_or_else(|| PriceError::TooHigh(quoted()))?;
        let parts = digits(fraction).unwrap_or_default() * 10_u64.pow(PLACES - fraction.len() as u32);
        let price = dollars * 10_u64.pow(PLACES) + parts;
        if price > MAX_DOLLARS * 10_u64.pow(PLACES) {
            return Err(PriceError::TooHigh(quoted()));
        }
        Ok(Self(price))
    }

    /// The price of these bytes.
    pub fn of(self, bytes: u64, unit: Unit) -> Money {
        let by_byte = match unit {
            Unit::Gigabyte => BY_GB,
            Unit::Gibibyte => BY_GIB,
        };
        Money(u128::from(bytes) * u128::from(self.0) * by_byte)
    }

    /// This price less a discount.
    #[must_use]
    pub const fn less(self, discount: Discount) -> Self {
        // The last places are the discount's alone, so there is no remainder.
        Self(self.0 / WHOLE * (WHOLE - discount.0))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = 10_u64.pow(PLACES);
        let parts = format!("{:010}", self.0 % scale);
        let parts = parts.trim_end_matches('0');
        let places = parts.len().max(2);
        write!(f, "{}.{parts:0<places$}", self.0 / scale)
    }
}

/// A discount in hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discount(u64);

/// All of a price.
const WHOLE: u64 = 10_000;

/// Why a text is not a discount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a discount like \"12.5%\": at most two decimal places, from 0% to 100%")]
pub struct DiscountError(String);

impl Discount {
    /// The discount that a text like `12.5%` gives.
    ///
    /// # Errors
    /// It is not a number of percent from 0 to 100.
    pub fn parse(text: &str) -> Result<Self, DiscountError> {
        let refused = || DiscountError(text.chars().filter(|c| !c.is_control()).take(QUOTED).collect());
        let percent = text.strip_suffix('%').ok_or_else(refused)?;
        let price = Price::parse(percent).map_err(|_| refused())?;
        // A price of a hundred dollars is all of it.
        let hundredths = price.0 / 10_u64.pow(PLACES - 2);
        if hundredths * 10_u64.pow(PLACES - 2) != price.0 {
            return Err(refused());
        }
        Ok(Self(hundredths))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn price(text: &str) -> Price {
        Price::parse(text).unwrap()
    }

    #[test]
    fn the_unit_is_a_part_of_every_price_of_a_byte() {
        assert_eq!(DOLLAR, BY_GB * 10_u128.pow(9 + PLACES));
        assert_eq!(DOLLAR, BY_GIB * (1 << 30) * 10_u128.pow(PLACES));
    }

    #[test]
    fn the_cost_is_that_of_a_hand_calculation() {
        // 1,234,567,890 bytes at 0.01 for 10⁹.
        assert_eq!(price("0.01").of(1_234_567_890, Unit::Gigabyte).exact(), "0.0123456789");
        assert_eq!(price("0.01").of(3 << 30, Unit::Gibibyte).exact(), "0.03");
        // One byte of Google's: 0.01 / 2³⁰.
        assert_eq!(price("0.01").of(1, Unit::Gibibyte).exact(), "0.00000000000931322574615478515625");
        assert_eq!(price("0.0085").of(1_000_000_000, Unit::Gigabyte).exact(), "0.0085");
        assert_eq!(price("100").of(u64::MAX, Unit::Gigabyte).exact(), "1844674407370.9551615");
    }

    #[test]
    fn amounts_are_rounded_for_people_alone() {
        let cents = |bytes| price("0.01").of(bytes, Unit::Gigabyte);
        assert_eq!(cents(1_500_000_000).rounded(2), "0.02", "a half is rounded up");
        assert_eq!(cents(99_999_999_999).rounded(2), "1.00");
        assert_eq!([cents(0), cents(12_345_000_000_000)].map(Money::human), ["0.00", "123.45"]);
        assert_eq!([cents(123_456_789), cents(1)].map(Money::human), ["0.0012", "0.0000000000"]);
    }

    #[test]
    fn sums_do_not_depend_on_how_they_are_grouped() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..200 {
            let prices = ["0.01", "0.1105", "0.0085", "0.000001"].map(price);
            let parts: Vec<(u64, usize, Unit)> = (0..random.random_range(1..60))
                .map(|_| {
                    let unit = if random.random() { Unit::Gigabyte } else { Unit::Gibibyte };
                    (random.random_range(0..1 << 44), random.random_range(0..prices.len()), unit)
                })
                .collect();
            let total: Money = parts.iter().map(|(bytes, at, unit)| prices[*at].of(*bytes, *unit)).sum();
            let mut groups = [Money::ZERO; 7];
            for (bytes, at, unit) in &parts {
                let cut = random.random_range(0..=*bytes);
                for piece in [cut, bytes - cut] {
                    groups[random.random_range(0..groups.len())] += prices[*at].of(piece, *unit);
                }
            }
            assert_eq!(groups.into_iter().sum::<Money>(), total);
        }
    }

    #[test]
    fn a_price_is_read_whole_or_refused() {
        assert_eq!(
            ["0.01", "0.1105", "3", "0.10000000000"].map(|text| price(text).to_string()),
            ["0.01", "0.1105", "3.00", "0.10"]
        );
        for text in ["", ".", "1.", ".1", "-1", "+1", "1e3", "0,01", "0.01 ", "1.2.3", "١"] {
            assert_eq!(Price::parse(text), Err(PriceError::NotDecimal(text.into())));
        }
        assert!(matches!(Price::parse("0.0000001"), Err(PriceError::TooFine(_))));
        for text in ["101", "100.01", "99999999999999999999999"] {
            assert!(matches!(Price::parse(text), Err(PriceError::TooHigh(_))), "{text}");
        }
    }

    #[test]
    fn a_discount_is_exact() {
        let discount = |text| Discount::parse(text).unwrap();
        assert_eq!(price("0.01").less(discount("12.5%")).to_string(), "0.00875");
        assert_eq!(price("0.000001").less(discount("99.99%")).to_string(), "0.0000000001");
        assert_eq!(price("0.02").less(discount("0%")), price("0.02"));
        assert_eq!(price("0.02").less(discount("100%")), Price::default());
        for text in ["", "15", "%", "101%", "1.234%", "-5%"] {
            assert_eq!(Discount::parse(text), Err(DiscountError(text.into())));
        }
    }

    #[test]
    fn a_projection_scales_without_overflow() {
        let amount = price("100").of(u64::MAX, Unit::Gigabyte);
        assert_eq!(amount.scaled(3, 3), amount);
        assert_eq!(price("0.01").of(10_000_000_000, Unit::Gigabyte).scaled(730 * 3600, 10).exact(), "26280");
        assert!(amount.scaled(u64::MAX, 1) > amount);
        assert_eq!(price("0.01").of(1_234_567_890, Unit::Gibibyte).estimated().exact(), "0.011497");
    }
}
