//! The places between two steps of a thread that others can see. Tests of orders let another thread go on there.
//!
//! What the ring and the logs share is behind locks, so an order of steps is all that threads can differ in.

/// The end of a step, and the beginning of the next one.
#[cfg(not(test))]
#[inline(always)]
pub(super) const fn between_steps() {}

#[cfg(test)]
pub(super) use checked::{between_steps, check};

#[cfg(test)]
mod checked {
    use shuttle::{Config, Runner, scheduler::DfsScheduler};
    use std::cell::Cell;

    thread_local! {
        /// Whether this thread runs the threads of a check, one at a time.
        static IS_CHECKED: Cell<bool> = const { Cell::new(false) };
    }

    pub fn between_steps() {
        if IS_CHECKED.get() {
            shuttle::thread::yield_now();
        }
    }

    /// Runs `threads` in each possible order of their steps, and returns the number of orders. Panics if they wait for
    /// each other in one of them.
    pub fn check(threads: impl Fn() + Send + Sync + 'static) -> usize {
        let mut config = Config::new();
        config.stack_size = 1 << 18;
        let orders = Runner::new(DfsScheduler::new(None, false), config).run(move || {
            IS_CHECKED.set(true);
            threads();
        });
        IS_CHECKED.set(false);
        orders
    }
}
