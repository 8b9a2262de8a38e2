//! When the counting of each sum began.
//!
//! A sum that lasts began with the programs' counters, whichever process exports it. A series may end, and begin again
//! with a smaller total, so the start of one that this process has not exported before is unknown, unless it was absent
//! from the last export: then it began after that. The start of a cluster's sums is unknown whenever a replica begins to
//! lead, because the leader before may have served more.
//!
//! In OTLP, a sum whose first point starts at the time of that point has an unknown start: receivers count what it grows
//! by, not its first value.

use super::points::Attributes;
use ahash::AHashMap;

/// Identifies a sum: the metric and its attributes.
pub(super) type Key = (&'static str, Attributes);

/// The starts of all sums of a node or cluster, in nanoseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Starts {
    known: AHashMap<Key, SeriesState>,
    epoch: u64,
    round: u64,
    /// The times of the last export and of this one.
    last: Option<u64>,
    now: u64,
    has_arrived: bool,
}

#[derive(Debug)]
struct SeriesState {
    start: u64,
    total: u64,
    round: u64,
}

impl Starts {
    /// Begins an export of counters read at this time, in this epoch of theirs.
    pub(super) fn begin(&mut self, now: u64, epoch: u64) {
        // An unknown start is in the first point, so as long as none has arrived, each is the first.
        if epoch != self.epoch || !self.has_arrived {
            *self = Self { epoch, ..Self::default() };
        }
        self.last = (self.round > 0).then_some(self.now);
        self.now = now;
        self.round += 1;
    }

    /// The start of a sum with this total. `began`: when it began, if that is known.
    pub(super) fn start(&mut self, key: Key, total: u64, began: Option<u64>) -> u64 {
        let (now, round) = (self.now, self.round);
        let after_last = self.last.unwrap_or(now);
        let start = began.unwrap_or(after_last);
        let known = self.known.entry(key).or_insert(SeriesState { start, total, round });
        if total < known.total {
            known.start = after_last;
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

    /// The collector has the export.
    pub(super) const fn arrived(&mut self) {
        self.has_arrived = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(zone: &str) -> Key {
        ("meridian.zone.bytes", vec![("zone", zone.to_owned())])
    }

    /// An export that arrives, of sums with these totals.
    fn export(starts: &mut Starts, now: u64, epoch: u64, sums: &[(&str, u64, Option<u64>)]) -> Vec<u64> {
        starts.begin(now, epoch);
        let all = sums.iter().map(|(zone, total, began)| starts.start(key(zone), *total, *began)).collect();
        starts.end();
        starts.arrived();
        all
    }

    #[test]
    fn sums_that_last_began_with_the_programs_and_series_after_the_last_export() {
        let mut starts = Starts::default();
        assert_eq!(export(&mut starts, 100, 0, &[("a", 7, Some(10))]), [10]);
        // Another process would give the same start to the second sum.
        assert_eq!(
            export(&mut starts, 200, 0, &[("a", 9, Some(10)), ("b", 1, Some(10)), ("c", 1, None)]),
            [10, 10, 100]
        );
        // Two began again within the last interval.
        assert_eq!(export(&mut starts, 300, 0, &[("a", 3, Some(10)), ("b", 0, Some(10))]), [200, 200]);
        // One was gone for an export.
        assert_eq!(export(&mut starts, 400, 0, &[("a", 3, Some(10)), ("c", 5, None)]), [200, 300]);
    }

    #[test]
    fn an_unknown_start_is_the_time_of_the_first_export_that_arrives() {
        let mut starts = Starts::default();
        starts.begin(100, 0);
        assert_eq!(starts.start(key("a"), 7, None), 100);
        starts.end();
        // It was lost.
        assert_eq!(export(&mut starts, 200, 0, &[("a", 8, None)]), [200]);
        assert_eq!(export(&mut starts, 300, 0, &[("a", 9, None)]), [200]);
    }

    #[test]
    fn sums_that_are_served_anew_have_another_start_even_if_they_are_larger() {
        let mut starts = Starts::default();
        assert_eq!(export(&mut starts, 100, 1, &[("a", 7, None)]), [100]);
        assert_eq!(export(&mut starts, 200, 1, &[("a", 8, None)]), [100]);
        assert_eq!(export(&mut starts, 300, 2, &[("a", 9, None)]), [300]);
        assert_eq!(export(&mut starts, 400, 2, &[("a", 9, None)]), [300]);
    }

    #[test]
    fn no_sum_begins_after_its_own_time() {
        let mut starts = Starts::default();
        assert_eq!(export(&mut starts, 1000, 0, &[("a", 7, Some(900))]), [900]);
        // The clock was set back.
        assert_eq!(export(&mut starts, 500, 0, &[("a", 8, Some(900)), ("b", 8, Some(900))]), [500, 500]);
    }
}
