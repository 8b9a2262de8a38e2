//! The flow ring: the newest flows, in the order in which they came, for any number of readers.
//!
//! A reader that falls behind loses the oldest flows and is told how many. Writers never wait.

use crate::proto::flow::Flow;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Flows by their sequence number, from 0. It holds a bounded number of them.
#[derive(Debug)]
pub struct Ring {
    capacity: usize,
    flows: Mutex<Flows>,
    /// The sequence number that the next flow will have.
    next: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Flows {
    ring: VecDeque<Arc<Flow>>,
    next: u64,
    seen_by_node: BTreeMap<String, u64>,
}

/// Some flows of the ring.
#[derive(Debug)]
pub struct Batch {
    /// How many flows before these were overwritten unread.
    pub lost: u64,
    /// The flows, oldest first.
    pub flows: Vec<Arc<Flow>>,
    /// Where to read on.
    pub next: u64,
}

impl Ring {
    /// An empty ring for `capacity` flows, at least one.
    pub fn new(capacity: usize) -> Self {
        let flows = Mutex::new(Flows::default());
        Self { capacity: capacity.max(1), flows, next: watch::Sender::new(0) }
    }

    /// Adds a flow; the oldest one leaves a full ring. Time never goes back in the ring: a flow
    /// that is told late, because its node was read late, has the time of the one before it.
    pub fn push(&self, mut flow: Flow) {
        let mut flows = self.lock();
        if let Some(newest) = flows.ring.back()
            && let (Some(time), Some(newest)) = (&mut flow.time, newest.time)
            && (time.seconds, time.nanos) < (newest.seconds, newest.nanos)
        {
            *time = newest;
        }
        if flows.ring.len() == self.capacity {
            flows.ring.pop_front();
        }
        match flows.seen_by_node.get_mut(&flow.node_name) {
            Some(seen) => *seen += 1,
            None => {
                flows.seen_by_node.insert(flow.node_name.clone(), 1);
            }
        }
        flows.ring.push_back(Arc::new(flow));
        flows.next += 1;
        let next = flows.next;
        drop(flows);
        // Writers may come here in another order than they left the lock.
        self.next.send_if_modified(|known| {
            let newer = *known < next;
            *known = next.max(*known);
            newer
        });
    }

    /// Up to `max` flows from the sequence number `from` on.
    pub fn read(&self, from: u64, max: usize) -> Batch {
        let flows = self.lock();
        let oldest = flows.oldest();
        let start = from.max(oldest);
        let skip = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        let read: Vec<Arc<Flow>> = flows.ring.iter().skip(skip).take(max).map(Arc::clone).collect();
        Batch { lost: start - from, next: start + read.len() as u64, flows: read }
    }

    /// The sequence number of the oldest flow, or of the next one if there is none.
    pub fn oldest(&self) -> u64 {
        self.lock().oldest()
    }

    /// Tells of flows to come: the watched value is the sequence number after the newest flow.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// How many flows the ring holds.
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
        self.lock().next
    }

    /// How many flows of each node have ever been added.
    pub fn seen_by_node(&self) -> BTreeMap<String, u64> {
        self.lock().seen_by_node.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flows {
    fn oldest(&self) -> u64 {
        self.next - self.ring.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(uuid: u64) -> Flow {
        Flow { uuid: uuid.to_string(), ..Flow::default() }
    }

    fn uuids(batch: &Batch) -> Vec<u64> {
        batch.flows.iter().map(|flow| flow.uuid.parse().unwrap()).collect()
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
        assert!(ring.read(5, 2).flows.is_empty());
    }

    #[test]
    fn time_does_not_go_back() {
        let ring = Ring::new(3);
        for seconds in [5, 3, 7] {
            let time = Some(prost_types::Timestamp { seconds, nanos: 0 });
            ring.push(Flow { time, ..Flow::default() });
        }
        let times: Vec<i64> = ring.read(0, 3).flows.iter().map(|flow| flow.time.unwrap().seconds).collect();
        assert_eq!(times, [5, 5, 7]);
    }

    #[test]
    fn a_full_ring_loses_nothing_for_a_reader_of_the_whole() {
        let ring = Ring::new(3);
        (0..3).for_each(|n| ring.push(named(n)));
        let batch = ring.read(ring.oldest(), 10);
        assert_eq!((batch.lost, uuids(&batch)), (0, vec![0, 1, 2]));
        assert_eq!((ring.len(), ring.capacity(), ring.seen()), (3, 3, 3));
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
