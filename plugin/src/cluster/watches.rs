//! Watches one kind of object: lists, then follows; recovers from all errors of the API server.
//!
//! A list is streamed if the server supports it. A watch continues from the last version received, also after an
//! error; an expired version leads to a new list. Objects stay in force until the server reports a change.
//!
//! A store that was restored from a backup has older versions, and a watch from a later version stays silent. So
//! before a watch continues, a list of one object shows the store's version. That fails once the store has overtaken
//! the version, so everything is also listed again from time to time.
//!
//! No response leads to a next request at once, except the end of a watch that lasted for a while: a server that ends
//! each watch, cuts off each list, or has forgotten each version is asked less and less often.

use super::{
    facts::{Key, Kind},
    health::{Health, State},
    message::Message,
    objects::{LabelKeys, ReadObject, calico, cilium, endpoint_slice, namespace, node, owner, pod, service},
};
use crate::{backoff::Backoff, error_chain::error_chain};
use futures_util::{
    future::BoxFuture,
    stream::{BoxStream, StreamExt},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, ListParams, WatchEvent, WatchParams},
    core::{DynamicObject, GroupVersionKind, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

/// The number of objects in a page of a list that is not streamed.
const PAGE: u32 = 500;
/// A watch that has not ended this long after its time is dead.
const MARGIN: Duration = Duration::from_secs(5);
/// The waits after errors: they double from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A watch that ends sooner counts as a failure for the next wait.
const BRIEF: Duration = Duration::from_secs(1);
/// The waits start over after so much time without a failure.
const STEADY: Duration = Duration::from_secs(5);

/// The time limit for the start of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// The random factor of the time between lists, so that they are not all made at once.
const JITTER: std::ops::RangeInclusive<f64> = 0.75..=1.25;

/// The timing of watches.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The server ends a watch after this time, and a new one continues.
    pub watch: Duration,
    /// The interval at which a missing kind is looked for.
    pub absent: Duration,
    /// The average time after which everything is listed again.
    pub relist: Duration,
    /// How long the publisher waits for the first list of a kind that a cluster may lack.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(290),
            absent: Duration::from_secs(30),
            relist: Duration::from_secs(3600),
            settle: Duration::from_secs(30),
        }
    }
}

/// An event of a watch.
enum Event {
    Set(ReadObject),
    Gone(Key, String),
    /// Nothing has changed up to this version. The flag marks the end of the initial list.
    Bookmark(String, bool),
    Failed(Failure),
}

/// The reason why a list or a watch failed.
#[derive(Debug)]
enum Failure {
    /// The version is too old, or later than the store's.
    Expired(String),
    /// The server does not have this kind.
    Absent,
    /// Access is forbidden.
    Forbidden(String),
    /// The server does not support the request, or failed.
    Refused(String),
    /// The server returned another error.
    Answered(String),
    /// The server does not answer.
    Unreachable(String),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of(status.code, &status.message),
            other => Self::Unreachable(error_chain(&other)),
        }
    }
}

impl Failure {
    fn of(code: u16, message: &str) -> Self {
        match code {
            404 => Self::Absent,
            403 => Self::Forbidden(message.to_owned()),
            // The version is too old, or later than the store's: the store was restored from an older state.
            410 | 504 => Self::Expired(message.to_owned()),
            400 | 405 | 406 | 415 | 422 | 500 | 501 => Self::Refused(format!("{message} (code {code})")),
            code => Self::Answered(format!("{message} (code {code})")),
        }
    }
}

/// A page of a list.
struct Page {
    objects: Vec<ReadObject>,
    version: String,
    more: Option<String>,
}

type Events = BoxStream<'static, Event>;

/// The objects of a kind, complete or with their metadata only.
trait Source: Send + Sync {
    fn list(&self, params: ListParams) -> BoxFuture<'_, Result<Page, Failure>>;
    fn watch(&self, params: WatchParams, version: String) -> BoxFuture<'_, Result<Events, Failure>>;
}

struct Whole<K> {
    api: Api<K>,
    reduce: Box<dyn Fn(&K) -> ReadObject + Send + Sync>,
}

/// An object of which the server sends the metadata only.
type Metadata = PartialObjectMeta<DynamicObject>;

struct Meta {
    api: Api<DynamicObject>,
    reduce: Box<dyn Fn(&Metadata) -> ReadObject + Send + Sync>,
}

