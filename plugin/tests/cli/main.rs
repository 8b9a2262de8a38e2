//! The command as a person runs it: results, errors, exit codes, and objects left behind. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails here")]

mod advise;
mod agent;
mod bypass;
#[path = "../common/mod.rs"]
mod common;
mod confined;
mod crowds;
mod dashboards;
mod demo;
mod docs;
mod errors;
mod hostile;
mod machine;
#[path = "../network/mod.rs"]
mod network;
mod outputs;
mod pair_log_once;
mod prices;
mod reconcile;
mod replay;
mod report;
mod requests;
mod restart;
mod soak;
mod top;
mod views;
mod zones;

use common::{CommandOutput, Scratch, documented, meridian, run, running};
