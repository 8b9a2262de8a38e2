//! Runs the watches, and tells the agents what follows from them.

use super::{
    facts::{Key, Kind},
    model::{Model, Notice},
    reduce::{LabelKeys, Seen},
    watches::{Timing, Watch},
};
use crate::{
    feed::{Changes, Store, Watches},
    identity::Index,
    proto::v1::status_response,
    zones::{SharedTable, StaticTable},
};
use kube::Client;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// Changes are told together at most this often.
const GATHER: Duration = Duration::from_millis(250);
/// Messages of the watches that wait to be taken.
const WAITING: usize = 1024;
/// Notices that wait to be told; further ones are only in the log.
const NOTICES: usize = 256;

/// What a watch has seen, and at which version.
#[derive(Debug)]
pub enum Message {
    /// An object as it is now.
    Set(Kind, Seen),
    /// An object is no more.
    Gone(Kind, Key, String),
    /// A list is whole: these are all.
    Listed(Kind, HashSet<Key>, String),
    /// Nothing has changed up to this version.
    Seen(Kind, String),
    /// The cluster does not have the kind.
    Absent(Kind),
    /// Nothing can be known of the kind for now.
    Unavailable(Kind),
}

/// How the watch of a kind is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It lists.
    #[default]
    Listing,
    /// It is up to date.
    Watching,
    /// The cluster does not have the kind.
    NotInstalled,
    /// It may not be read.
    Forbidden,
    /// It is tried again.
    Failing,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Listing, Self::Watching, Self::NotInstalled, Self::Forbidden, Self::Failing];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::NotInstalled => "not installed",
            Self::Forbidden => "forbidden",
            Self::Failing => "failing",
        }
    }
}

/// The watch of a kind.
#[derive(Clone, Debug, Default)]
pub struct KindHealth {
    /// How it is.
    pub state: State,
    /// The last error, while there is one.
    pub error: Option<String>,
    /// Errors since the start.
    pub errors: u64,
    /// Lists because a watch had expired.
    pub relists: u64,
    /// Objects that are known.
    pub objects: usize,
    /// Objects of which a part could not be understood.
    pub unreadable: usize,
    /// The last version that was seen.
    resource_version: String,
    /// The version of the table that it is in.
    version: u64,
}

/// How all watches are.
#[derive(Debug, Default)]
pub struct Health {
    kinds: Mutex<BTreeMap<Kind, KindHealth>>,
    /// Prefixes of which objects say different things, and nodes without a zone.
    troubles: Mutex<(usize, usize)>,
}

impl Health {
    /// How a kind's watch is now. Returns whether that is news.
    pub(crate) fn set(&self, kind: Kind, state: State, error: Option<String>) -> bool {
        let mut kinds = self.lock();
        let known = kinds.entry(kind).or_default();
        let is_news = known.state != state;
        (known.state, known.error) = (state, error);
        is_news
    }

    pub(super) fn count_error(&self, kind: Kind) {
        self.lock().entry(kind).or_default().errors += 1;
    }

    pub(super) fn count_relist(&self, kind: Kind) {
        self.lock().entry(kind).or_default().relists += 1;
    }

    /// Every kind that is watched.
    pub fn all(&self) -> BTreeMap<Kind, KindHealth> {
        self.lock().clone()
    }

    /// Prefixes of which objects say different things, and nodes without a zone.
    pub fn troubles(&self) -> (usize, usize) {
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, KindHealth>> {
        // Every field stands for itself.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watches for Health {
    fn kinds(&self) -> Vec<status_response::Kind> {
        let kind = |(kind, health): (&Kind, &KindHealth)| status_response::Kind {
            name: kind.name().to_owned(),
            state: health.state.name().to_owned(),
            error: health.error.clone().unwrap_or_default(),
            objects: health.objects as u64,
            resource_version: health.resource_version.clone(),
            version: health.version,
        };
        self.lock().iter().map(kind).collect()
    }
}

/// Watches the cluster until the process ends.
pub fn watch(client: &Client, labels: &LabelKeys, timing: &Timing, health: &Arc<Health>) -> mpsc::Receiver<Message> {
    let (sender, messages) = messages();
    for kind in Kind::ALL {
        let (client, labels, timing) = (client.clone(), labels.clone(), timing.clone());
        let watch = Watch::new(kind, client, labels, timing, sender.clone(), Arc::clone(health));
        tokio::spawn(watch.run());
    }
    messages
}

/// What watches say, and who hears it: who says more than can be taken waits.
pub fn messages() -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    mpsc::channel(WAITING)
}

/// Makes the table of what watches say, and publishes it.
pub struct Publisher {
    /// What is told to agents.
    pub store: Arc<Store>,
    /// The same, as a table and an index.
    pub table: SharedTable,
    /// Who has an address.
    pub index: Arc<Index>,
    /// How the watches are.
    pub health: Arc<Health>,
    /// Where notices go.
    pub notices: mpsc::Sender<Notice>,
    /// The static table, as its file is now.
    pub fixed: watch::Receiver<Arc<StaticTable>>,
}

impl Publisher {
    /// The channel for notices.
    pub fn notices() -> (mpsc::Sender<Notice>, mpsc::Receiver<Notice>) {
        mpsc::channel(NOTICES)
    }

