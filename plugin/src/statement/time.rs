//! Times in statements.

use jiff::Timestamp;

/// A time as RFC 3339 in UTC.
pub(super) fn time(second: u64) -> String {
    let second = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    second.unwrap_or_default().to_string()
}
