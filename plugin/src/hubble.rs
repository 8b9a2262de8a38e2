//! Hubble's Observer over the flow ring, and Peer: what `hubble observe`, hubble-relay and hubble-ui ask.

mod export;
mod filter;
mod get_flows;
mod mask;
mod peer;
mod query;
mod reply;
mod server;

pub use export::Exported;
pub use filter::Filters;
pub use peer::{
    Ask as AskPeers, Changes as PeerChanges, DEFAULT_CLUSTER, Known as KnownPeers, PeerAddress, PeerService, Peers,
    node_name, server_name,
};
pub use reply::Reply;
pub use server::Server;
