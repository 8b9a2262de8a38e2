//! Sorts recorded flows by time: keeps the newest flows, and the losses among them.

use crate::flows::{Encoded, Lost, Record};
use prost_types::Timestamp;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// The limit of memory for waiting flows, in bytes. 65,535 typical flows take a thirtieth of it.
const BYTES: usize = 1 << 30;

/// A time as a comparable value; `None` sorts first.
type Instant = Option<(i64, i32)>;
/// The time, then the order of arrival.
type SortKey = (Instant, u64);

/// Records that wait until all earlier ones are read.
#[derive(Debug)]
pub struct Order {
    capacity: usize,
    flows: BinaryHeap<Reverse<Waiting>>,
    bytes: usize,
    /// At most one of a kind in a second, as Cilium reports them.
    losses: BTreeMap<Kind, (SortKey, Lost)>,
    came: u64,
    /// The time of the last record; a record without a time follows it.
    latest: Instant,
}

/// Losses that can be merged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    second: Option<i64>,
    node: String,
    source: i32,
    cpu: Option<i32>,
}

#[derive(Debug)]
struct Waiting {
    place: SortKey,
    flow: Encoded,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

impl Order {
    /// Keeps up to this many flows, and as many losses.
    pub fn new(capacity: usize) -> Self {
        let (flows, losses) = (BinaryHeap::new(), BTreeMap::new());
        Self { capacity, flows, bytes: 0, losses, came: 0, latest: None }
    }

    /// Starts another file.
    pub const fn begin_file(&mut self) {
        self.latest = None;
    }

    /// Adds a record. Returns the oldest flow if there is one too many.
    pub fn push(&mut self, record: Record) -> Option<Encoded> {
        self.latest = record.time().as_ref().map(instant).or(self.latest);
        let place = (self.latest, self.came);
        self.came += 1;
        match record {
            Record::Lost(lost) => {
                self.lose(place, *lost);
                None
            }
            Record::Flow(flow) => {
                self.bytes += flow.encoded_len();
                self.flows.push(Reverse(Waiting { place, flow }));
                let is_full = self.flows.len() > self.capacity || self.bytes > BYTES;
                let oldest = if is_full { self.flows.pop() } else { None };
                let Reverse(Waiting { flow, .. }) = oldest?;
                self.bytes -= flow.encoded_len();
                Some(flow)
            }
        }
    }

    fn lose(&mut self, place: SortKey, lost: Lost) {
        let (second, _) = place.0.unzip();
        let kind = Kind { second, node: lost.node.clone(), source: lost.source.into(), cpu: lost.cpu };
        match self.losses.get_mut(&kind) {
            Some((_, known)) => join(known, &lost),
            None => {
                self.losses.insert(kind, (place, lost));
            }
        }
        if self.losses.len() > self.capacity {
            self.losses.pop_first();
        }
    }

