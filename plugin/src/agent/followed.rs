//! The table that a controller says: taken once a second, and kept on disk.

use super::place::change;
use crate::{
    counters::FeedState,
    feed::{Batch, Changes, Client, Connection, Position, Saved},
    identity::Index,
    link,
    meter::Meter,
    reports::ReportState,
    zones::{Change, SharedTable},
};
use ipnetwork::IpNetwork;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

/// Changes that wait to be put in force; the controller waits when there are more.
const BATCHES: usize = 16;
/// How often an agent that waits for its first table says so.
const WAITING_SAID: Duration = Duration::from_secs(60);
/// The table is written to disk at most this often.
const SAVE: Duration = Duration::from_secs(60);

/// Follows a controller.
pub(super) struct Followed {
    settings: link::Settings,
    table: SharedTable,
    state_dir: PathBuf,
    connection: Arc<Connection>,
    reports: Arc<ReportState>,
    batches: mpsc::Receiver<Batch>,
    /// Kept until somebody follows.
    sender: Option<mpsc::Sender<Batch>>,
    applied: watch::Sender<Position>,
    /// What has come and is not in force yet.
    waiting: Waiting,
    /// The position of the controller's first table, until that is in force.
    first: Option<Position>,
    /// When the table in force was last known to be the controller's; `None` if there is none.
    confirmed: Option<SystemTime>,
    saved: Option<Instant>,
    /// Whether something has changed since the table was written.
    is_unsaved: bool,
    writer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Waiting {
    position: Option<Position>,
    zones: BTreeMap<IpNetwork, Option<crate::zones::Placement>>,
    identities: Vec<crate::identity::Change>,
    is_refused: bool,
}

impl Followed {
    /// With the table that was saved, to begin with. Without one it asks the controller at once. Inside a runtime.
    pub(super) fn start(
        settings: &link::Settings,
        state_dir: &Path,
        table: &SharedTable,
        index: &Arc<Index>,
    ) -> (Self, Option<Vec<Change>>) {
        let saved = match Saved::read(state_dir) {
            Ok(saved) => saved,
            Err(reason) => {
                tracing::warn!(%reason, "the saved table can't be used");
                None
            }
        };
        let (sender, batches) = mpsc::channel(BATCHES);
        let mut followed = Self {
            settings: settings.clone(),
            table: table.clone(),
            state_dir: state_dir.to_owned(),
            connection: Arc::default(),
            reports: Arc::default(),
            batches,
            sender: Some(sender),
            applied: watch::Sender::new(Position::default()),
            waiting: Waiting::default(),
            first: None,
            confirmed: None,
            saved: None,
            is_unsaved: false,
            writer: None,
        };
        if let Some(Saved { position, confirmed, changes }) = saved {
            let age = SystemTime::now().duration_since(confirmed).unwrap_or_default();
            tracing::info!(age_seconds = age.as_secs(), prefixes = changes.zones.len(), "the saved table is in force");
            followed.applied.send_replace(position);
            followed.confirmed = Some(confirmed);
            index.apply(changes.identities);
            return (followed, Some(changes.zones));
        }
        followed.follow(index);
        (followed, None)
    }

    /// Waits for the controller's first table: packets that are counted without any are of unknown zones for
    /// good, so there is no end to the wait. Can be dropped at any time.
    pub(super) async fn first(&mut self, index: &Index) -> Vec<Change> {
        loop {
            let controller = &self.settings.server;
            tracing::info!(controller, "nothing is counted before the controller's first table is here");
            match timeout(WAITING_SAID, self.batches.recv()).await {
                Ok(Some(batch)) => self.take(batch, index),
                // Nobody follows any more.
                Ok(None) => sleep(WAITING_SAID).await,
                Err(_) => {}
            }
            self.receive(index);
            if let Some(position) = self.waiting.position.take() {
                let Waiting { zones, identities, .. } = std::mem::take(&mut self.waiting);
                index.apply(identities);
                self.first = Some(position);
                return zones.into_iter().collect();
            }
        }
    }

    /// The controller.
    pub(super) const fn settings(&self) -> &link::Settings {
        &self.settings
    }

    /// How reports go, for those who write them.
    pub(super) fn reports(&self) -> Arc<ReportState> {
        Arc::clone(&self.reports)
    }

    /// The first table is in force now, and the controller may hear of it.
    pub(super) fn first_is_in_force(&mut self) {
        if let Some(position) = self.first.take() {
            self.is_in_force(position);
        }
    }

