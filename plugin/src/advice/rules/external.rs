//! R16 and R17: load balancers and NAT gateways of the static table.

use crate::{
    advice::{
        engine::{Draft, Engine, display_name},
        finding::{Confidence, Rule},
        patch::Patch,
        priced_flows::{PricedFlow, Saved},
    },
    zones::Class,
};

pub(super) fn apply<'a>(engine: &mut Engine<'a>) {
    for (class, rule) in [(Class::Loadbalancer, Rule::LoadBalancer), (Class::Nat, Rule::Nat)] {
        let of = |entry: &PricedFlow<'a>| {
            let [client, server] = entry.flow.sites.map(|site| site.class());
            match (client == Some(class), server == Some(class)) {
                (true, _) => Some(entry.flow.client),
                (false, true) => Some(entry.flow.server),
                (false, false) => None,
            }
        };
        for (external, flows) in engine.unassigned_by(of) {
            let draft = Draft { subject: display_name(external), ..draft(rule) };
            engine.add(rule, &flows, Saved::All, draft);
        }
    }
}

fn draft(rule: Rule) -> Draft {
    if rule == Rule::Nat {
        return Draft {
            action: "Give every zone a NAT gateway of its own, or use a regional one".to_owned(),
            risk: vec!["a NAT gateway costs about 32 USD a month by itself".to_owned()],
            patch: Some(Patch::configuration(
                "the VPC",
                "a NAT gateway in each zone, and in each zone's route table the gateway of that zone",
            )),
            confidence: Confidence::High,
            ..Draft::default()
        };
    }
    Draft {
        action: "Keep the load balancer's traffic in its zone".to_owned(),
        risk: vec!["without cross-zone balancing each zone needs the capacity for its own clients".to_owned()],
        patch: Some(Patch::configuration(
            "the load balancer",
            "targets of type ip, and cross-zone load balancing off (or zonal DNS affinity)",
        )),
        confidence: Confidence::Medium,
        ..Draft::default()
    }
}
