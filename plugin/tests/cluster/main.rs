//! The controller and its agents against a real API server.
//!
//! Needs root, and conformance/cluster, named by MERIDIAN_KUBERNETES; `make test` builds it. What does
//! not restart the API server runs against any other one that MERIDIAN_TEST_KUBECONFIG names: one
//! without nodes, since the table must be exactly what the test makes.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails here")]

#[path = "../network/bpf_fs.rs"]
mod bpf_fs;
#[path = "../certificates/mod.rs"]
mod certificates;
mod chart;
#[path = "../common/mod.rs"]
mod common;
mod feed;
mod kernel;
mod lab;
mod nodes;
mod objects;
mod relay;
mod tables;
mod totals;
mod trouble;
