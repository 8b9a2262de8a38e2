//! What a cluster sent in an hour or a day: blocks with bytes and packets by workload pair and zone pair, their
//! encoding, and sums of several. Pure.
//!
//! Bytes are kept, never money. A block says how much of its time was seen and of which nodes, so that a sum with a
//! gap is never taken for a whole one. The encoding of a block depends on its content alone; its decoder refuses any bytes
//! that were not written, and no bytes make it panic or grow beyond its limits.

mod block;
mod builder;
mod codec;
mod names;

pub use block::{Block, Coverage, NodeCoverage, NodeTransfer, Party, Server, Span, Transfer, TransferKey};
pub use builder::{Builder, Ends, Serving};
pub use codec::{Damaged, MAX_ENCODED};
pub use names::Names;
