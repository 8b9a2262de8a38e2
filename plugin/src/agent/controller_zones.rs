//! The controller's table: applied once a second, and saved on disk.

use super::place::change;
use crate::{
    atomic_file::Saves,
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

/// The limit of changes that wait to be applied; the controller waits when there are more.
const BATCHES: usize = 16;
/// The interval at which an agent without a table logs that it waits.
const WAITING_SAID: Duration = Duration::from_secs(60);
/// The shortest time between two writes of the table.
const SAVE: Duration = Duration::from_secs(60);

/// Follows a controller.
pub(super) struct ControllerZones {
    settings: link::Settings,
    table: SharedTable,
    state_dir: PathBuf,
    connection: Arc<Connection>,
    reports: Arc<ReportState>,
    shared: link::SharedChannel,
    batches: mpsc::Receiver<Batch>,
    /// Held until the feed's client starts.
    sender: Option<mpsc::Sender<Batch>>,
    applied: watch::Sender<Position>,
    /// Changes that were received and are not in force yet.
    waiting: Waiting,
    /// The position of the controller's first table, until the table is in force.
    first: Option<Position>,
    /// The last time at which the table in force was known to agree with the controller; `None` without a table.
    confirmed: Option<SystemTime>,
    saved: Option<Instant>,
    saves: Arc<Saves>,
    /// Whether the table has changed since it was written.
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

impl ControllerZones {
    /// Starts with the saved table. Without one it contacts the controller at once. Must be called inside a runtime.
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
            shared: link::SharedChannel::default(),
            batches,
            sender: Some(sender),
            applied: watch::Sender::new(Position::default()),
            waiting: Waiting::default(),
            first: None,
            confirmed: None,
            saved: None,
            saves: Arc::default(),
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

    /// Waits for the controller's first table, without a time limit: packets counted without a table would stay in
    /// unknown zones for good. Cancel safe.
    pub(super) async fn first(&mut self, index: &Index) -> Vec<Change> {
        loop {
            let controller = &self.settings.server;
            tracing::info!(controller, "waiting for the controller's first table; nothing is counted before it");
            match timeout(WAITING_SAID, self.batches.recv()).await {
                Ok(Some(batch)) => self.take(batch, index),
                // The client has ended.
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

    /// The settings of the connection to the controller.
    pub(super) const fn settings(&self) -> &link::Settings {
        &self.settings
    }

    /// The state of the reports, shared with the client that sends them.
    pub(super) fn reports(&self) -> Arc<ReportState> {
        Arc::clone(&self.reports)
    }

    /// The feed's connection, which the reports share.
    pub(super) fn shared(&self) -> link::SharedChannel {
        self.shared.clone()
    }

    /// Acknowledges the first table, which is now in force.
    pub(super) fn first_is_in_force(&mut self) {
        if let Some(position) = self.first.take() {
            self.is_in_force(position);
        }
    }

    /// Starts the feed's client, once.
    pub(super) fn follow(&mut self, index: &Arc<Index>) {
        let Some(batches) = self.sender.take() else { return };
        let client = Client {
            settings: self.settings.clone(),
            table: self.table.clone(),
            index: Arc::clone(index),
            batches,
            applied: self.applied.subscribe(),
            connection: Arc::clone(&self.connection),
            shared: self.shared.clone(),
        };
        tokio::spawn(client.follow());
    }

    /// Receives changes. Endpoints of addresses without one are applied at once. Other changes wait until the counters
    /// have been read, because earlier traffic belongs to the earlier endpoints.
    pub(super) fn receive(&mut self, index: &Index) {
        while let Ok(batch) = self.batches.try_recv() {
            self.take(batch, index);
        }
    }

    fn take(&mut self, batch: Batch, index: &Index) {
        let position = batch.position;
        // A replacement only finds prefixes in force, so waiting ones are dropped here.
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

    /// Applies the waiting changes. Returns whether there is a table.
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
                // The changes keep waiting, and are tried again with the next ones.
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

    /// The state of the connection to the controller.
    pub(super) fn state(&self) -> FeedState {
        FeedState {
            is_connected: self.connection.is_current.load(Ordering::Relaxed),
            connects: self.connection.connects.load(Ordering::Relaxed),
            failures: self.connection.failures.load(Ordering::Relaxed),
            is_reported: self.reports.is_connected.load(Ordering::Relaxed),
            reports: self.reports.accepted.load(Ordering::Relaxed),
            report_failures: self.reports.failures.load(Ordering::Relaxed),
        }
    }

    fn is_in_force(&mut self, position: Position) {
        self.applied.send_replace(position);
        self.confirmed = Some(SystemTime::now());
        self.is_unsaved = true;
    }

    /// Writes the table on another thread, if it is time.
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
        let (folder, saves) = (self.state_dir.clone(), Arc::clone(&self.saves));
        let write = move || {
            let written = saving.write(&folder);
            saves.count(&written);
            if let Err(reason) = written {
                tracing::warn!(%reason, "the table can't be saved");
            }
        };
        self.writer = thread::Builder::new().name("save".into()).spawn(write).ok();
    }

    /// How often the table was saved.
    pub(super) fn saves(&self) -> Arc<Saves> {
        Arc::clone(&self.saves)
    }

    /// Writes everything that is not written yet.
    pub(super) fn end(&mut self, index: &Index) {
        self.batches.close();
        if let Some(writer) = self.writer.take() {
            // A panic of the thread was logged.
            let _ = writer.join();
        }
        self.save(index, true);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
