//! The domain's values as messages of meridian.v1, and back.

mod counters;
mod names;
mod sums;
mod updates;
mod zones;

pub use counters::{Malformed, matrix, node_name, placed_endpoint, reason, stats, zone_pair};
pub use names::NameStore;
pub use sums::{DecodedNames, Names, restore, service_message, service_of, sums};
pub use updates::{
    BUCKETS, Changes, PIECE_BYTES, Reader, WireError, encode_bucket, encode_changes, encode_pieces, encode_some, pack,
    pack_well, unpack,
};
pub use zones::{endpoint_message, prefix};
