//! The flow ring: the newest flows, in the order of their arrival, for any number of readers.
//!
//! A slow reader loses the oldest flows and learns their number. Writers never wait. Losses are records among the
//! flows, and take no flow's place.

use super::{encoded::Encoded, steps::between_steps};
use crate::proto::flow::LostEventSource;
use prost_types::Timestamp;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::{Deref, Range},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The limit of concurrent readers. Each may hold a segment that has left the ring, and data that its client has
/// not read.
pub const READERS: usize = 2048;
/// Records that are stored together; a reader takes a reference to the whole segment.
const SEGMENT: usize = 64;
/// How late a flow may be read: flows are read once a second, and a busy machine may take some seconds. A larger step
/// back is one of the clock.
const LATE_SECONDS: i64 = 5;
/// Nodes whose flows are counted separately; flows of further nodes are counted together, without a name.
const NODES: usize = 16_384;

/// A bounded number of records, numbered from 0.
#[derive(Debug)]
pub struct Ring {
    capacity: u64,
    records: Mutex<Records>,
    /// The sequence number of the next record.
    next: watch::Sender<u64>,
    overtaken: AtomicU64,
    places: Arc<Semaphore>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Records {
    /// Segment n holds the records from n × SEGMENT on; records of the first segment may have left the ring.
    full: VecDeque<Arc<[Record]>>,
    /// The newest records, which do not fill a segment yet.
    newest: Vec<Record>,
    oldest: u64,
    next: u64,
    /// The number of flows among the records of the ring.
    flows: u64,
    flows_by_node: BTreeMap<String, u64>,
}

/// A record of the ring.
#[derive(Clone, Debug)]
pub enum Record {
    /// A flow.
    Flow(Encoded),
    /// Flows are missing at this point.
    Lost(Box<Lost>),
}

impl Record {
    /// The flow, if it is one.
    pub const fn flow(&self) -> Option<&Encoded> {
        match self {
            Self::Flow(flow) => Some(flow),
            Self::Lost(_) => None,
        }
    }

    /// The time of the record, if it is known.
    pub fn time(&self) -> Option<Timestamp> {
        match self {
            Self::Flow(flow) => flow.time(),
            Self::Lost(lost) => lost.time.or(lost.last),
        }
    }
}

/// Flows that were lost before they reached the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The node that lost them.
    pub node: String,
    /// The place of the loss.
    pub source: LostEventSource,
    /// The number of flows.
    pub count: u64,
    /// The CPU whose buffer was full, if it is known.
    pub cpu: Option<i32>,
    /// The flows are not older than this.
    pub first: Option<Timestamp>,
    /// The flows are not newer than this.
    pub last: Option<Timestamp>,
    /// The time at which the loss was noticed.
    pub time: Option<Timestamp>,
}

/// Some records of the ring.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The number of records before these that were overwritten unread.
    pub lost: u64,
    /// The sequence number to continue from.
    pub next: u64,
    segment: Arc<[Record]>,
    range: Range<usize>,
}

impl Batch {
    /// The records, oldest first.
    pub fn records(&self) -> &[Record] {
        &self.segment[self.range.clone()]
    }

    /// Takes the oldest record that is a loss or a wanted flow, and drops the records before it.
    pub fn take(&mut self, mut wanted: impl FnMut(&Encoded) -> bool) -> Option<Held> {
        let index = self.range.find(|index| self.segment[*index].flow().is_none_or(&mut wanted))?;
        Some(Held { segment: Arc::clone(&self.segment), index })
    }

    /// The flows among the records.
    pub fn flows(&self) -> impl DoubleEndedIterator<Item = &Encoded> {
        self.records().iter().filter_map(Record::flow)
    }
}

/// A reference to a record, valid after the record has left the ring.
#[derive(Clone, Debug)]
pub struct Held {
    segment: Arc<[Record]>,
    index: usize,
}

impl Deref for Held {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.segment[self.index]
    }
}

