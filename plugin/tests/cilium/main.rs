//! Beside the real Cilium: its agents, operator and CNI plugin on three real kubelets in three zones, Meridian
//! installed by its chart, and its numbers compared with the wire's, byte by byte.
//!
//! Each test brings a cluster up by `scripts/cluster.sh`, in one of Cilium's modes, and takes it away. They
//! need root, and programs that take half an hour to build, so they are ignored unless asked for:
//! `scripts/test-cilium.sh default` (in `make test`) and `make test-cilium`.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails here")]

mod actions;
mod beside;
#[path = "../certificates/mod.rs"]
mod certificates;
mod modes;
#[path = "../nodes/mod.rs"]
mod nodes;
mod outside;
mod policies;
mod relay;
mod reported;
mod wire;

use nodes::{cluster, machine};

/// Beside a cluster that a person has.
const NAME: &str = "meridian-cilium";
