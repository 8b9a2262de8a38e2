//! The findings of a scan: objects, and texts with objects in them.

use super::reason::Reason;
use serde_json::{Map, Value};

/// The size limit of an object, in bytes. A flow is a thousand times smaller.
pub(super) const LONGEST: usize = 1 << 20;

/// A finding.
#[derive(Debug)]
pub(super) enum Piece {
    /// An object.
    Object(Map<String, Value>),
    /// A text with an object in it: one that was quoted, or that a container runtime has split into several lines.
    Text(String),
    /// Something unreadable, and the reason.
    Left(Reason, String),
}
