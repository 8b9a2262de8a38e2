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

/// A number of repetitions, `MERIDIAN_TIMES` times as many if that is set: see `make test-kernel-long`.
fn times(short: usize) -> usize {
    short * std::env::var("MERIDIAN_TIMES").map_or(1, |text| text.parse::<usize>().unwrap())
}

/// Runs `work` before all other threads that want the processor: it ends although they keep every CPU busy.
fn before_others<T>(work: impl FnOnce() -> T) -> T {
    set_niceness(-10);
    let result = work();
    set_niceness(0);
    result
}

/// Sets the niceness of the calling thread alone.
fn set_niceness(niceness: i32) {
    // SAFETY: setpriority takes no pointers; process 0 is the calling thread.
    assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) }, 0);
}
