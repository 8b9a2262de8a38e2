//! Traffic that is as it should be, or that no setting of Kubernetes changes: it is explained, and saves nothing.

use crate::advice::{
    engine::{Draft, Engine, display_name},
    finding::{Confidence, Rule},
    priced_flows::{PricedFlow, Saved},
};

/// Kinds whose pods are no replicas of one another's data.
const STATELESS: [&str; 6] = ["Deployment", "ReplicaSet", "DaemonSet", "Job", "CronJob", "Node"];
/// Parts of names of servers that are chosen by a ring, and their gRPC ports.
const RINGS: [&str; 3] = ["ingester", "store-gateway", "distributor"];
const RING_PORTS: [u16; 2] = [9095, 9096];

/// R10: pods of one StatefulSet that send to each other.
pub(super) fn replication<'a>(engine: &mut Engine<'a>) {
    let of = |entry: &PricedFlow<'a>| {
        let flow = &entry.flow;
        let is_one = flow.client == flow.server && !flow.client.is_other() && !flow.client.namespace.is_empty();
        (is_one && !STATELESS.contains(&flow.client.kind.as_str())).then_some(flow.client)
    };
    for (workload, flows) in engine.unassigned_by(of) {
        let draft = Draft {
            subject: display_name(workload),
            action: "This is what copies in several zones cost; nothing is to be changed".to_owned(),
            evidence: vec!["both ends are pods of the same workload".to_owned()],
            risk: vec![
                "fewer copies, compression, or copies in two zones instead of three cost less and survive less"
                    .to_owned(),
            ],
            confidence: Confidence::High,
            ..Draft::default()
        };
        engine.add(Rule::Replication, &flows, Saved::Nothing, draft);
    }
}

/// R15: clients that choose a pod by a ring, not by a service.
pub(super) fn rings<'a>(engine: &mut Engine<'a>) {
    let of = |entry: &PricedFlow<'a>| {
        let flow = &entry.flow;
        let is_ring = flow.is_known
            && RING_PORTS.contains(&flow.port)
            && RINGS.iter().any(|part| flow.server.name.contains(part) && !flow.server.namespace.is_empty());
        is_ring.then_some(flow.server)
    };
    for (server, flows) in engine.unassigned_by(of) {
        let clients = engine.clients(&flows);
        let draft = Draft {
            subject: display_name(server),
            action: "Clients choose these pods by a ring: no setting of a Service changes that".to_owned(),
            evidence: vec![
                clients,
                "copies in every zone are how Loki, Mimir and Tempo survive the loss of one".to_owned(),
            ],
            risk: vec![
                "what they offer themselves: zone-aware replication with fewer requests to ingesters, or an ingest \
                 through Kafka with racks"
                    .to_owned(),
            ],
            confidence: Confidence::High,
            ..Draft::default()
        };
        engine.add(Rule::Ring, &flows, Saved::Nothing, draft);
    }
}