    /// Publishes until nobody says anything any more.
    pub async fn follow(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut taken = Taken { unsettled: BTreeSet::from(Kind::ALL), ..Taken::default() };
        taken.model.set_static(&self.fixed.borrow_and_update().clone());
        let mut due = Instant::now();
        let mut batch = Vec::with_capacity(WAITING);
        loop {
            let is_due = taken.unsettled.is_empty() && taken.is_news;
            tokio::select! {
                count = messages.recv_many(&mut batch, WAITING) => {
                    if count == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|message| taken.take(message));
                }
                // The sender is kept for as long as the process runs.
                Ok(()) = self.fixed.changed() => {
                    let table = Arc::clone(&self.fixed.borrow_and_update());
                    taken.model.set_static(&table);
                    taken.is_news = true;
                }
                () = sleep_until(due), if is_due => {
                    self.publish(&mut taken);
                    due = Instant::now() + GATHER;
                }
            }
        }
    }

    fn publish(&self, taken: &mut Taken) {
        taken.is_news = false;
        let changes = taken.model.take_changes();
        self.table.write().apply(changes.zones.clone());
        self.index.apply(changes.identities.iter().cloned());
        let Changes { zones, identities } = &changes;
        tracing::debug!(prefixes = zones.len(), addresses = identities.len(), "changes");
        let version = self.store.publish(changes);
        let mut kinds = self.health.lock();
        for (kind, seen) in std::mem::take(&mut taken.seen) {
            let health = kinds.entry(kind).or_default();
            (health.objects, health.unreadable) = taken.model.count(kind);
            (health.resource_version, health.version) = (seen, version);
        }
        drop(kinds);
        *self.health.troubles.lock().unwrap_or_else(PoisonError::into_inner) = taken.model.troubles();
        for notice in taken.model.take_notices() {
            tracing::warn!(object = %notice.object, reason = notice.reason, "{}", notice.message);
            // Told in the log at least.
            let _ = self.notices.try_send(notice);
        }
    }
}

/// What has been taken from the watches.
#[derive(Default)]
struct Taken {
    model: Model,
    /// Kinds of which nothing is known yet: until there are none, nothing is told, since a part of a table
    /// would be taken for the whole.
    unsettled: BTreeSet<Kind>,
    /// Whether something is to be published.
    is_news: bool,
    /// The last version of each kind that was seen since the last publication.
    seen: BTreeMap<Kind, String>,
}

impl Taken {
    fn take(&mut self, message: Message) {
        self.is_news = true;
        match message {
            Message::Set(kind, seen) => {
                self.seen.insert(kind, seen.resource_version.clone());
                self.model.apply(kind, seen);
            }
            Message::Gone(kind, key, version) => {
                self.seen.insert(kind, version);
                self.model.remove(kind, &key);
            }
            Message::Listed(kind, keys, version) => {
                self.seen.insert(kind, version);
                self.model.retain(kind, &keys);
                self.unsettled.remove(&kind);
            }
            Message::Seen(kind, version) => {
                self.seen.insert(kind, version);
            }
            Message::Absent(kind) => {
                self.seen.insert(kind, String::new());
                self.model.retain(kind, &HashSet::new());
                self.unsettled.remove(&kind);
            }
            Message::Unavailable(kind) => {
                self.unsettled.remove(&kind);
            }
        }
    }
}
