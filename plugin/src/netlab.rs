//! Networks of namespaces on one machine, for the demo and for tests.
//!
//! The namespaces have no names, so a network is gone when its process ends, in whatever way.

mod error;
pub mod links;
pub mod namespace;

pub use error::Error;
