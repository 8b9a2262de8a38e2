//! R1, R2, R3 and R6: services whose clients can use an endpoint of their zone.

use super::{
    causes::{Cause, IgnoredPreference, MESH_PORTS, cause},
    preference::{Preference, TOPOLOGY_MODE, data_plane_risk, is_followed, service_patch},
    stores::percent,
};
use crate::{
    advice::{
        capacity::{self, ZoneLoad},
        engine::{Draft, Engine},
        finding::{Confidence, Rule, State},
        patch::{Merge, Patch},
        priced_flows::{PricedFlow, Saved},
        traffic::Share,
    },
    catalogue::{Catalogue, Kind, Service},
    history::Workload,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A preference of which a client zone keeps at least this part, in hundredths, is honoured.
const HONOURED: u128 = 90;
const DNS: u16 = 53;

/// The flows of a service without a finding.
struct Used<'a> {
    name: &'a str,
    service: &'a Service,
    /// Flows of clients in zones with a ready endpoint, by zone.
    near: BTreeMap<&'a str, Vec<usize>>,
    /// Flows of the other clients in zones.
    far: BTreeMap<&'a str, Vec<usize>>,
    loads: Vec<ZoneLoad>,
}

impl Used<'_> {
    fn group(&self) -> String {
        format!("service {}", self.name)
    }

    fn subject(&self) -> String {
        format!("Service {}", self.name)
    }
}

pub(super) fn apply<'a>(engine: &mut Engine<'a>) {
    let of = |entry: &PricedFlow<'a>| {
        let flow = &entry.flow;
        (flow.is_known && !flow.service.is_empty()).then_some(flow.service)
    };
    for (name, flows) in engine.unassigned_by(of) {
        let Some(service) = engine.service(name) else { continue };
        if service.kind == Kind::ExternalName
            || service.is_node_local
            || (service.is_headless && !service.prefers_near())
        {
            continue;
        }
        let (mut near, mut far) = (BTreeMap::<&str, Vec<usize>>::new(), BTreeMap::<&str, Vec<usize>>::new());
        for flow in flows {
            let [zone, _] = engine.priced.flows[flow].zones();
            let side = if service.endpoints.in_zone(zone) > 0 { &mut near } else { &mut far };
            side.entry(zone).or_default().push(flow);
        }
        let loads = capacity::loads(&service.endpoints, &engine.traffic.load(name));
        let used = Used { name, service, near, far, loads };
        if service.prefers_near() {
            verify(engine, &used);
        } else {
            prefer(engine, &used);
        }
        if !service.is_headless {
            spread(engine, &used);
        }
    }
}

/// R1, or R6 for DNS: prefer the zone. Where that would overload endpoints, more of them come first.
fn prefer(engine: &mut Engine<'_>, used: &Used<'_>) {
    let Used { name, service, near, .. } = used;
    let endpoints = &service.endpoints;
    // With an endpoint of no zone there are no hints at all.
    if near.is_empty() || endpoints.count() < 2 || endpoints.in_zone("") > 0 {
        return;
    }
    let flows: Vec<usize> = near.values().flatten().copied().collect();
    let mut evidence = vec![engine.clients(&flows), endpoint_line(service)];
    evidence.extend(used.loads.iter().map(load_line));
    let refused: Vec<&ZoneLoad> = used.loads.iter().filter(|load| load.is_refused()).collect();
    if !refused.is_empty() {
        let more = refused.iter().map(|load| format!("{} in {}", load.to_add, load.zone));
        let draft = Draft {
            group: used.group(),
            subject: format!("{}, endpoints", used.subject()),
            action: format!("Add endpoints ({}), then prefer the client's zone", more.collect::<Vec<_>>().join(", ")),
            evidence,
            risk: vec!["preferred now, a zone's endpoints would have more than twice the load".to_owned()],
            confidence: Confidence::Medium,
            ..Draft::default()
        };
        engine.add(Rule::Spread, &flows, Saved::All, draft);
        return;
    }
    let preference = Preference::of(engine.catalogue);
    let mut risk = risks(preference, engine.catalogue);
    for load in used.loads.iter().filter(|load| load.is_warned()) {
        risk.push(format!(
            "the endpoints in {} would have {} times the load that they have now: add {}",
            load.zone,
            load.times(),
            load.to_add
        ));
    }
    if !used.far.is_empty() {
        let zones: Vec<&str> = used.far.keys().copied().collect();
        risk.push(format!("clients in {} have no endpoint in their zone and go on using all", zones.join(", ")));
    }
    let has_port = |ports: &[u16]| flows.iter().any(|flow| ports.contains(&engine.priced.flows[*flow].flow.port));
    // A DNS server has a port for metrics, too.
    let is_dns = has_port(&[DNS]);
    let is_meshed = has_port(&MESH_PORTS);
    if is_meshed {
        risk.push("a mesh's proxies choose the endpoints, and may ignore it: Istio's sidecars do".to_owned());
    }
    let confidence = confidence(preference, engine.catalogue, &used.loads);
    let action = if is_dns {
        "Prefer the client's zone for DNS, or run NodeLocal DNSCache"
    } else {
        "Prefer endpoints in the client's zone"
    };
    let draft = Draft {
        group: used.group(),
        step: 1,
        subject: used.subject(),
        action: action.to_owned(),
        evidence,
        risk,
        patch: service_patch(name, preference.body()),
        confidence: if is_meshed { Confidence::Low } else { confidence },
        ..Draft::default()
    };
    engine.add(if is_dns { Rule::Dns } else { Rule::PreferZone }, &flows, Saved::All, draft);
}

