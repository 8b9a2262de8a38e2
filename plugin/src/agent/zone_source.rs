//! The source of the zone table: a file that is watched, or a controller.

use super::{
    Error,
    controller_zones::ControllerZones,
    place::change,
    settings::{Settings, ZoneSource},
};
use crate::{
    atomic_file::Saves,
    counters::FeedState,
    identity::Index,
    link,
    meter::Meter,
    reports::ReportState,
    watched::{FileChange, Watched},
    zones::{Change, Provider, SharedTable, StaticTable, Table},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Instant, SystemTime},
};

/// The source of the zone table.
pub(super) enum Zones {
    /// A static table, with the providers of its zones.
    File(Watched, BTreeMap<String, Provider>),
    /// A controller.
    Controller(Box<ControllerZones>),
}

impl Zones {
    /// The source, with its first table if it has one: the file's, or the saved one.
    pub(super) fn start(
        settings: &Settings,
        table: &SharedTable,
        index: &Arc<Index>,
    ) -> Result<(Self, Option<Vec<Change>>), Error> {
        Ok(match &settings.zones {
            ZoneSource::File(path) => {
                let watched = Watched::new(path);
                let table = StaticTable::read(path)?;
                index.replace(&table.endpoints);
                let changes = Table::new().changes_to(&table.zones);
                (Self::File(watched, table.providers), Some(changes))
            }
            ZoneSource::Controller(controller) => {
                let (followed, first) = ControllerZones::start(controller, &settings.state_dir, table, index);
                (Self::Controller(Box::new(followed)), first)
            }
        })
    }

    /// Waits for the first table. Cancel safe.
    pub(super) async fn first(&mut self, index: &Index) -> Vec<Change> {
        match self {
            Self::File(..) => Vec::new(),
            Self::Controller(followed) => followed.first(index).await,
        }
    }

    /// Starts following the controller, if there is one, now that the first table is in force.
    pub(super) fn follow(&mut self, index: &Arc<Index>) {
        if let Self::Controller(followed) = self {
            followed.first_is_in_force();
            followed.follow(index);
        }
    }

    /// How often the table was saved, if it is.
    pub(super) fn saves(&self) -> Option<Arc<Saves>> {
        match self {
            Self::File(..) => None,
            Self::Controller(followed) => Some(followed.saves()),
        }
    }

    /// The controller that receives the reports, the state of the reports, and the connection that they may share.
    pub(super) fn reports(&self) -> Option<(&link::Settings, Arc<ReportState>, link::SharedChannel)> {
        match self {
            Self::File(..) => None,
            Self::Controller(followed) => Some((followed.settings(), followed.reports(), followed.shared())),
        }
    }

    /// Receives changes from the controller.
    pub(super) fn receive(&mut self, index: &Index) {
        if let Self::Controller(followed) = self {
            followed.receive(index);
        }
    }

    /// Applies the received changes. Returns whether there is a table.
    pub(super) fn apply(&mut self, meter: &mut Meter, index: &Index) -> bool {
        match self {
            Self::File(..) => true,
            Self::Controller(followed) => followed.apply(meter, index),
        }
    }

    /// The connection to the controller, if there is one.
    pub(super) fn feed(&self) -> Option<FeedState> {
        match self {
            Self::File(..) => None,
            Self::Controller(followed) => Some(followed.state()),
        }
    }

    /// Reads the file again if it has changed or with `is_asked`.
    pub(super) fn look(&mut self, is_asked: bool, meter: &mut Meter, index: &Index) -> Result<(), Error> {
        let Self::File(file, providers) = self else { return Ok(()) };
        match file.look() {
            FileChange::Changed => reload(file, providers, meter, index)?,
            _ if is_asked => reload(file, providers, meter, index)?,
            // The table in force still agrees with the file.
            FileChange::Same if file.is_applied => meter.confirm_zones(SystemTime::now()),
            FileChange::Same | FileChange::Gone => {}
        }
        Ok(())
    }

    /// The providers of zones; a controller keeps them to itself.
    pub(super) fn providers(&self) -> Option<&BTreeMap<String, Provider>> {
        match self {
            Self::File(_, providers) => Some(providers),
            Self::Controller(_) => None,
        }
    }

    /// Writes everything that is not written yet.
    pub(super) fn end(&mut self, index: &Index) {
        if let Self::Controller(followed) = self {
            followed.end(index);
        }
    }
}

/// Reads the table again. An invalid table is refused, and the old one stays in force.
fn reload(
    file: &mut Watched,
    providers: &mut BTreeMap<String, Provider>,
    meter: &mut Meter,
    index: &Index,
) -> Result<(), Error> {
    let read = StaticTable::read(&file.path).map_err(Error::Zones);
    // Bytes counted so far are reported with the zones of their time.
    meter.drain(Instant::now(), SystemTime::now())?;
    let applied = read.and_then(|table| {
        let changes = meter.zones().read().changes_to(&table.zones);
        change(meter, changes)?;
        index.replace(&table.endpoints);
        *providers = table.providers;
        Ok(())
    });
    meter.reloaded(applied.is_ok());
    file.is_applied = applied.is_ok();
    match applied {
        Ok(()) => tracing::info!(file = %file.path.display(), "a new zone table is in force"),
        Err(reason) => tracing::error!(%reason, "the new zone table is refused; the old one stays in force"),
    }
    Ok(())
}
