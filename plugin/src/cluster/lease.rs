//! The Lease that elects the leader, the replica that accepts the agents' reports.
//!
//! Clocks of two machines can't be compared, so the age of a renewal is the time for which this replica has observed it
//! unchanged. The holder gives up before another replica may take over, so there are never two holders.
//!
//! A renewal is one request: the holder writes the object that it wrote before. So an API server that takes five
//! seconds for each answer still has a leader.

use crate::leader::{Knowledge, Leader, Role, Term};
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// A holder that has not renewed the Lease for this long has lost it.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that can't renew the Lease gives up after this time.
const DEADLINE: Duration = Duration::from_secs(12);
/// The extra wait of a replica without the earlier reports.
const NEW_LEADER_DELAY: Duration = Duration::from_secs(5);
/// The interval at which the Lease is renewed, or checked.
const RETRY: Duration = Duration::from_secs(2);
/// The shortest wait after an answer that took longer than the interval.
const REST: Duration = Duration::from_millis(250);
/// The interval and the number of checks when the holder is about to release the Lease.
const SOON: (Duration, u32) = (Duration::from_millis(100), 20);
/// The time limit for an answer of the API server. Two answers of five seconds are within the deadline.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(6);
/// The annotation with the holder's address.
const FEED: &str = "meridian/feed";
const API: &str = "meridian/api";

/// Acquires the Lease, or waits for it.
pub struct Lease {
    client: Client,
    namespace: String,
    name: String,
    place: Leader,
    /// The unique identity of this replica.
    identity: String,
    term: Term,
    knowledge: Arc<dyn Knowledge>,
    /// Notified when the holder is about to release it.
    soon: Arc<Notify>,
}

/// The observed state of the Lease.
#[derive(Default)]
struct ObservedLease {
    /// The last renewal, and the time at which this replica saw it first.
    renewal: Option<(Renewal, Instant)>,
    /// The last holder, and the number of transitions at that time.
    term: Option<(String, i32)>,
    /// The time of the request by which this replica last renewed it.
    renewed: Option<Instant>,
    /// The object of that request; `None` if it may have changed since.
    written: Option<Object>,
    logged: String,
}

/// The reason why the Lease can't be read or written.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Answered(#[from] kube::Error),
    #[error("the API server does not answer")]
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Renewal {
    holder: String,
    time: Option<MicroTime>,
}

impl Lease {
    /// The Lease of this name, for this replica.
    pub fn new(
        client: Client,
        (namespace, name): (String, String),
        place: Leader,
        (knowledge, soon): (Arc<dyn Knowledge>, Arc<Notify>),
    ) -> Self {
        let identity = format!("{}_{:016x}", place.name, rand::random::<u64>());
        Self { client, namespace, name, place, identity, term: Term::default(), knowledge, soon }
    }

