//! Ends of traffic in a history.

use meridian::{
    history::Workload,
    zones::{Location, Place, Provider, Zone},
};
use std::sync::Arc;

/// A zone of AWS.
pub fn location(zone: &str, region: &str) -> Location {
    let place = Place::Zone(Arc::new(Zone { name: zone.into(), region: region.into() }));
    Location { provider: Provider::new("aws"), place, class: None }
}

/// A workload of the namespace shop.
pub fn workload(kind: &str, name: &str) -> Workload {
    Workload { namespace: "shop".into(), kind: kind.into(), name: name.into(), ..Workload::default() }
}