fn risks(preference: Preference, catalogue: &Catalogue) -> Vec<String> {
    let mut risks = vec!["connections stay where they are until they are made anew".to_owned()];
    if preference == Preference::Annotation {
        let version = catalogue.kubernetes.map(|version| version.to_string()).unwrap_or_default();
        risks.push(format!(
            "Kubernetes {version} has trafficDistribution only behind a feature gate; the annotation gives no hints where \
             its split would overload a zone by more than 20 %"
        ));
    }
    risks.extend(data_plane_risk(catalogue).map(str::to_owned));
    risks.push("an autoscaler sees the average of all zones: one that is hot does not make it add pods".to_owned());
    risks
}

fn confidence(preference: Preference, catalogue: &Catalogue, loads: &[ZoneLoad]) -> Confidence {
    if preference == Preference::Annotation {
        Confidence::Low
    } else if is_followed(catalogue) && !loads.is_empty() && !loads.iter().any(ZoneLoad::is_warned) {
        Confidence::High
    } else {
        Confidence::Medium
    }
}

/// Whether so much stays in the zone that a preference is honoured.
fn is_honoured(share: Share) -> bool {
    u128::from(share.crossing) * 100 <= u128::from(share.all) * (100 - HONOURED)
}

/// The flows of zones whose preference is not honoured, or was not before, with the bytes of their clients.
#[derive(Default)]
struct ZoneFlows<'a> {
    flows: Vec<usize>,
    zones: Vec<&'a str>,
    before: Share,
    recent: Share,
}

impl<'a> ZoneFlows<'a> {
    fn add(&mut self, zone: &'a str, flows: &[usize], [before, recent]: [Share; 2]) {
        self.flows.extend(flows);
        self.zones.push(zone);
        self.before.add(before);
        self.recent.add(recent);
    }
}

/// R2: a preference that is not honoured; R1 once it is.
fn verify<'a>(engine: &mut Engine<'a>, used: &Used<'a>) {
    let Used { name, service, near, far, .. } = used;
    let (mut failing, mut restored) = (ZoneFlows::default(), ZoneFlows::default());
    let (mut ended, mut is_followed) = (Vec::new(), false);
    // A headless service has its clients choose in all zones alike.
    for (zone, flows) in near.iter().chain(far.iter().filter(|_| service.is_headless)) {
        let shares @ [before, recent] = engine.traffic.shares(name, zone);
        if recent.all == 0 {
            if !is_honoured(before) {
                ended.push((zone, flows, shares));
            }
        } else if !is_honoured(recent) {
            failing.add(zone, flows, shares);
        } else {
            is_followed = true;
            if !is_honoured(before) {
                restored.add(zone, flows, shares);
            }
        }
    }
    // Traffic that has ended is judged by the time before, unless all other zones follow the preference: then it may stay
    // on a node, where it is not counted.
    let judged = if is_followed && failing.flows.is_empty() { &mut restored } else { &mut failing };
    for (zone, flows, shares) in ended {
        judged.add(zone, flows, shares);
    }
    if !failing.flows.is_empty() {
        not_honoured(engine, used, &failing);
    } else if !restored.flows.is_empty() {
        working(engine, used, &restored);
    }
}

/// The change was made, and works.
fn working(engine: &mut Engine<'_>, used: &Used<'_>, restored: &ZoneFlows<'_>) {
    let ZoneFlows { flows, zones, before, recent } = restored;
    let draft = Draft {
        group: used.group(),
        step: 1,
        subject: used.subject(),
        action: "The preference works: nothing is to be done".to_owned(),
        evidence: vec![format!(
            "of what clients in {} exchange with it {} crossed zones before, and {} does recently",
            zones.join(", "),
            percent(before.crossing, before.all),
            percent(recent.crossing, recent.all)
        )],
        confidence: Confidence::High,
        state: State::Working,
        ..Draft::default()
    };
    engine.add(Rule::PreferZone, flows, Saved::Nothing, draft);
}

