//! R4: two workloads of one pod each, in two zones of a region. There is nothing to choose, but one of them can move.

use super::scrapers::is_named;
use crate::{
    advice::{
        engine::{Draft, Engine, display_name},
        finding::{Confidence, Rule},
        patch::{Merge, Patch},
        priced_flows::{PricedFlow, Saved},
    },
    history::Workload,
    zones::Locality,
};
use serde_json::json;

pub(super) fn apply<'a>(engine: &mut Engine<'a>) {
    let of = |entry: &PricedFlow<'a>| {
        let (client, server) = (entry.flow.client, entry.flow.server);
        // Workloads do not move to be near their monitoring.
        let is_other_zone = entry.locality == Locality::CrossZone && client != server;
        if !is_other_zone || [client, server].iter().any(|end| only_zone(engine, end).is_none() || is_named(end)) {
            return None;
        }
        Some(if client < server { [client, server] } else { [server, client] })
    };
    for (pair, flows) in engine.unassigned_by(of) {
        let zones = pair.map(|workload| only_zone(engine, workload));
        let [Some(a), Some(b)] = zones else { continue };
        // Only where a Deployment is one of them: what has a volume stays in its zone.
        let mover = (0..2).find(|at| pair[*at].kind == "Deployment");
        let Some(mover) = mover.filter(|_| a != b) else { continue };
        let (moved, zone) = (pair[mover], if mover == 0 { b } else { a });
        let other = pair[1 - mover];
        let draft = Draft {
            subject: format!("{} and {}", display_name(pair[0]), display_name(pair[1])),
            action: format!("Run {} in {zone}, where {} is", display_name(moved), display_name(other)),
            evidence: vec!["each has one pod".to_owned()],
            risk: vec![
                "both are lost with the zone".to_owned(),
                "its other peers may then be in another zone: see what else it sends".to_owned(),
            ],
            patch: patch(moved, zone),
            confidence: Confidence::Medium,
            ..Draft::default()
        };
        engine.add(Rule::Move, &flows, Saved::All, draft);
    }
}

/// The zone of a workload's only pod.
fn only_zone<'a>(engine: &Engine<'a>, workload: &Workload) -> Option<&'a str> {
    let pods = engine.pods(workload)?;
    let mut present = pods.iter().filter(|(_, pods)| **pods > 0);
    match (present.next(), present.next()) {
        (Some((zone, 1)), None) if !zone.is_empty() => Some(zone),
        _ => None,
    }
}

fn patch(moved: &Workload, zone: &str) -> Option<Patch> {
    let preference = json!({
        "weight": 100,
        "preference": {"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}
        ]}
    });
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}});
    let body = json!({"spec": {"template": {"spec": {"affinity": affinity}}}});
    Patch::object("deployment", (&moved.namespace, &moved.name), Merge::Strategic, body)
}
