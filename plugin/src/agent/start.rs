//! Loads the programs, applies the table and attaches the programs; or takes over from an earlier agent.

use super::{
    Error,
    place::change,
    settings::{Settings, ZoneSource},
};
use crate::{
    accounting::Accounting,
    datapath::{Datapath, Devices, Options, Pins, auto::Choice},
    flows::{Node, Sink},
    identity::Index,
    meter::Meter,
    zones::{Change, Place, SharedTable, Slots},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// The name of the file with the sums in the state folder.
pub(super) const SUMS: &str = "counters";

/// Everything that an agent needs to start.
pub(super) struct Start<'a> {
    pub(super) settings: &'a Settings,
    pub(super) choice: &'a Choice,
    pub(super) devices: Devices,
    pub(super) pins: Option<Pins>,
    pub(super) table: SharedTable,
    pub(super) index: &'a Arc<Index>,
    pub(super) sink: &'a Sink,
}

/// An agent that counts.
pub(super) struct Started {
    pub(super) meter: Meter,
    /// The folder for the sums, if they outlive the agent.
    pub(super) state: Option<PathBuf>,
    /// Whether the counters continue those of an earlier agent.
    pub(super) is_continued: bool,
    /// Whether the sums of that agent are here, too.
    pub(super) is_restored: bool,
}

impl Start<'_> {
    /// Starts counting.
    pub(super) fn start(self, first: Vec<Change>) -> Result<Started, Error> {
        let Self { settings, choice, devices, pins, table, index, sink } = self;
        let state = pins.as_ref().map(|_| settings.state_dir.join(SUMS));
        let mut slots = Slots::default();
        slots.assign(first.iter().filter_map(|(_, placement)| placement.as_ref()));
        let options = Options {
            hook: choice.hook,
            matrix_slots: slots.matrix_slots(),
            overlay_header_len: settings.overlay_header_bytes,
            ..Options::default()
        };
        let (display_name, cluster) = (settings.hubble_name.display_name(), settings.hubble_name.cluster.clone());
        let (place, zones_in_summary) = (Place::Unknown, settings.hubble_zones_in_summary);
        let node = Node { name: settings.node.clone(), display_name, cluster, place, zones_in_summary };
        let mut datapath = Datapath::load_pinned(options, pins)?;
        for port in &settings.service_ports {
            datapath.know_service(*port)?;
        }
        let families = settings.families;
        let accounting =
            Accounting::new(settings.series, settings.pair_log.is_some()).only(families.workloads, families.namespaces);
        // A node without a controller sends no reports, and keeps its own history.
        let accounting = match settings.zones {
            ZoneSource::Controller(_) => accounting,
            ZoneSource::File(_) if settings.history.dir.is_some() => accounting.without_transfers().with_growth(),
            ZoneSource::File(_) => accounting.without_transfers(),
        };
        let mut meter = Meter::new(node, datapath, Arc::clone(index), accounting, sink.clone()).with_table(table);
        meter.datapath().set_devices(devices)?;
        change(&mut meter, first)?;
        if meter.node_place() == &Place::Unknown {
            tracing::warn!("no address of the uplinks is in a zone of the table: this node's zone is unknown");
        }
        let is_restored = state.as_ref().is_some_and(|state| restore(&mut meter, state));
        let is_continued = is_restored || meter.has_counted()?;
        let attached = meter.datapath().attach()?;
        let zone_matrix = meter.datapath().matrix_id()?;
        let devices: Vec<&str> = meter.datapath().devices().devices.iter().map(|device| device.name.as_str()).collect();
        let Choice { hook, why } = choice;
        tracing::info!(node = settings.node, %hook, why, ?devices, "packets are counted here");
        tracing::info!(?attached, zone_matrix, is_pinned = state.is_some(), "counting");
        Ok(Started { meter, state, is_continued, is_restored })
    }
}

/// Restores the sums that an earlier agent saved, if there are any.
fn restore(meter: &mut Meter, state: &Path) -> bool {
    match meter.restore_sums(state, Instant::now()) {
        Ok(is_restored) => {
            if is_restored {
                tracing::info!("the counters of the earlier agent continue");
            }
            is_restored
        }
        Err(error) => {
            tracing::warn!(%error, "the sums of the earlier agent are lost; the kernel's counters continue");
            false
        }
    }
}

/// The folder for the pins, if pinning is possible.
pub(super) fn pins(settings: &Settings) -> Option<Pins> {
    let root = settings.pin_dir.as_ref()?;
    let pins = Pins::open(root);
    if let Err(error) = &pins {
        tracing::warn!(%error, "nothing is pinned: the counters end with this agent");
    }
    pins.ok()
}
