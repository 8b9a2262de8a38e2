//! R5: servers that run on every node, as collectors of logs and traces do: their clients can stay on the node.

use super::preference::{Preference, service_patch};
use crate::advice::{
    engine::{Draft, Engine},
    finding::{Confidence, Rule},
    ledger::{Entry, Saved},
};
use serde_json::json;
use std::collections::BTreeMap;

pub(super) fn apply<'a>(engine: &mut Engine<'a>) {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let of = |entry: &Entry<'a>| {
        let flow = &entry.flow;
        (flow.is_known && flow.server.kind == "DaemonSet" && !flow.service.is_empty()).then_some(entry.flow.service)
    };
    for (service, flows) in engine.open_by(of) {
        groups.insert(service, flows);
    }
    for (name, flows) in groups {
        let Some(service) = engine.service(name) else { continue };
        if service.is_headless || service.is_node_local || service.prefers_near() {
            continue;
        }
        let has_same_node = Preference::of(engine.catalogue) == Preference::SameZone;
        let (action, risk, spec) = if has_same_node {
            (
                "Prefer the endpoint on the client's node",
                "a node whose own endpoint is overloaded does not use another one",
                json!({"trafficDistribution": "PreferSameNode"}),
            )
        } else {
            (
                "Keep to the endpoint on the client's node",
                "internalTrafficPolicy Local drops traffic where a node has no ready endpoint, as while it is updated",
                json!({"internalTrafficPolicy": "Local"}),
            )
        };
        let clients = engine.clients(&flows);
        let draft = Draft {
            subject: format!("Service {name}"),
            action: action.to_owned(),
            evidence: vec![clients, "its endpoints are pods of a DaemonSet".to_owned()],
            risk: vec![risk.to_owned()],
            patch: service_patch(name, json!({"spec": spec})),
            confidence: if has_same_node { Confidence::High } else { Confidence::Medium },
            ..Draft::default()
        };
        engine.add(Rule::NodeLocal, &flows, Saved::All, draft);
    }
}
