//! A value that a file gives, which is read again when the file changes. A bad file is refused, and the value before it
//! stays in force.

use crate::watched::{FileChange, Watched};
use std::{
    fmt::Display,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A value and its file.
pub(super) struct ReloadedValue<T> {
    in_force: RwLock<Arc<T>>,
    file: Option<Mutex<Watched>>,
    /// Files taken and files refused.
    reloads: [AtomicU64; 2],
}

impl<T: Default> Default for ReloadedValue<T> {
    fn default() -> Self {
        Self::new(T::default(), None)
    }
}

impl<T> ReloadedValue<T> {
    pub(super) fn new(value: T, path: Option<&Path>) -> Self {
        let file = path.map(|path| Mutex::new(Watched::new(path)));
        Self { in_force: RwLock::new(Arc::new(value)), file, reloads: Default::default() }
    }

    /// The value in force.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often the file was taken and refused; `None` without a file.
    pub(super) fn reloads(&self) -> Option<[u64; 2]> {
        self.file.as_ref().map(|_| self.reloads.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Reads the file again if it has changed. Whether there is a new value.
    pub(super) fn look<E: Display>(&self, read: impl FnOnce(&Path) -> Result<T, E>, what: &'static str) -> bool {
        let Some(file) = &self.file else { return false };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(file.look(), FileChange::Changed) {
            return false;
        }
        match read(&file.path) {
            Ok(value) => {
                *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                self.reloads[0].fetch_add(1, Ordering::Relaxed);
                tracing::info!(file = %file.path.display(), "new {what} are in force");
                true
            }
            Err(reason) => {
                self.reloads[1].fetch_add(1, Ordering::Relaxed);
                tracing::error!(%reason, "the new {what} are refused; the old ones stay in force");
                false
            }
        }
    }
}

impl<T> std::fmt::Debug for ReloadedValue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Followed").finish_non_exhaustive()
    }
}
