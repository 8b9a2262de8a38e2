//! Applies changes of the table, and updates the node's own place.

use crate::{
    datapath::Error,
    meter::Meter,
    zones::{Change, Place},
};
use std::time::SystemTime;

/// Applies changes to the table in force.
pub(super) fn change(meter: &mut Meter, changes: Vec<Change>) -> Result<(), Error> {
    if let Some(too_many) = meter.change_zones(changes, SystemTime::now())? {
        tracing::error!(%too_many, "the table is in force without some of its zones");
    }
    place_node(meter)
}

/// Places the node in the zone of the first uplink address that has one.
pub(super) fn place_node(meter: &mut Meter) -> Result<(), Error> {
    let zones = meter.zones();
    let place = {
        let table = zones.read();
        let mut addresses = meter.datapath().devices().uplinks().flat_map(|uplink| &uplink.addresses);
        let zone = addresses
            .find_map(|address| table.lookup(*address).filter(|(_, placement)| placement.place.zone().is_some()));
        zone.map_or(Place::Unknown, |(_, placement)| placement.place.clone())
    };
    meter.place_node(&place)
}
