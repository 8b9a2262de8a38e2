//! Hubble's Observer over the flow ring: what `hubble observe`, hubble-relay and hubble-ui ask.
//!
//! A request that asks for something that is not there yet is refused with its name, never answered
//! as if it had not asked.

mod filter;
mod get_flows;
mod mask;
mod peer;
mod query;
mod reply;
mod server;

pub use filter::Filters;
pub use peer::{Announced, PeerService};
pub use reply::Reply;
pub use server::Server;
