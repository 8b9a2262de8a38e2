//! Tracks the growth of flow entries since they were last read, and decides when an update is reported.

use super::{
    by_slot::BySlot,
    entry::{Entry, SlotId},
};
use meridian_abi::Counter;
use std::time::{Duration, Instant};

/// How often an active entry is reported; the same as Cilium's interval.
const INTERVAL: Duration = Duration::from_secs(5);

/// The progress on each entry. Its size is bounded by the kernel's flow maps.
#[derive(Debug, Default)]
pub struct Tracker {
    entries: BySlot<Tracked>,
    /// The time that the entries' times count from.
    start: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Tracked {
    progress: Progress,
    /// Milliseconds, modulo 2^32: 49 days.
    reported_at: u32,
    /// Likewise.
    active_at: u32,
}

/// The progress on an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The entry's generation.
    pub generation: u16,
    /// The counter when the entry was last read.
    pub read: Counter,
    /// The counter when the entry was last reported.
    pub reported: Counter,
}

/// The growth of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Growth since the last read. The sum over all reads equals the entry's counter.
    pub new: Counter,
    /// Growth since the last report, when a report is due: at once for a new entry, then at most every five seconds
    /// while it is active. The sum over all reports equals the entry's counter.
    pub update: Option<Counter>,
    /// The time since the entry last grew.
    pub idle: Duration,
}

impl Tracker {
    /// Reads the growth of an entry. `flush` makes a report due at once.
    pub fn read(&mut self, entry: &Entry, now: Instant, flush: bool) -> Growth {
        let now = self.millis(now);
        let progress = Progress { generation: entry.generation, ..Progress::default() };
        let place = self.entries.entry(entry.slot);
        let known = place.filter(|tracked| tracked.progress.generation == entry.generation);
        let tracked = place.insert(known.unwrap_or(Tracked { progress, reported_at: now, active_at: now }));
        let Tracked { progress, reported_at, active_at } = tracked;
        let due = flush || known.is_none() || elapsed(*reported_at, now) >= INTERVAL;
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
        Growth { new, update, idle: elapsed(*active_at, now) }
    }

    /// A time, as entries have it.
    fn millis(&mut self, now: Instant) -> u32 {
        let start = *self.start.get_or_insert(now);
        now.duration_since(start).as_millis() as u32
    }

    /// Forgets an entry that was removed.
    pub fn forget(&mut self, slot: SlotId) {
        self.entries.remove(slot);
    }

    /// The progress on each entry, for the process that continues after this one.
    pub fn progress(&self) -> impl Iterator<Item = (SlotId, Progress)> {
        self.entries.iter().map(|(slot, tracked)| (slot, tracked.progress))
    }

    /// Continues from the progress of an earlier process.
    pub fn restore(&mut self, progress: impl IntoIterator<Item = (SlotId, Progress)>, now: Instant) {
        let now = self.millis(now);
        self.entries = BySlot::default();
        for (slot, progress) in progress {
            *self.entries.entry(slot) = Some(Tracked { progress, reported_at: now, active_at: now });
        }
    }
}

/// The time between two, of which the second is the later one or the same.
fn elapsed(before: u32, now: u32) -> Duration {
    Duration::from_millis(now.wrapping_sub(before).into())
}

/// The growth of a counter. Bytes and packets are not read at the same instant, so half a packet waits for its
/// other half.
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
        let reported = |bytes, packets| Some(counter(bytes, packets));
        let mut read = |port, bytes, packets, seconds, flush| {
            let growth = tracker.read(&entry(port, bytes, packets), at(seconds), flush);
            (growth.new, growth.update)
        };
        assert_eq!(read(80, 100, 1, 0, false), (counter(100, 1), reported(100, 1)));
        assert_eq!(read(80, 500, 5, 4, false), (counter(400, 4), None));
        assert_eq!(read(443, 60, 1, 4, false), (counter(60, 1), reported(60, 1)));
        assert_eq!(read(80, 700, 7, 5, false), (counter(200, 2), reported(600, 6)));
        assert_eq!(read(80, 700, 7, 11, false), (counter(0, 0), None), "idle");
        assert_eq!(read(80, 760, 7, 11, false), (counter(0, 0), None), "half of a packet");
        assert_eq!(read(80, 800, 8, 12, true), (counter(100, 1), reported(100, 1)));
        assert_eq!(read(443, 90, 2, 8, false), (counter(30, 1), None));
        assert_eq!(read(443, 90, 2, 9, false), (counter(0, 0), reported(30, 1)), "what is unreported waits");
    }

    #[test]
    fn another_entry_in_the_same_slot_begins_at_zero() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        tracker.read(&entry(80, 500, 5), now, false);
        let next = Entry { generation: 2, ..entry(80, 700, 7) };
        let later = now + Duration::from_secs(60);
        assert_eq!(tracker.read(&next, later, false).new, Counter { bytes: 700, packets: 7 });
        // One process continues from the progress of another.
        let progress: Vec<_> = tracker.progress().collect();
        let mut tracker = Tracker::default();
        tracker.restore(progress, later);
        let next = Entry { generation: 2, ..entry(80, 750, 8) };
        let growth = tracker.read(&next, later + Duration::from_secs(9), false);
        assert_eq!(
            (growth.new, growth.update),
            (Counter { bytes: 50, packets: 1 }, Some(Counter { bytes: 50, packets: 1 }))
        );
        assert_eq!(growth.idle, Duration::ZERO);
        assert_eq!(tracker.read(&next, later + Duration::from_secs(40), false).idle, Duration::from_secs(31));
    }
}
