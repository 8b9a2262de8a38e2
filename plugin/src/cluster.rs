//! Watches the cluster's objects, and makes the zone table and the endpoints from them. The only room that uses kube.

#[cfg(test)]
mod api_server;
mod catalogues;
mod cilium_settings;
mod claims;
mod connect;
mod events;
mod facts;
mod health;
mod identities;
mod lease;
mod message;
mod model;
mod notices;
mod objects;
mod source;
mod state;
mod tokens;
mod unload;
mod watches;

pub use catalogues::{CatalogueRequests, Catalogues};
pub use connect::{ConnectError, connect};
pub use events::EventRecorder;
pub use facts::{Key, Kind, ObjectRef};
pub use health::{Health, KindHealth, State};
pub use lease::Lease;
pub use message::{Message, messages};
pub use model::{Model, NodeProvider, Notice, TableTally};
pub use notices::Notices;
pub use objects::{Agentless, LabelKeys, NoLabel, NodeLabel, ReadObject, read};
pub use source::{Source, UnknownSource};
pub use state::{Publisher, watch};
pub use tokens::{AllowAll, ReviewTally, Tokens};
pub use unload::{Progress, UnloadError, unload_nodes};
pub use watches::Timing;

/// A connection to the API server.
pub use kube::Client;
