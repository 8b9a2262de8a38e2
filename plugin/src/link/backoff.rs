//! When an agent that has lost its controller tries again: agents must not come all at once.

use std::{ops::RangeInclusive, time::Duration};

/// The first waits are from a range this wide: a controller's agents come back spread over it.
const FIRST: Duration = Duration::from_secs(15);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Where the controller ended the stream, so that agents spread over its replicas: it knows how many it
/// sends away.
const MOVED: Duration = Duration::from_secs(2);

/// The waits of one agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after a failure: random, and from a range that doubles with each one.
    pub fn failed(&mut self) -> Duration {
        let widest = FIRST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures += 1;
        random(Duration::ZERO..=widest)
    }

    /// How long to wait where the controller asked to come again.
    pub fn moved(&mut self) -> Duration {
        self.failures = 0;
        random(Duration::ZERO..=MOVED)
    }

    /// The controller has answered.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }
}

fn random(range: RangeInclusive<Duration>) -> Duration {
    rand::random_range(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_agents_come_back_spread_over_ten_seconds() {
        let start = Instant::now();
        let mut agents = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            agents.spawn(async move {
                tokio::time::sleep(Backoff::default().failed()).await;
                start.elapsed().as_secs_f64()
            });
        }
        let mut back = agents.join_all().await;
        back.sort_by(f64::total_cmp);
        assert!(back[999] - back[0] >= 10.0, "{} to {}", back[0], back[999]);
        // A fifteenth of them is expected in each second.
        for second in 0..15 {
            let came = back.iter().filter(|at| **at as usize == second).count();
            assert!((20..=150).contains(&came), "{came} in second {second}");
        }
    }

    #[test]
    fn waits_grow_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..1000 {
            assert!(backoff.failed() <= LONGEST);
        }
        assert!(backoff.moved() <= MOVED);
        assert!(backoff.failed() <= FIRST);
    }
}
