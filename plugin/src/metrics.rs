//! Metrics of the nodes that this process measures, for Prometheus.
//!
//! The page is made from a sample that the agent takes once a second, so scrapes at any rate disturb nothing. The
//! number of series is bounded, regardless of the cluster's size.

mod client;
mod connections;
mod controller;
mod http;
mod outputs;
mod page;
mod sources;
mod text;
mod traffic;
mod writer;

pub use client::{AskError, ask};
pub use controller::Controller;
pub use http::{InvalidListen, Listen, serve};
pub use sources::{Families, Measured, Outputs, Process, Reloads, Sources};
