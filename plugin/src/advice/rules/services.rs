//! R1, R2, R3 and R6: services whose clients can use an endpoint of their zone.

use super::{
    causes::{Cause, Doubtful, cause},
    preference::{Preference, TOPOLOGY_MODE, service_patch},
    stores::percent,
};
use crate::{
    advice::{
        capacity::{self, ZoneLoad},
        engine::{Draft, Engine},
        finding::{Confidence, Rule, State},
        ledger::{Entry, Saved},
        patch::{Merge, Patch},
        traffic::Share,
    },
    catalogue::{Catalogue, CiliumVersion, DataPlane, Kind, Service, ServiceTopology},
    history::Party,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A preference of which a client zone keeps at least this part, in hundredths, is honoured.
const HONOURED: u128 = 90;
const DNS: u16 = 53;

/// The open flows of a service.
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
    let of = |entry: &Entry<'a>| {
        let flow = &entry.flow;
        (flow.is_known && !flow.service.is_empty()).then_some(flow.service)
    };
    for (name, flows) in engine.open_by(of) {
        let Some(service) = engine.service(name) else { continue };
        if service.kind == Kind::ExternalName
            || service.is_node_local
            || (service.is_headless && !service.prefers_near())
        {
            continue;
        }
        let (mut near, mut far) = (BTreeMap::<&str, Vec<usize>>::new(), BTreeMap::<&str, Vec<usize>>::new());
        for flow in flows {
            let [zone, _] = engine.ledger.entries[flow].zones();
            let side = if service.endpoints.in_zone(zone) > 0 { &mut near } else { &mut far };
            side.entry(zone).or_default().push(flow);
        }
        let loads = capacity::loads(&service.endpoints, &engine.traffic.load(name));
        let used = Used { name, service, near, far, loads };
        if service.prefers_near() {
            mend(engine, &used);
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
    let is_dns = flows.iter().all(|flow| engine.ledger.entries[*flow].flow.port == DNS);
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
        confidence: confidence(preference, engine.catalogue, &used.loads),
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
    match catalogue.data_plane {
        DataPlane::Cilium { topology: ServiceTopology::Off, .. } => risks.push(
            "Cilium ignores it until its service topology is on: set loadBalancer.serviceTopology=true first"
                .to_owned(),
        ),
        DataPlane::Cilium { topology: ServiceTopology::Unknown, .. } => risks
            .push("Cilium follows it only with loadBalancer.serviceTopology=true, which is off by default".to_owned()),
        DataPlane::Cilium { version: Some(CiliumVersion { major: 1, minor: 18 }), .. } => {
            risks.push("Cilium 1.18.0 refuses connections while a zone has no endpoint: use a later one".to_owned());
        }
        DataPlane::Cilium { .. } | DataPlane::KubeProxy | DataPlane::Unknown => {}
    }
    risks.push("an autoscaler sees the average of all zones: one that is hot does not make it add pods".to_owned());
    risks
}

fn confidence(preference: Preference, catalogue: &Catalogue, loads: &[ZoneLoad]) -> Confidence {
    let is_followed =
        matches!(catalogue.data_plane, DataPlane::KubeProxy | DataPlane::Cilium { topology: ServiceTopology::On, .. });
    if preference == Preference::Annotation {
        Confidence::Low
    } else if is_followed && !loads.is_empty() && !loads.iter().any(ZoneLoad::is_warned) {
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
struct Watched<'a> {
    flows: Vec<usize>,
    zones: Vec<&'a str>,
    before: Share,
    lately: Share,
}

impl<'a> Watched<'a> {
    fn add(&mut self, zone: &'a str, flows: &[usize], [before, lately]: [Share; 2]) {
        self.flows.extend(flows);
        self.zones.push(zone);
        self.before.add(before);
        self.lately.add(lately);
    }
}

/// R2: a preference that is not honoured; R1 once it is.
fn mend<'a>(engine: &mut Engine<'a>, used: &Used<'a>) {
    let Used { name, service, near, far, .. } = used;
    let (mut failing, mut mended) = (Watched::default(), Watched::default());
    let (mut ended, mut is_followed) = (Vec::new(), false);
    // A headless service has its clients choose in all zones alike.
    for (zone, flows) in near.iter().chain(far.iter().filter(|_| service.is_headless)) {
        let shares @ [before, lately] = engine.traffic.shares(name, zone);
        if lately.all == 0 {
            if !is_honoured(before) {
                ended.push((zone, flows, shares));
            }
        } else if !is_honoured(lately) {
            failing.add(zone, flows, shares);
        } else {
            is_followed = true;
            if !is_honoured(before) {
                mended.add(zone, flows, shares);
            }
        }
    }
    // Traffic that has ended is judged by the time before, unless all other zones follow the preference: then it may stay
    // on a node, where it is not counted.
    let judged = if is_followed && failing.flows.is_empty() { &mut mended } else { &mut failing };
    for (zone, flows, shares) in ended {
        judged.add(zone, flows, shares);
    }
    if !failing.flows.is_empty() {
        not_honoured(engine, used, &failing);
    } else if !mended.flows.is_empty() {
        working(engine, used, &mended);
    }
}

/// The change was made, and works.
fn working(engine: &mut Engine<'_>, used: &Used<'_>, mended: &Watched<'_>) {
    let Watched { flows, zones, before, lately } = mended;
    let draft = Draft {
        group: used.group(),
        step: 1,
        subject: used.subject(),
        action: "The preference works: nothing is to be done".to_owned(),
        evidence: vec![format!(
            "of what clients in {} exchange with it {} crossed zones before, and {} does lately",
            zones.join(", "),
            percent(before.crossing, before.all),
            percent(lately.crossing, lately.all)
        )],
        confidence: Confidence::High,
        state: State::Working,
        ..Draft::default()
    };
    engine.add(Rule::PreferZone, flows, Saved::Nothing, draft);
}

fn not_honoured(engine: &mut Engine<'_>, used: &Used<'_>, failing: &Watched<'_>) {
    let Used { name, service, .. } = used;
    let Watched { flows, zones, before, lately } = failing;
    let state =
        if before.all > 0 && lately.all > 0 && is_honoured(*before) { State::Regressed } else { State::NotHonoured };
    let shown = if lately.all > 0 { lately } else { before };
    let (crossing, all) = (shown.crossing, shown.all);
    let of_flows = || flows.iter().map(|flow: &usize| &engine.ledger.entries[*flow].flow);
    let ports: Vec<u16> = of_flows().map(|flow| flow.port).collect::<BTreeSet<_>>().into_iter().collect();
    let is_outside = |client: &Party| client.kind == "Node" || client.namespace.is_empty();
    let doubtful = Doubtful {
        name,
        service,
        catalogue: engine.catalogue,
        zones,
        ports: &ports,
        has_outside_clients: of_flows().any(|flow| is_outside(flow.client)),
    };
    let Cause { reason, action, risk, patch, confidence } = cause(&doubtful);
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
    if service.endpoints.count() == 0 {
        return;
    }
    let flows: Vec<usize> = far.values().flatten().copied().collect();
    let zones: Vec<&str> = far.keys().copied().collect();
    let servers: BTreeSet<&Party> = flows.iter().map(|flow| engine.ledger.entries[*flow].flow.server).collect();
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

fn spread_patch(server: &Party, service: &Service) -> Option<Patch> {
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
