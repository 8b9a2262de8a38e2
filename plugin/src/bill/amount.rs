//! Amounts of a bill: decimal numbers of a unit, as billionths of a byte.

use serde::Deserialize;

/// The unit of an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum BillUnit {
    /// Bytes.
    Byte,
    /// 10⁹ bytes.
    #[serde(rename = "GB")]
    Gigabyte,
    /// 2³⁰ bytes.
    #[serde(rename = "GiB")]
    Gibibyte,
    /// 2¹⁰ bytes.
    Kibibyte,
    /// 2²⁰ bytes.
    Mebibyte,
    /// 2⁴⁰ bytes.
    Tebibyte,
}

impl BillUnit {
    const fn bytes(self) -> i128 {
        match self {
            Self::Byte => 1,
            Self::Gigabyte => 1_000_000_000,
            Self::Kibibyte => 1 << 10,
            Self::Mebibyte => 1 << 20,
            Self::Gibibyte => 1 << 30,
            Self::Tebibyte => 1 << 40,
        }
    }

    /// The unit by the name that Google's bills use.
    pub(super) fn of_google(name: &str) -> Option<Self> {
        Some(match name {
            "byte" | "bytes" | "By" => Self::Byte,
            "kibibyte" | "KiBy" => Self::Kibibyte,
            "mebibyte" | "MiBy" => Self::Mebibyte,
            "gibibyte" | "GiBy" => Self::Gibibyte,
            "tebibyte" | "TiBy" => Self::Tebibyte,
            "gigabyte" | "GBy" => Self::Gigabyte,
            _ => return None,
        })
    }
}

/// A text that is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount like 12.5")]
pub struct InvalidAmount(pub(super) String);

/// Billionths of a byte. Bills subtract what they correct, so an amount may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Amount(i128);

/// Billionths in a byte, as a power of ten.
const SCALE: i32 = 9;
/// Digits that are read of a number; those that follow are below any byte.
const DIGITS: u32 = 24;
/// The largest amount of one line, and of a sum: 10¹⁸ bytes.
const LIMIT: i128 = 1_000_000_000_000_000_000_000_000_000;

impl Amount {
    /// The amount in a decimal number, which may have an exponent.
    pub(super) fn parse(text: &str, unit: BillUnit) -> Result<Self, InvalidAmount> {
        let invalid = || InvalidAmount(text.chars().filter(|c| !c.is_control()).take(40).collect());
        let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (number, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i16>().map_err(|_| invalid())?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
            return Err(invalid());
        }
        let (mut mantissa, mut kept, mut power) = (0_i128, 0, i32::from(exponent) + SCALE);
        for (digit, is_fraction) in
            whole.bytes().map(|digit| (digit, false)).chain(fraction.bytes().map(|digit| (digit, true)))
        {
            if kept == DIGITS {
                power += i32::from(!is_fraction);
                continue;
            }
            mantissa = mantissa * 10 + i128::from(digit - b'0');
            kept += u32::from(mantissa > 0);
            power -= i32::from(is_fraction);
        }
        let amount = scaled(mantissa * unit.bytes(), power).filter(|amount| *amount <= LIMIT).ok_or_else(invalid)?;
        Ok(Self(if negative { -amount } else { amount }))
    }

    /// Adds an amount. `None` if the sum is no amount of any traffic.
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).filter(|sum| sum.abs() <= LIMIT).map(Self)
    }

    /// Whole bytes, rounded; none for a negative amount.
    pub(super) fn bytes(self) -> u64 {
        let billionths = 10_i128.pow(SCALE as u32);
        u64::try_from((self.0 + billionths / 2).max(0) / billionths).unwrap_or(u64::MAX)
    }
}

/// The bytes of an amount, rounded.
///
/// # Errors
/// The text is no amount, or negative.
pub fn bytes(text: &str, unit: BillUnit) -> Result<u64, InvalidAmount> {
    let amount = Amount::parse(text, unit)?;
    if amount < Amount::default() { Err(InvalidAmount(text.to_owned())) } else { Ok(amount.bytes()) }
}

/// A number times a power of ten, rounded; `None` if it is too large.
fn scaled(number: i128, power: i32) -> Option<i128> {
    if number == 0 {
        return Some(0);
    }
    let factor = |power: u32| 10_i128.checked_pow(power);
    match u32::try_from(power) {
        Ok(power) => number.checked_mul(factor(power)?),
        Err(_) => Some(factor(power.unsigned_abs()).map_or(0, |factor| (number + factor / 2) / factor)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn decimals_and_exponents_are_exact() {
        let bytes = |text, unit| Amount::parse(text, unit).unwrap().bytes();
        assert_eq!(bytes("1", BillUnit::Gigabyte), 1_000_000_000);
        assert_eq!(bytes("0.000000001", BillUnit::Gigabyte), 1);
        assert_eq!(bytes("1.5E-9", BillUnit::Gigabyte), 2);
        assert_eq!(bytes("1.4e-9", BillUnit::Gigabyte), 1);
        assert_eq!(bytes(".5", BillUnit::Gibibyte), 1 << 29);
        assert_eq!(bytes("12.", BillUnit::Tebibyte), 12 << 40);
        assert_eq!(bytes("123456789.000000001234567890123456789", BillUnit::Byte), 123_456_789);
        assert_eq!(bytes("1e-400", BillUnit::Gigabyte), 0);
        assert_eq!(bytes("0e400", BillUnit::Gigabyte), 0);
        assert_eq!(bytes("0000000000000000000000000000000001", BillUnit::Byte), 1);
        assert_eq!(bytes("-1", BillUnit::Gigabyte), 0);
    }

    #[test]
    fn every_amount_of_bytes_comes_back() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..10_000 {
            let bytes: u64 = random.random_range(0..1 << 50);
            let text = format!("{}.{:09}", bytes / 1_000_000_000, bytes % 1_000_000_000);
            assert_eq!(Amount::parse(&text, BillUnit::Gigabyte).unwrap().bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", ".", "-", "1,5", "0x1", "1e", "1e99999", "1e30", "∞", "NaN", "1 ", "--1", "1\u{1b}"] {
            let error = Amount::parse(text, BillUnit::Gigabyte).unwrap_err().to_string();
            assert!(!error.contains('\u{1b}'), "{error}");
        }
        let most = Amount(LIMIT);
        assert_eq!((most.plus(Amount(1)), most.plus(Amount(0))), (None, Some(most)));
    }
}
