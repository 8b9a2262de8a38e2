//! The Lease that elects the leader, the replica that accepts the agents' reports.
//!
//! Clocks of two machines can't be compared, so the age of a renewal is the time for which this replica has observed it
//! unchanged. The holder gives up before another replica may take over, so there are never two holders.

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
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// A holder that has not renewed the Lease for this long has lost it.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that can't renew the Lease gives up after this time.
const DEADLINE: Duration = Duration::from_secs(10);
/// The extra wait of a replica without the earlier reports.
const NEW_LEADER_DELAY: Duration = Duration::from_secs(5);
/// The interval at which the Lease is renewed, or checked.
const RETRY: Duration = Duration::from_secs(2);
/// The interval and the number of checks when the holder is about to release the Lease.
const SOON: (Duration, u32) = (Duration::from_millis(100), 20);
/// The time limit for the API server.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// The time at which this replica last renewed it.
    renewed: Option<Instant>,
    logged: String,
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
            // The request must end before this replica has to give up.
            let until = observed
                .renewed
                .map_or(tried + RESPONSE_TIMEOUT, |renewed| (renewed + DEADLINE).min(tried + RESPONSE_TIMEOUT));
            let attempt = tokio::select! {
                done = timeout_at(until, self.try_to_take(&api, &mut observed, tried)) => done,
                () = shutdown.cancelled() => break,
            };
            let now = match attempt {
                Ok(Ok(role)) => {
                    observed.logged.clear();
                    Some(role)
                }
                Ok(Err(error)) => {
                    observed.log_once(&error.to_string());
                    None
                }
                Err(_) => {
                    observed.log_once("the API server does not answer");
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
            tokio::select! {
                () = sleep(wait) => {}
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
    async fn try_to_take(
        &self,
        api: &Api<Object>,
        observed: &mut ObservedLease,
        now: Instant,
    ) -> Result<Role, kube::Error> {
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let mut lease = Object::default();
            lease.metadata.name = Some(self.name.clone());
            self.fill(&mut lease, 0);
            return self.written(api.create(&PostParams::default(), &lease).await, observed, now);
        };
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
        // The resource version makes the write fail if another replica was faster.
        self.written(api.replace(&self.name, &PostParams::default(), &lease).await, observed, now)
    }

    fn written(
        &self,
        result: kube::Result<Object>,
        observed: &mut ObservedLease,
        now: Instant,
    ) -> Result<Role, kube::Error> {
        match result {
            Ok(_) => {
                // The term counts from the time of the request.
                observed.renewed = Some(now);
                self.term.lasts_until(now + DEADLINE);
                Ok(Role::Leader(self.term.clone()))
            }
            // Another replica was faster, or the object has changed: the next attempt reads it again.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 404) => {
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
