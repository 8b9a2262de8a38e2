//! The stream from the controller to the agents: the zone table and who has an address, both ends.
//!
//! The state falls into buckets by address, each with a digest: an agent that comes back, to whichever
//! replica, is told only what differs. From then on every change is encoded once and sent to all.

mod agents;
mod backoff;
mod buckets;
mod client;
mod connect;
mod saved;
mod server;
mod store;
mod wire;

pub use agents::{Agents, Refusals};
pub use backoff::Backoff;
pub use buckets::{BUCKETS, Digest, bucket};
pub use client::{Batch, Client, Connection};
pub use connect::{ConnectError, Settings as ClientSettings};
pub use saved::{NAME as SAVED_TABLE, Saved, Saving};
pub(crate) use server::check_token;
pub use server::{Authenticate, FeedService, Limits, Refused as RefusedToken, Watches};
pub use store::{Cursor, Position, Store};
pub use wire::WireError;

use crate::{identity, zones};

/// What becomes different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of prefixes.
    pub zones: Vec<zones::Change>,
    /// Of addresses.
    pub identities: Vec<identity::Change>,
}

impl Changes {
    /// Whether nothing does.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.identities.is_empty()
    }
}
