//! Connections between our own processes, and TLS of all servers: settings, tokens, backoff, codec and places.

mod admission;
mod backoff;
mod codec;
mod connect;
mod tls;
mod tokens;

pub use admission::{Admission, Place};
pub use backoff::Backoff;
pub use codec::Codec;
pub use connect::{ConnectError, Settings, SettingsError};
pub use tls::{Connection, Files, Tls, connections};
pub use tokens::{Authenticate, Refused as RefusedToken, check_token};
