//! One stream of reports for each node: a newer one takes the place of an older one.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio_util::sync::CancellationToken;

/// The streams, by node.
#[derive(Debug, Default)]
pub struct Streams {
    next: AtomicU64,
    open: Mutex<HashMap<String, (u64, CancellationToken)>>,
}

/// A node's stream, until it is dropped.
#[derive(Debug)]
pub(super) struct Stream {
    streams: Arc<Streams>,
    node: String,
    id: u64,
    replaced: CancellationToken,
}

impl Streams {
    /// A node's stream begins; an older one of it ends.
    pub(super) fn begin(self: &Arc<Self>, node: &str) -> Stream {
        let (id, replaced) = (self.next.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        if let Some((_, older)) = self.lock().insert(node.to_owned(), (id, replaced.clone())) {
            older.cancel();
        }
        Stream { streams: Arc::clone(self), node: node.to_owned(), id, replaced }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u64, CancellationToken)>> {
        // Every change is one insertion or removal.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// The node.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Waits until a newer one has begun.
    pub(super) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        if open.get(&self.node).is_some_and(|(id, _)| *id == self.id) {
            open.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_streams_of_one_node_are_one() {
        let streams = Arc::new(Streams::default());
        let mut all: Vec<Stream> = (0..60).map(|_| streams.begin("a")).collect();
        let other = streams.begin("b");
        let last = all.pop().unwrap();
        assert!(all.iter().all(|stream| stream.replaced.is_cancelled()));
        drop(all);
        assert!(!last.replaced.is_cancelled() && !other.replaced.is_cancelled());
        assert_eq!(streams.lock().len(), 2);
        drop((last, other));
        assert!(streams.lock().is_empty());
    }
}