fn page<K: Clone>(list: kube::core::ObjectList<K>, reduce: impl Fn(&K) -> ReadObject) -> Page {
    Page {
        objects: list.items.iter().map(reduce).collect(),
        version: list.metadata.resource_version.unwrap_or_default(),
        more: list.metadata.continue_.filter(|more| !more.is_empty()),
    }
}

fn event<K: Resource>(event: kube::Result<WatchEvent<K>>, reduce: impl Fn(&K) -> ReadObject) -> Event {
    match event {
        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Event::Set(reduce(&object)),
        Ok(WatchEvent::Deleted(object)) => {
            let key = Key { namespace: object.namespace().unwrap_or_default().into(), name: object.name_any().into() };
            Event::Gone(key, object.resource_version().unwrap_or_default())
        }
        Ok(WatchEvent::Bookmark(bookmark)) => {
            let is_end = bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end");
            Event::Bookmark(bookmark.metadata.resource_version, is_end)
        }
        Ok(WatchEvent::Error(status)) => Event::Failed(Failure::of(status.code, &status.message)),
        Err(error) => Event::Failed(error.into()),
    }
}

impl<K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Source for Arc<Whole<K>> {
    fn list(&self, params: ListParams) -> BoxFuture<'_, Result<Page, Failure>> {
        Box::pin(async move { Ok(page(self.api.list(&params).await?, &self.reduce)) })
    }

    fn watch(&self, params: WatchParams, version: String) -> BoxFuture<'_, Result<Events, Failure>> {
        let source = Arc::clone(self);
        Box::pin(async move {
            let stream = self.api.watch(&params, &version).await?;
            Ok(stream.map(move |one| event(one, &source.reduce)).boxed())
        })
    }
}

impl Source for Arc<Meta> {
    fn list(&self, params: ListParams) -> BoxFuture<'_, Result<Page, Failure>> {
        Box::pin(async move { Ok(page(self.api.list_metadata(&params).await?, &self.reduce)) })
    }

    fn watch(&self, params: WatchParams, version: String) -> BoxFuture<'_, Result<Events, Failure>> {
        let source = Arc::clone(self);
        Box::pin(async move {
            let stream = self.api.watch_metadata(&params, &version).await?;
            Ok(stream.map(move |one| event(one, &source.reduce)).boxed())
        })
    }
}

fn source(client: Client, kind: Kind, labels: LabelKeys) -> Box<dyn Source> {
    let (group, version, name, plural) = kind.resource();
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural);
    fn whole<K>(
        client: Client,
        resource: &ApiResource,
        reduce: impl Fn(&K) -> ReadObject + Send + Sync + 'static,
    ) -> Box<dyn Source>
    where
        K: Resource<DynamicType = ApiResource> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        Box::new(Arc::new(Whole { api: Api::all_with(client, resource), reduce: Box::new(reduce) }))
    }
    fn meta(
        client: Client,
        resource: &ApiResource,
        reduce: impl Fn(&Metadata) -> ReadObject + Send + Sync + 'static,
    ) -> Box<dyn Source> {
        Box::new(Arc::new(Meta { api: Api::all_with(client, resource), reduce: Box::new(reduce) }))
    }
    match kind {
        Kind::Node => whole(client, &resource, move |object| node::read(object, &labels)),
        Kind::Pod => whole(client, &resource, move |object| pod::read(object, &labels)),
        Kind::ReplicaSet | Kind::Job => meta(client, &resource, owner::read),
        Kind::Namespace => meta(client, &resource, move |object| namespace::read(object, &labels)),
        Kind::Service => whole(client, &resource, service::read),
        Kind::EndpointSlice => whole(client, &resource, endpoint_slice::read),
        Kind::CiliumNode => whole(client, &resource, cilium::node),
        Kind::CiliumEndpoint => whole(client, &resource, cilium::endpoint),
        Kind::CiliumEndpointSlice => whole(client, &resource, cilium::endpoint_slice),
        Kind::BlockAffinity | Kind::BlockAffinityV3 => whole(client, &resource, calico::block_affinity),
    }
}

/// The watch of one kind.
pub(super) struct Watch {
    kind: Kind,
    source: Box<dyn Source>,
    timing: Timing,
    to: mpsc::Sender<Message>,
    health: Arc<Health>,
    /// The version to continue from; `None` before the first list.
    version: Option<String>,
    /// Whether lists are streamed.
    streams: bool,
    backoff: Backoff,
    /// The time since which the watch has neither failed nor ended soon.
    steady: Option<Instant>,
    /// The error, while the watch fails.
    failing: Option<String>,
    /// Whether the server does not have the kind.
    is_absent: bool,
    /// Whether a list was complete once; it stays in force while another one is made.
    is_listed: bool,
    /// Whether the store's version must be checked for a step back.
    is_doubtful: bool,
    /// The time of the next full list.
    relist: Instant,
    started: Instant,
}

