//! Days, in UTC, as bills name them.

use crate::history::Span;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use std::fmt;

/// A day in UTC: days since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

/// A text that is no time of a day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time like 2026-11-25T13:00:00Z")]
pub struct InvalidDay(pub(super) String);

const SECONDS: u64 = Span::DAY as u64;

impl Day {
    /// The day of a second since 1970.
    pub const fn of(second: u64) -> Self {
        Self((second / SECONDS) as u32)
    }

    /// Its first second, since 1970.
    pub const fn start(self) -> u64 {
        self.0 as u64 * SECONDS
    }

    /// The first second of the next one.
    pub const fn end(self) -> u64 {
        self.start() + SECONDS
    }

    /// The days from the first to the last one.
    pub fn each((first, last): (Self, Self)) -> impl Iterator<Item = Self> {
        (first.0..=last.0).map(Self)
    }

    /// The day after so many days.
    pub const fn after(self, days: u32) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// The first and the last day of the calendar month before that of a second.
    pub fn last_month(second: u64) -> (Self, Self) {
        let date = Self::of(second).date();
        let first = date.first_of_month();
        let last = first.yesterday().unwrap_or(first);
        (Self::of_date(last.first_of_month()), Self::of_date(last))
    }

    fn date(self) -> Date {
        let start = i64::try_from(self.start()).ok().and_then(|start| Timestamp::from_second(start).ok());
        start.unwrap_or_default().to_zoned(TimeZone::UTC).date()
    }

    fn of_date(date: Date) -> Self {
        let start = date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp().as_second()).unwrap_or_default();
        Self::of(u64::try_from(start).unwrap_or_default())
    }

    /// The second of a time as clouds write it: 2026-11-25, 2026-11-25T13:00:00Z, 2026-11-25 13:00:00 UTC. A time
    /// without a zone is in UTC.
    pub(super) fn second(text: &str) -> Result<u64, InvalidDay> {
        let invalid = || InvalidDay(text.chars().filter(|c| !c.is_control()).take(40).collect());
        let time = text.strip_suffix(" UTC").unwrap_or(text);
        let with_zone = match time.get(10..) {
            None => return Err(invalid()),
            Some("") => format!("{time}T00:00:00Z"),
            Some(clock) if clock.contains(['Z', '+', '-']) => time.to_owned(),
            Some(_) => format!("{time}Z"),
        };
        let time: Timestamp = with_zone.parse().map_err(|_| invalid())?;
        // The limit of four digits of a year keeps sums with it numbers.
        u64::try_from(time.as_second()).ok().filter(|second| *second < 253_402_300_800).ok_or_else(invalid)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.date().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_month_is_a_calendar_month() {
        let (first, last) = Day::last_month(1_764_000_000);
        assert_eq!((first.to_string().as_str(), last.to_string().as_str()), ("2025-10-01", "2025-10-31"));
        assert_eq!(Day::each((first, last)).count(), 31);
    }

    #[test]
    fn times_of_bills_are_read() {
        for text in [
            "2025-11-24T16:00:00Z",
            "2025-11-24T16:00:00.000Z",
            "2025-11-24 16:00:00",
            "2025-11-24 16:00:00.000",
            "2025-11-24 16:00:00 UTC",
            "2025-11-24 16:00:00+00:00",
            "2025-11-24 08:00:00-08:00",
        ] {
            assert_eq!(Day::second(text), Ok(1_764_000_000), "{text}");
        }
        assert_eq!(Day::of(Day::second("2025-11-24").unwrap()).to_string(), "2025-11-24");
        for text in ["", "2025-11", "2025-13-01", "yesterday!", "2025-11-24T", "9999999999", "1.7E9", "1969-12-31"] {
            assert!(Day::second(text).is_err(), "{text}");
        }
    }
}
