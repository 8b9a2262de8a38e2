//! Agents without a table at the controller of a large cluster.

use super::*;

/// So many pods, in numbers of workloads, from this address on.
fn pods(first: u32, count: u32, life: u64) -> Changes {
    let identities = (first..first + count).map(|n| {
        let workload = crate::identity::Workload { kind: "Deployment".into(), name: format!("w{}", n / 10) };
        let endpoint = Endpoint {
            namespace: format!("n{}", n % 7).into(),
            pod: format!("p{n}-{life}").into(),
            workload: Some(Arc::new(workload)),
            ..Endpoint::default()
        };
        (IpAddr::from((0x0a01_0000 + n).to_be_bytes()), Some(Arc::new(endpoint)))
    });
    Changes { identities: identities.collect(), ..Changes::default() }
}

/// A store, and its content as an agent has it.
struct Cluster {
    stores: [Store; 1],
    truth: Agent,
}

impl Cluster {
    fn new() -> Self {
        let cluster = Self { stores: [Store::default()], truth: Agent::default() };
        cluster.publish(pods(0, 6000, 0));
        cluster
    }

    fn publish(&self, changes: Changes) {
        self.stores[0].publish(changes.clone());
        self.truth.table.write().apply(changes.zones);
        self.truth.index.apply(changes.identities);
    }

    fn new_agent(&self) -> Agent {
        let mut agent = Agent::default();
        agent.connect(0, &self.stores[0]);
        agent
    }

    fn assert_same(&self, agent: &mut Agent, case: &str) {
        while agent.take(&self.stores) {}
        assert!(agent.content() == self.truth.content(), "{case}");
        assert_eq!(agent.position, self.stores[0].position(), "{case}");
    }
}

#[test]
fn an_agent_without_a_table_has_the_whole_state_whatever_changes_meanwhile() {
    for seed in 0..2 {
        let (cluster, mut random) = (Cluster::new(), Random(seed));
        let mut agents = vec![cluster.new_agent()];
        for step in 0..30 {
            match random.below(8) {
                0 => agents.push(cluster.new_agent()),
                // A new snapshot for the next agent.
                1 => (0..300).for_each(|_| cluster.publish(random.changes())),
                // More than the agents' limit for a change: there are no changes from before.
                2 => cluster.publish(pods(random.below(3000) as u32, 17_000, step)),
                3 => {
                    let gone = pods(random.below(5000) as u32, 1000, 0).identities;
                    let identities = gone.into_iter().map(|(address, _)| (address, None)).collect();
                    cluster.publish(Changes { identities, ..Changes::default() });
                }
                _ => {
                    let which = random.below(agents.len() as u64) as usize;
                    (0..random.below(12)).for_each(|_| _ = agents[which].take(&cluster.stores));
                }
            }
        }
        for (n, agent) in agents.iter_mut().enumerate() {
            cluster.assert_same(agent, &format!("seed {seed}, agent {n}"));
        }
    }
}

#[test]
fn an_agent_that_came_before_the_first_state_gets_a_snapshot() {
    let cluster = Cluster { stores: [Store::default()], truth: Agent::default() };
    let mut early = cluster.new_agent();
    assert!(!early.take(&cluster.stores));
    cluster.publish(pods(0, 20_000, 0));
    cluster.assert_same(&mut early, "early");
    let mut late = cluster.new_agent();
    cluster.assert_same(&mut late, "late");
    assert_eq!(early.updates, late.updates);
    cluster.publish(pods(0, 1, 1));
    for agent in [&mut early, &mut late] {
        cluster.assert_same(agent, "a change");
    }
}

#[test]
fn an_agent_that_has_something_without_a_position_has_nothing_else_afterwards() {
    let cluster = Cluster::new();
    let mut agent = Agent::default();
    agent.index.apply(pods(100_000, 50, 0).identities);
    agent.connect(0, &cluster.stores[0]);
    cluster.assert_same(&mut agent, "after a snapshot");
}

#[test]
fn a_snapshot_takes_a_fraction_of_its_buckets() {
    let cluster = Cluster::new();
    let store = &cluster.stores[0];
    let bytes = |mut cursor: Cursor| {
        let mut bytes = 0;
        while let Some(response) = cursor.next(store) {
            bytes += response.updates.iter().map(|update| update.len()).sum::<usize>();
        }
        bytes
    };
    let (snapshot, buckets) =
        (bytes(store.cursor(None, &[])), bytes(store.cursor(None, &[Digest::default(); BUCKETS])));
    assert!(2 * snapshot < buckets, "{snapshot} and {buckets} bytes");
}
