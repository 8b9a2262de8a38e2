//! What is new in a flow entry since it was read the last time, and when that is told as an update.

use super::entry::{Entry, Key};
use ahash::AHashMap;
use meridian_abi::Counter;
use std::time::{Duration, Instant};

/// How often an active entry is told, as Cilium does.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was read and what was told of each entry. It holds as many as the kernel's flow maps do.
#[derive(Debug, Default)]
pub struct Tracker {
    entries: AHashMap<Key, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    read: Counter,
    told: Counter,
    told_at: Instant,
}

/// What is new in an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Since it was read the last time. The sum of all is what the entry counted.
    pub new: Counter,
    /// Since it was told the last time, if it is time to tell it: at once when it is first seen,
    /// then at most every five seconds while it is active. The sum of all is what the entry counted.
    pub update: Option<Counter>,
}

impl Tracker {
    /// What is new in the entry. `flush` tells it whatever the time.
    pub fn read(&mut self, entry: &Entry, now: Instant, flush: bool) -> News {
        let first = Known { read: Counter::default(), told: Counter::default(), told_at: now };
        let mut due = flush;
        let known = self.entries.entry(entry.key()).or_insert_with(|| {
            due = true;
            first
        });
        due |= now.duration_since(known.told_at) >= INTERVAL;
        let new = since(known.read, entry.counter);
        known.read += new;
        let untold = since(known.told, known.read);
        let update = (due && untold.packets > 0).then_some(untold);
        if update.is_some() {
            (known.told, known.told_at) = (known.read, now);
        }
        News { new, update }
    }
}

/// What was added to a counter. Bytes and packets are not read at one instant: half of a packet
/// waits for its other half.
fn since(before: Counter, after: Counter) -> Counter {
    let packets = after.packets.saturating_sub(before.packets);
    if packets == 0 {
        return Counter::default();
    }
    Counter { bytes: after.bytes.saturating_sub(before.bytes), packets }
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
    fn an_active_entry_is_told_at_once_and_then_every_five_seconds() {
        let (mut tracker, start) = (Tracker::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let counter = |bytes, packets| Counter { bytes, packets };
        let told = |bytes, packets| Some(counter(bytes, packets));
        let mut read = |port, bytes, packets, seconds, flush| {
            let news = tracker.read(&entry(port, bytes, packets), at(seconds), flush);
            (news.new, news.update)
        };
        assert_eq!(read(80, 100, 1, 0, false), (counter(100, 1), told(100, 1)));
        assert_eq!(read(80, 500, 5, 4, false), (counter(400, 4), None));
        assert_eq!(read(443, 60, 1, 4, false), (counter(60, 1), told(60, 1)));
        assert_eq!(read(80, 700, 7, 5, false), (counter(200, 2), told(600, 6)));
        assert_eq!(read(80, 700, 7, 11, false), (counter(0, 0), None), "idle");
        assert_eq!(read(80, 760, 7, 11, false), (counter(0, 0), None), "half of a packet");
        assert_eq!(read(80, 800, 8, 12, true), (counter(100, 1), told(100, 1)));
        assert_eq!(read(443, 90, 2, 8, false), (counter(30, 1), None));
        assert_eq!(read(443, 90, 2, 9, false), (counter(0, 0), told(30, 1)), "what is untold waits");
    }
}
