//! The flow ring: the newest flows, in the order in which they came, for any number of readers.
//!
//! A reader that falls behind loses the oldest flows and is told how many. Writers never wait.

use super::encoded::Encoded;
use crate::proto::flow::LostEventSource;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use tokio::sync::watch;

/// Records by their sequence number, from 0. It holds a bounded number of them.
#[derive(Debug)]
pub struct Ring {
    capacity: usize,
    records: Mutex<Records>,
    /// The sequence number that the next record will have.
    next: watch::Sender<u64>,
    overtaken: AtomicU64,
}

#[derive(Debug, Default)]
struct Records {
    ring: VecDeque<Record>,
    next: u64,
    seen_by_node: BTreeMap<String, u64>,
}

/// What the ring holds.
#[derive(Clone, Debug)]
pub enum Record {
    /// A flow.
    Flow(Arc<Encoded>),
    /// At this point flows are missing.
    Lost(Lost),
}

impl Record {
    /// The flow, if it is one.
    pub const fn flow(&self) -> Option<&Arc<Encoded>> {
        match self {
            Self::Flow(flow) => Some(flow),
            Self::Lost(_) => None,
        }
    }
}

/// Flows that never came into the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The node that lost them.
    pub node: String,
    /// Where they were lost.
    pub source: LostEventSource,
    /// How many.
    pub count: u64,
    /// Not before this time.
    pub first: SystemTime,
    /// Not after this time.
    pub last: SystemTime,
}

/// Some records of the ring.
#[derive(Debug)]
pub struct Batch {
    /// How many records before these were overwritten unread.
    pub lost: u64,
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: u64,
}

impl Batch {
    /// The flows among the records.
    pub fn flows(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.records.iter().filter_map(Record::flow)
    }
}

impl Ring {
    /// An empty ring for `capacity` records, at least one.
    pub fn new(capacity: usize) -> Self {
        let records = Mutex::new(Records::default());
        Self { capacity: capacity.max(1), records, next: watch::Sender::new(0), overtaken: AtomicU64::new(0) }
    }

    /// Adds a flow; the oldest record leaves a full ring. Time never goes back in the ring: a flow
    /// that is told late, because its node was read late, has the time of the one before it.
    pub fn push(&self, mut flow: Encoded) {
        let records = self.lock();
        if let Some(newest) = records.ring.iter().rev().find_map(Record::flow)
            && let (Some(time), Some(newest)) = (&mut flow.time, newest.time())
            && (time.seconds, time.nanos) < (newest.seconds, newest.nanos)
        {
            *time = newest;
        }
        self.add(records, Record::Flow(Arc::new(flow)));
    }

    /// Adds a record as it is: a flow with its own time, or the remark that flows are missing here.
    pub fn push_record(&self, record: Record) {
        self.add(self.lock(), record);
    }

    fn add(&self, mut records: MutexGuard<'_, Records>, record: Record) {
        if let Record::Flow(flow) = &record {
            match records.seen_by_node.get_mut(flow.node_name()) {
                Some(seen) => *seen += 1,
                None => {
                    records.seen_by_node.insert(flow.node_name().to_owned(), 1);
                }
            }
        }
        if records.ring.len() == self.capacity {
            records.ring.pop_front();
        }
        records.ring.push_back(record);
        records.next += 1;
        let next = records.next;
        drop(records);
        // Writers may come here in another order than they left the lock.
        self.next.send_if_modified(|known| {
            let newer = *known < next;
            *known = next.max(*known);
            newer
        });
    }

    /// Up to `max` records from the sequence number `from` on.
    pub fn read(&self, from: u64, max: usize) -> Batch {
        let records = self.lock();
        let oldest = records.oldest();
        let start = from.max(oldest);
        let skip = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        let read: Vec<Record> = records.ring.iter().skip(skip).take(max).cloned().collect();
        drop(records);
        Batch { lost: start - from, next: start + read.len() as u64, records: read }
    }

    /// Remembers that a reader lost records.
    pub fn overtook(&self, lost: u64) {
        self.overtaken.fetch_add(lost, Ordering::Relaxed);
    }