fn not_honoured(engine: &mut Engine<'_>, used: &Used<'_>, failing: &ZoneFlows<'_>) {
    let Used { name, service, .. } = used;
    let ZoneFlows { flows, zones, before, recent } = failing;
    let state =
        if before.all > 0 && recent.all > 0 && is_honoured(*before) { State::Regressed } else { State::NotHonoured };
    let shown = if recent.all > 0 { recent } else { before };
    let (crossing, all) = (shown.crossing, shown.all);
    let of_flows = || flows.iter().map(|flow: &usize| &engine.priced.flows[*flow].flow);
    let ports: Vec<u16> = of_flows().map(|flow| flow.port).collect::<BTreeSet<_>>().into_iter().collect();
    let is_outside = |client: &Workload| client.kind == "Node" || client.namespace.is_empty();
    let ignored = IgnoredPreference {
        name,
        service,
        catalogue: engine.catalogue,
        zones,
        ports: &ports,
        has_outside_clients: of_flows().any(|flow| is_outside(flow.client)),
    };
    let Cause { reason, action, risk, patch, confidence } = cause(&ignored);
    let set = [
        service.distribution.as_ref().map(|value| format!("trafficDistribution is {value}")),
        service.topology_annotation().map(|value| format!("{TOPOLOGY_MODE} is {value}")),
        service.mesh_distribution.as_ref().map(|value| format!("networking.istio.io/traffic-distribution is {value}")),
    ];
    let set: Vec<String> = set.into_iter().flatten().collect();
    let evidence = vec![
        format!(
            "{}, but {} of what clients in {} exchange with it crosses zones",
            set.join(" and "),
            percent(crossing, all),
            zones.join(", ")
        ),
        format!("cause: {reason}"),
        engine.clients(flows),
        endpoint_line(service),
    ];
    let draft = Draft {
        group: used.group(),
        step: 1,
        subject: used.subject(),
        action: action.to_owned(),
        evidence,
        risk: risk.map(str::to_owned).into_iter().collect(),
        patch,
        confidence,
        state,
    };
    engine.add(Rule::NotHonoured, flows, Saved::All, draft);
}

/// R3: zones with clients and without an endpoint.
fn spread(engine: &mut Engine<'_>, used: &Used<'_>) {
    let Used { name, service, far, .. } = used;
    if far.is_empty() || service.endpoints.count() == 0 {
        return;
    }
    let flows: Vec<usize> = far.values().flatten().copied().collect();
    let zones: Vec<&str> = far.keys().copied().collect();
    let servers: BTreeSet<&Workload> = flows.iter().map(|flow| engine.priced.flows[*flow].flow.server).collect();
    let only = servers.iter().next().filter(|_| servers.len() == 1);
    let load = engine.traffic.load(name);
    let needed = zones.iter().map(|zone| {
        let here = u128::from(load.by_zone.get(*zone).copied().unwrap_or_default());
        let count = u128::from(service.endpoints.count());
        let needed = (here * count * 10).div_ceil(u128::from(load.total.max(1)) * 12).max(1);
        format!("{needed} in {zone}")
    });
    let mut evidence = vec![engine.clients(&flows), endpoint_line(service)];
    evidence.push(format!("endpoints that their load needs: {}", needed.collect::<Vec<_>>().join(", ")));
    let mut risk = vec!["more pods cost more; it saves only together with a preference for the zone".to_owned()];
    if only.is_none_or(|server| server.kind != "Deployment") {
        risk.push("the servers are no Deployment: what has a volume or a leader can't be spread like that".to_owned());
    }
    let draft = Draft {
        group: used.group(),
        subject: format!("{} in {}", used.subject(), zones.join(", ")),
        action: format!("Run endpoints in {} first, then prefer the client's zone", zones.join(", ")),
        evidence,
        risk,
        patch: only.and_then(|server| spread_patch(server, service)),
        confidence: if only.is_some_and(|server| server.kind == "Deployment") {
            Confidence::Medium
        } else {
            Confidence::Low
        },
        ..Draft::default()
    };
    engine.add(Rule::Spread, &flows, Saved::All, draft);
}

fn spread_patch(server: &Workload, service: &Service) -> Option<Patch> {
    if server.kind != "Deployment" || service.selector.is_empty() {
        return None;
    }
    let constraint = json!({
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": service.selector},
    });
    let body = json!({"spec": {"template": {"spec": {"topologySpreadConstraints": [constraint]}}}});
    Patch::object("deployment", (&server.namespace, &server.name), Merge::Strategic, body)
}

fn endpoint_line(service: &Service) -> String {
    let zones = service.endpoints.ready.iter().filter(|(_, count)| **count > 0);
    let zones: Vec<String> =
        zones.map(|(zone, count)| format!("{count} in {}", if zone.is_empty() { "no zone" } else { zone })).collect();
    format!("ready endpoints: {}", if zones.is_empty() { "none".to_owned() } else { zones.join(", ") })
}

fn load_line(load: &ZoneLoad) -> String {
    let ZoneLoad { zone, endpoints, .. } = load;
    format!("an endpoint in {zone} ({endpoints} there) would have {} times the load that each has now", load.times())
}
