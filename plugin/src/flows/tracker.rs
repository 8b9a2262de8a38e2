//! Decides when an active flow entry is reported, and how much is new since the last time.

use super::entry::{Entry, Key};
use meridian_abi::Counter;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How often an active entry is reported, as Cilium does.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was reported of each entry. It holds as many as the kernel's flow maps do.
#[derive(Debug, Default)]
pub struct Tracker {
    entries: HashMap<Key, Reported>,
}

#[derive(Clone, Copy, Debug)]
struct Reported {
    counter: Counter,
    at: Instant,
}

impl Tracker {
    /// What is new in the entry, if it is time to report it: at once when it is first seen, then at
    /// most every five seconds while it is active. The sum of all that is returned is what the
    /// entry counted.
    pub fn update(&mut self, entry: &Entry, now: Instant) -> Option<Counter> {
        let reported = self.entries.get(&entry.key());
        if reported.is_some_and(|reported| now.duration_since(reported.at) < INTERVAL) {
            return None;
        }
        self.report(entry, now)
    }

    /// What is new in the entry, whatever the time.
    pub fn flush(&mut self, entry: &Entry, now: Instant) -> Option<Counter> {
        self.report(entry, now)
    }

    fn report(&mut self, entry: &Entry, now: Instant) -> Option<Counter> {
        let reported = self.entries.entry(entry.key()).or_insert(Reported { counter: Counter::default(), at: now });
        let delta = Counter {
            bytes: entry.counter.bytes.saturating_sub(reported.counter.bytes),
            packets: entry.counter.packets.saturating_sub(reported.counter.packets),
        };
        // Two counters are not read at one instant: half of a packet waits for its other half.
        if delta.packets == 0 {
            return None;
        }
        *reported = Reported { counter: entry.counter, at: now };
        Some(delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_abi::flow::{ServiceSide, Verdict};

    fn entry(port: u16, bytes: u64, packets: u64) -> Entry {
        Entry {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            protocol: 6,
            service_port: port,
            client_port: 40_000,
            side: ServiceSide::Destination,
            verdict: Verdict { epoch: 1, source: 2, destination: 3 },
            counter: Counter { bytes, packets },
        }
    }

    #[test]
    fn an_active_entry_is_reported_at_once_and_then_every_five_seconds() {
        let (mut tracker, start) = (Tracker::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(tracker.update(&entry(80, 100, 1), at(0)), Some(Counter { bytes: 100, packets: 1 }));
        assert_eq!(tracker.update(&entry(80, 500, 5), at(4)), None);
        assert_eq!(tracker.update(&entry(443, 60, 1), at(4)), Some(Counter { bytes: 60, packets: 1 }));
        assert_eq!(tracker.update(&entry(80, 700, 7), at(5)), Some(Counter { bytes: 600, packets: 6 }));
        assert_eq!(tracker.update(&entry(80, 700, 7), at(11)), None, "idle");
        assert_eq!(tracker.flush(&entry(80, 800, 8), at(11)), Some(Counter { bytes: 100, packets: 1 }));
    }
}
