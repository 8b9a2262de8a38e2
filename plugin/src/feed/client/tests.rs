//! Agents that come and go between controllers.

mod hostile;
mod snapshots;

use super::*;
use crate::{
    feed::{Cursor, Store},
    identity::Endpoint,
    zones::{Place, Placement, Zone},
};
use std::{collections::BTreeMap, time::SystemTime};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for _ in 0..self.below(20) {
            let address = IpAddr::from([10, 0, self.below(4) as u8, self.below(64) as u8]);
            let goes = self.below(3) == 0;
            if self.below(2) == 0 {
                let zone = Zone { name: format!("z{}", self.below(3)), region: "r".into() };
                let place = Place::Zone(Arc::new(zone));
                let placement = Placement { place, kind: PrefixKind::Cluster, origin: "test".into() };
                changes.zones.push((address.into(), (!goes).then_some(placement)));
            } else {
                let endpoint = Endpoint { pod: format!("p{}", self.below(9)).into(), ..Endpoint::default() };
                changes.identities.push((address, (!goes).then(|| Arc::new(endpoint))));
            }
        }
        changes
    }
}

/// An agent and its stream.
#[derive(Default)]
struct Agent {
    table: SharedTable,
    index: Index,
    position: Position,
    stream: Option<(usize, Cursor, Gathered)>,
    updates: usize,
}

impl Agent {
    fn connect(&mut self, which: usize, store: &Store) {
        let hello = hello("node", self.position, &self.table, &self.index);
        let (digests, _) = hello.digests.as_chunks();
        let cursor = store.cursor(hello.position.map(Into::into), digests);
        self.stream = Some((which, cursor, Gathered::default()));
    }

    /// Handles a message, if there is one.
    fn take(&mut self, stores: &[Store]) -> bool {
        let Some((which, cursor, gathered)) = &mut self.stream else { return false };
        let Some(response) = cursor.next(&stores[*which]) else { return false };
        self.updates += response.updates.len();
        if let Some(batch) = gathered.take(response).unwrap() {
            self.position = batch.position;
            let changes = batch.changes(&self.table, &self.index);
            self.table.write().apply(changes.zones);
            self.index.apply(changes.identities);
        }
        true
    }

    fn content(&self) -> (Vec<(String, String)>, BTreeMap<IpAddr, String>) {
        let table = self.table.read();
        let named = table.prefixes().filter(|(_, placement)| placement.kind != PrefixKind::Default);
        let mut pods = BTreeMap::new();
        self.index.each(|address, endpoint| {
            pods.insert(address, endpoint.pod.to_string());
        });
        (named.map(|(prefix, placement)| (prefix.to_string(), placement.place.to_string())).collect(), pods)
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_agents_come_back_spread_over_ten_seconds() {
    let start = tokio::time::Instant::now();
    let mut agents = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        agents.spawn(async move {
            sleep(waits(true).failed()).await;
            start.elapsed().as_secs_f64()
        });
    }
    let mut back = agents.join_all().await;
    back.sort_by(f64::total_cmp);
    assert!(back[999] - back[0] >= 10.0, "{} to {}", back[0], back[999]);
    // A fifteenth of the agents is expected in each second.
    for second in 0..15 {
        let came = back.iter().filter(|at| **at as usize == second).count();
        assert!((20..=150).contains(&came), "{came} in second {second}");
    }
}

#[test]
fn an_agent_that_changes_between_replicas_has_their_state() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let stores = [Store::default(), Store::default()];
        let (mut agent, truth) = (Agent::default(), Agent::default());
        for _ in 0..200 {
            match random.below(4) {
                0 => {
                    let changes = random.changes();
                    stores.iter().for_each(|store| {
                        store.publish(changes.clone());
                    });
                    truth.table.write().apply(changes.zones);
                    truth.index.apply(changes.identities);
                }
                1 => {
                    let which = random.below(2) as usize;
                    agent.connect(which, &stores[which]);
                }
                // The rest of a broken stream is lost.
                _ => {
                    for _ in 0..random.below(400) {
                        agent.take(&stores);
                    }
                }
            }
        }
        agent.connect(0, &stores[0]);
        while agent.take(&stores) {}
        assert_eq!(agent.content(), truth.content(), "seed {seed}");
        assert_eq!(agent.position, stores[0].position());
        let sizes = truth.content();
        assert_eq!(stores[0].sizes(), (sizes.0.len(), sizes.1.len()));
    }
}

/// The number of updates until an agent has the whole state.
fn updates_until_whole(agent: &mut Agent, stores: &[Store], which: usize) -> usize {
    agent.connect(which, &stores[which]);
    while agent.take(stores) {}
    std::mem::take(&mut agent.updates)
}

#[test]
fn an_agent_gets_only_the_buckets_that_it_lacks() {
    let stores = [Store::default(), Store::default()];
    let pod = |n: u32| {
        let endpoint = Endpoint { since: Some(SystemTime::UNIX_EPOCH), ..Endpoint::default() };
        (IpAddr::from(n.to_be_bytes()), Some(Arc::new(endpoint)))
    };
    let all = |pods: std::ops::Range<u32>| Changes { identities: pods.map(pod).collect(), ..Changes::default() };
    let publish = |changes: Changes| {
        for store in &stores {
            store.publish(changes.clone());
        }
    };
    let mut agent = Agent::default();
    assert_eq!(updates_until_whole(&mut agent, &stores, 0), 0, "nothing is known yet");
    publish(all(0..5000));
    assert_eq!(updates_until_whole(&mut agent, &stores, 0), BUCKETS + 1, "all buckets are emptied first");
    assert_eq!(updates_until_whole(&mut agent, &stores, 0), 0, "it has everything");
    assert_eq!(updates_until_whole(&mut agent, &stores, 1), 0, "by its digests");
    assert_eq!(agent.position, stores[1].position(), "and knows that");
    publish(all(5000..5003));
    let (mut same, mut other) = (updates_until_whole(&mut agent, &stores, 1), Agent::default());
    assert_eq!(same, 1, "the change");
    publish(all(5003..5006));
    same = updates_until_whole(&mut agent, &stores, 0);
    assert!((1..=3).contains(&same), "the buckets that differ: {same}");
    // More changes than are kept, as after a start.
    updates_until_whole(&mut other, &stores, 0);
    publish(all(10_000..30_000));
    assert_eq!(updates_until_whole(&mut other, &stores, 0), BUCKETS);
    assert_eq!(other.content(), {
        updates_until_whole(&mut agent, &stores, 1);
        agent.content()
    });
}
