//! Parts of reports, read.

use crate::{
    proto::v1::{Place as WirePlace, Reason, ZonePair},
    zones::{Pair, Place, Zone},
};
use meridian_abi::{Counter, IpVersion, matrix::Direction, stats::Stat, zone};
use std::sync::Arc;

/// A node's name is a DNS name.
const NODE_NAME: usize = 253;
/// Pairs of zones that one node's kernel can tell.
const PAIRS: usize = 4 * (zone::MAX_ZONES + 2) * (zone::MAX_ZONES + 2);

/// It is not what an agent says.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

pub(super) fn name(node: &str) -> Result<(), Malformed> {
    let is_name = !node.is_empty() && node.len() <= NODE_NAME;
    is_name.then_some(()).ok_or(Malformed("a report names its node"))
}

pub(super) fn matrix(pairs: &[ZonePair]) -> Result<Vec<(Pair, Counter)>, Malformed> {
    if pairs.len() > PAIRS {
        return Err(Malformed("it has too many pairs of zones"));
    }
    pairs.iter().map(pair).collect()
}

fn pair(wire: &ZonePair) -> Result<(Pair, Counter), Malformed> {
    let version = match wire.ip_version {
        4 => IpVersion::V4,
        6 => IpVersion::V6,
        _ => return Err(Malformed("a pair of zones is of IP version 4 or 6")),
    };
    let direction = [Direction::Egress, Direction::Ingress].into_iter().find(|it| it.name() == wire.direction);
    let direction = direction.ok_or(Malformed("a pair of zones has a direction"))?;
    let place = |place: &Option<WirePlace>| place.as_ref().map_or(Place::Unknown, place_of);
    let pair = Pair { source: place(&wire.source), destination: place(&wire.destination), version, direction };
    Ok((pair, wire.counter.map(Into::into).unwrap_or_default()))
}

fn place_of(wire: &WirePlace) -> Place {
    match (wire.zone.as_str(), wire.region.as_str()) {
        ("unknown" | "", "") => Place::Unknown,
        ("internet", "") => Place::Internet,
        _ => Place::Zone(Arc::new(Zone { name: wire.zone.clone(), region: wire.region.clone() })),
    }
}

/// Those reasons that are known here.
pub(super) fn stats(reasons: &[Reason]) -> Vec<(Stat, Counter)> {
    let known = |reason: &Reason| {
        let stat = Stat::ALL.into_iter().find(|stat| stat.name() == reason.name)?;
        Some((stat, reason.counter.map(Into::into).unwrap_or_default()))
    };
    reasons.iter().filter_map(known).collect()
}
