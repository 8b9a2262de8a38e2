//! One agent for a node, and one over the pinned counters: two would count every packet twice.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

/// What one agent alone may be in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// The agent of a node of this name.
    Node(&'a str),
    /// The one that writes to the pinned counters.
    Pinned,
}

/// Held by an agent.
#[derive(Debug)]
pub struct Only(#[expect(dead_code, reason = "held")] UnixListener);

/// There is another agent, or that can't be known.
#[derive(Debug, thiserror::Error)]
pub enum NotAlone {
    /// There is.
    #[error("another agent counts here already (process {pid})")]
    Another {
        /// Its process.
        pid: i32,
    },
    /// It can't be known.
    #[error("whether another agent counts here: {0}")]
    Unknown(#[from] io::Error),
}

impl Only {
    /// Of the calling thread's network namespace.
    ///
    /// # Errors
    /// There is another agent.
    pub fn claim(role: Role<'_>) -> Result<Self, NotAlone> {
        // A name that only one process of a network namespace can hold, and that goes with it.
        let name = match role {
            Role::Node(node) => format!("meridian-agent/node/{node}"),
            Role::Pinned => "meridian-agent/pinned".to_owned(),
        };
        // There is room for 107 bytes. Of a longer name the end counts: that is where names of nodes differ.
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
