//! A cluster of three real kubelets in three zones, and Meridian in it as its pages say: installed, upgraded, taken
//! away, and met by what clusters go through. Its numbers are compared with the wire's, byte by byte.
//!
//! It needs root and programs of others, so it is ignored unless asked for: `scripts/test.sh pods`.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails here")]

mod advice;
#[path = "../common/documented.rs"]
mod documented;
mod life;
mod load;
#[path = "../nodes/mod.rs"]
mod nodes;
mod processes;
mod totals;
mod trouble;
mod typist;
