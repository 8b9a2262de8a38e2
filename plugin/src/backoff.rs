//! Exponential backoff with jitter, so that clients do not all retry at once.

use std::{ops::RangeInclusive, time::Duration};

/// The wait times of one client.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// The range of the random factor for each wait.
    part: RangeInclusive<f64>,
    failures: u32,
}

impl Backoff {
    /// Starts with waits of at most `first`, which double up to `longest`. Each wait is a random part of that, within
    /// `part`.
    pub const fn new(first: Duration, longest: Duration, part: RangeInclusive<f64>) -> Self {
        Self { first, longest, part, failures: 0 }
    }

    /// The wait after a failure.
    pub fn failed(&mut self) -> Duration {
        let widest = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        widest.mul_f64(rand::random_range(self.part.clone()))
    }

    /// Starts over after a success.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_begin_anew() {
        let (first, longest) = (Duration::from_millis(500), Duration::from_secs(10));
        let mut backoff = Backoff::new(first, longest, 0.5..=1.0);
        for widest in [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0] {
            let wait = backoff.failed().as_secs_f64();
            assert!((widest / 2.0..=widest).contains(&wait), "{wait} of {widest}");
        }
        for _ in 0..1000 {
            assert!(backoff.failed() <= longest);
        }
        backoff.succeeded();
        assert!(backoff.failed() <= first);
    }
}
