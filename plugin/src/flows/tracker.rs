//! What is new in a flow entry since it was read the last time, and when that is told as an update.

use super::entry::{Entry, SlotId};
use ahash::AHashMap;
use meridian_abi::Counter;
use std::time::{Duration, Instant};

/// How often an active entry is told, as Cilium does.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was read and what was told of each entry. It holds as many as the kernel's flow maps do.
#[derive(Debug, Default)]
pub struct Tracker {
    entries: AHashMap<SlotId, Tracked>,
}

#[derive(Clone, Copy, Debug)]
struct Tracked {
    progress: Progress,
    reported_at: Instant,
    active_at: Instant,
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The entry's.
    pub generation: u16,
    /// What was read of it.
    pub read: Counter,
    /// What was told of it.
    pub reported: Counter,
}

/// What is new in an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Since it was read the last time. The sum of all is what the entry counted.
    pub new: Counter,
    /// Since it was told the last time, if it is time to tell it: at once when it is first seen,
    /// then at most every five seconds while it is active. The sum of all is what the entry counted.
    pub update: Option<Counter>,
    /// For how long nothing has been new.
    pub idle: Duration,
}

impl Tracker {
    /// What is new in the entry. `flush` tells it whatever the time.
    pub fn read(&mut self, entry: &Entry, now: Instant, flush: bool) -> News {
        let progress = Progress { generation: entry.generation, ..Progress::default() };
        let first = Tracked { progress, reported_at: now, active_at: now };
        let mut due = flush;
        let tracked = self.entries.entry(entry.slot).or_insert_with(|| {
            due = true;
            first
        });
        if tracked.progress.generation != entry.generation {
            due = true;
            *tracked = first;
        }
        let Tracked { progress, reported_at, active_at } = tracked;
        due |= now.duration_since(*reported_at) >= INTERVAL;
        let new = since(progress.read, entry.counter);
        if new.packets > 0 {
            *active_at = now;
        }
        progress.read += new;
        let unreported = since(progress.reported, progress.read);
        let update = (due && unreported.packets > 0).then_some(unreported);
        if update.is_some() {
            (progress.reported, *reported_at) = (progress.read, now);
        }
        News { new, update, idle: now.duration_since(*active_at) }
    }

    /// Forgets an entry that was taken away.
    pub fn forget(&mut self, slot: SlotId) {
        self.entries.remove(&slot);
    }

    /// The progress on each entry, for the process that continues after this one.
    pub fn progress(&self) -> impl Iterator<Item = (SlotId, Progress)> {
        self.entries.iter().map(|(slot, tracked)| (*slot, tracked.progress))
    }

    /// Continues from the progress of an earlier process.
    pub fn restore(&mut self, progress: impl IntoIterator<Item = (SlotId, Progress)>, now: Instant) {
        let tracked = |(slot, progress)| (slot, Tracked { progress, reported_at: now, active_at: now });
        self.entries = progress.into_iter().map(tracked).collect();
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
    use meridian_abi::flow::{PacketPath, ServiceSide, Verdict};

    fn entry(port: u16, bytes: u64, packets: u64) -> Entry {
        Entry {
            slot: SlotId(port.into()),
            generation: 1,
            path: PacketPath::Sent,
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
        assert_eq!(read(443, 90, 2, 9, false), (counter(0, 0), told(30, 1)), "what is unreported waits");
    }

    #[test]
    fn another_entry_in_the_same_slot_begins_at_zero() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        tracker.read(&entry(80, 500, 5), now, false);
        let next = Entry { generation: 2, ..entry(80, 700, 7) };
        let later = now + Duration::from_secs(60);
        assert_eq!(tracker.read(&next, later, false).new, Counter { bytes: 700, packets: 7 });
        // What one process knew another one goes on with.
        let progress: Vec<_> = tracker.progress().collect();
        let mut tracker = Tracker::default();
        tracker.restore(progress, later);
        let next = Entry { generation: 2, ..entry(80, 750, 8) };
        let news = tracker.read(&next, later + Duration::from_secs(9), false);
        assert_eq!(
            (news.new, news.update),
            (Counter { bytes: 50, packets: 1 }, Some(Counter { bytes: 50, packets: 1 }))
        );
        assert_eq!(news.idle, Duration::ZERO);
        assert_eq!(tracker.read(&next, later + Duration::from_secs(40), false).idle, Duration::from_secs(31));
    }
}
