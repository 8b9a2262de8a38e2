//! Our own gRPC API, meridian.v1: counters as they grow, and the zone table in force.

mod client;
mod counters;
mod zones;

pub use client::{Client, ClientError, Target};
pub use counters::CountersService;
pub use zones::ZonesService;

use crate::{
    proto::v1,
    zones::{Placement, Table},
};
use ipnetwork::IpNetwork;
use meridian_abi::zone::PrefixKind;
use std::sync::Arc;
use tokio::sync::watch;

/// The zone table in force.
pub type Tables = watch::Receiver<Arc<Table>>;

/// A prefix as the API says it.
pub fn prefix(prefix: &IpNetwork, placement: &Placement) -> v1::Prefix {
    let kind = match placement.kind {
        PrefixKind::Default => "default",
        PrefixKind::Cluster => "cluster",
        PrefixKind::External => "external",
    };
    v1::Prefix {
        cidr: prefix.to_string(),
        zone: placement.place.to_string(),
        region: placement.place.zone().map_or_else(String::new, |zone| zone.region.clone()),
        kind: kind.to_owned(),
        origin: placement.origin.to_string(),
    }
}
