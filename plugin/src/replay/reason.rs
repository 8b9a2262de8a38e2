//! Why something in a log is not served.

use std::fmt;

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is not JSON.
    NotJson,
    /// JSON in which there is no flow.
    NoFlow,
    /// A flow with a field of another type than Hubble's.
    Malformed,
    /// It is longer than what is read.
    TooLong,
    /// The state of nodes, which hubble-relay tells among flows.
    NodeStatus,
    /// The rest of a packed file, which is broken.
    Broken,
    /// A file that is packed in a way that is not read.
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
