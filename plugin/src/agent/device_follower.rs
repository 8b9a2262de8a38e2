//! Follows the node's devices: uplinks and overlays are added and removed.

use super::{Error, place::place_node};
use crate::{
    datapath::{
        Readable,
        devices::{self, Device, Devices, Watch},
    },
    meter::Meter,
};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The share of time that scans may take where devices change all the time.
const SHARE: u32 = 20;
/// The shortest time between two scans: one new device causes several notifications.
const LOOK_GAP: Duration = Duration::from_millis(100);

/// Waits for changes of the devices.
pub(super) struct DeviceFollower {
    watch: Watch,
    readable: Readable,
    changed: bool,
    /// The earliest time of the next scan.
    next: Instant,
}

impl DeviceFollower {
    /// Follows the devices of this watch. Must be called inside a runtime.
    pub(super) fn new(watch: Watch) -> Result<Self, Error> {
        let readable = watch.readable()?;
        Ok(Self { watch, readable, changed: false, next: Instant::now() })
    }

    /// Waits until devices have changed and a scan is due. Cancel safe.
    pub(super) async fn changed(&mut self) -> Result<(), Error> {
        while !self.changed {
            let failed = |source| Error::Wait { what: "changes of devices", source };
            self.readable.ready().await.map_err(failed)?;
            self.changed = self.watch.changed();
        }
        sleep_until(self.next).await;
        Ok(())
    }

    /// Scans the devices, and counts on those that exist.
    pub(super) fn look(&mut self, meter: &mut Meter, names: &[String]) {
        // The scan sees every change until now.
        self.watch.changed();
        self.changed = false;
        let start = Instant::now();
        match devices::look(names) {
            Ok(devices) if devices == *meter.datapath().devices() => {}
            Ok(devices) => take(meter, devices),
            Err(error) => tracing::error!(%error, "the devices can't be listed: the known ones stay in use"),
        }
        match meter.datapath().restore_filters() {
            Ok(places) if places.is_empty() => {}
            Ok(places) => tracing::warn!(
                ?places,
                "another program removed the filters that count packets: they are back, and packets in between were not counted"
            ),
            Err(error) => tracing::error!(%error, "removed filters can't be attached again"),
        }
        self.next = start + (start.elapsed() * SHARE).max(LOOK_GAP);
    }
}

fn take(meter: &mut Meter, devices: Devices) {
    let name = |device: &Device| device.name.clone();
    let before: Vec<String> = meter.datapath().devices().devices.iter().map(name).collect();
    let now: Vec<String> = devices.devices.iter().map(name).collect();
    if let Err(error) = meter.datapath().set_devices(devices) {
        return tracing::error!(%error, devices = ?now, "packets can't be counted on some devices");
    }
    if before != now {
        tracing::info!(?before, ?now, "the devices through which packets leave the node have changed");
    }
    if now.is_empty() {
        tracing::warn!("no device leaves this node: nothing is counted");
    }
    if let Err(reason) = place_node(meter) {
        tracing::error!(%reason, "the node's zone can't be written into the kernel");
    }
}
