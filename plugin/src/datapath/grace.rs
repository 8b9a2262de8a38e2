//! Waits until the running programs have ended.

use std::{thread, time::Duration};

/// Returns when every program that was running has ended.
pub(super) fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // The command waits for an RCU grace period, and programs run inside RCU.
    // SAFETY: membarrier takes no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0;
    if !done {
        // membarrier fails on kernels with nohz_full; a program runs for microseconds.
        thread::sleep(Duration::from_millis(50));
    }
}
