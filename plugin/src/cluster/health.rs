//! How the watches are.

use super::facts::Kind;
use crate::{feed::Watches, proto::v1::status_response};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How the watch of a kind is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It lists.
    #[default]
    Listing,
    /// It is up to date.
    Watching,
    /// The cluster does not have the kind.
    NotInstalled,
    /// It may not be read.
    Forbidden,
    /// It is tried again.
    Failing,
}

impl State {
    /// All of them.
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
    /// How it is.
    pub state: State,
    /// The last error, while there is one.
    pub error: Option<String>,
    /// Errors since the start.
    pub errors: u64,
    /// Lists because a watch had expired.
    pub relists: u64,
    /// Objects that are known.
    pub objects: usize,
    /// Objects of which a part could not be understood.
    pub unreadable: usize,
    /// The last version that was seen.
    resource_version: String,
    /// The version of the table that it is in.
    version: u64,
}

/// How all watches are.
#[derive(Debug, Default)]
pub struct Health {
    kinds: Mutex<BTreeMap<Kind, KindHealth>>,
    /// Prefixes of which objects say different things, and nodes without a zone.
    troubles: Mutex<(usize, usize)>,
}

impl Health {
    /// How a kind's watch is now. Returns whether that is news.
    pub(crate) fn set(&self, kind: Kind, state: State, error: Option<String>) -> bool {
        let mut kinds = self.lock();
        let known = kinds.entry(kind).or_default();
        let is_news = known.state != state;
        (known.state, known.error) = (state, error);
        is_news
    }

    pub(super) fn count_error(&self, kind: Kind) {
        self.lock().entry(kind).or_default().errors += 1;
    }

    pub(super) fn count_relist(&self, kind: Kind) {
        self.lock().entry(kind).or_default().relists += 1;
    }

    /// What the table of this version was made of: each kind's last version that was seen, and its objects.
    pub(super) fn published(
        &self,
        version: u64,
        seen: impl IntoIterator<Item = (Kind, String)>,
        count: impl Fn(Kind) -> (usize, usize),
        troubles: (usize, usize),
    ) {
        let mut kinds = self.lock();
        for (kind, seen) in seen {
            let health = kinds.entry(kind).or_default();
            (health.objects, health.unreadable) = count(kind);
            (health.resource_version, health.version) = (seen, version);
        }
        drop(kinds);
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner) = troubles;
    }

    /// Every kind that is watched.
    pub fn all(&self) -> BTreeMap<Kind, KindHealth> {
        self.lock().clone()
    }

    /// Prefixes of which objects say different things, and nodes without a zone.
    pub fn troubles(&self) -> (usize, usize) {
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, KindHealth>> {
        // Every field stands for itself.
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
