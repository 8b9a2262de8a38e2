//! A level that each use raises by one and that sinks with time, in one word: a limit over time without a list of times.

use meridian_abi::share::TICK_SHIFT;

/// The limit of a level: so many uses at once, and so many more in each period.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Uses.
    pub uses: u32,
    /// Nanoseconds.
    pub period_ns: u64,
}

/// The word after so many uses at a time, and the level before them. It does not rise beyond the limit.
///
/// The time may be of any clock that does not go back; after 52 days without a use a word may seem younger than it is.
#[inline(always)]
pub fn raised(word: u64, uses: u32, limit: Limit, now_ns: u64) -> (u64, u32) {
    let now = (now_ns >> TICK_SHIFT) as u32;
    let (last, level) = ((word >> 32) as u32, word as u32);
    let elapsed = u64::from(now.wrapping_sub(last));
    let period = limit.period_ns >> TICK_SHIFT;
    let sunk = if elapsed >= period { u64::from(limit.uses) } else { elapsed * u64::from(limit.uses) / period.max(1) };
    // A level that has not sunk by a whole use keeps its time.
    let since = if sunk == 0 { last } else { now };
    let level = u64::from(level).saturating_sub(sunk);
    let raised = (level + u64::from(uses)).min(u64::from(limit.uses).max(level));
    (u64::from(since) << 32 | raised, level as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { uses: 100, period_ns: 15_000_000_000 };
    const SECOND: u64 = 1_000_000_000;

    /// How many of so many uses are within the limit.
    fn within(word: &mut u64, uses: u32, now_ns: u64) -> u32 {
        (0..uses)
            .map(|_| {
                let level;
                (*word, level) = raised(*word, 1, LIMIT, now_ns);
                u32::from(level < LIMIT.uses)
            })
            .sum()
    }

    #[test]
    fn no_more_than_the_limit_at_once() {
        let mut word = 0;
        assert_eq!(within(&mut word, 5_000, 100 * SECOND), 100);
        assert_eq!(within(&mut word, 5_000, 100 * SECOND), 0);
    }

    #[test]
    fn as_many_again_in_each_period() {
        let mut word = 0;
        within(&mut word, 5_000, 100 * SECOND);
        // 7.5 of 15 seconds, in ticks of about a millisecond.
        assert!((49..=50).contains(&within(&mut word, 5_000, 107 * SECOND + SECOND / 2)));
        assert_eq!(within(&mut word, 5_000, 1_000 * SECOND), 100);
    }

    #[test]
    fn uses_a_moment_apart_do_not_hold_the_level_up() {
        let mut word = 0;
        let uses: u32 = (0..60_000).map(|n| within(&mut word, 1, 100 * SECOND + n * SECOND / 1_000)).sum();
        // A minute is four periods: the limit at once, and four times more.
        assert!((490..=510).contains(&uses), "{uses}");
    }

    #[test]
    fn a_clock_that_wraps_is_followed() {
        let wrap = 1_u64 << (32 + TICK_SHIFT);
        let mut word = 0;
        assert_eq!(within(&mut word, 200, wrap - SECOND), 100);
        assert_eq!(within(&mut word, 200, wrap + 14 * SECOND), 100);
    }
}
