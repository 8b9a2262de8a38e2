//! Runs the watches, and publishes the table and the endpoints that follow from them.

use super::{
    catalogues::CatalogueRequests,
    facts::Kind,
    health::Health,
    message::{Message, WAITING, messages},
    model::{Model, NodeProvider},
    notices::Notices,
    objects::LabelKeys,
    source::Source,
    watches::{Timing, Watch},
};
use crate::{
    feed::{Changes, Store},
    identity::Index,
    zones::{SharedTable, StaticTable},
};
use kube::Client;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// The shortest time between two publications; changes in between are published together.
const GATHER: Duration = Duration::from_millis(250);
/// The interval at which notices become due.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Watches the cluster until the process ends.
pub fn watch(client: &Client, labels: &LabelKeys, timing: &Timing, health: &Arc<Health>) -> mpsc::Receiver<Message> {
    let (sender, messages) = messages();
    for kind in Kind::ALL {
        if kind == Kind::Namespace && labels.namespace.is_empty() {
            // The channel is new and has room. Nothing waits for a list of this kind.
            let _ = sender.try_send(Message::Unavailable(kind));
            continue;
        }
        let (client, labels, timing) = (client.clone(), labels.clone(), timing.clone());
        let watch = Watch::new(kind, client, labels, timing, sender.clone(), Arc::clone(health));
        tokio::spawn(watch.run());
    }
    messages
}

/// Makes the table from the watches' messages, and publishes it.
pub struct Publisher {
    /// The state for agents.
    pub store: Arc<Store>,
    /// The state as a table.
    pub table: SharedTable,
    /// The endpoints behind addresses.
    pub index: Arc<Index>,
    /// The state of the watches.
    pub health: Arc<Health>,
    /// The way of notices.
    pub notices: Notices,
    /// Sources that are ignored.
    pub ignored: Vec<Source>,
    /// The static table, always current.
    pub fixed: watch::Receiver<Arc<StaticTable>>,
    /// The nodes, with their providers.
    pub nodes: watch::Sender<Arc<[NodeProvider]>>,
    /// Requests for catalogues.
    pub catalogues: CatalogueRequests,
}

impl Publisher {
    /// Publishes until the watches end.
    pub async fn follow(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut pending = Pending { unsettled: BTreeSet::from(Kind::ALL), ..Pending::default() };
        pending.model.ignore(self.ignored.iter().copied());
        pending.model.set_static(&self.fixed.borrow_and_update().clone());
        let mut due = Instant::now();
        // Some notices are due only after a while.
        let mut look = tokio::time::interval(POLL_INTERVAL);
        let mut batch = Vec::with_capacity(WAITING);
        loop {
            let is_due = pending.unsettled.is_empty() && pending.has_changes;
            tokio::select! {
                count = messages.recv_many(&mut batch, WAITING) => {
                    if count == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|message| pending.take(message));
                }
                // The sender is held for as long as the process runs.
                Ok(()) = self.fixed.changed() => {
                    let table = Arc::clone(&self.fixed.borrow_and_update());
                    pending.model.set_static(&table);
                    pending.has_changes = true;
                }
                Some(reply) = self.catalogues.next() => {
                    // The requester may be gone.
                    let _ = reply.send(pending.unsettled.is_empty().then(|| pending.model.catalogue()));
                }
                _ = look.tick(), if pending.unsettled.is_empty() => self.notices.report(pending.model.take_notices(SystemTime::now())),
                () = sleep_until(due), if is_due => {
                    self.publish(&mut pending);
                    due = Instant::now() + GATHER;
                }
            }
        }
    }

    fn publish(&self, pending: &mut Pending) {
        pending.has_changes = false;
        if std::mem::take(&mut pending.has_new_nodes) {
            self.nodes.send_replace(pending.model.nodes().into());
        }
        let changes = pending.model.take_changes();
        self.table.write().apply(changes.zones.clone());
        self.index.apply(changes.identities.iter().cloned());
        let Changes { zones, identities } = &changes;
        tracing::debug!(prefixes = zones.len(), addresses = identities.len(), "changes");
        let version = self.store.publish(changes);
        let versions = std::mem::take(&mut pending.versions);
        self.health.published(version, versions, |kind| pending.model.count(kind), pending.model.tally());
        self.notices.report(pending.model.take_notices(SystemTime::now()));
    }
}

/// Messages received but not published yet.
#[derive(Default)]
struct Pending {
    model: Model,
    /// Kinds without a complete list: nothing is published before all are complete, because agents would take a
    /// partial table for the whole.
    unsettled: BTreeSet<Kind>,
    /// Whether there is something to publish.
    has_changes: bool,
    /// Whether a node is among it.
    has_new_nodes: bool,
    /// The last resource version of each kind since the last publication.
    versions: BTreeMap<Kind, String>,
}

impl Pending {
    fn take(&mut self, message: Message) {
        self.has_changes = true;
        self.has_new_nodes |= matches!(
            message,
            Message::Set(Kind::Node, _) | Message::Gone(Kind::Node, ..) | Message::Listed(Kind::Node, ..)
        );
        match message {
            Message::Set(kind, object) => {
                self.versions.insert(kind, object.resource_version.clone());
                self.model.apply(kind, object);
            }
            Message::Gone(kind, key, version) => {
                self.versions.insert(kind, version);
                self.model.remove(kind, &key);
            }
            Message::Listed(kind, keys, version) => {
                self.versions.insert(kind, version);
                self.model.retain(kind, &keys);
                self.unsettled.remove(&kind);
            }
            Message::Bookmark(kind, version) => {
                self.versions.insert(kind, version);
            }
            Message::Absent(kind) => {
                self.versions.insert(kind, String::new());
                self.model.retain(kind, &HashSet::new());
                self.unsettled.remove(&kind);
            }
            Message::Unavailable(kind) => {
                self.unsettled.remove(&kind);
            }
        }
    }
}
