//! The ring, the log and their readers in each possible order of their steps, by a model checker.
//!
//! A step is what happens under one lock. Of the channel that wakes a reader, each call is one step: its own steps are
//! checked where it is made.

use super::{
    EventLog, Record, Ring, WantedEvents,
    steps::{between_steps, check},
};
use crate::proto::flow::Flow;
use shuttle::{future::block_on, thread};
use std::sync::Arc;

fn push(ring: &Ring, uuid: u64) {
    ring.push(Flow { uuid: uuid.to_string(), ..Flow::default() }.into());
}

/// Follows as a stream of flows does, until `count` flows were read or lost: the flows, and the number of lost ones.
async fn follow(ring: &Ring, count: u64) -> (Vec<u64>, u64) {
    let (mut watch, mut next, mut read, mut lost) = (ring.watch(), 0, Vec::new(), 0);
    while read.len() as u64 + lost < count {
        let batch = ring.read(next, u64::MAX);
        let flows = batch.records().iter().filter_map(Record::flow);
        read.extend(flows.map(|flow| flow.decode().uuid.parse::<u64>().unwrap()));
        (next, lost) = (batch.next, lost + batch.lost);
        if batch.records().is_empty() {
            between_steps();
            watch.wait_for(|newest| *newest > next).await.unwrap();
        }
    }
    (read, lost)
}

/// Starts writers of these flows.
fn writers(ring: &Arc<Ring>, flows: &'static [&'static [u64]]) {
    for own in flows {
        let ring = Arc::clone(ring);
        thread::spawn(move || own.iter().for_each(|uuid| push(&ring, *uuid)));
    }
}

#[test]
fn a_follower_gets_each_flow_once_whenever_it_asks() {
    let orders = check(|| {
        let ring = Arc::new(Ring::new(7));
        writers(&ring, &[&[0, 1]]);
        assert_eq!(block_on(follow(&ring, 2)), (vec![0, 1], 0));
    });
    assert!(orders > 20, "{orders}");
}

#[test]
fn the_flows_of_two_writers_wake_a_follower_whichever_is_announced_first() {
    let orders = check(|| {
        let ring = Arc::new(Ring::new(7));
        writers(&ring, &[&[0], &[1]]);
        let (mut read, lost) = block_on(follow(&ring, 2));
        let all: Vec<u64> =
            ring.batches().flat_map(|batch| batch.records().to_vec()).map(|record| uuid(&record)).collect();
        assert_eq!((&read, lost), (&all, 0), "in the order of the ring");
        read.sort_unstable();
        assert_eq!(read, [0, 1]);
    });
    assert!(orders > 100, "{orders}");
}

fn uuid(record: &Record) -> u64 {
    record.flow().unwrap().decode().uuid.parse().unwrap()
}

#[test]
fn two_followers_of_one_writer_get_the_same() {
    let orders = check(|| {
        let ring = Arc::new(Ring::new(7));
        writers(&ring, &[&[0]]);
        let other = Arc::clone(&ring);
        let follower = thread::spawn(move || block_on(follow(&other, 1)));
        assert_eq!(block_on(follow(&ring, 1)), (vec![0], 0));
        assert_eq!(follower.join().unwrap(), (vec![0], 0));
    });
    assert!(orders > 100, "{orders}");
}

#[test]
fn an_overtaken_follower_counts_each_flow_as_read_or_lost() {
    let orders = check(|| {
        let ring = Arc::new(Ring::new(1));
        writers(&ring, &[&[0, 1, 2]]);
        let (read, lost) = block_on(follow(&ring, 3));
        assert_eq!(read.len() as u64 + lost, 3);
        assert!(read.is_sorted_by(|a, b| a < b) && read.last() == Some(&2), "{read:?}");
    });
    assert!(orders > 100, "{orders}");
}

#[test]
fn a_follower_of_a_log_gets_each_event_of_two_writers_once() {
    let orders = check(|| {
        let log = Arc::new(EventLog::<u64>::default());
        for event in [0, 1] {
            let log = Arc::clone(&log);
            thread::spawn(move || log.push(None, event));
        }
        let mut found = block_on(async {
            let (mut watch, mut next, mut found) = (log.watch(), 0, Vec::new());
            while found.len() < 2 {
                let (events, known) = log.read_from(next, &WantedEvents::default());
                found.extend(events);
                next = known;
                if found.len() < 2 {
                    between_steps();
                    watch.wait_for(|newest| *newest > next).await.unwrap();
                }
            }
            found
        });
        found.sort_unstable();
        assert_eq!((found, log.read_from(0, &WantedEvents::default()).1), (vec![0, 1], 2));
    });
    assert!(orders > 20, "{orders}");
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_follower_that_waits_for_the_next_change_after_it_has_read_would_be_found() {
    check(|| {
        let ring = Arc::new(Ring::new(7));
        writers(&ring, &[&[0]]);
        if ring.read(0, u64::MAX).records().is_empty() {
            between_steps();
            let mut late = ring.watch();
            block_on(async { late.changed().await.unwrap() });
        }
    });
}
