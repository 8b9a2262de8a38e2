//! Which replica of the controller takes the agents' reports, and how the others refuse.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tokio::sync::watch;

/// Whether this replica takes reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does, for this term.
    Leader(Term),
    /// Another one does; it is not known which if there is none now.
    Standby(Option<Leader>),
}

/// How long a replica is the leader. By the clock, and not only by what it has been told: one that was
/// frozen must know at once when it goes on that another one may have taken over.
#[derive(Clone, Debug, Default)]
pub struct Term(Arc<Mutex<Option<Instant>>>);

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Term {}

impl Term {
    /// It lasts until then.
    pub fn lasts_until(&self, end: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    /// Whether it lasts; one without an end does.
    fn lasts(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|end| Instant::now() < end)
    }
}

/// Where the replica that takes reports is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Which one it is, for people.
    pub name: String,
    /// The port for agents: HOST:PORT.
    pub feed: String,
    /// The port for people.
    pub api: String,
}

/// What a replica that does not take reports answers, before the address and the name of the one that does.
pub const NOT_THE_LEADER: &str = "not the holder: ";

/// The address in such an answer.
pub fn holder_in(status: &tonic::Status) -> Option<String> {
    let answer = status.message().strip_prefix(NOT_THE_LEADER)?;
    let is_one = status.code() == tonic::Code::FailedPrecondition;
    is_one.then(|| answer.split(' ').next().unwrap_or_default().to_owned())
}

impl Role {
    /// Whether this replica takes reports now.
    pub fn is_holder(&self) -> bool {
        matches!(self, Self::Leader(term) if term.lasts())
    }

    /// Why this replica does not answer, if it does not. `address` is the one to ask.
    pub fn refusal(&self, address: fn(&Leader) -> &str) -> Option<tonic::Status> {
        match self {
            Self::Leader(term) if term.lasts() => None,
            Self::Standby(Some(leader)) => {
                let text = format!("{NOT_THE_LEADER}{} ({})", address(leader), leader.name);
                Some(tonic::Status::failed_precondition(text))
            }
            Self::Leader(_) | Self::Standby(None) => Some(tonic::Status::unavailable("no replica takes reports now")),
        }
    }
}

/// Waits until this replica is not the holder; for ever where that can't happen.
pub async fn until_lost(mut role: watch::Receiver<Role>) {
    if role.wait_for(|role| !role.is_holder()).await.is_err() {
        std::future::pending().await
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader(_) => f.write_str("leader"),
            Self::Standby(Some(leader)) => write!(f, "standby of {}", leader.feed),
            Self::Standby(None) => f.write_str("standby"),
        }
    }
}