    /// Takes all records, oldest first. Equal losses in a row are merged.
    pub fn take(&mut self) -> Vec<Record> {
        let flows = std::mem::take(&mut self.flows).into_iter();
        let flows = flows.map(|Reverse(Waiting { place, flow })| (place, Record::Flow(flow)));
        let losses = std::mem::take(&mut self.losses).into_values();
        let losses = losses.map(|(place, lost)| (place, Record::Lost(Box::new(lost))));
        let mut all: Vec<_> = flows.chain(losses).collect();
        all.sort_unstable_by_key(|(place, _)| *place);
        self.bytes = 0;
        let mut records: Vec<Record> = Vec::with_capacity(all.len());
        // Losses of several nodes alternate between two flows.
        let mut since_flow = 0;
        for (_, record) in all {
            if let Record::Lost(lost) = &record {
                let equal = records[since_flow..].iter_mut().find_map(|before| match before {
                    Record::Lost(known) if is_equal(known, lost) => Some(known),
                    _ => None,
                });
                if let Some(known) = equal {
                    join(known, lost);
                    continue;
                }
            } else {
                since_flow = records.len() + 1;
            }
            records.push(record);
        }
        records
    }
}

fn is_equal(a: &Lost, b: &Lost) -> bool {
    (&a.node, a.source, a.cpu) == (&b.node, b.source, b.cpu)
}

/// Merges a later loss into one of the same kind.
fn join(known: &mut Lost, lost: &Lost) {
    let earliest = |lost: &Lost| lost.first.or(lost.time).or(lost.last);
    let latest = |lost: &Lost| lost.last.or(lost.time).or(lost.first);
    let (first, last) = ([earliest(known), earliest(lost)], [latest(known), latest(lost)]);
    known.first = first.into_iter().flatten().min_by_key(instant);
    known.last = last.into_iter().flatten().max_by_key(instant);
    known.time = [known.time, lost.time].into_iter().flatten().max_by_key(instant);
    known.count = known.count.saturating_add(lost.count);
}

fn instant(time: &Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::{Flow, LostEventSource};

    fn time(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn flow(uuid: &str, seconds: Option<i64>) -> Record {
        Record::Flow(Flow { uuid: uuid.into(), time: seconds.map(time), ..Flow::default() }.into())
    }

    fn lost(node: &str, count: u64, cpu: Option<i32>, seconds: Option<i64>) -> Record {
        let source = LostEventSource::HubbleRingBuffer;
        let time = seconds.map(time);
        Record::Lost(Box::new(Lost { node: node.into(), source, count, cpu, first: None, last: None, time }))
    }

    fn names(order: &mut Order) -> Vec<String> {
        let name = |record: Record| match record {
            Record::Flow(flow) => flow.decode().uuid,
            Record::Lost(lost) => format!("{} lost {}", lost.node, lost.count),
        };
        order.take().into_iter().map(name).collect()
    }

    #[test]
    fn flows_of_several_files_are_in_one_order() {
        let mut order = Order::new(10);
        for (uuid, seconds) in [("a", 1), ("c", 3), ("e", 5)] {
            order.push(flow(uuid, Some(seconds)));
        }
        order.begin_file();
        for (uuid, seconds) in [("f", 6), ("d", 4), ("b", 2), ("b2", 2)] {
            order.push(flow(uuid, Some(seconds)));
        }
        assert_eq!(names(&mut order), ["a", "b", "b2", "c", "d", "e", "f"]);
        assert!(order.take().is_empty());
    }

    #[test]
    fn the_newest_are_kept() {
        let mut order = Order::new(3);
        let out: Vec<String> = [5, 1, 4, 2, 3, 6]
            .into_iter()
            .filter_map(|n: i64| order.push(flow(&n.to_string(), Some(n))))
            .map(|flow| flow.decode().uuid)
            .collect();
        assert_eq!(
            (names(&mut order), out),
            (["4", "5", "6"].map(str::to_owned).into(), ["1", "2", "3"].map(str::to_owned).into())
        );
    }

    #[test]
    fn a_line_without_time_stays_behind_its_predecessor() {
        let mut order = Order::new(9);
        for record in [flow("b", Some(2)), flow("b+", None), flow("a", Some(1)), lost("n", 1, None, None)] {
            order.push(record);
        }
        order.begin_file();
        order.push(flow("first", None));
        assert_eq!(names(&mut order), ["first", "a", "n lost 1", "b", "b+"]);
    }

    #[test]
    fn equal_losses_after_each_other_are_one() {
        let mut order = Order::new(1000);
        for second in 0..50 {
            (0..1000).for_each(|_| drop(order.push(lost("a", 1, None, Some(second)))));
            order.push(lost("b", 2, None, Some(second)));
            order.push(lost("a", 1, Some(3), Some(second)));
        }
        order.push(flow("f", Some(20)));
        let mut given = names(&mut order);
        given[..3].sort_unstable();
        given[4..].sort_unstable();
        // Losses in the same second as the flow came before it.
        let before = ["a lost 21", "a lost 21000", "b lost 42"];
        let after = ["a lost 29", "a lost 29000", "b lost 58"];
        assert_eq!(given, [&before[..], &["f"], &after].concat());
    }

    #[test]
    fn a_joined_loss_has_first_and_last_time_and_losses_are_bounded() {
        let mut order = Order::new(3);
        order.push(lost("a", 1, None, Some(5)));
        order.push(lost("a", u64::MAX, None, Some(9)));
        let [Record::Lost(joined)] = &order.take()[..] else { panic!("one") };
        assert_eq!((joined.first, joined.last, joined.time), (Some(time(5)), Some(time(9)), Some(time(9))));
        assert_eq!(joined.count, u64::MAX);
        (0..99).for_each(|n| drop(order.push(lost(&n.to_string(), 1, None, Some(n)))));
        assert_eq!(names(&mut order), ["96 lost 1", "97 lost 1", "98 lost 1"]);
        order.push(lost("a", 1, None, None));
        let [Record::Lost(alone)] = &order.take()[..] else { panic!("one") };
        assert_eq!((alone.first, alone.last, alone.time), (None, None, None));
    }
}