impl Watch {
    pub(super) fn new(
        kind: Kind,
        client: Client,
        labels: LabelKeys,
        timing: Timing,
        to: mpsc::Sender<Message>,
        health: Arc<Health>,
    ) -> Self {
        let source = source(client, kind, labels);
        let relist = Instant::now() + jittered(timing.relist);
        Self {
            kind,
            source,
            timing,
            to,
            health,
            version: None,
            streams: true,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, 0.5..=1.0),
            steady: None,
            failing: None,
            is_absent: false,
            is_listed: false,
            is_doubtful: false,
            relist,
            started: Instant::now(),
        }
    }

    /// Watches until the receiver is dropped.
    pub(super) async fn run(mut self) {
        while !self.to.is_closed() {
            let Err(failure) = self.once().await else { continue };
            self.fail(failure).await;
        }
    }

    /// Lists if needed, and follows until the server ends the watch.
    async fn once(&mut self) -> Result<(), Failure> {
        let Some(version) = self.version.clone() else {
            if self.failing.is_none() && !self.is_absent && !self.is_listed {
                self.health.set(self.kind, State::Listing, None);
            }
            return if self.streams { self.list_streamed().await } else { self.list_in_pages().await };
        };
        if Instant::now() >= self.relist {
            tracing::debug!(kind = self.kind.name(), "listing again");
            self.version = None;
            return Ok(());
        }
        if self.is_doubtful {
            self.compare(&version).await?;
        }
        let events = answer(self.source.watch(self.params(false), version)).await?;
        self.is_watching();
        let began = Instant::now();
        self.follow(events, None).await?;
        if began.elapsed() < BRIEF {
            let wait = self.next_wait();
            sleep(wait).await;
        }
        Ok(())
    }

    /// Compares the last version received with the store's. A store with an older version was restored.
    async fn compare(&mut self, version: &str) -> Result<(), Failure> {
        let page = answer(self.source.list(ListParams::default().limit(1))).await?;
        if is_older(&page.version, version) {
            let (now, before) = (&page.version, version);
            return Err(Failure::Expired(format!("the store was set back from version {before} to {now}")));
        }
        self.is_doubtful = false;
        Ok(())
    }

    fn params(&self, initial: bool) -> WatchParams {
        let params = WatchParams::default().timeout(u32::try_from(self.timing.watch.as_secs()).unwrap_or(290));
        if initial { params.initial_events() } else { params }
    }

    async fn list_streamed(&mut self) -> Result<(), Failure> {
        let events = answer(self.source.watch(self.params(true), "0".to_owned())).await?;
        self.follow(events, Some(HashSet::new())).await
    }

    async fn list_in_pages(&mut self) -> Result<(), Failure> {
        let mut keys = HashSet::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = answer(self.source.list(params.clone())).await?;
            for seen in page.objects {
                keys.insert(seen.key.clone());
                self.send(Message::Set(self.kind, seen)).await;
            }
            match page.more {
                Some(more) => params.continue_token = Some(more),
                None => {
                    self.listed(keys, page.version).await;
                    return Ok(());
                }
            }
        }
    }

    async fn listed(&mut self, keys: HashSet<Key>, version: String) {
        self.send(Message::Listed(self.kind, keys, version.clone())).await;
        self.version = Some(version);
        self.relist = Instant::now() + jittered(self.timing.relist);
        self.is_listed = true;
        self.is_watching();
    }

    fn is_watching(&mut self) {
        self.steady.get_or_insert_with(Instant::now);
        self.is_absent = false;
        let has_changed = self.health.set(self.kind, State::Watching, None);
        if self.failing.take().is_some() {
            tracing::info!(kind = self.kind.name(), "watching again");
        } else if has_changed {
            tracing::info!(kind = self.kind.name(), "watching");
        }
    }

    /// Follows a watch; with `listing`, its first events are the list.
    async fn follow(&mut self, mut events: Events, mut listing: Option<HashSet<Key>>) -> Result<(), Failure> {
        self.is_doubtful = true;
        loop {
            let event = timeout(self.timing.watch + MARGIN, events.next()).await;
            let Ok(Some(event)) = event else {
                // The server ended the watch, or it is dead. An incomplete list starts over.
                let is_cut = || Failure::Unreachable("the list ended before it was complete".to_owned());
                return listing.is_none().then_some(()).ok_or_else(is_cut);
            };
            match event {
                Event::Set(seen) => {
                    match &mut listing {
                        Some(keys) => {
                            keys.insert(seen.key.clone());
                        }
                        None => self.version = Some(seen.resource_version.clone()),
                    }
                    self.send(Message::Set(self.kind, seen)).await;
                }
                Event::Gone(key, version) => {
                    match &mut listing {
                        Some(keys) => {
                            keys.remove(&key);
                        }
                        None => self.version = Some(version.clone()),
                    }
                    self.send(Message::Gone(self.kind, key, version)).await;
                }
                Event::Bookmark(version, is_end) => match listing.take() {
                    Some(keys) if is_end => self.listed(keys, version).await,
                    kept @ Some(_) => listing = kept,
                    None => {
                        self.send(Message::Bookmark(self.kind, version.clone())).await;
                        self.version = Some(version);
                    }
                },
                Event::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Sending fails if the receiver is dropped: the watch then ends.
    async fn send(&self, message: Message) {
        let _ = self.to.send(message).await;
    }

    async fn fail(&mut self, failure: Failure) {
        let (kind, is_listing) = (self.kind.name(), self.version.is_none());
        let (state, text) = match failure {
            Failure::Expired(text) => {
                tracing::info!(kind, reason = text, "the watch has expired: listing again");
                self.health.count_relist(self.kind);
                self.version = None;
                if !is_listing {
                    let wait = self.next_wait();
                    sleep(wait).await;
                    return;
                }
                (State::Failing, text)
            }
            Failure::Absent if self.kind.is_optional() => {
                self.version = None;
                self.is_listed = false;
                self.failing = None;
                self.health.set(self.kind, State::NotInstalled, None);
                if !std::mem::replace(&mut self.is_absent, true) {
                    tracing::info!(kind, "the cluster does not have this kind");
                }
                self.send(Message::Absent(self.kind)).await;
                sleep(self.timing.absent).await;
                return;
            }
            Failure::Absent => (State::Failing, "the server does not know this kind".to_owned()),
            Failure::Forbidden(text) => (State::Forbidden, text),
            Failure::Unreachable(text) => (State::Failing, text),
            Failure::Refused(text) if is_listing && self.streams => {
                // Some servers can't stream lists. If there is another reason, the plain list fails, too.
                self.streams = false;
                tracing::debug!(kind, reason = text, "lists are not streamed");
                return;
            }
            Failure::Refused(text) | Failure::Answered(text) => (State::Failing, text),
        };
        self.health.count_error(self.kind);
        self.health.set(self.kind, state, Some(text.clone()));
        // A repeated error is logged once.
        if self.failing.as_ref() != Some(&text) {
            tracing::warn!(kind, reason = text, "the watch fails: the objects of this kind stay in force");
            self.failing = Some(text);
        }
        // The publisher learns that there is no list yet: at once if that will last, and for a kind that a cluster may
        // lack after a while, because an aggregated server may answer for it later.
        let left = self.timing.settle.saturating_sub(self.started.elapsed());
        let is_awaited = self.kind.is_optional() && state != State::Forbidden && !left.is_zero();
        if state == State::Forbidden || (self.kind.is_optional() && left.is_zero()) {
            self.send(Message::Unavailable(self.kind)).await;
        }
        let wait = self.next_wait();
        sleep(if is_awaited { wait.min(left) } else { wait }).await;
    }

    /// The wait after a failure: it doubles until there was none for a while.
    fn next_wait(&mut self) -> Duration {
        if self.steady.take().is_some_and(|since| since.elapsed() >= STEADY) {
            self.backoff.succeeded();
        }
        self.backoff.failed()
    }
}

/// Limits the time for a response: the API server may wait for another server that does not answer.
async fn answer<T>(asked: BoxFuture<'_, Result<T, Failure>>) -> Result<T, Failure> {
    let none = || Err(Failure::Unreachable(format!("no answer within {} s", RESPONSE_TIMEOUT.as_secs())));
    timeout(RESPONSE_TIMEOUT, asked).await.unwrap_or_else(|_| none())
}

/// A random time around this one.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(JITTER))
}

/// Whether a version is older than another one. Versions are usually numbers; others are not compared.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u128>(), than.parse::<u128>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
