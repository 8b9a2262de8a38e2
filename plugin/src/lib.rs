//! Meridian measures the traffic that crosses availability zones, in the kernel, and reports it through Hubble's
//! API.
//!
//! Imports point one way; docs/ARCHITECTURE.md has the table, and `tests/structure` enforces it. The modules, in the
//! order in which they build on each other: `zones`, `identity`, `flows`, `accounting` and `counters` are the
//! domain, without kernel or network; `proto` and `wire` are its messages; `leader` and `link` are shared by our
//! processes; `datapath`, `hubble`, `feed`, `reports`, `api`, `cluster`, `export` and `metrics` are the edges;
//! `meter` joins the edges of a node; `grpc`, `outputs` and `servers` serve them; `agent` and `controller` are the
//! programs; `netlab` makes networks of namespaces for `demo` and tests; `demo` and `cli` use all of it.

pub mod accounting;
pub mod advice;
pub mod agent;
pub mod api;
pub mod archive;
mod atomic_file;
mod backoff;
mod bounded_file;
pub mod catalogue;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod cost;
pub mod counters;
pub mod datapath;
pub mod demo;
mod error_chain;
pub mod export;
pub mod feed;
pub mod flows;
mod fnv;
pub mod grpc;
pub mod historian;
pub mod history;
pub mod hubble;
pub mod identity;
pub mod leader;
pub mod link;
pub mod meter;
pub mod metrics;
pub mod netlab;
pub mod outputs;
pub mod proto;
pub mod recorder;
pub mod replay;
pub mod reports;
pub mod servers;
pub mod statement;
pub mod units;
pub mod watched;
pub mod web;
pub mod wire;
pub mod yaml;
pub mod zones;