    /// Runs for the Lease as long as the process runs; releases it at the end.
    pub async fn run(self, role: watch::Sender<Role>, shutdown: CancellationToken) {
        let api: Api<Object> = Api::namespaced(self.client.clone(), &self.namespace);
        let (mut observed, mut looks_soon) = (ObservedLease::default(), 0u32);
        loop {
            let tried = Instant::now();
            let attempt = tokio::select! {
                done = self.try_to_take(&api, &mut observed) => done,
                () = shutdown.cancelled() => break,
            };
            let now = match attempt {
                Ok(role) => {
                    observed.logged.clear();
                    Some(role)
                }
                Err(failure) => {
                    observed.log_once(&failure.to_string());
                    None
                }
            };
            let now = now.or_else(|| {
                let is_over = observed.renewed.is_none_or(|renewed| renewed.elapsed() >= DEADLINE);
                (is_over && matches!(*role.borrow(), Role::Leader(_))).then_some(Role::Standby(None))
            });
            if let Some(now) = now {
                if !matches!(now, Role::Leader(_)) {
                    observed.renewed = None;
                }
                set_role(&role, now);
            }
            let wait = if looks_soon > 0 { SOON.0 } else { RETRY.mul_f64(rand::random_range(0.75..=1.0)) };
            looks_soon = if role.borrow().is_leader() { 0 } else { looks_soon.saturating_sub(1) };
            let next = (tried + wait).max(Instant::now() + REST.min(wait));
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.soon.notified() => looks_soon = SOON.1,
                () = shutdown.cancelled() => break,
            }
        }
        if matches!(role.send_replace(Role::Standby(None)), Role::Leader(_)) {
            // A waiting replica takes over at once, or a little later.
            let _ = timeout(Duration::from_secs(1), self.give_back(&api)).await;
        }
    }

    /// Renews or acquires the Lease, if that is allowed.
    async fn try_to_take(&self, api: &Api<Object>, observed: &mut ObservedLease) -> Result<Role, Failure> {
        if let Some(mut lease) = observed.written.take().filter(|_| observed.renewed.is_some()) {
            let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
            self.fill(&mut lease, transitions);
            return self.replace(api, observed, lease).await;
        }
        let Some(mut lease) = observed.answer(api.get_opt(&self.name)).await? else {
            let mut lease = Object::default();
            lease.metadata.name = Some(self.name.clone());
            self.fill(&mut lease, 0);
            let asked = Instant::now();
            let result = observed.answer(api.create(&PostParams::default(), &lease)).await;
            return self.written(result, observed, asked);
        };
        // Another holder's renewal is older than the answer that shows it.
        let now = Instant::now();
        let spec = lease.spec.clone().unwrap_or_default();
        let renewal = Renewal { holder: spec.holder_identity.unwrap_or_default(), time: spec.renew_time };
        let mut transitions = spec.lease_transitions.unwrap_or_default();
        if renewal.holder != self.identity {
            let is_held = !renewal.holder.is_empty();
            if is_held && observed.term.as_ref().is_none_or(|(holder, _)| *holder != renewal.holder) {
                // The last message of another holder is not the end any more.
                self.knowledge.missed_a_term();
            }
            if is_held {
                observed.term = Some((renewal.holder.clone(), transitions));
            }
            if observed.renewal.as_ref().is_none_or(|(known, _)| *known != renewal) {
                observed.renewal = Some((renewal.clone(), now));
            }
            let since = observed.renewal.as_ref().map_or(now, |(_, since)| *since);
            let lasts =
                Duration::from_secs(spec.lease_duration_seconds.unwrap_or_default().max(0) as u64).max(DURATION);
            // A released Lease can be acquired at once.
            let lasts = if renewal.holder.is_empty() { Duration::ZERO } else { lasts };
            let courtesy = if self.knowledge.is_blank() { NEW_LEADER_DELAY } else { Duration::ZERO };
            if now.duration_since(since) < lasts + courtesy {
                return Ok(Role::Standby(place(&lease)));
            }
            if is_held || observed.term.as_ref().is_none_or(|(_, known)| *known != transitions) {
                self.knowledge.missed_a_term();
            }
            transitions += 1;
        }
        self.fill(&mut lease, transitions);
        self.replace(api, observed, lease).await
    }

    /// Writes the object. Its resource version makes that fail if another replica was faster.
    async fn replace(&self, api: &Api<Object>, observed: &mut ObservedLease, lease: Object) -> Result<Role, Failure> {
        let asked = Instant::now();
        let result = observed.answer(api.replace(&self.name, &PostParams::default(), &lease)).await;
        self.written(result, observed, asked)
    }

    fn written(
        &self,
        result: Result<Object, Failure>,
        observed: &mut ObservedLease,
        asked: Instant,
    ) -> Result<Role, Failure> {
        match result {
            Ok(lease) => {
                // The term counts from the time of the request.
                observed.renewed = Some(asked);
                observed.written = Some(lease);
                self.term.lasts_until(asked + DEADLINE);
                Ok(Role::Leader(self.term.clone()))
            }
            // Another replica was faster, or the object has changed: the next attempt reads it again.
            Err(Failure::Answered(kube::Error::Api(status))) if matches!(status.code, 409 | 404) => {
                let lasts = observed.renewed.is_some_and(|renewed| renewed.elapsed() < DEADLINE);
                Ok(if lasts { Role::Leader(self.term.clone()) } else { Role::Standby(None) })
            }
            Err(error) => Err(error),
        }
    }

    fn fill(&self, lease: &mut Object, transitions: i32) {
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(DURATION.as_secs() as i32);
        spec.lease_transitions = Some(transitions);
        spec.renew_time = Some(now);
        let annotations = lease.metadata.annotations.get_or_insert_with(BTreeMap::new);
        annotations.insert(FEED.to_owned(), self.place.feed.clone());
        annotations.insert(API.to_owned(), self.place.api.clone());
    }

    async fn give_back(&self, api: &Api<Object>) -> Result<(), kube::Error> {
        let mut lease = api.get(&self.name).await?;
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity)) {
            spec.holder_identity = None;
            api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

impl ObservedLease {
    /// Limits the time for an answer: it must arrive before this replica has to give up.
    async fn answer<T>(&self, asked: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        let latest = Instant::now() + RESPONSE_TIMEOUT;
        let until = self.renewed.map_or(latest, |renewed| (renewed + DEADLINE).min(latest));
        Ok(timeout_at(until, asked).await.map_err(|_| Failure::Silent)??)
    }

    fn log_once(&mut self, reason: &str) {
        if self.logged != reason {
            tracing::warn!(reason, "the Lease can't be renewed or read");
            self.logged = reason.to_owned();
        }
    }
}

/// Sets and logs the role, if it changed.
fn set_role(role: &watch::Sender<Role>, now: Role) {
    role.send_if_modified(|role| {
        let has_changed = *role != now;
        if has_changed {
            tracing::info!(role = %now, before = %role, "the Lease");
            *role = now;
        }
        has_changed
    });
}

fn place(lease: &Object) -> Option<Leader> {
    let annotations = lease.metadata.annotations.as_ref()?;
    let identity = lease.spec.as_ref()?.holder_identity.as_ref()?;
    let name = identity.rsplit_once('_').map_or(&**identity, |(name, _)| name).to_owned();
    Some(Leader { name, feed: annotations.get(FEED)?.clone(), api: annotations.get(API)?.clone() })
}

#[cfg(test)]
mod tests;
