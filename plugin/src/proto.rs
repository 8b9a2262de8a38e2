//! Hubble's messages and our own, and code that reads and writes them without decoding.

mod generated;
pub mod json;
pub mod schema;
pub mod wire;

pub use generated::{DESCRIPTORS, POOL, flow, number, observer, peer, relay, v1};
