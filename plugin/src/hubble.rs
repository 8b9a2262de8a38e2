//! Hubble's Observer over the flow ring, and Peer: what `hubble observe`, hubble-relay and hubble-ui ask.

mod filter;
mod get_flows;
mod mask;
mod peer;
mod query;
mod reply;
mod server;

pub use filter::Filters;
pub use peer::{PeerService, Peers};
pub use reply::Reply;
pub use server::Server;
