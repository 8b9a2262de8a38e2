//! What the cluster says: watches its objects and makes the zone table and the identities of them. The
//! only room for kube.

mod claims;
mod connect;
mod events;
mod facts;
mod identities;
mod model;
mod reduce;
mod state;
mod tokens;
mod watch;

pub use connect::connect;
pub use events::Reporter;
pub use facts::{Key, Kind, ObjectRef};
pub use model::{Model, Notice};
pub use reduce::LabelKeys;
pub use state::{Cluster, Health, KindHealth, State};
pub use tokens::{Anybody, Tokens};
pub use watch::Timing;

/// A connection to the API server.
pub use kube::Client;
