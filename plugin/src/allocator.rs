//! Settings of glibc's allocator for a process that holds hundreds of megabytes for long, most of them in small pieces.
//!
//! glibc keeps what a process frees, for the next time. What the controller needs while it reads the cluster, or while
//! thousands of agents come at once, it does not need again, so it is given back to the kernel. Nothing here changes
//! what the process does; with another C library it does nothing.

use std::time::Duration;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// The interval at which free memory is given back.
const TICK: Duration = Duration::from_secs(10);
/// The size from which a piece is mapped by itself, and unmapped when it is freed. glibc raises its own limit up to
/// 32 MiB with each such piece that is freed: large tables, which grow by being replaced, then leave holes.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: i32 = 256 << 10;
/// The number of heaps: each thread has one up to this number, and what is free in one is not used by another.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;

/// Sets the allocator. To be called before there are threads.
pub fn set() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [(libc::M_MMAP_THRESHOLD, MAPPED_BYTES), (libc::M_ARENA_MAX, HEAPS)] {
        // SAFETY: mallopt takes two numbers, and locks what it changes. A value that it refuses changes nothing.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Gives free memory back to the kernel.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number, and locks each heap while it looks for free pages there.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Gives free memory back again and again, until `shutdown`.
pub async fn keep_trimmed(shutdown: CancellationToken) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        // The next time is soon.
        let _ = spawn_blocking(trim).await;
    }
}
