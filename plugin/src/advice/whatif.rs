//! What-if: the traffic of a service in a past range, as it would have been with a preference or with other endpoints.
//!
//! As kube-proxy and Cilium do it: a client uses the endpoints of its zone if every ready endpoint has a zone, and so a
//! hint, and one is in the client's; otherwise all alike. No byte is lost: the parts of the zones add up.

use super::{
    finding::Monthly,
    priced_flows::{Amount, PricedFlows, Saved},
    snapshot::Snapshot,
};
use crate::{
    catalogue::{CiliumVersion, DataPlane, Endpoints, Kind, Service, ServiceTopology},
    zones::{Location, Place, Zone},
};
use std::{collections::BTreeMap, sync::Arc};

/// A change of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The service as `namespace/name`.
    pub service: String,
    /// The preference that it would have; `None`: none.
    pub preference: Option<Preferred>,
    /// The assumed number of endpoints in these zones.
    pub endpoints: BTreeMap<String, u32>,
}

/// The values of `trafficDistribution` that prefer a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preferred {
    /// The value that old versions support.
    Close,
    /// The field's value.
    SameZone,
}

impl Preferred {
    /// The value's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Close => "PreferClose",
            Self::SameZone => "PreferSameZone",
        }
    }
}

/// The reason for a missing answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// There is no such service.
    #[error("there is no Service `{0}`: name it as NAMESPACE/NAME")]
    NoService(String),
    /// Its clients choose themselves.
    #[error("Service `{0}` has no address of its own: its clients choose among the pods")]
    Headless(String),
    /// It would have no endpoint.
    #[error("Service `{0}` would have no ready endpoint")]
    NoEndpoint(String),
    /// It has no traffic.
    #[error("Service `{0}` has no traffic in this range")]
    NoTraffic(String),
}

/// Traffic of clients in one zone with servers in another, or in the same, in a month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneTraffic {
    /// As it was.
    pub before: Monthly,
    /// As it would have been.
    pub after: Monthly,
}

/// The endpoints of a zone, with the bytes of a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneEndpoints {
    /// Endpoints now, and after the change.
    pub count: [u32; 2],
    /// All bytes that they serve, as it was and as it would have been.
    pub bytes: [u64; 2],
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhatIf {
    /// The change.
    pub change: Change,
    /// Why the preference would change nothing, if so.
    pub ignored: Option<String>,
    /// By the zone of the clients and that of the servers.
    pub pairs: BTreeMap<[String; 2], ZoneTraffic>,
    /// By the zone of the endpoints.
    pub endpoints: BTreeMap<String, ZoneEndpoints>,
    /// The sum of the traffic between zones.
    pub crossing: ZoneTraffic,
}

/// The sums of a pair of zones: as it was, as it would have been, and whether it crosses.
type Sums = BTreeMap<[String; 2], ([Amount; 2], bool)>;

impl WhatIf {
    /// The answer for a snapshot.
    ///
    /// # Errors
    /// There is no such service, or no answer about it.
    pub fn new(snapshot: &Snapshot<'_>, change: Change) -> Result<Self, NoAnswer> {
        let name = change.service.clone();
        let service = snapshot.catalogue.services.get(&name).ok_or_else(|| NoAnswer::NoService(name.clone()))?;
        if service.is_headless || service.kind == Kind::ExternalName {
            return Err(NoAnswer::Headless(name));
        }
        let mut endpoints = Endpoints { ready: service.endpoints.ready.clone(), ..Endpoints::default() };
        endpoints.ready.extend(change.endpoints.clone());
        if endpoints.count() == 0 {
            return Err(NoAnswer::NoEndpoint(name));
        }
        let priced = PricedFlows::new(snapshot);
        let ignored = change.preference.and_then(|value| ignored(value, service, &endpoints, snapshot));
        let is_preferred = change.preference.is_some() && ignored.is_none();
        let sums = sums(snapshot, &priced, &name, (&endpoints, is_preferred));
        if sums.is_empty() {
            return Err(NoAnswer::NoTraffic(name));
        }
        let mut answer = Self { change, ignored, ..Self::default() };
        let zones = service.endpoints.ready.keys().chain(endpoints.ready.keys());
        for zone in zones {
            let count = [service.endpoints.in_zone(zone), endpoints.in_zone(zone)];
            answer.endpoints.insert(zone.clone(), ZoneEndpoints { count, ..ZoneEndpoints::default() });
        }
        answer.fill(&priced, &sums);
        Ok(answer)
    }

    fn fill(&mut self, priced: &PricedFlows<'_>, sums: &Sums) {
        let (mut crossing, mut served) = ([Amount::default(); 2], BTreeMap::<&str, [u64; 2]>::new());
        for (zones, (amounts, crosses)) in sums {
            let bytes = served.entry(&zones[1]).or_default();
            for side in 0..2 {
                bytes[side] = bytes[side].saturating_add(amounts[side].bytes);
                if *crosses {
                    crossing[side].add(amounts[side]);
                }
            }
            let [before, after] = amounts.map(|amount| priced.monthly(amount));
            self.pairs.insert(zones.clone(), ZoneTraffic { before, after });
        }
        for (zone, bytes) in served {
            self.endpoints.entry(zone.to_owned()).or_default().bytes = bytes.map(|bytes| priced.bytes_per_month(bytes));
        }
        let [before, after] = crossing.map(|amount| priced.monthly(amount));
        self.crossing = ZoneTraffic { before, after };
    }
}

