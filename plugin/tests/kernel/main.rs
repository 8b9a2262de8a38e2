//! The kernel programs in the kernel: on built packets, and on real traffic in network namespaces. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails here")]

mod cases;
mod demo;
mod devices;
mod hook_change;
mod load;
#[path = "../network/mod.rs"]
mod network;
mod packets;
mod privileges;
#[path = "../common/programs.rs"]
mod programs;
mod reference;
mod restart;
mod retiring;
mod straight;
mod traffic;
