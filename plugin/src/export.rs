//! What is written for others to read later.

mod pair_log;

pub use pair_log::{Output, PairLog, Pairs};
