//! When the counting of each sum began.
//!
//! Counters of the programs began with the programs. A series that was absent from the last export began after it, and
//! so did one whose total is smaller than before.

use super::points::Attributes;
use ahash::AHashMap;

/// Identifies a sum: the metric and its attributes.
pub(super) type Key = (&'static str, Attributes);

/// The starts of all sums of a node or cluster, in nanoseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Starts {
    known: AHashMap<Key, Known>,
    round: u64,
    /// The times of the last export and of this one.
    last: Option<u64>,
    now: u64,
}

#[derive(Debug)]
struct Known {
    start: u64,
    total: u64,
    round: u64,
}

impl Starts {
    /// Begins an export of counters read at this time.
    pub(super) fn begin(&mut self, now: u64) {
        self.last = (self.round > 0).then_some(self.now);
        self.now = now;
        self.round += 1;
    }

    /// The start of a sum with this total. `began`: the start of the programs' counters; if it is unknown, the first
    /// export has the time of its own, which means an unknown start in OTLP.
    pub(super) fn start(&mut self, key: Key, total: u64, began: Option<u64>) -> u64 {
        let (now, round) = (self.now, self.round);
        let anew = self.last.or(began).unwrap_or(now);
        let known = self.known.entry(key).or_insert(Known { start: anew, total, round });
        if total < known.total {
            known.start = anew;
        }
        (known.total, known.round) = (total, round);
        // After the clock was set back.
        known.start.min(now)
    }

    /// Ends the export: forgets the sums that it lacked.
    pub(super) fn end(&mut self) {
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(zone: &str) -> Key {
        ("meridian.zone.bytes", vec![("zone", zone.to_owned())])
    }

    #[test]
    fn sums_of_the_first_export_began_with_the_programs_and_later_ones_after_the_last_export() {
        let mut starts = Starts::default();
        starts.begin(100);
        assert_eq!(starts.start(key("a"), 7, Some(10)), 10);
        starts.end();
        starts.begin(200);
        assert_eq!(starts.start(key("a"), 9, Some(10)), 10);
        assert_eq!(starts.start(key("b"), 1, Some(10)), 100);
        starts.end();
        starts.begin(300);
        // It began again within the last interval.
        assert_eq!(starts.start(key("a"), 3, Some(10)), 200);
        starts.end();
        starts.begin(400);
        // It was gone for an export.
        assert_eq!(starts.start(key("b"), 5, Some(10)), 300);
        assert_eq!(starts.start(key("a"), 3, Some(10)), 200);
    }

    #[test]
    fn an_unknown_start_is_the_time_of_the_first_export() {
        let mut starts = Starts::default();
        starts.begin(100);
        assert_eq!(starts.start(key("a"), 7, None), 100);
        starts.begin(200);
        assert_eq!(starts.start(key("a"), 8, None), 100);
    }

    #[test]
    fn no_sum_begins_after_its_own_time() {
        let mut starts = Starts::default();
        starts.begin(1000);
        starts.start(key("a"), 7, Some(900));
        // The clock was set back.
        starts.begin(500);
        assert_eq!(starts.start(key("a"), 8, Some(900)), 500);
        assert_eq!(starts.start(key("b"), 8, Some(900)), 500);
    }
}
