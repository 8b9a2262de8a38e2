//! Connections between our own processes, TLS of all servers, and TLS, headers and requests towards servers of others:
//! settings, tokens, codec and places.

/// The largest file of certificates or keys that is read: a bundle of all public authorities is a quarter of it.
pub const PEM_BYTES: u64 = 1 << 20;

mod admission;
mod backlog;
mod budget;
mod checked;
mod client_tls;
mod codec;
mod connect;
mod exchange;
mod handoff;
mod headers;
mod log_limit;
mod messages;
mod permitted_stream;
mod requests;
mod shared_channel;
mod tls;
mod tokens;

pub use admission::{Admission, Permit};
pub use backlog::{Account, Backlog, Waiting};
pub use budget::{Budget, Budgeted};
pub use checked::{Check, Checked, Unchecked};
pub use client_tls::start_tls;
pub use codec::{Codec, SmallCodec};
pub use connect::{ConnectError, Settings, SettingsError, host};
pub use exchange::{ExchangeError, exchange};
pub use handoff::{Closed, Receiver, Sender, handoff};
pub use headers::{InvalidHeaders, is_local, read_headers};
pub use log_limit::LogLimit;
pub use messages::{Lean, Messages};
pub use permitted_stream::PermittedStream;
pub use requests::{Request, Requests};
pub use shared_channel::{SharedChannel, SharedUse};
pub use tls::{Arrival, Connection, Files, Tls, connections};
pub use tokens::{Authenticate, Authenticated, Refused as RefusedToken, check_token};
