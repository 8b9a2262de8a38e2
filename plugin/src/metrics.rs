//! Metrics of the nodes that this process measures, for Prometheus.
//!
//! The page is made from a sample that the agent takes once a second, so scrapes at any rate disturb nothing. The
//! number of series is bounded, regardless of the cluster's size.

mod access;
mod client;
mod connections;
mod controller;
mod families;
mod http;
mod nodes;
mod outputs;
mod parts;
mod process;
mod sources;
mod text;
mod traffic;
mod writer;

pub use access::{Access, TokenError};
pub use client::{AskError, ask};
pub use controller::Controller;
pub use families::Families;
pub use http::{InvalidListen, Listen, serve};
pub use nodes::Nodes;
pub use outputs::{Outputs, Reloads};
pub use parts::{Page, Part, Ready};
pub use sources::MeasuredNodes;
