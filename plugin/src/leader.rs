//! The leader among the controller's replicas, which accepts the agents' reports; and the refusals of the others.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{sync::watch, time::Instant};

/// Whether this replica is the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// This replica is the leader for this term.
    Leader(Term),
    /// Another replica is the leader; `None` if there is no leader now.
    Standby(Option<Leader>),
}

/// The term of a leader. It ends by the clock: a replica that was frozen must notice at once, when it resumes, that
/// another one may have taken over.
#[derive(Clone, Debug, Default)]
pub struct Term(Arc<Mutex<Option<Instant>>>);

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Term {}

impl Term {
    /// Sets the end of the term.
    pub fn lasts_until(&self, end: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    /// Whether the term still lasts; a term without an end always does.
    fn lasts(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|end| Instant::now() < end)
    }
}

/// A replica's knowledge of the totals while it stands by.
pub trait Knowledge: Send + Sync {
    /// Whether it has no reports: other replicas go first.
    fn is_blank(&self) -> bool;
    /// Another replica has accepted reports since the leader that this one mirrored to the end.
    fn missed_a_term(&self);
}

/// The addresses of the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The replica's name, for people.
    pub name: String,
    /// The port for agents, as HOST:PORT.
    pub feed: String,
    /// The port for people, as HOST:PORT; empty if other machines can't reach it.
    pub api: String,
}

/// The text of a refusal, before the leader's address and name.
pub const NOT_THE_LEADER: &str = "not the leader: ";

/// The address in a refusal.
pub fn leader_in(status: &tonic::Status) -> Option<String> {
    let answer = status.message().strip_prefix(NOT_THE_LEADER)?;
    let is_one = status.code() == tonic::Code::FailedPrecondition;
    is_one.then(|| answer.split(' ').next().unwrap_or_default().to_owned())
}

impl Role {
    /// Whether this replica is the leader now.
    pub fn is_leader(&self) -> bool {
        matches!(self, Self::Leader(term) if term.lasts())
    }

    /// The refusal of a replica that is not the leader. `address` selects the leader's address to name.
    pub fn refusal(&self, address: fn(&Leader) -> &str) -> Option<tonic::Status> {
        match self {
            Self::Leader(term) if term.lasts() => None,
            Self::Standby(Some(leader)) if address(leader).is_empty() => {
                let text = format!(
                    "the leader is {0}, whose API listens on its own loopback address: run the command in {0}",
                    leader.name
                );
                Some(tonic::Status::failed_precondition(text))
            }
            Self::Standby(Some(leader)) => {
                let text = format!("{NOT_THE_LEADER}{} ({})", address(leader), leader.name);
                Some(tonic::Status::failed_precondition(text))
            }
            Self::Leader(_) | Self::Standby(None) => Some(tonic::Status::unavailable("there is no leader now")),
        }
    }
}

/// Waits until this replica is no longer the leader; never ends without a Lease.
pub async fn until_lost(mut role: watch::Receiver<Role>) {
    if role.wait_for(|role| !role.is_leader()).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn leader() -> Leader {
        Leader { name: "b".into(), feed: "10.0.0.2:4343".into(), api: "10.0.0.2:4344".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_refuses_reports_from_the_end_of_its_term_on() {
        let term = Term::default();
        let role = Role::Leader(term.clone());
        assert!(role.is_leader(), "a term without an end lasts");
        term.lasts_until(Instant::now() + Duration::from_secs(10));
        tokio::time::advance(Duration::from_millis(9999)).await;
        assert!(role.is_leader() && role.refusal(|leader| &leader.feed).is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        let refusal = role.refusal(|leader| &leader.feed).unwrap();
        assert!(!role.is_leader());
        assert_eq!((refusal.code(), refusal.message()), (tonic::Code::Unavailable, "there is no leader now"));
        // A renewal extends the term of every copy of the role.
        term.lasts_until(Instant::now() + Duration::from_secs(10));
        assert!(role.is_leader());
    }

    #[test]
    fn a_standby_names_the_leader_and_clients_find_its_address() {
        let refusal = Role::Standby(Some(leader())).refusal(|leader| &leader.feed).unwrap();
        assert_eq!(leader_in(&refusal).as_deref(), Some("10.0.0.2:4343"));
        let none = Role::Standby(None).refusal(|leader| &leader.feed).unwrap();
        assert_eq!(leader_in(&none), None);
        let unreachable = Leader { api: String::new(), ..leader() };
        let nearby = Role::Standby(Some(unreachable)).refusal(|leader| &leader.api).unwrap();
        assert_eq!(
            nearby.message(),
            "the leader is b, whose API listens on its own loopback address: run the command in b"
        );
        assert_eq!(leader_in(&nearby), None);
        // Only a status of this code redirects a client.
        assert_eq!(leader_in(&tonic::Status::unavailable(refusal.message())), None);
    }

    #[tokio::test]
    async fn a_stream_of_a_leader_ends_with_its_role() {
        let role = watch::Sender::new(Role::Leader(Term::default()));
        let lost = tokio::spawn(until_lost(role.subscribe()));
        tokio::task::yield_now().await;
        assert!(!lost.is_finished());
        role.send_replace(Role::Standby(Some(leader())));
        lost.await.unwrap();
    }
}