    /// Begins to follow, once.
    pub(super) fn follow(&mut self, index: &Arc<Index>) {
        let Some(batches) = self.sender.take() else { return };
        let client = Client {
            settings: self.settings.clone(),
            table: self.table.clone(),
            index: Arc::clone(index),
            batches,
            applied: self.applied.subscribe(),
            connection: Arc::clone(&self.connection),
        };
        tokio::spawn(client.follow());
    }

    /// Takes what has come. Owners of addresses that had none are known at once; the rest waits until
    /// what was counted before has been read.
    pub(super) fn receive(&mut self, index: &Index) {
        while let Ok(batch) = self.batches.try_recv() {
            self.take(batch, index);
        }
    }

    fn take(&mut self, batch: Batch, index: &Index) {
        let position = batch.position;
        // Waiting changes are not in force yet, so a replacement does not find them there.
        self.waiting.zones.retain(|prefix, _| !batch.replaces(prefix.ip()));
        self.waiting.identities.retain(|(address, _)| !batch.replaces(*address));
        let Changes { zones, identities } = batch.changes(&self.table, index);
        self.waiting.position = Some(position);
        self.waiting.zones.extend(zones);
        let (new, rest): (Vec<_>, Vec<_>) = identities
            .into_iter()
            .partition(|(address, endpoint)| endpoint.is_some() && index.at(*address, SystemTime::now()).is_none());
        index.apply(new);
        self.waiting.identities.extend(rest);
    }

    /// Puts what waits in force. Returns whether there is a table.
    pub(super) fn apply(&mut self, meter: &mut Meter, index: &Index) -> bool {
        if let Some(position) = self.waiting.position {
            index.apply(self.waiting.identities.drain(..));
            let zones: Vec<Change> = self.waiting.zones.clone().into_iter().collect();
            match if zones.is_empty() { Ok(()) } else { change(meter, zones) } {
                Ok(()) => {
                    self.waiting = Waiting::default();
                    self.is_in_force(position);
                    meter.reloaded(true);
                }
                // What waits stays, and is tried again with what comes.
                Err(reason) => {
                    if !std::mem::replace(&mut self.waiting.is_refused, true) {
                        tracing::error!(%reason, "the controller's table is refused; the old one stays in force");
                    }
                    meter.reloaded(false);
                }
            }
        }
        let is_current = self.connection.is_current.load(Ordering::Relaxed);
        if is_current && self.waiting.position.is_none() {
            self.confirmed = Some(SystemTime::now());
        }
        if let Some(confirmed) = self.confirmed {
            meter.confirm_zones(confirmed);
        }
        self.save(index, false);
        self.confirmed.is_some()
    }

    /// How the connection to the controller is.
    pub(super) fn state(&self) -> FeedState {
        FeedState {
            is_connected: self.connection.is_current.load(Ordering::Relaxed),
            connects: self.connection.connects.load(Ordering::Relaxed),
            failures: self.connection.failures.load(Ordering::Relaxed),
            is_reported: self.reports.is_connected.load(Ordering::Relaxed),
            reports: self.reports.taken.load(Ordering::Relaxed),
            report_failures: self.reports.failures.load(Ordering::Relaxed),
        }
    }

    fn is_in_force(&mut self, position: Position) {
        self.applied.send_replace(position);
        self.confirmed = Some(SystemTime::now());
        self.is_unsaved = true;
    }

    /// Writes the table on a thread of its own, if it is time.
    fn save(&mut self, index: &Index, now: bool) {
        let Some(confirmed) = self.confirmed.filter(|_| self.is_unsaved) else { return };
        if !now && self.saved.is_some_and(|saved| saved.elapsed() < SAVE)
            || self.writer.as_ref().is_some_and(|writer| !writer.is_finished())
        {
            return;
        }
        (self.saved, self.is_unsaved) = (Some(Instant::now()), false);
        let position = *self.applied.borrow();
        let saving = Saved::prepare(&self.table, index, position, confirmed);
        let folder = self.state_dir.clone();
        let write = move || {
            if let Err(reason) = saving.write(&folder) {
                tracing::warn!(%reason, "the table can't be saved");
            }
        };
        self.writer = thread::Builder::new().name("save".into()).spawn(write).ok();
    }

    /// Writes what was not written yet.
    pub(super) fn end(&mut self, index: &Index) {
        self.batches.close();
        if let Some(writer) = self.writer.take() {
            // A panic in it has been said.
            let _ = writer.join();
        }
        self.save(index, true);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