/// Why a preference would not be followed.
fn ignored(value: Preferred, service: &Service, endpoints: &Endpoints, snapshot: &Snapshot<'_>) -> Option<String> {
    if service.is_node_local {
        return Some("internalTrafficPolicy is Local: clients stay on their node".to_owned());
    }
    if service.topology_annotation().is_some() {
        return Some("the annotation topology-mode has precedence over trafficDistribution".to_owned());
    }
    let nowhere = endpoints.in_zone("");
    if nowhere > 0 {
        return Some(format!("{nowhere} endpoints have no zone: then all hints are ignored"));
    }
    match snapshot.catalogue.data_plane {
        DataPlane::Cilium { topology: ServiceTopology::Off, .. } => Some("Cilium's service topology is off".to_owned()),
        DataPlane::Cilium { version: Some(version), .. }
            if value == Preferred::SameZone && version < CiliumVersion::SAME_ZONE =>
        {
            Some(format!("Cilium {version} does not know the value {}", value.name()))
        }
        DataPlane::Cilium { .. } | DataPlane::KubeProxy | DataPlane::Unknown => None,
    }
}

fn sums(snapshot: &Snapshot<'_>, priced: &PricedFlows<'_>, service: &str, after: (&Endpoints, bool)) -> Sums {
    let (endpoints, is_preferred) = after;
    let locations = locations(priced);
    let mut sums = Sums::new();
    let mut add = |client: &Location, server: &Location, side: usize, amount: Amount| {
        let zones = [client, server].map(|site| site.place.name().to_owned());
        let crosses = zones[0] != zones[1] && client.place.zone().is_some() && server.place.zone().is_some();
        let (amounts, is_crossing) = sums.entry(zones).or_default();
        amounts[side].add(amount);
        *is_crossing = crosses;
    };
    for entry in priced.flows.iter().filter(|entry| entry.flow.is_known && entry.flow.service == service) {
        let [client, server] = entry.flow.sites;
        add(client, server, 0, entry.amount(Saved::All));
        let zone = client.place.name();
        let near = BTreeMap::from([(zone.to_owned(), 1)]);
        let is_near = is_preferred && endpoints.in_zone(zone) > 0;
        let targets = if is_near { &near } else { &endpoints.ready };
        let [requests, answers] = entry.flow.bytes.map(|bytes| split(bytes, targets));
        for ((zone, requests), answers) in targets.keys().zip(requests).zip(answers) {
            let server =
                locations.get(zone.as_str()).map_or_else(|| unseen(zone, client), |site| Location::clone(site));
            let mut amount = price(snapshot, client, &server, requests);
            amount.add(price(snapshot, &server, client, answers));
            add(client, &server, 1, amount);
        }
    }
    sums
}

fn price(snapshot: &Snapshot<'_>, from: &Location, to: &Location, bytes: u64) -> Amount {
    match snapshot.prices.quote(from, to).cost(bytes) {
        Some(charge) => Amount { bytes, cost: charge.total(), unpriced_bytes: 0 },
        None => Amount { bytes, unpriced_bytes: bytes, ..Amount::default() },
    }
}

/// Bytes split in proportion to endpoints; the remainder of the division goes to the first ones, a byte each.
fn split(bytes: u64, endpoints: &BTreeMap<String, u32>) -> Vec<u64> {
    let all: u128 = endpoints.values().map(|count| u128::from(*count)).sum();
    let part = |count: &u32| (u128::from(bytes) * u128::from(*count) / all.max(1)) as u64;
    let mut parts: Vec<u64> = endpoints.values().map(part).collect();
    let mut rest = bytes - parts.iter().sum::<u64>();
    for (part, count) in parts.iter_mut().zip(endpoints.values()) {
        if rest > 0 && *count > 0 {
            *part += 1;
            rest -= 1;
        }
    }
    parts
}

/// A place of each zone in which something was seen.
fn locations<'a>(priced: &PricedFlows<'a>) -> BTreeMap<&'a str, &'a Location> {
    let sites = priced.flows.iter().flat_map(|entry| entry.flow.sites);
    sites.filter(|site| site.class.is_none()).map(|site| (site.place.name(), site)).collect()
}

/// A zone in which nothing was seen: its region and provider are taken for those of the client.
fn unseen(zone: &str, client: &Location) -> Location {
    let region = client.region().to_owned();
    let place =
        if zone.is_empty() { Place::Unknown } else { Place::Zone(Arc::new(Zone { name: zone.to_owned(), region })) };
    Location { provider: client.provider.clone(), place, class: None }
}
