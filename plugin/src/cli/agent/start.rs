//! Loads the programs, gives them the table and attaches them; or takes over where an agent has ended.

use super::{super::Failure, place::change};
use crate::{
    accounting::Accounting,
    agent::Agent,
    cli::config::Settings,
    datapath::{Datapath, Devices, Options, Pins, auto::Choice},
    flows::{Node, Sink},
    identity::Index,
    zones::{Change, Place, SharedTable, Slots},
};
use std::{path::PathBuf, sync::Arc, time::Instant};

/// The name of the file with the sums in the state folder.
pub(super) const SUMS: &str = "counters";

/// What an agent starts with.
pub(super) struct Start<'a> {
    pub(super) settings: &'a Settings,
    pub(super) choice: Choice,
    pub(super) devices: Devices,
    pub(super) pins: Option<Pins>,
    pub(super) table: SharedTable,
    pub(super) index: &'a Arc<Index>,
    pub(super) sink: &'a Sink,
}

/// An agent that counts.
pub(super) struct Started {
    pub(super) agent: Agent,
    /// Where its sums are kept, if they outlast it.
    pub(super) state: Option<PathBuf>,
    /// Whether its counters are those of an agent before.
    pub(super) goes_on: bool,
}

impl Start<'_> {
    /// Begins to count.
    pub(super) fn start(self, first: Vec<Change>) -> Result<Started, Failure> {
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
        let (told_as, cluster) = (settings.hubble_name.told_as(), settings.hubble_name.cluster.clone());
        let (place, zones_in_summary) = (Place::Unknown, settings.hubble_zones_in_summary);
        let node = Node { name: settings.node.clone(), told_as, cluster, place, zones_in_summary };
        let mut datapath = Datapath::load_pinned(options, pins).map_err(Failure::failed)?;
        for port in &settings.service_ports {
            datapath.know_service(*port).map_err(Failure::failed)?;
        }
        let families = settings.families;
        let accounting = Accounting::new(settings.series, settings.pair_log.0.is_some())
            .only(families.workloads, families.namespaces);
        let mut agent = Agent::new(node, datapath, Arc::clone(index), accounting, sink.clone()).with_table(table);
        agent.set_hook_reason(&choice.why);
        agent.datapath().set_devices(devices).map_err(Failure::failed)?;
        change(&mut agent, first)?;
        if agent.node_place() == &Place::Unknown {
            tracing::warn!("no address of the uplinks is in a zone of the table: this node's zone is unknown");
        }
        let mut goes_on = false;
        if let Some(state) = &state {
            match agent.go_on(state, Instant::now()) {
                Ok(true) => {
                    goes_on = true;
                    tracing::info!("the counters of the agent before go on");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the sums of the agent before are lost; what is in the kernel goes on");
                }
            }
        }
        let attached = agent.datapath().attach().map_err(Failure::failed)?;
        let zone_matrix = agent.datapath().matrix_id().map_err(Failure::failed)?;
        let devices: Vec<&str> = agent.datapath().devices().devices.iter().map(|device| device.name.as_str()).collect();
        let Choice { hook, why } = &choice;
        tracing::info!(node = settings.node, %hook, why, ?devices, "packets are counted here");
        tracing::info!(?attached, zone_matrix, is_pinned = state.is_some(), "counting");
        Ok(Started { agent, state, goes_on })
    }
}

/// Where the counters are pinned, if they can be.
pub(super) fn pins(settings: &Settings) -> Option<Pins> {
    let root = settings.pin_dir.as_ref()?;
    let pins = Pins::open(root);
    if let Err(error) = &pins {
        tracing::warn!(%error, "nothing is pinned: the counters end with this agent");
    }
    pins.ok()
}
