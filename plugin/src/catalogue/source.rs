//! Where a process has its catalogue from.

use super::Catalogue;
use crate::zones::StaticTable;
use futures_util::future::BoxFuture;
use std::{fmt, sync::Arc};
use tokio::sync::watch;

/// A source of catalogues, which it makes on request.
pub trait CatalogueSource: fmt::Debug + Send + Sync {
    /// The catalogue as it is now; `None` while the cluster is not known yet.
    fn catalogue(&self) -> BoxFuture<'_, Option<Catalogue>>;
}

/// Without Kubernetes: the zones of the static table.
impl CatalogueSource for watch::Receiver<Arc<StaticTable>> {
    fn catalogue(&self) -> BoxFuture<'_, Option<Catalogue>> {
        Box::pin(async { Some(Catalogue::of_static(&self.borrow())) })
    }
}
