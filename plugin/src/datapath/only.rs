//! One agent in a network namespace: two would count every packet twice.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

/// A name that only one process of a network namespace can hold, and that goes with it.
const NAME: &[u8] = b"meridian-agent";

/// Held by the agent of a network namespace.
#[derive(Debug)]
pub struct Only(#[expect(dead_code, reason = "held")] UnixListener);

/// There is another agent, or that can't be known.
#[derive(Debug, thiserror::Error)]
pub enum NotAlone {
    /// There is.
    #[error("another agent counts here already (process {pid}): there can be one in a network namespace")]
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
    pub fn claim() -> Result<Self, NotAlone> {
        let name = SocketAddr::from_abstract_name(NAME)?;
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
