//! A bound on log lines that strangers cause.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines in each period.
const LINES: u32 = 10;
/// The period.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets ten lines through in ten seconds, and counts the others.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    /// Whether a line may be written now; with it, how many were left out since the last one.
    pub fn line(&self) -> Option<u64> {
        self.line_at(Instant::now())
    }

    fn line_at(&self, now: Instant) -> Option<u64> {
        // Every field stands for itself.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.saturating_duration_since(began) >= PERIOD) {
            (state.began, state.lines) = (Some(now), 0);
        }
        if state.lines == LINES {
            state.left_out += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_ten_and_then_its_number() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let lines = (0..1000).filter(|_| limit.line_at(start).is_some()).count();
        assert_eq!(lines, 10);
        assert_eq!(limit.line_at(start + PERIOD), Some(990));
        assert_eq!(limit.line_at(start + PERIOD), Some(0));
    }
}