impl Ring {
    /// An empty ring for `capacity` flows, at least one, and up to as many losses.
    pub fn new(capacity: usize) -> Self {
        let records = Mutex::new(Records::default());
        let capacity = capacity.max(1) as u64;
        let places = Arc::new(Semaphore::new(READERS));
        let (overtaken, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { capacity, records, next: watch::Sender::new(0), overtaken, places, refused }
    }

    /// Adds a flow; a full ring drops its oldest record. A flow that is read late gets the time of the flow before it,
    /// so that time does not go back in the ring; it does where the clock was ahead and is right again.
    pub fn push(&self, mut flow: Encoded) {
        let records = self.lock();
        let newest = records.newest.iter().rev().chain(records.full.iter().rev().flat_map(|full| full.iter().rev()));
        if let Some(newest) = newest.take(self.capacity as usize).find_map(Record::flow)
            && let (Some(time), Some(newest)) = (&mut flow.time, newest.time)
            && (time.at.seconds, time.at.nanos) < (newest.at.seconds, newest.at.nanos)
            && newest.at.seconds.saturating_sub(time.at.seconds) <= LATE_SECONDS
        {
            *time = newest;
        }
        self.add(records, Record::Flow(flow));
    }

    /// Adds a record unchanged: a flow with its own time, or a loss.
    pub fn push_record(&self, record: Record) {
        self.add(self.lock(), record);
    }

    /// Counts a flow that is too old for the ring.
    pub fn pass(&self, flow: &Encoded) {
        self.lock().count_flow(flow);
    }

    /// Sorts the records by time; a record without a time stays after the record before it.
    pub fn sort(&self) {
        let mut records = self.lock();
        let Records { full, newest, .. } = &*records;
        let all: Vec<Record> = full.iter().flat_map(|full| full.iter()).chain(newest).cloned().collect();
        let (first, mut latest) = (records.first(), None);
        let gone = (records.oldest - first) as usize;
        let mut timed = Vec::with_capacity(all.len() - gone);
        for record in &all[gone..] {
            latest = record.time().map(|time| (time.seconds, time.nanos)).or(latest);
            timed.push((latest, record.clone()));
        }
        timed.sort_by_key(|(time, _)| *time);
        let mut sorted = all[..gone].iter().cloned().chain(timed.into_iter().map(|(_, record)| record));
        let segments = records.full.len();
        let full = (0..segments).map(|_| sorted.by_ref().take(SEGMENT).collect::<Vec<_>>().into()).collect();
        (records.full, records.newest) = (full, sorted.collect());
    }

    fn add(&self, mut records: MutexGuard<'_, Records>, record: Record) {
        if let Record::Flow(flow) = &record {
            records.count_flow(flow);
            records.flows += 1;
        }
        records.newest.push(record);
        records.next += 1;
        while records.flows > self.capacity || records.next - records.oldest > 2 * self.capacity {
            records.forget_oldest();
        }
        if records.newest.len() == SEGMENT {
            let full = std::mem::replace(&mut records.newest, Vec::with_capacity(SEGMENT));
            records.full.push_back(full.into());
        }
        let mut left = Vec::new();
        while records.oldest >= records.first() + SEGMENT as u64 {
            left.extend(records.full.pop_front());
        }
        let next = records.next;
        drop(records);
        // Dropped outside the lock, because it can be many records.
        drop(left);
        between_steps();
        // Writers may arrive here in another order than they left the lock.
        self.next.send_if_modified(|known| {
            let newer = *known < next;
            *known = next.max(*known);
            newer
        });
    }

    /// Up to a segment of records from the sequence number `from` on, before `end`; empty if there are none yet.
    pub fn read(&self, from: u64, end: u64) -> Batch {
        let records = self.lock();
        let start = from.clamp(records.oldest, records.next);
        let lost = start.saturating_sub(from);
        let end = end.min(records.next).max(start);
        // The record's segment, and its position in the segment.
        let offset = (start - records.first()) as usize;
        let (index, skip) = (offset / SEGMENT, offset % SEGMENT);
        let count = ((end - start) as usize).min(SEGMENT - skip);
        let (segment, range) = match records.full.get(index) {
            Some(segment) => (Arc::clone(segment), skip..skip + count),
            None => (records.newest[skip..skip + count].into(), 0..count),
        };
        Batch { lost, next: start + count as u64, segment, range }
    }

    /// Up to a segment of records right before the sequence number `end`; empty if there are none left.
    pub fn read_back(&self, end: u64) -> Batch {
        self.read(end.saturating_sub(1) / SEGMENT as u64 * SEGMENT as u64, end)
    }

    /// A permit for a reader; `None` if there are [`READERS`].
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        self.refused.fetch_add(u64::from(place.is_none()), Ordering::Relaxed);
        place
    }

    /// The number of readers, and of readers refused.
    pub fn readers(&self) -> (u64, u64) {
        ((READERS - self.places.available_permits()) as u64, self.refused.load(Ordering::Relaxed))
    }

    /// Counts records that a reader lost.
    pub fn overtook(&self, lost: u64) {
        self.overtaken.fetch_add(lost, Ordering::Relaxed);
    }

