//! A cluster of real nodes that suites share: actions on it, Meridian's numbers, and the wire's.
#![allow(dead_code, reason = "not every suite needs all of it")]

pub mod actions;
pub mod bridge;
pub mod cluster;
pub mod machine;
pub mod offsets;
pub mod pages;
pub mod wire;

use std::time::Instant;

/// Prints how long it took: for people, who wait.
pub fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    eprintln!("    {what}: {:.0} s", start.elapsed().as_secs_f64());
    result
}
