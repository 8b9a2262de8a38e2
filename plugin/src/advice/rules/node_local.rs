//! R5: servers that run on every node, as collectors of logs and traces do: their clients can stay on the node.

use super::preference::{Preference, data_plane_risk, is_followed, service_patch};
use crate::advice::{
    engine::{Draft, Engine},
    finding::{Confidence, Rule},
    priced_flows::{PricedFlow, Saved},
};
use serde_json::json;

pub(super) fn apply<'a>(engine: &mut Engine<'a>) {
    let of = |entry: &PricedFlow<'a>| {
        let flow = &entry.flow;
        (flow.is_known && flow.server.kind == "DaemonSet" && !flow.service.is_empty()).then_some(entry.flow.service)
    };
    for (name, flows) in engine.unassigned_by(of) {
        let Some(service) = engine.service(name) else { continue };
        if service.is_headless || service.is_node_local || service.prefers_near() {
            continue;
        }
        // Where the DaemonSet does not run, there is no endpoint to stay with.
        let is_near = |flow: &usize| service.endpoints.in_zone(engine.priced.flows[*flow].zones()[0]) > 0;
        let flows: Vec<usize> = flows.into_iter().filter(is_near).collect();
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
        let ignored = data_plane_risk(engine.catalogue).filter(|_| has_same_node);
        let is_sure = has_same_node && is_followed(engine.catalogue);
        let clients = engine.clients(&flows);
        let draft = Draft {
            subject: format!("Service {name}"),
            action: action.to_owned(),
            evidence: vec![clients, "its endpoints are pods of a DaemonSet".to_owned()],
            risk: [Some(risk), ignored].into_iter().flatten().map(str::to_owned).collect(),
            patch: service_patch(name, json!({"spec": spec})),
            confidence: if is_sure { Confidence::High } else { Confidence::Medium },
            ..Draft::default()
        };
        engine.add(Rule::NodeLocal, &flows, Saved::All, draft);
    }
}
