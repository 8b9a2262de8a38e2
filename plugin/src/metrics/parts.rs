//! The page of a process: each part registers its metrics. Parts are written in the order of registration.

use super::{access::Access, writer::Writer};
use crate::{
    catalogue::CatalogueSource,
    historian::Historian,
    web::{Site, Source},
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A part of a process that has metrics. Two parts of a page have no name in common.
pub trait Part: fmt::Debug + Send + Sync + 'static {
    /// Writes the current metrics.
    ///
    /// # Errors
    /// The page can't be written.
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result;
}

/// Whether a process is fully started: attached and drained once, or loaded.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// Sets it.
    pub fn set(&self, is_ready: bool) {
        self.0.store(is_ready, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The page of a process.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Whether the process is fully started.
    pub ready: Ready,
    /// The page for people and its API.
    pub(super) site: Site,
    /// Who may read the site.
    pub access: Access,
    parts: Vec<Arc<dyn Part>>,
}

impl Page {
    /// A page without metrics.
    pub fn new(ready: Ready) -> Self {
        Self { ready, ..Self::default() }
    }

    /// Adds the metrics of a part.
    pub fn add(&mut self, part: impl Part) {
        self.parts.push(Arc::new(part));
    }

    /// Adds the history: its metrics, and reports.
    pub fn add_history(&mut self, historian: Arc<Historian>) {
        self.add(Arc::clone(&historian));
        self.site.history = Some(historian);
    }

    /// Adds the counters and the state that people look at.
    pub fn add_source(&mut self, source: impl Source) {
        self.site.source = Some(Arc::new(source));
    }

    /// Adds the services and workloads that advice is about.
    pub fn add_catalogue(&mut self, source: impl CatalogueSource + 'static) {
        self.site.catalogue = Some(Arc::new(source));
    }

    /// The same, with the metrics of a part.
    #[must_use]
    pub fn with(mut self, part: impl Part) -> Self {
        self.add(part);
        self
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Writer(&mut encoder);
        self.parts.iter().try_for_each(|part| part.write(&mut page))
    }
}
