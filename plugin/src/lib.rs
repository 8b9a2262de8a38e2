//! Meridian measures the traffic that crosses availability zones, in the kernel, and reports it through Hubble's
//! API.
//!
//! Imports point one way; docs/ARCHITECTURE.md has the table, and `tests/structure` enforces it. The modules, in
//! reading order, each after those that it uses:
//!
//! 1. Tools of one idea each: `allocator`, `error_chain`, `backoff`, `bounded_file`, `atomic_file`, `fnv`, `units`, `watched` and
//!    `yaml`.
//! 2. The domain, without kernel or network: `proto` has the messages; `zones`, `cost`, `budget` and `identity` give a
//!    place, a price, a limit and an endpoint; `catalogue` lists a cluster's services and workloads; `flows`, `accounting` and
//!    `counters` turn the kernel's entries into events and sums; `wire` converts between values and messages.
//! 3. The past, and the conclusions from it: `history` has the blocks into which `recorder` writes traffic; `statement`
//!    groups and prices them; `bill` compares them with the provider's bill; `advice` finds changes that save money;
//!    `archive` keeps blocks on disk, and `historian` runs it all; `web` answers the page and its API, without sockets.
//! 4. The edges: `leader` and `link` are shared by our processes; `datapath` is the kernel; `hubble`, `feed`, `reports`
//!    and `api` are the gRPC services; `cluster` is Kubernetes; `export` writes logs; `metrics` serves HTTP, `web`
//!    included.
//! 5. The programs: `meter` joins the parts of a node; `grpc`, `outputs` and `servers` serve them; `agent` runs on each
//!    node, `controller` for the cluster; `replay` reads flow logs; `netlab` makes networks of namespaces for
//!    `demo` and tests; `cli` has the commands.

pub mod accounting;
pub mod advice;
pub mod agent;
pub mod allocator;
pub mod api;
pub mod archive;
mod atomic_file;
mod backoff;
pub mod bill;
mod bounded_file;
pub mod budget;
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
pub mod focus;
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
pub mod otlp;
pub mod outputs;
pub mod prometheus;
pub mod proto;
pub mod recorder;
pub mod replay;
pub mod replication;
pub mod reports;
pub mod servers;
pub mod statement;
pub mod units;
pub mod watched;
pub mod web;
pub mod wire;
pub mod yaml;
pub mod zones;