    /// All records of the ring, oldest first.
    pub fn batches(&self) -> impl Iterator<Item = Batch> {
        let Range { start, end } = self.range();
        let mut next = start;
        std::iter::from_fn(move || {
            let batch = self.read(next, end);
            next = batch.next;
            (!batch.records().is_empty()).then_some(batch)
        })
    }

    /// The sequence numbers of the records in the ring.
    pub fn range(&self) -> Range<u64> {
        let records = self.lock();
        records.oldest..records.next
    }

    /// Notifies of new records: the watched value is the sequence number after the newest record.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// The number of flows in the ring.
    pub fn len(&self) -> u64 {
        self.lock().flows
    }

    /// Whether the ring holds no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most flows that the ring can hold.
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The number of flows ever added.
    pub fn flows_ever(&self) -> u64 {
        self.lock().flows_by_node.values().sum()
    }

    /// The number of flows ever added, by node.
    pub fn flows_by_node(&self) -> BTreeMap<String, u64> {
        self.lock().flows_by_node.clone()
    }

    /// The number of records overwritten before a reader read them, summed over the readers.
    pub fn overtaken(&self) -> u64 {
        self.overtaken.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        between_steps();
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    /// The sequence number of the first record of the first segment.
    fn first(&self) -> u64 {
        self.next - (self.full.len() * SEGMENT + self.newest.len()) as u64
    }

    fn count_flow(&mut self, flow: &Encoded) {
        let name = flow.node_name();
        let is_known = self.flows_by_node.contains_key(name);
        let name = if is_known || self.flows_by_node.len() < NODES { name } else { "" };
        match self.flows_by_node.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.flows_by_node.insert(name.to_owned(), 1);
            }
        }
    }

    fn forget_oldest(&mut self) {
        let at = (self.oldest - self.first()) as usize;
        let record = match self.full.get(at / SEGMENT) {
            Some(segment) => segment.get(at % SEGMENT),
            None => self.newest.get(at % SEGMENT),
        };
        self.flows -= u64::from(record.is_some_and(|record| record.flow().is_some()));
        self.oldest += 1;
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

    fn all(ring: &Ring) -> Vec<u64> {
        ring.batches().flat_map(|batch| uuids(&batch)).collect()
    }

    #[test]
    fn the_newest_flow_is_visible_at_once() {
        let ring = Ring::new(3);
        ring.push(named(0));
        assert_eq!(uuids(&ring.read(0, u64::MAX)), [0]);
    }

    #[test]
    fn an_overtaken_reader_gets_the_number_of_lost_flows() {
        let ring = Ring::new(3);
        (0..5).for_each(|n| ring.push(named(n)));
        let batch = ring.read(0, 4);
        assert_eq!((batch.lost, uuids(&batch), batch.next), (2, vec![2, 3], 4));
        let batch = ring.read(batch.next, u64::MAX);
        assert_eq!((batch.lost, uuids(&batch), batch.next), (0, vec![4], 5));
        assert!(ring.read(5, u64::MAX).records().is_empty());
    }

    #[test]
    fn time_goes_back_only_with_the_clock() {
        const DAY: i64 = 86_400;
        let times = |pushed: &[i64]| -> Vec<i64> {
            let ring = Ring::new(15);
            for seconds in pushed {
                let time = Some(prost_types::Timestamp { seconds: *seconds, nanos: 0 });
                ring.push(Flow { time, ..Flow::default() }.into());
            }
            ring.read(0, u64::MAX).flows().map(|flow| flow.time().unwrap().seconds).collect()
        };
        assert_eq!(times(&[5, 3, 7]), [5, 5, 7], "a flow that was read late");
        // The clock was a day ahead for seven seconds.
        let ahead = [100, DAY + 101, DAY + 107, 108, 107, 109];
        assert_eq!(times(&ahead), [100, DAY + 101, DAY + 107, 108, 108, 109]);
        assert_eq!(times(&[i64::MAX, i64::MIN, 3]), [i64::MAX, i64::MIN, 3], "a message may hold any time");
    }

    #[test]
    fn the_newest_are_kept_whatever_the_capacity() {
        for capacity in [1, 3, 63, 64, 65, 127, 300] {
            let ring = Ring::new(capacity);
            for n in 0..1000 {
                ring.push(named(n));
                let oldest = (n + 1).saturating_sub(capacity as u64);
                assert_eq!(ring.range(), oldest..n + 1);
            }
            assert_eq!(all(&ring), (1000 - capacity as u64..1000).collect::<Vec<_>>());
            assert_eq!((ring.len(), ring.capacity(), ring.flows_ever()), (capacity as u64, capacity as u64, 1000));
            let kept = ring.lock().full.len() * SEGMENT;
            assert!(kept < capacity + SEGMENT, "{kept} for {capacity}");
        }
    }

    #[test]
    fn a_held_flow_outlives_its_place_in_the_ring() {
        let ring = Ring::new(3);
        ring.push(named(0));
        let mut batch = ring.read(0, u64::MAX);
        (1..500).for_each(|n| ring.push(named(n)));
        let held = batch.take(|_| true).unwrap();
        assert_eq!(held.flow().unwrap().decode().uuid, "0");
        assert!(batch.take(|_| true).is_none() && batch.records().is_empty());
        let batch = ring.read(1, u64::MAX);
        assert_eq!((batch.lost, uuids(&batch)), (496, vec![497, 498, 499]));
        assert_eq!(uuids(&ring.read_back(499)), [497, 498]);
        assert!(uuids(&ring.read_back(497)).is_empty() && uuids(&ring.read_back(0)).is_empty());
    }

    #[test]
    fn a_loss_has_its_place_among_the_flows() {
        let ring = Ring::new(3);
        ring.push(named(0));
        ring.push_record(lost(7, None));
        ring.push(named(1));
        let batch = ring.read(0, u64::MAX);
        let [Record::Flow(_), Record::Lost(lost), Record::Flow(_)] = batch.records() else { panic!("{batch:?}") };
        assert_eq!((lost.count, ring.len(), ring.flows_ever()), (7, 2, 2));
    }

    fn lost(count: u64, seconds: Option<i64>) -> Record {
        let (node, source) = ("a".into(), LostEventSource::PerfEventRingBuffer);
        let time = seconds.map(|seconds| Timestamp { seconds, nanos: 0 });
        Record::Lost(Box::new(Lost { node, source, count, cpu: None, first: None, last: None, time }))
    }

    #[test]
    fn losses_take_no_flows_place_and_are_bounded() {
        for capacity in [1, 3, 63, 64, 65, 200] {
            let ring = Ring::new(capacity);
            (0..300).for_each(|n| ring.push(named(n)));
            (0..capacity as u64).for_each(|_| ring.push_record(lost(1, None)));
            assert_eq!(all(&ring), (300 - capacity as u64..300).collect::<Vec<_>>());
            assert_eq!(ring.len(), capacity as u64);
            (0..1000).for_each(|_| ring.push_record(lost(1, None)));
            let Range { start, end } = ring.range();
            assert_eq!((end - start, ring.len(), all(&ring).len()), (2 * capacity as u64, 0, 0));
            (300..900).for_each(|n| ring.push(named(n)));
            assert_eq!(all(&ring), (900 - capacity as u64..900).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_sorted_ring_is_in_the_order_of_time() {
        let ring = Ring::new(200);
        let flow = |n: i64, seconds: Option<i64>| {
            let time = seconds.map(|seconds| Timestamp { seconds, nanos: 0 });
            Record::Flow(Flow { uuid: n.to_string(), time, ..Flow::default() }.into())
        };
        (0..250).for_each(|n| ring.push_record(flow(n, Some(n * 7 % 251))));
        let held = all(&ring);
        ring.push_record(lost(9, Some(100)));
        ring.push_record(flow(250, None));
        let (before, range) = (held.len() + 1, ring.range());
        ring.sort();
        assert_eq!((ring.range(), ring.len()), (range, 200));
        let times: Vec<i64> = ring
            .batches()
            .flat_map(|batch| batch.flows().filter_map(Encoded::time).map(|time| time.seconds).collect::<Vec<_>>())
            .collect();
        assert!(times.is_sorted() && times.len() == before - 2, "{times:?}");
        // A record without a time stays after the record that it came after.
        let all: Vec<Record> = ring.batches().flat_map(|batch| batch.records().to_vec()).collect();
        let at = all.iter().position(|record| record.flow().is_none()).unwrap();
        assert_eq!(all[at + 1].flow().unwrap().decode().uuid, "250");
    }

    #[test]
    fn readers_are_bounded() {
        let ring = Ring::new(3);
        let mut places: Vec<_> = (0..READERS).map(|_| ring.place().unwrap()).collect();
        assert!(ring.place().is_none());
        assert_eq!(ring.readers(), (READERS as u64, 1));
        places.pop();
        assert!(ring.place().is_some());
        drop(places);
        assert_eq!(ring.readers(), (0, 1));
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
