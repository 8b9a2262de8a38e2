//! The reasons why an entry of a log is not served.

use std::fmt;

/// The reason why an entry is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The text is not JSON.
    NotJson,
    /// The JSON has no flow.
    NoFlow,
    /// A flow with a field of another type than Hubble's.
    Malformed,
    /// The entry exceeds the size limit.
    TooLong,
    /// The state of nodes, which hubble-relay sends among flows.
    NodeStatus,
    /// The rest of a damaged compressed file.
    Broken,
    /// A file with an unsupported compression.
    Packed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson => "not JSON",
            Self::NoFlow => "JSON without a flow",
            Self::Malformed => "malformed flows",
            Self::TooLong => "too long",
            Self::NodeStatus => "states of nodes",
            Self::Broken => "broken rests of packed files",
            Self::Packed => "files that are packed in another way",
        })
    }
}
