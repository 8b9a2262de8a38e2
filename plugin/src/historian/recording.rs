//! Feeds a history at intervals.

use super::{Historian, NodeSeen, Tick, second};
use crate::{accounting::TrafficDelta, recorder::Directory, zones::Provider};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// The interval at which traffic is recorded. Agents report as often.
pub const TICK: Duration = Duration::from_secs(10);

/// Adds the traffic of each interval to a history.
#[derive(Debug)]
pub struct Recording {
    historian: Arc<Historian>,
    /// When the last interval ended. Traffic from before the first one belongs to no hour.
    last: Instant,
}

impl Recording {
    /// Begins the first interval.
    pub fn new(historian: Arc<Historian>) -> Self {
        Self { historian, last: Instant::now() }
    }

    /// Whether the interval is over.
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= TICK
    }

    /// Begins the interval anew, without the traffic that was counted in it.
    pub fn skip(&mut self) {
        self.last = Instant::now();
    }

    /// Records the traffic of the interval, and begins the next one.
    pub fn record(&mut self, grown: &TrafficDelta, providers: BTreeMap<String, Provider>, nodes: &[NodeSeen]) {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut self.last, now));
        let (directory, now) = (Directory { providers, labels: self.historian.labels() }, second());
        self.historian.tick(&Tick { now, elapsed, grown, directory: &directory, nodes });
        self.historian.attend(now);
    }

    /// Writes the open hour, at the end of the process.
    pub fn save(&self) {
        self.historian.save();
    }
}