    /// Every record of the ring.
    pub fn read_all(&self) -> Batch {
        let records = self.lock();
        Batch { lost: 0, next: records.next, records: records.ring.iter().cloned().collect() }
    }

    /// The sequence numbers of the records that it holds.
    pub fn range(&self) -> Range<u64> {
        let records = self.lock();
        records.oldest()..records.next
    }

    /// Tells of records to come: the watched value is the sequence number after the newest one.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// How many records the ring holds.
    pub fn len(&self) -> usize {
        self.lock().ring.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many it can hold.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many flows have ever been added.
    pub fn seen(&self) -> u64 {
        self.lock().seen_by_node.values().sum()
    }

    /// How many flows of each node have ever been added.
    pub fn seen_by_node(&self) -> BTreeMap<String, u64> {
        self.lock().seen_by_node.clone()
    }

    /// How many records were overwritten before a reader came to them, summed over the readers.
    pub fn overtaken(&self) -> u64 {
        self.overtaken.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn oldest(&self) -> u64 {
        self.next - self.ring.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::Flow;

    fn named(uuid: u64) -> Encoded {
        Flow { uuid: uuid.to_string(), ..Flow::default() }.into()
    }

    fn uuids(batch: &Batch) -> Vec<u64> {
        batch.flows().map(|flow| flow.decode().uuid.parse().unwrap()).collect()
    }

    #[test]
    fn the_newest_flow_is_visible_at_once() {
        let ring = Ring::new(3);
        ring.push(named(0));
        assert_eq!(uuids(&ring.read(0, 10)), [0]);
    }

    #[test]
    fn a_reader_that_was_overtaken_is_told_what_it_lost() {
        let ring = Ring::new(3);
        (0..5).for_each(|n| ring.push(named(n)));
        let batch = ring.read(0, 2);
        assert_eq!((batch.lost, uuids(&batch), batch.next), (2, vec![2, 3], 4));
        let batch = ring.read(batch.next, 2);
        assert_eq!((batch.lost, uuids(&batch), batch.next), (0, vec![4], 5));
        assert!(ring.read(5, 2).records.is_empty());
    }

    #[test]
    fn time_does_not_go_back() {
        let ring = Ring::new(3);
        for seconds in [5, 3, 7] {
            let time = Some(prost_types::Timestamp { seconds, nanos: 0 });
            ring.push(Flow { time, ..Flow::default() }.into());
        }
        let times: Vec<i64> = ring.read_all().flows().map(|flow| flow.time().unwrap().seconds).collect();
        assert_eq!(times, [5, 5, 7]);
    }

    #[test]
    fn a_full_ring_loses_nothing_for_a_reader_of_the_whole() {
        let ring = Ring::new(3);
        (0..3).for_each(|n| ring.push(named(n)));
        let batch = ring.read_all();
        assert_eq!((batch.lost, uuids(&batch)), (0, vec![0, 1, 2]));
        assert_eq!((ring.len(), ring.capacity(), ring.seen()), (3, 3, 3));
    }

    #[test]
    fn a_loss_has_its_place_among_the_flows() {
        let ring = Ring::new(3);
        ring.push(named(0));
        let now = SystemTime::now();
        ring.push_record(Record::Lost(Lost {
            node: "a".into(),
            source: LostEventSource::PerfEventRingBuffer,
            count: 7,
            first: now,
            last: now,
        }));
        ring.push(named(1));
        let records = ring.read_all().records;
        assert!(matches!(&records[..], [Record::Flow(_), Record::Lost(Lost { count: 7, .. }), Record::Flow(_)]));
        assert_eq!((ring.len(), ring.seen()), (3, 2));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let ring = Arc::new(Ring::new(3));
        let mut watch = ring.watch();
        let reader = tokio::spawn(async move { *watch.wait_for(|next| *next == 2).await.unwrap() });
        ring.push(named(0));
        ring.push(named(1));
        assert_eq!(reader.await.unwrap(), 2);
    }
}
