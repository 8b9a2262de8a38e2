//! The loop of an agent: reads events, drains the flows once a second, applies new tables, writes the pair log.

use super::{
    Error, announcements::Announcements, device_follower::DeviceFollower, history::HistoryRecorder, settings::Settings,
    zone_source::Zones,
};
use crate::{
    atomic_file::{self, Saves},
    counters::Sample,
    export::{PairLog, Pairs},
    flows::Sink,
    identity::Index,
    meter::{HookWatch, Meter},
    metrics::Ready,
    outputs::Outputs,
    servers::{END_TIMEOUT, Servers},
};
use std::{
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    select,
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// The interval at which flows are drained, metrics are renewed and new tables are applied.
const TICK: Duration = Duration::from_secs(1);

/// The agent's work once its programs are attached.
pub(super) struct Counting<'a> {
    pub(super) settings: &'a Settings,
    pub(super) meter: Meter,
    /// The folder for the sums, if they outlive this process.
    pub(super) state: Option<PathBuf>,
    /// How often the sums were saved.
    pub(super) saves: Arc<Saves>,
    pub(super) announcements: Announcements,
    pub(super) devices: DeviceFollower,
    pub(super) hook_watch: HookWatch,
    pub(super) sink: Sink,
    pub(super) zones: Zones,
    pub(super) index: Arc<Index>,
    pub(super) samples: watch::Sender<Arc<[Sample]>>,
    pub(super) pair_log: Option<PairLog>,
    pub(super) history: Option<HistoryRecorder>,
    pub(super) outputs: Outputs,
    pub(super) ready: Ready,
}

/// The requests to the loop from outside.
pub(super) struct LoopControl<'a> {
    /// Requests that the table is read again.
    pub(super) reload: &'a Notify,
    /// Requests that the agent ends.
    pub(super) end: &'a CancellationToken,
    /// The servers; their end is an error.
    pub(super) servers: &'a mut Servers,
}

/// The reason why a wait is over.
enum Wake {
    /// A second has passed.
    Tick,
    /// The table must be read again.
    Reload,
    /// The agent must end.
    End,
}

impl Counting<'_> {
    /// Starts following the table, and drains for the first time. With `is_unknown`, an earlier agent has counted and
    /// its sums are lost: what it logged is unknown, and nothing may be logged twice.
    pub(super) fn begin(&mut self, is_unknown: bool) -> Result<(), Error> {
        self.zones.follow(&self.index);
        if is_unknown {
            self.meter.drain(Instant::now(), SystemTime::now())?;
            let lines = self.meter.take_interval();
            if let Some(log) = &self.pair_log {
                log.leave_out(&lines);
            }
        }
        self.drain()
    }

    /// Drains, applies new tables and renews the metrics until the agent must end.
    pub(super) async fn run(&mut self, mut asked: LoopControl<'_>) -> Result<(), Error> {
        loop {
            self.drain()?;
            let is_asked = match self.wait(&mut asked).await? {
                Wake::Tick => false,
                Wake::Reload => true,
                Wake::End => break,
            };
            self.zones.look(is_asked, &mut self.meter, &self.index)?;
            self.outputs.look();
            self.outputs.forget_pods(&self.index, Instant::now());
        }
        self.meter.flush(Instant::now(), SystemTime::now())?;
        self.sample()
    }

    /// Reads events and follows the devices until the next drain. Events are read before the drain of the flow entries
    /// that they announce.
    async fn wait(&mut self, asked: &mut LoopControl<'_>) -> Result<Wake, Error> {
        let mut tick = pin!(sleep(TICK));
        let wake = loop {
            select! {
                () = &mut tick => break Wake::Tick,
                () = asked.reload.notified() => break Wake::Reload,
                () = asked.end.cancelled() => break Wake::End,
                error = asked.servers.ended() => return Err(error.into()),
                ready = self.announcements.ready() => {
                    ready?;
                    self.take_events();
                }
                changed = self.devices.changed() => {
                    changed?;
                    self.devices.look(&mut self.meter, &self.settings.uplinks);
                }
            }
        };
        self.take_events();
        Ok(wake)
    }

    fn take_events(&mut self) {
        self.sink.take_all(self.meter.announced(), Instant::now());
    }

    /// Sums the growth of the flows, and applies new tables.
    fn drain(&mut self) -> Result<(), Error> {
        self.zones.receive(&self.index);
        self.meter.drain(Instant::now(), SystemTime::now())?;
        self.keep(false);
        self.hook_watch.look(&mut self.meter, Instant::now());
        // Bytes counted so far are reported with the zones and endpoints of their time.
        let has_table = self.zones.apply(&mut self.meter, &self.index);
        self.sample()?;
        if has_table {
            self.ready.set(true);
        }
        self.log_pairs();
        self.record(false);
        Ok(())
    }

    /// Records the history, if this agent keeps one.
    fn record(&mut self, is_last: bool) {
        let Self { meter, history, zones, .. } = self;
        if let (Some(history), Some(providers)) = (history, zones.providers()) {
            history.look(meter, providers, is_last);
        }
    }

    fn sample(&self) -> Result<(), Error> {
        let sample = self.meter.sample(self.hook_watch.state(), self.zones.feed())?;
        self.samples.send_replace(Arc::from([sample]));
        Ok(())
    }

    fn log_pairs(&mut self) {
        if !self.pair_log.as_ref().is_some_and(PairLog::is_due) {
            return;
        }
        let (pairs, is_saved) = self.take_pairs();
        if let Some(log) = &mut self.pair_log {
            if is_saved { log.write(pairs) } else { log.lose(&pairs) }
        }
    }

    /// Takes the pairs of the interval. The sums without them are saved before they are logged, so that the next agent
    /// never logs them again, even if this one is killed. If the save fails, the saved sums are removed: the next agent
    /// then logs only its own counts. If the removal fails, too, the pairs must not be logged.
    fn take_pairs(&mut self) -> (Pairs, bool) {
        let pairs = vec![(self.settings.node.clone(), self.meter.take_interval())];
        let is_saved = self.keep(true) || self.state.as_ref().is_none_or(|state| forget(state));
        (pairs, is_saved)
    }

    /// Saves the sums for the next agent, if the counters outlive this one. Returns whether that was possible.
    fn keep(&mut self, now: bool) -> bool {
        let Some(state) = &self.state else {
            self.meter.empty_idle();
            return true;
        };
        let Some(kept) = self.meter.keep(state, Instant::now(), now) else { return true };
        self.saves.count(&kept);
        if let Err(error) = &kept {
            tracing::warn!(%error, "the sums can't be saved: the next agent would start from zero");
        }
        kept.is_ok()
    }

    /// Writes everything that is not written yet.
    pub(super) fn end(mut self) {
        self.record(true);
        self.zones.end(&self.index);
        match self.pair_log.take() {
            None => drop(self.keep(true)),
            Some(mut log) => match self.take_pairs() {
                (pairs, true) => log.end(pairs, END_TIMEOUT),
                (pairs, false) => log.lose(&pairs),
            },
        }
        self.outputs.finish(END_TIMEOUT);
    }
}

/// Leaves no sums to the next agent.
fn forget(state: &Path) -> bool {
    atomic_file::remove(state)
        .inspect_err(|error| tracing::error!(%error, "sums that are old can't be removed; pairs are not logged"))
        .is_ok()
}
