//! The state of the watches.

use super::{
    facts::Kind,
    model::{REASONS, TableTally},
};
use crate::{feed::Watches, proto::v1::status_response};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The state of a kind's watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The initial list is in progress.
    #[default]
    Listing,
    /// The watch is up to date.
    Watching,
    /// The cluster does not have the kind.
    NotInstalled,
    /// Access is forbidden.
    Forbidden,
    /// The watch failed and is retried.
    Failing,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Listing, Self::Watching, Self::NotInstalled, Self::Forbidden, Self::Failing];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::NotInstalled => "not installed",
            Self::Forbidden => "forbidden",
            Self::Failing => "failing",
        }
    }
}

/// The watch of a kind.
#[derive(Clone, Debug, Default)]
pub struct KindHealth {
    /// Its state.
    pub state: State,
    /// The last error, while the watch fails.
    pub error: Option<String>,
    /// Errors since the start.
    pub errors: u64,
    /// Full lists made because a watch had expired.
    pub relists: u64,
    /// The number of objects.
    pub objects: usize,
    /// Objects with a part that could not be read.
    pub unreadable: usize,
    /// The last resource version received.
    resource_version: String,
    /// The version of the table that includes it.
    version: u64,
}

/// The state of all watches.
#[derive(Debug, Default)]
pub struct Health {
    kinds: Mutex<BTreeMap<Kind, KindHealth>>,
    tally: Mutex<TableTally>,
    /// Notices that were neither logged nor written, by reason.
    withheld: Mutex<BTreeMap<&'static str, u64>>,
}

impl Health {
    /// Sets the state of a kind's watch. Returns whether it changed.
    pub(crate) fn set(&self, kind: Kind, state: State, error: Option<String>) -> bool {
        let mut kinds = self.lock();
        let known = kinds.entry(kind).or_default();
        let has_changed = known.state != state;
        (known.state, known.error) = (state, error);
        has_changed
    }

    pub(super) fn count_error(&self, kind: Kind) {
        self.lock().entry(kind).or_default().errors += 1;
    }

    pub(super) fn count_relist(&self, kind: Kind) {
        self.lock().entry(kind).or_default().relists += 1;
    }

    /// Records for each kind the last resource version in this version of the table, and the number of objects.
    pub(super) fn published(
        &self,
        version: u64,
        seen: impl IntoIterator<Item = (Kind, String)>,
        count: impl Fn(Kind) -> (usize, usize),
        tally: TableTally,
    ) {
        let mut kinds = self.lock();
        for (kind, seen) in seen {
            let health = kinds.entry(kind).or_default();
            (health.objects, health.unreadable) = count(kind);
            (health.resource_version, health.version) = (seen, version);
        }
        drop(kinds);
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = tally;
    }

    /// Every kind, with its watch.
    pub fn all(&self) -> BTreeMap<Kind, KindHealth> {
        self.lock().clone()
    }

    /// The tally of the published table.
    pub fn tally(&self) -> TableTally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_withheld(&self, reason: &'static str) {
        *self.withheld.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// The number of notices that were neither logged nor written as Events, for every reason.
    pub fn withheld(&self) -> BTreeMap<&'static str, u64> {
        let withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        REASONS.map(|reason| (reason, withheld.get(reason).copied().unwrap_or_default())).into()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, KindHealth>> {
        // The fields are independent of each other.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watches for Health {
    fn kinds(&self) -> Vec<status_response::Kind> {
        let kind = |(kind, health): (&Kind, &KindHealth)| status_response::Kind {
            name: kind.name().to_owned(),
            state: health.state.name().to_owned(),
            error: health.error.clone().unwrap_or_default(),
            objects: health.objects as u64,
            resource_version: health.resource_version.clone(),
            version: health.version,
        };
        self.lock().iter().map(kind).collect()
    }
}
