//! The agent or controller that a command asks: the named one, or the one of this machine.

use super::{Failure, host::SOCKET, trust::TrustArgs};
use crate::api::{Client, ClientError, Target};
use std::path::Path;

/// The address of an agent or a controller on its own machine, and in its own pod.
const PORT: &str = "127.0.0.1:4344";

/// The named server, or the one of this machine: at the agent's socket, or at the port of agents and controllers.
pub(super) fn target(server: Option<&Target>) -> Target {
    let here = || if has_socket() { Target::Unix(SOCKET.into()) } else { Target::Tcp(PORT.to_owned()) };
    server.cloned().unwrap_or_else(here)
}

/// Connects to it. If no server was named, an error names the default addresses.
pub(super) async fn connect(server: Option<&Target>, trust: &TrustArgs) -> Result<Client, Failure> {
    let is_default = server.is_none() && !has_socket();
    trust.connect(target(server)).await.map_err(|error| match error {
        ClientError::Unreachable { .. } if is_default => {
            Failure::failed(format!("there is no agent's socket {SOCKET} here, and {error}"))
        }
        error => Failure::failed(error),
    })
}

fn has_socket() -> bool {
    Path::new(SOCKET).exists()
}
