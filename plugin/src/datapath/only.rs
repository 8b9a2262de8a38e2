//! Ensures one agent for a node, and one for the pinned counters: two would count every packet twice.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

/// A role that only one agent in a network namespace may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// The agent of a node of this name.
    Node(&'a str),
    /// The agent that writes to the pinned counters.
    Pinned,
}

/// Proof that this agent has the role, for as long as it is held.
#[derive(Debug)]
pub struct Only(#[expect(dead_code, reason = "held")] UnixListener);

/// Another agent runs, or it is unknown whether one does.
#[derive(Debug, thiserror::Error)]
pub enum NotAlone {
    /// Another agent runs.
    #[error("another agent counts here already (process {pid})")]
    Another {
        /// Its process.
        pid: i32,
    },
    /// It is unknown whether another agent runs.
    #[error("whether another agent counts here: {0}")]
    Unknown(#[from] io::Error),
}

impl Only {
    /// Claims the role in the calling thread's network namespace.
    ///
    /// # Errors
    /// Another agent has the role.
    pub fn claim(role: Role<'_>) -> Result<Self, NotAlone> {
        // An abstract socket name: one process of a network namespace can hold it, and it goes with the process.
        let name = match role {
            Role::Node(node) => format!("meridian-agent/node/{node}"),
            Role::Pinned => "meridian-agent/pinned".to_owned(),
        };
        // A name has 107 bytes at most. A longer one keeps its end, where names of nodes differ.
        let bytes = name.as_bytes();
        let name = SocketAddr::from_abstract_name(&bytes[bytes.len().saturating_sub(107)..])?;
        match UnixListener::bind_addr(&name) {
            Ok(listener) => Ok(Self(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let other = UnixStream::connect_addr(&name)?;
                let credentials = getsockopt(&other, PeerCredentials).map_err(io::Error::from)?;
                Err(NotAlone::Another { pid: credentials.pid() })
            }
            Err(error) => Err(error.into()),
        }
    }
}
