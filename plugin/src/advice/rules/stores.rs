//! R9 and R11 to R14: stores that are known by their port. A Service does not choose well among their pods, because a
//! client means one of them: the leader, a partition, a replica.
//!
//! Answers alone are saved: what clients write goes to the leader wherever it is.

use crate::{
    advice::{
        engine::{Draft, Engine, display_name},
        finding::{Confidence, Rule},
        patch::Patch,
        priced_flows::{PricedFlow, Saved},
    },
    history::Workload,
    units::human,
    zones::Class,
};
use std::collections::BTreeSet;

/// A kind of store.
struct Store {
    rule: Rule,
    ports: &'static [u16],
    action: &'static str,
    risk: &'static [&'static str],
    patch: (&'static str, &'static str),
    /// Whether its clients read from any replica once that is set.
    is_replicated: bool,
}

const STORES: [Store; 5] = [
    Store {
        rule: Rule::KafkaRack,
        ports: &[9092, 9093, 9094],
        action: "Let consumers fetch from a replica in their zone",
        risk: &[
            "needs Kafka 2.4 and a replica in the zone; producers still write to leaders",
            "rack names have to be equal at brokers and clients: MSK uses zone ids, not names",
        ],
        patch: (
            "brokers, then consumers",
            "broker.rack=<zone>\nreplica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector\n\
             client.rack=<zone>",
        ),
        is_replicated: true,
    },
    Store {
        rule: Rule::CassandraRack,
        ports: &[9042],
        action: "Let the driver choose nodes of the client's rack",
        risk: &["the driver has to support it; LOCAL_QUORUM still asks other zones"],
        patch: ("the driver", "a rack-aware load balancing policy, with the zone as rack (NetworkTopologyStrategy)"),
        is_replicated: true,
    },
    Store {
        rule: Rule::Cache,
        ports: &[6379, 6380, 11_211],
        action: "Read from a replica of the cache in the client's zone",
        risk: &["reads from replicas can be stale"],
        patch: (
            "the client",
            "read from replicas of the zone first: GLIDE's AZ_AFFINITY, with Valkey 8 or ElastiCache 7.2",
        ),
        is_replicated: false,
    },
    Store {
        rule: Rule::Database,
        ports: &[1433, 1521, 3306, 5432, 27_017],
        action: "Read from a replica of the database in the client's zone, or cache there",
        risk: &["replicas lag behind", "a replica costs what its machine and its own replication cost"],
        patch: ("the client", "a second connection for reads, to a replica in its own zone"),
        is_replicated: false,
    },
    Store {
        rule: Rule::Search,
        ports: &[9200],
        action: "Ask coordinating nodes in the client's zone, with allocation awareness",
        risk: &["forced awareness can leave shards without a node; a part of the queries still asks other zones"],
        patch: ("the nodes", "cluster.routing.allocation.awareness.attributes: zone\nnode.attr.zone: <zone>"),
        is_replicated: true,
    },
];

pub(super) fn apply<'a>(engine: &mut Engine<'a>) {
    for store in &STORES {
        let of = |entry: &PricedFlow<'a>| {
            let flow = &entry.flow;
            let is_store = flow.is_known && store.ports.contains(&flow.port) && flow.server.kind != "DaemonSet";
            (is_store && !flow.server.is_other() && flow.server.kind != "Node").then_some(flow.server)
        };
        for (server, flows) in engine.unassigned_by(of) {
            advise(engine, store, server, &flows);
        }
    }
}

fn advise(engine: &mut Engine<'_>, store: &Store, server: &Workload, flows: &[usize]) {
    let answers = engine.priced.sum(flows, Saved::Answers).bytes;
    let all = engine.priced.sum(flows, Saved::All).bytes;
    let mut evidence = vec![
        engine.clients(flows),
        format!("{} of {} between zones are answers", percent(answers, all), human(engine.priced.bytes_per_month(all))),
    ];
    let clients: BTreeSet<&str> = flows.iter().map(|flow| engine.priced.flows[*flow].zones()[0]).collect();
    let pods = engine.pods(server);
    let without: Vec<&str> = clients
        .iter()
        .copied()
        .filter(|zone| pods.is_some_and(|pods| pods.get(*zone).copied().unwrap_or_default() == 0))
        .collect();
    let mut confidence = Confidence::Medium;
    if !without.is_empty() {
        confidence = Confidence::Low;
        evidence.push(format!("it has no pod in {}: a replica is needed there", without.join(", ")));
    } else if pods.is_some() && store.is_replicated {
        confidence = Confidence::High;
    }
    if let [only] = clients.iter().copied().collect::<Vec<_>>()[..]
        && pods.is_some_and(|pods| pods.values().sum::<u32>() == 1)
    {
        evidence.push(format!("all clients of other zones are in {only}: moved there, it would need no replica"));
    }
    let is_managed = flows
        .iter()
        .any(|flow| engine.priced.flows[*flow].flow.sites.iter().any(|site| site.class() == Some(Class::Database)));
    if is_managed {
        evidence.push("the provider runs it: only the client's end is charged".to_owned());
    }
    let (of, text) = store.patch;
    let draft = Draft {
        subject: display_name(server),
        action: store.action.to_owned(),
        evidence,
        risk: store.risk.iter().map(|risk| (*risk).to_owned()).collect(),
        patch: Some(Patch::configuration(of, text)),
        confidence,
        ..Draft::default()
    };
    engine.add(store.rule, flows, Saved::Answers, draft);
}

/// A part of a whole, rounded down.
pub(super) fn percent(part: u64, whole: u64) -> String {
    format!("{} %", u128::from(part) * 100 / u128::from(whole.max(1)))
}
