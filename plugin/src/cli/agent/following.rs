//! Follows the devices of the node: uplinks and overlays come and go.

use super::place::place_node;
use crate::{
    agent::Agent,
    datapath::devices::{self, Device, Devices, Watch},
};
use std::time::{Duration, Instant};

/// A look at the devices may take this part of the time, where they change all the time.
const SHARE: u32 = 20;

/// What tells that devices have changed.
pub(super) struct Following {
    watch: Watch,
    changed: bool,
    /// No look before.
    next: Instant,
}

impl Following {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, changed: false, next: Instant::now() }
    }

    /// Looks at the devices if they have changed, and counts on those that there are.
    pub(super) fn follow(&mut self, agent: &mut Agent, names: &[String]) {
        self.changed |= self.watch.changed();
        let start = Instant::now();
        if !self.changed || start < self.next {
            return;
        }
        self.changed = false;
        match devices::look(names) {
            Ok(devices) if devices == *agent.datapath().devices() => {}
            Ok(devices) => take(agent, devices),
            Err(error) => tracing::error!(%error, "the devices can't be looked at: those from before stay"),
        }
        self.next = start + (start.elapsed() * SHARE).max(Duration::from_millis(1));
    }
}

fn take(agent: &mut Agent, devices: Devices) {
    let name = |device: &Device| device.name.clone();
    let before: Vec<String> = agent.datapath().devices().devices.iter().map(name).collect();
    let now: Vec<String> = devices.devices.iter().map(name).collect();
    if let Err(error) = agent.datapath().set_devices(devices) {
        return tracing::error!(%error, devices = ?now, "packets can't be counted on all devices");
    }
    if before != now {
        tracing::info!(?before, ?now, "the devices through which packets leave the node have changed");
    }
    if now.is_empty() {
        tracing::warn!("no device leads out of this node: nothing is counted");
    }
    if let Err(reason) = place_node(agent) {
        tracing::error!(%reason, "the node's zone can't be told to the kernel");
    }
}
