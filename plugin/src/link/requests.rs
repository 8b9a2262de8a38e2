//! A bound on the requests that a server has at one time, and on the bytes of those that are not complete.
//!
//! A new request is always taken. Beyond the limit of requests, the connection with the most of them loses its oldest;
//! beyond the limit of bytes, the largest incomplete request ends. So a client that leaves its requests open, or sends
//! them in part, keeps no other client out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio_util::sync::CancellationToken;

/// The requests of all connections to a server.
#[derive(Debug)]
pub struct Requests {
    most: usize,
    most_bytes: usize,
    open: Mutex<Open>,
    displaced: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    /// By connection and age.
    requests: HashMap<u64, BTreeMap<u64, Entry>>,
    next: u64,
    count: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    ended: CancellationToken,
}

/// The place of a request, until it is dropped.
#[derive(Debug)]
pub struct Request {
    requests: Arc<Requests>,
    connection: u64,
    id: u64,
    ended: CancellationToken,
}

impl Requests {
    /// At most this many requests, and this many bytes of incomplete ones.
    pub fn new(most: usize, most_bytes: usize) -> Self {
        Self { most, most_bytes, open: Mutex::default(), displaced: AtomicU64::new(0) }
    }

    /// Takes a request of this connection.
    pub fn open(self: &Arc<Self>, connection: u64) -> Request {
        let mut open = self.lock();
        let mut displaced = 0;
        while open.count >= self.most {
            let most = open.requests.iter().max_by_key(|(_, of)| of.len());
            let Some((connection, id)) = most.and_then(|(connection, of)| Some((*connection, *of.keys().next()?)))
            else {
                break;
            };
            open.end(connection, id);
            displaced += 1;
        }
        let (id, ended) = (open.next, CancellationToken::new());
        open.next += 1;
        open.count += 1;
        open.requests.entry(connection).or_default().insert(id, Entry { bytes: 0, ended: ended.clone() });
        drop(open);
        self.displaced.fetch_add(displaced, Ordering::Relaxed);
        Request { requests: Arc::clone(self), connection, id, ended }
    }

    /// The number of requests that were ended for others.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }

    /// The number of requests.
    pub fn count(&self) -> usize {
        self.lock().count
    }

    /// The bytes of the incomplete requests.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing in here can panic between two changes that belong together.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn remove(&mut self, connection: u64, id: u64) -> Option<Entry> {
        let of = self.requests.get_mut(&connection)?;
        let entry = of.remove(&id)?;
        if of.is_empty() {
            self.requests.remove(&connection);
        }
        self.count -= 1;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn end(&mut self, connection: u64, id: u64) {
        if let Some(entry) = self.remove(connection, id) {
            entry.ended.cancel();
        }
    }

    /// The incomplete request with the most bytes.
    fn largest(&self) -> Option<(u64, u64)> {
        let all =
            self.requests.iter().flat_map(|(connection, of)| of.iter().map(move |(id, entry)| (connection, id, entry)));
        all.max_by_key(|(_, _, entry)| entry.bytes).map(|(connection, id, _)| (*connection, *id))
    }
}

impl Request {
    /// Adds bytes of the request that have come.
    pub fn add(&self, bytes: usize) {
        let mut open = self.requests.lock();
        let of = open.requests.get_mut(&self.connection);
        let Some(entry) = of.and_then(|of| of.get_mut(&self.id)) else { return };
        entry.bytes += bytes;
        open.bytes += bytes;
        while open.bytes > self.requests.most_bytes {
            let Some((connection, id)) = open.largest() else { return };
            open.end(connection, id);
            self.requests.displaced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The request was answered: its bytes are gone.
    pub fn answered(&self) {
        let mut open = self.requests.lock();
        let of = open.requests.get_mut(&self.connection);
        let bytes = of.and_then(|of| of.get_mut(&self.id)).map_or(0, |entry| std::mem::take(&mut entry.bytes));
        open.bytes -= bytes;
    }

    /// Waits until the request is ended for others.
    pub fn ended(&self) -> impl Future<Output = ()> {
        self.ended.cancelled()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let removed = self.requests.lock().remove(self.connection, self.id);
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ended(request: &Request) -> bool {
        request.ended.is_cancelled()
    }

    #[test]
    fn the_connection_with_the_most_requests_loses_its_oldest() {
        let requests = Arc::new(Requests::new(4, 100));
        let quiet = requests.open(1);
        let busy: Vec<_> = (0..3).map(|_| requests.open(2)).collect();
        let new = requests.open(3);
        assert_eq!(busy.iter().map(is_ended).collect::<Vec<_>>(), [true, false, false]);
        let newer = requests.open(1);
        assert!(!is_ended(&quiet) && !is_ended(&new) && !is_ended(&newer));
        assert_eq!((requests.count(), requests.displaced()), (4, 2));
        drop((quiet, busy, new, newer));
        assert_eq!(requests.count(), 0);
        assert!(requests.lock().requests.is_empty());
    }

    #[test]
    fn the_largest_incomplete_request_ends() {
        let requests = Arc::new(Requests::new(4, 100));
        let (small, large, new) = (requests.open(1), requests.open(1), requests.open(2));
        small.add(10);
        large.add(80);
        new.add(10);
        assert!(!is_ended(&large));
        new.add(10);
        assert!(is_ended(&large) && !is_ended(&small) && !is_ended(&new));
        // A request that was answered holds nothing.
        new.answered();
        small.add(90);
        assert!(!is_ended(&small));
        large.add(1000);
        assert!(!is_ended(&small) && !is_ended(&new), "what has ended counts no more");
    }
}
