//! Messages of Hubble and our own; how they are read and written without being decoded.

mod generated;
pub mod json;
pub mod schema;
pub mod wire;

pub use generated::{DESCRIPTORS, POOL, flow, number, observer, peer, relay, v1};
