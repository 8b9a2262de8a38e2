//! The traffic of a cluster in an hour or a day: blocks with bytes and packets by workload pair and zone pair, their
//! encoding, and sums of several. Pure.
//!
//! Blocks hold bytes, never money. A block has the recorded time of each node, so that a sum with a gap is never taken
//! for a complete one. The encoding of a block depends on its content alone; its decoder refuses any bytes
//! that were not written, and no bytes make it panic or grow beyond its limits.

mod block;
mod builder;
mod codec;
mod names;

pub use block::{Block, Coverage, NodeCoverage, NodeTransfer, Server, Span, Transfer, TransferKey, Workload};
pub use builder::{Builder, Ends, TransferService};
pub use codec::{Damaged, MAX_ENCODED};
pub use names::Names;
