//! The Lease that says which replica takes the agents' reports.
//!
//! By the clocks of two machines no time can be compared: how old a renewal is, is told by how long it has
//! been seen here without a change. The holder gives up before another one may take over, so there are
//! never two.

use crate::leader::{Leader, Role, Term};
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// A holder that has not renewed it for so long is no more.
const DURATION: Duration = Duration::from_secs(15);
/// One that can't renew it gives up after this time.
const DEADLINE: Duration = Duration::from_secs(10);
/// How much later a replica takes it that knows nothing of what was reported.
const COURTESY: Duration = Duration::from_secs(5);
/// How often it is renewed, or looked at.
const RETRY: Duration = Duration::from_secs(2);
/// How long the API server may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Where a holder says where it is.
const FEED: &str = "meridian/feed";
const API: &str = "meridian/api";

/// Takes the Lease, or waits for it.
pub struct Lease {
    client: Client,
    namespace: String,
    name: String,
    place: Leader,
    /// Who it is; no two are the same.
    identity: String,
    term: Term,
    is_blank: Box<dyn Fn() -> bool + Send + Sync>,
}

/// What is known of the Lease.
#[derive(Default)]
struct ObservedLease {
    /// Who had it at which renewal, and since when that is seen.
    renewal: Option<(Renewal, Instant)>,
    /// When this replica renewed it last.
    renewed: Option<Instant>,
    told: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Renewal {
    holder: String,
    time: Option<MicroTime>,
}

impl Lease {
    /// The Lease of this name, for the replica there. While `is_blank` says that it knows nothing, others that do go
    /// before it.
    pub fn new(
        client: Client,
        namespace: String,
        name: String,
        place: Leader,
        is_blank: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let identity = format!("{}_{:016x}", place.name, rand::random::<u64>());
        Self { client, namespace, name, place, identity, term: Term::default(), is_blank: Box::new(is_blank) }
    }

    /// Tries for as long as the process runs; gives it back at its end.
    pub async fn run(self, role: watch::Sender<Role>, shutdown: CancellationToken) {
        let api: Api<Object> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut seen = ObservedLease::default();
        loop {
            let tried = Instant::now();
            // The question may take no longer than this replica may be the holder.
            let until = seen.renewed.map_or(tried + ANSWER, |renewed| (renewed + DEADLINE).min(tried + ANSWER));
            let tried_to = tokio::select! {
                tried_to = timeout_at(until, self.try_to_take(&api, &mut seen, tried)) => tried_to,
                () = shutdown.cancelled() => break,
            };
            let now = match tried_to {
                Ok(Ok(role)) => {
                    seen.told.clear();
                    Some(role)
                }
                Ok(Err(error)) => {
                    seen.tell(&error.to_string());
                    None
                }
                Err(_) => {
                    seen.tell("the API server does not answer");
                    None
                }
            };
            let now = now.or_else(|| {
                let is_over = seen.renewed.is_none_or(|renewed| renewed.elapsed() >= DEADLINE);
                (is_over && matches!(*role.borrow(), Role::Leader(_))).then_some(Role::Standby(None))
            });
            if let Some(now) = now {
                if !matches!(now, Role::Leader(_)) {
                    seen.renewed = None;
                }
                take_on(&role, now);
            }
            tokio::select! {
                () = sleep(RETRY.mul_f64(rand::random_range(0.75..=1.0))) => {}
                () = shutdown.cancelled() => break,
            }
        }
        if matches!(role.send_replace(Role::Standby(None)), Role::Leader(_)) {
            // Whoever waits takes over at once, or a little later.
            let _ = timeout(Duration::from_secs(1), self.give_back(&api)).await;
        }
    }

    /// Renews or takes it, if that may be.
    async fn try_to_take(
        &self,
        api: &Api<Object>,
        seen: &mut ObservedLease,
        now: Instant,
    ) -> Result<Role, kube::Error> {
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let mut lease = Object::default();
            lease.metadata.name = Some(self.name.clone());
            self.fill(&mut lease, 0);
            return self.written(api.create(&PostParams::default(), &lease).await, seen, now);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let renewal = Renewal { holder: spec.holder_identity.unwrap_or_default(), time: spec.renew_time };
        let mut transitions = spec.lease_transitions.unwrap_or_default();
        if renewal.holder != self.identity {
            if seen.renewal.as_ref().is_none_or(|(known, _)| *known != renewal) {
                seen.renewal = Some((renewal.clone(), now));
            }
            let since = seen.renewal.as_ref().map_or(now, |(_, since)| *since);
            let lasts =
                Duration::from_secs(spec.lease_duration_seconds.unwrap_or_default().max(0) as u64).max(DURATION);
            // One that was given back can be taken at once.
            let lasts = if renewal.holder.is_empty() { Duration::ZERO } else { lasts };
            let courtesy = if (self.is_blank)() { COURTESY } else { Duration::ZERO };
            if now.duration_since(since) < lasts + courtesy {
                return Ok(Role::Standby(place(&lease)));
            }
            transitions += 1;
        }
        self.fill(&mut lease, transitions);
        // It is refused if another replica was faster: the version is that of what was read.
        self.written(api.replace(&self.name, &PostParams::default(), &lease).await, seen, now)
    }

    fn written(
        &self,
        result: kube::Result<Object>,
        seen: &mut ObservedLease,
        now: Instant,
    ) -> Result<Role, kube::Error> {
        match result {
            Ok(_) => {
                // What counts is when it was asked for.
                seen.renewed = Some(now);
                self.term.lasts_until((now + DEADLINE).into_std());
                Ok(Role::Leader(self.term.clone()))
            }
            // Somebody was faster, or has changed something else: the next look says.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 404) => {
                let lasts = seen.renewed.is_some_and(|renewed| renewed.elapsed() < DEADLINE);
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
    fn tell(&mut self, reason: &str) {
        if self.told != reason {
            tracing::warn!(reason, "the Lease can't be renewed or looked at");
            self.told = reason.to_owned();
        }
    }
}

/// Says so if it is news.
fn take_on(role: &watch::Sender<Role>, now: Role) {
    role.send_if_modified(|role| {
        let is_news = *role != now;
        if is_news {
            tracing::info!(role = %now, before = %role, "the Lease");
            *role = now;
        }
        is_news
    });
}

fn place(lease: &Object) -> Option<Leader> {
    let annotations = lease.metadata.annotations.as_ref()?;
    let identity = lease.spec.as_ref()?.holder_identity.as_ref()?;
    let name = identity.rsplit_once('_').map_or(&**identity, |(name, _)| name).to_owned();
    Some(Leader { name, feed: annotations.get(FEED)?.clone(), api: annotations.get(API)?.clone() })
}
