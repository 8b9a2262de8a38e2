//! Puts changes of the table in force, and the node where the table says that it is.

use super::super::Failure;
use crate::{
    agent::Agent,
    zones::{Change, Place},
};
use std::time::SystemTime;

/// Changes the table in force.
pub(super) fn change(agent: &mut Agent, changes: Vec<Change>) -> Result<(), Failure> {
    if let Some(too_many) = agent.change_zones(changes, SystemTime::now()).map_err(Failure::failed)? {
        tracing::error!(%too_many, "the table is in force without some of its zones");
    }
    place_node(agent)
}

/// The node is in the zone of the first address of an uplink that is in one.
pub(super) fn place_node(agent: &mut Agent) -> Result<(), Failure> {
    let zones = agent.zones();
    let place = {
        let table = zones.read();
        let mut addresses = agent.datapath().devices().uplinks().flat_map(|uplink| &uplink.addresses);
        let zone = addresses
            .find_map(|address| table.lookup(*address).filter(|(_, placement)| placement.place.zone().is_some()));
        zone.map_or(Place::Unknown, |(_, placement)| placement.place.clone())
    };
    agent.place_node(&place).map_err(Failure::failed)
}
