//! The static table, for everything that the Kubernetes API does not have; read again when its file changes.

use super::Error;
use crate::{
    watched::{FileChange, Watched},
    zones::StaticTable,
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

/// A static table whose file is watched.
pub(super) struct WatchedStaticTable {
    file: Option<Watched>,
    table: watch::Sender<Arc<StaticTable>>,
    /// Tables accepted and tables refused after the first.
    pub(super) reloads: Arc<[AtomicU64; 2]>,
}

impl WatchedStaticTable {
    /// Reads the table from this file; without a file the table is empty.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, Error> {
        let file = path.map(Watched::new);
        let table = path.map(StaticTable::read).transpose()?.unwrap_or_default();
        Ok(Self { file, table: watch::Sender::new(Arc::new(table)), reloads: Arc::default() })
    }

    /// The table in force.
    pub(super) fn table(&self) -> watch::Receiver<Arc<StaticTable>> {
        self.table.subscribe()
    }

    /// Reads the file again if it has changed or with `is_asked`. An invalid table is refused, and the old one stays
    /// in force.
    pub(super) fn look(&mut self, is_asked: bool) {
        let Some(file) = &mut self.file else { return };
        if !matches!(file.look(), FileChange::Changed) && !is_asked {
            return;
        }
        match StaticTable::read(&file.path) {
            Ok(table) => {
                self.table.send_replace(Arc::new(table));
                self.reloads[0].fetch_add(1, Ordering::Relaxed);
                tracing::info!(file = %file.path.display(), "a new static table is in force");
            }
            Err(reason) => {
                self.reloads[1].fetch_add(1, Ordering::Relaxed);
                tracing::error!(%reason, "the new static table is refused; the old one stays in force");
            }
        }
    }
}
