//! The controller and its agents against a real API server.
//!
//! Needs root, and the program of conformance/cluster, named by MERIDIAN_KUBERNETES; `make test` builds it. Tests that
//! do not restart the API server can run against another one, named by MERIDIAN_TEST_KUBECONFIG: it must have no
//! nodes, because the table must be exactly the test's.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails here")]

mod advice;
#[path = "../network/bpf_fs.rs"]
mod bpf_fs;
#[path = "../certificates/mod.rs"]
mod certificates;
mod chart;
mod collector;
#[path = "../common/mod.rs"]
mod common;
mod feed;
mod histories;
mod kernel;
mod lab;
mod nodes;
mod objects;
mod page;
mod relay;
mod tables;
mod totals;
mod trouble;
