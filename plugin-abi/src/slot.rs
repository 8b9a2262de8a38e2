//! The numbers of zones in the matrix and in verdicts.

/// The index of a zone in the matrix. Two slots are not zones: [`UNKNOWN`] and [`INTERNET`].
pub type Slot = u16;

/// Unknown: a private address in no prefix, or a node without a zone.
pub const UNKNOWN: Slot = 0;
/// A public address in no prefix.
pub const INTERNET: Slot = 1;
/// The slot of the first named zone.
pub const FIRST_ZONE: Slot = 2;
/// The limit of zones of a node.
pub const MAX_ZONES: usize = 255;
