//! Where decoded names go.

use crate::{identity::Endpoint, zones::Zone};
use std::sync::Arc;

/// Stores decoded names. It may replace a name by an equal one that is in memory already.
pub trait NameStore {
    /// Stores an endpoint.
    fn endpoint(&mut self, endpoint: Endpoint) -> Arc<Endpoint>;
    /// Stores a zone.
    fn zone(&mut self, zone: Zone) -> Arc<Zone>;
}

/// Shares nothing.
impl NameStore for () {
    fn endpoint(&mut self, endpoint: Endpoint) -> Arc<Endpoint> {
        Arc::new(endpoint)
    }

    fn zone(&mut self, zone: Zone) -> Arc<Zone> {
        Arc::new(zone)
    }
}
