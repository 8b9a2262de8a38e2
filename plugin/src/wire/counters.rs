//! Counters by zone pair, by reason and by pod as messages, and back.

use super::NameStore;
use crate::{
    accounting::{ByLocality, LocatedPod},
    proto::v1::{self, Place as WirePlace, PlacedEndpoint, Reason, ZonePair},
    zones::{Locality, Pair, Place, Zone},
};
use meridian_abi::{Counter, IpVersion, matrix::Direction, stats::Stat, zone};

/// The longest name of a node: a DNS name.
const NODE_NAME: usize = 253;
/// The most zone pairs that one node's kernel can count.
const PAIRS: usize = 4 * (zone::MAX_ZONES + 2) * (zone::MAX_ZONES + 2);

/// A report that no agent sends.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Checks that a node's name is a DNS name.
///
/// # Errors
/// The name is not a DNS name.
pub fn node_name(node: &str) -> Result<(), Malformed> {
    let is_name = !node.is_empty() && node.len() <= NODE_NAME;
    is_name.then_some(()).ok_or(Malformed("a report names its node"))
}

/// Reads counters by zone pair.
///
/// # Errors
/// The pairs are not as an agent sends them.
pub fn matrix(pairs: &[ZonePair], names: &mut impl NameStore) -> Result<Vec<(Pair, Counter)>, Malformed> {
    if pairs.len() > PAIRS {
        return Err(Malformed("it has too many pairs of zones"));
    }
    pairs.iter().map(|wire| pair(wire, names)).collect()
}

fn pair(wire: &ZonePair, names: &mut impl NameStore) -> Result<(Pair, Counter), Malformed> {
    let version = match wire.ip_version {
        4 => IpVersion::V4,
        6 => IpVersion::V6,
        _ => return Err(Malformed("a pair of zones is of IP version 4 or 6")),
    };
    let direction = [Direction::Egress, Direction::Ingress].into_iter().find(|it| it.name() == wire.direction);
    let direction = direction.ok_or(Malformed("a pair of zones has a direction"))?;
    let mut place = |place: &Option<WirePlace>| place.as_ref().map_or(Place::Unknown, |place| place_of(place, names));
    let pair = Pair { source: place(&wire.source), destination: place(&wire.destination), version, direction };
    Ok((pair, wire.counter.map(Into::into).unwrap_or_default()))
}

fn place_of(wire: &WirePlace, names: &mut impl NameStore) -> Place {
    match (wire.zone.as_str(), wire.region.as_str()) {
        ("unknown" | "", "") => Place::Unknown,
        ("internet", "") => Place::Internet,
        _ => Place::Zone(names.zone(Zone { name: wire.zone.clone(), region: wire.region.clone() })),
    }
}

/// The reasons that this version has.
pub fn stats(reasons: &[Reason]) -> Vec<(Stat, Counter)> {
    let known = |reason: &Reason| {
        let stat = Stat::ALL.into_iter().find(|stat| stat.name() == reason.name)?;
        Some((stat, reason.counter.map(Into::into).unwrap_or_default()))
    };
    reasons.iter().filter_map(known).collect()
}

/// The message for the traffic between two zones.
pub fn zone_pair(pair: &Pair, sum: Counter) -> ZonePair {
    ZonePair {
        source: Some(place(&pair.source)),
        destination: Some(place(&pair.destination)),
        locality: pair.locality().to_string(),
        ip_version: match pair.version {
            IpVersion::V4 => 4,
            IpVersion::V6 => 6,
        },
        counter: Some(sum.into()),
        direction: pair.direction.name().to_owned(),
    }
}

/// The message for the traffic with a reason.
pub fn reason(stat: Stat, sum: Counter) -> Reason {
    Reason { name: stat.name().to_owned(), outside: stat.is_outside(), counter: Some(sum.into()) }
}

fn place(place: &Place) -> WirePlace {
    let region = place.zone().map_or_else(String::new, |zone| zone.region.clone());
    WirePlace { zone: place.to_string(), region }
}

/// The message for an end of a transfer between pods.
pub fn placed_endpoint((pod, at): &LocatedPod) -> PlacedEndpoint {
    let place = Some(place(at));
    let Some(pod) = pod else { return PlacedEndpoint { place, ..PlacedEndpoint::default() } };
    let (namespace, pod) = (pod.0.namespace.to_string(), &pod.0);
    let workload = pod.workload.as_ref();
    PlacedEndpoint {
        namespace,
        pod: pod.pod.to_string(),
        workload_kind: workload.map_or_else(String::new, |workload| workload.kind.clone()),
        workload: workload.map_or_else(String::new, |workload| workload.name.clone()),
        place,
    }
}

impl From<ByLocality> for Vec<v1::Counter> {
    fn from(by_locality: ByLocality) -> Self {
        by_locality.iter().map(|(_, counter)| counter.into()).collect()
    }
}

impl From<&[v1::Counter]> for ByLocality {
    fn from(counters: &[v1::Counter]) -> Self {
        let mut sum = Self::default();
        Locality::ALL.into_iter().zip(counters).for_each(|(locality, counter)| sum.add(locality, (*counter).into()));
        sum
    }
}

impl From<Counter> for v1::Counter {
    fn from(Counter { bytes, packets }: Counter) -> Self {
        Self { bytes, packets }
    }
}

impl From<v1::Counter> for Counter {
    fn from(v1::Counter { bytes, packets }: v1::Counter) -> Self {
        Self { bytes, packets }
    }
}
