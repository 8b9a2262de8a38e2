//! The rules, in the order in which they are tried: those that know a protocol before those that know only a service. A
//! flow is assigned to the first one that fits.

mod causes;
mod explained;
mod external;
mod moves;
mod node_local;
mod preference;
mod scrapers;
mod services;
mod stores;

use super::engine::Engine;

/// Applies all rules.
pub(super) fn apply(engine: &mut Engine<'_>) {
    explained::replication(engine);
    explained::rings(engine);
    external::apply(engine);
    scrapers::duplicates(engine);
    scrapers::far(engine);
    stores::apply(engine);
    node_local::apply(engine);
    moves::apply(engine);
    services::apply(engine);
}
