//! Meridian measures the traffic that crosses availability zones, in the kernel, and speaks it in
//! Hubble's language.
//!
//! Imports point one way; docs/ARCHITECTURE.md has the table, and `tests/structure` holds us to it. In the order
//! in which they build on each other: `zones`, `identity`, `flows`, `accounting` and `counters` are the domain and
//! know neither kernel nor network; `proto` and `wire` are its messages; `leader` and `link` are what our processes
//! have in common; `datapath`, `hubble`, `feed`, `reports`, `api`, `cluster`, `export` and `metrics` are the edges;
//! `meter` joins those of a node; `grpc`, `outputs` and `servers` serve them; `agent` and `controller` are the programs;
//! `demo` and `cli` use it all.

pub mod accounting;
pub mod agent;
pub mod api;
mod atomic_file;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod counters;
pub mod datapath;
pub mod demo;
mod error_chain;
pub mod export;
pub mod feed;
pub mod flows;
mod fnv;
pub mod grpc;
pub mod hubble;
pub mod identity;
pub mod leader;
pub mod link;
pub mod meter;
pub mod metrics;
pub mod outputs;
pub mod proto;
pub mod replay;
pub mod reports;
pub mod servers;
pub mod units;
pub mod watched;
pub mod wire;
pub mod yaml;
pub mod zones;
