//! Meridian measures the traffic that crosses availability zones, in the kernel, and speaks it in
//! Hubble's language.
//!
//! Dependencies point one way: the domain (`zones`, `identity`, `flows`, `accounting`) knows neither
//! kernel nor network; the edges (`datapath`, `hubble`, `api`, `metrics`, `export`) translate; `agent`
//! joins them; `demo` and `cli` use it. `cluster` makes the zone table of what a Kubernetes API server
//! says, `feed` brings it to the agents, and `reports` brings back what they counted. `tls` is that of all
//! servers.

pub mod accounting;
pub mod agent;
pub mod api;
mod causes;
pub mod cli;
pub mod cluster;
pub mod counters;
pub mod datapath;
pub mod demo;
mod durable;
pub mod export;
pub mod feed;
pub mod flows;
pub mod grpc;
mod hash;
pub mod hubble;
pub mod identity;
pub mod leader;
pub mod link;
pub mod metrics;
pub mod proto;
pub mod replay;
pub mod reports;
pub mod units;
pub mod wire;
pub mod yaml;
pub mod zones;
