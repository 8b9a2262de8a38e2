//! What the agents have counted, for the totals of the cluster: both ends, and the replicas that stand by.

mod client;
mod ledger;
mod mirror;
mod reporter;
mod server;
mod wire;

pub use client::Client;
pub use ledger::{Ledger, Refused, Reporting};
pub use mirror::Mirror;
pub use reporter::Reporter;
pub use server::{HolderCounters, ReportsService, Tally};
pub use wire::Malformed;

use std::fmt;
use tokio::sync::watch;

/// Whether this replica takes reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does.
    Holder,
    /// Another one does; it is not known which if there is none now.
    Standby(Option<Holder>),
}

/// Where the replica that takes reports is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which one it is, for people.
    pub name: String,
    /// The port for agents: HOST:PORT.
    pub feed: String,
    /// The port for people.
    pub api: String,
}

/// What a replica that does not take reports answers, before the address and the name of the one that does.
pub(crate) const NOT_THE_HOLDER: &str = "not the holder: ";

/// The address in such an answer.
pub(crate) fn holder_in(status: &tonic::Status) -> Option<String> {
    let answer = status.message().strip_prefix(NOT_THE_HOLDER)?;
    let is_one = status.code() == tonic::Code::FailedPrecondition;
    is_one.then(|| answer.split(' ').next().unwrap_or_default().to_owned())
}

impl Role {
    /// Why this replica does not answer, if it does not. `address` is the one to ask.
    fn refusal(&self, address: fn(&Holder) -> &str) -> Option<tonic::Status> {
        match self {
            Self::Holder => None,
            Self::Standby(Some(holder)) => {
                let text = format!("{NOT_THE_HOLDER}{} ({})", address(holder), holder.name);
                Some(tonic::Status::failed_precondition(text))
            }
            Self::Standby(None) => Some(tonic::Status::unavailable("no replica takes reports now")),
        }
    }
}

/// Waits until this replica is not the holder; for ever where that can't happen.
async fn until_lost(mut role: watch::Receiver<Role>) {
    if role.wait_for(|role| *role != Role::Holder).await.is_err() {
        std::future::pending().await
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holder => f.write_str("holder"),
            Self::Standby(Some(holder)) => write!(f, "standby of {}", holder.feed),
            Self::Standby(None) => f.write_str("standby"),
        }
    }
}
