//! Events other than flows: the newest ones, in the order of their time, for any number of readers.

use super::steps::between_steps;
use prost_types::Timestamp;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// The most events that are kept.
const CAPACITY: usize = 4095;

/// Events of one kind.
#[derive(Debug)]
pub struct EventLog<T> {
    events: Mutex<VecDeque<Logged<T>>>,
    /// The number of the next event.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Logged<T> {
    number: u64,
    time: Option<(i64, i32)>,
    event: T,
}

/// The events that a reader asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The limit of events; `None` means all.
    pub number: Option<usize>,
    /// Whether the limit counts from the oldest event.
    pub first: bool,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Not after this time.
    pub until: Option<Timestamp>,
}

impl Wanted {
    fn is_in_range(&self, time: Option<(i64, i32)>) -> bool {
        let time = time.unwrap_or_default();
        self.since.is_none_or(|since| time >= instant(&since)) && !self.is_over(time)
    }

    fn is_over(&self, time: (i64, i32)) -> bool {
        self.until.is_some_and(|until| time > instant(&until))
    }
}

impl<T> Default for EventLog<T> {
    fn default() -> Self {
        Self { events: Mutex::default(), next: watch::Sender::new(0) }
    }
}

impl<T: Clone> EventLog<T> {
    /// Adds an event; a full log drops its oldest event. An event without a time counts as the newest.
    pub fn push(&self, time: Option<Timestamp>, event: T) {
        let mut events = self.lock();
        let time = time.as_ref().map(instant).or_else(|| events.back().and_then(|newest| newest.time));
        let number = *self.next.borrow();
        let at = events.partition_point(|before| before.time <= time);
        events.insert(at, Logged { number, time, event });
        if events.len() > CAPACITY {
            events.pop_front();
        }
        // Under the lock. Otherwise two writers could take one number, and a reader could get an event twice.
        self.next.send_replace(number + 1);
    }

    /// The events that `wanted` selects, and the number of the next event.
    pub fn read(&self, wanted: &Wanted) -> (Vec<T>, u64) {
        let events = self.lock();
        let next = *self.next.borrow();
        let number = wanted.number.unwrap_or(usize::MAX);
        // As for flows: `since` applies before the limit, and the limit counts from the newest event of all.
        let skipped = if wanted.first || wanted.since.is_some() { 0 } else { events.len().saturating_sub(number) };
        let found = events.iter().skip(skipped).filter(|logged| wanted.is_in_range(logged.time));
        (found.take(number).map(|logged| logged.event.clone()).collect(), next)
    }

    /// The selected events with number `from` or later, and the number of the next event.
    pub fn read_from(&self, from: u64, wanted: &Wanted) -> (Vec<T>, u64) {
        let events = self.lock();
        let next = *self.next.borrow();
        let mut found: Vec<&Logged<T>> =
            events.iter().filter(|logged| logged.number >= from && wanted.is_in_range(logged.time)).collect();
        found.sort_by_key(|logged| logged.number);
        (found.into_iter().map(|logged| logged.event.clone()).collect(), next)
    }

    /// Notifies of new events: the watched value is the number of the next event.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Logged<T>>> {
        between_steps();
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn instant(time: &Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn events_are_in_the_order_of_time_and_the_newest_are_kept() {
        let log = EventLog::default();
        for n in [3, 1, 2] {
            log.push(at(n), n);
        }
        log.push(None, 9);
        let read = |wanted| log.read(&wanted).0;
        assert_eq!(read(Wanted::default()), [1, 2, 3, 9]);
        assert_eq!(read(Wanted { number: Some(2), ..Wanted::default() }), [3, 9]);
        assert_eq!(read(Wanted { number: Some(2), first: true, ..Wanted::default() }), [1, 2]);
        assert_eq!(read(Wanted { number: Some(1), since: at(2), ..Wanted::default() }), [2]);
        assert_eq!(read(Wanted { since: at(2), until: at(2), ..Wanted::default() }), [2]);
        assert_eq!(log.read_from(2, &Wanted::default()), (vec![2, 9], 4));
        (0..2 * CAPACITY as i64).for_each(|n| log.push(at(n), n));
        assert_eq!(log.read(&Wanted::default()).0.len(), CAPACITY);
    }
}
