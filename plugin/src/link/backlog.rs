//! A bound on the bytes that wait for all clients of a server together.
//!
//! A client that reads nothing leaves a little data in each of its streams, and a client may have many streams. At
//! the bound, streams make no more data until a client has taken some. Then, too, streams end whose clients took
//! nothing for a second, the longest first, until a quarter of the room is free; and the whole connection, if its socket
//! has taken nothing for as long.
//! So clients that read slow each other down at worst, and clients that do not read make room for them.

use super::LogLimit;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// The time without progress after which a client makes room for others.
const STUCK: Duration = Duration::from_secs(1);
/// The time in which the bytes of an ended stream must be gone. HTTP/2 keeps them as long as the client's window is
/// full; then its connection ends.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a stream that waits for room looks for stuck clients.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The bytes that wait for the clients of a server.
#[derive(Debug)]
pub struct Backlog {
    limit: usize,
    accounts: Mutex<Accounts>,
    /// Wakes the streams that wait for room, first come first served.
    room: Notify,
    ended: AtomicU64,
    log: LogLimit,
}

#[derive(Debug, Default)]
struct Accounts {
    by_id: HashMap<u64, Entry>,
    next_id: u64,
    /// The bytes of all accounts.
    bytes: usize,
    /// When stuck clients were last looked for.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    /// The id of the connection's account.
    connection: u64,
    client: Arc<str>,
    bytes: usize,
    /// When the client last took bytes, when the first of them began to wait, or when the account was ended.
    since: Instant,
    is_ended: bool,
    ended: CancellationToken,
}

/// The account of a connection or of one of its streams, until it is dropped.
#[derive(Debug)]
pub struct Account {
    backlog: Arc<Backlog>,
    id: u64,
    client: Arc<str>,
    ended: CancellationToken,
}

/// Bytes that wait, until they are dropped.
#[derive(Debug)]
pub struct Waiting {
    account: Arc<Account>,
    bytes: usize,
}

impl Backlog {
    /// About this many bytes may wait: the last message before the limit still fits.
    pub fn new(limit: usize) -> Self {
        let (room, ended, log) = (Notify::new(), AtomicU64::new(0), LogLimit::default());
        Self { limit, accounts: Mutex::default(), room, ended, log }
    }

    /// Opens the account of a connection. `client` names it in the log.
    pub fn connection(self: &Arc<Self>, client: &str) -> Arc<Account> {
        self.open(None, client.into(), CancellationToken::new())
    }

    /// The bytes that wait.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The limit of bytes that wait.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// The number of streams and connections that were ended.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    fn open(self: &Arc<Self>, connection: Option<u64>, client: Arc<str>, ended: CancellationToken) -> Arc<Account> {
        let mut accounts = self.lock();
        accounts.next_id += 1;
        let id = accounts.next_id;
        let entry = Entry {
            connection: connection.unwrap_or(id),
            client: Arc::clone(&client),
            bytes: 0,
            since: Instant::now(),
            is_ended: false,
            ended: ended.clone(),
        };
        accounts.by_id.insert(id, entry);
        Arc::new(Account { backlog: Arc::clone(self), id, client, ended })
    }

    fn change(&self, id: u64, change: impl FnOnce(usize) -> usize) {
        let mut accounts = self.lock();
        let before = accounts.bytes;
        accounts.change(id, Instant::now(), change);
        if accounts.bytes < before.min(self.limit) {
            self.room.notify_one();
        }
    }

    /// Whether there is room, after stuck clients were ended if there was none.
    fn make_room(&self, now: Instant) -> bool {
        let mut accounts = self.lock();
        let looks = accounts.looked.is_none_or(|looked| now.duration_since(looked) >= POLL_INTERVAL);
        if accounts.bytes < self.limit || !looks {
            return accounts.bytes < self.limit;
        }
        accounts.looked = Some(now);
        let ended = accounts.end_stuck(now, self.limit - self.limit / 4);
        for (client, bytes) in &ended {
            if let Some(left_out) = self.log.line() {
                tracing::warn!(%client, bytes, limit = self.limit, left_out, "a client that does not read was ended");
            }
        }
        self.ended.fetch_add(ended.len() as u64, Ordering::Relaxed);
        accounts.bytes < self.limit
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // Nothing in here can panic between two changes that belong together.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    fn change(&mut self, id: u64, now: Instant, change: impl FnOnce(usize) -> usize) {
        let Some(entry) = self.by_id.get_mut(&id) else { return };
        let (before, after) = (entry.bytes, change(entry.bytes));
        entry.bytes = after;
        if !entry.is_ended && (before == 0 || after < before) {
            entry.since = now;
        }
        self.bytes = (self.bytes + after).saturating_sub(before);
    }

    /// Ends stuck accounts, the longest first, until so few bytes wait once those of ended accounts are gone; their
    /// clients, and the bytes of each.
    fn end_stuck(&mut self, now: Instant, enough: usize) -> Vec<(Arc<str>, usize)> {
        let is_old = |entry: &Entry, age| entry.bytes > 0 && now.duration_since(entry.since) >= age;
        let ended = self.by_id.values().filter(|entry| entry.is_ended);
        let mut left = self.bytes.saturating_sub(ended.clone().map(|entry| entry.bytes).sum());
        let holding: HashSet<u64> =
            ended.filter(|entry| is_old(entry, LEAVE_TIMEOUT)).map(|entry| entry.connection).collect();
        let stuck = self.by_id.iter().filter(|(_, entry)| is_old(entry, STUCK) && !entry.is_ended);
        let mut stuck: Vec<_> = stuck.map(|(id, entry)| (entry.since, *id, entry.connection)).collect();
        stuck.sort_unstable();
        let mut all: Vec<_> =
            holding.into_iter().filter_map(|connection| self.end_connection(connection, now)).collect();
        left = left.saturating_sub(all.iter().map(|(_, bytes)| bytes).sum());
        for (_, id, connection) in stuck {
            if left <= enough {
                break;
            }
            // A socket that takes nothing does not take a stream's end either.
            let whole = self.by_id.get(&connection).is_some_and(|entry| is_old(entry, STUCK));
            let ended = if whole { self.end_connection(connection, now) } else { self.end(id, now) };
            left = left.saturating_sub(ended.as_ref().map_or(0, |(_, bytes)| *bytes));
            all.extend(ended);
        }
        all
    }

    fn end(&mut self, id: u64, now: Instant) -> Option<(Arc<str>, usize)> {
        let entry = self.by_id.get_mut(&id).filter(|entry| !entry.is_ended)?;
        entry.is_ended = true;
        entry.since = now;
        entry.ended.cancel();
        Some((Arc::clone(&entry.client), entry.bytes))
    }

    /// Ends a connection with its streams.
    fn end_connection(&mut self, connection: u64, now: Instant) -> Option<(Arc<str>, usize)> {
        let of = self.by_id.iter().filter(|(_, entry)| entry.connection == connection);
        let ids: Vec<u64> = of.map(|(id, _)| *id).collect();
        let ended = ids.into_iter().filter_map(|id| self.end(id, now));
        ended.reduce(|(client, sum), (_, bytes)| (client, sum + bytes))
    }
}

impl Account {
    /// Differs from those of all other accounts of the server.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Opens the account of a stream of this connection. It ends with the connection.
    pub fn stream(&self) -> Arc<Self> {
        self.backlog.open(Some(self.id), Arc::clone(&self.client), self.ended.child_token())
    }

    /// Whether more bytes may wait.
    pub fn has_room(&self) -> bool {
        self.backlog.lock().bytes < self.backlog.limit
    }

    /// Waits until more bytes may wait.
    pub async fn room(self: Arc<Self>) {
        let backlog = &self.backlog;
        loop {
            let room = backlog.room.notified();
            if backlog.make_room(Instant::now()) {
                return;
            }
            tokio::select! {
                () = room => {}
                () = sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Adds bytes that wait for the client.
    pub fn add(self: &Arc<Self>, bytes: usize) -> Waiting {
        self.backlog.change(self.id, |before| before + bytes);
        Waiting { account: Arc::clone(self), bytes }
    }

    /// Sets the bytes that wait for the client, where each is not counted by itself.
    pub fn set(&self, bytes: usize) {
        self.backlog.change(self.id, |_| bytes);
    }

    /// Waits until the account is ended for the sake of others.
    pub fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.ended.cancelled()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.backlog.change(self.id, |_| 0);
        self.backlog.lock().by_id.remove(&self.id);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Self { account, bytes } = self;
        account.backlog.change(account.id, |before| before.saturating_sub(*bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::time::advance;

    fn is_ended(account: &Account) -> bool {
        account.ended.is_cancelled()
    }

    fn has_room(account: &Arc<Account>) -> bool {
        Arc::clone(account).room().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_stuck_for_longest_makes_room_and_readers_only_wait() {
        let backlog = Arc::new(Backlog::new(100));
        let connection = backlog.connection("10.0.0.7:1");
        let streams: Vec<_> = (0..10).map(|_| connection.stream()).collect();
        let mut waiting = Vec::new();
        for stream in &streams {
            waiting.push(stream.add(10));
            advance(Duration::from_millis(1)).await;
        }
        let new = connection.stream();
        assert!(!has_room(&new), "the limit is reached, and nobody is stuck");
        advance(STUCK / 2).await;
        // The client of the first stream reads.
        waiting[0] = streams[0].add(10);
        advance(STUCK / 2).await;
        assert!(!has_room(&new), "what was ended still waits");
        assert!(streams[1..4].iter().all(|stream| is_ended(stream)) && backlog.ended() == 3);
        assert!(!is_ended(&streams[0]) && !is_ended(&streams[4]) && !is_ended(&connection));
        waiting.drain(1..4);
        assert_eq!(backlog.bytes(), 70);
        assert!(has_room(&new));
        drop((waiting, streams));
        assert_eq!(backlog.bytes(), 0, "an ended account is not counted twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_seconds_for_thousands_that_take_nothing() {
        // As large as in the server: 1,800 of the streams fill the room.
        let backlog = Arc::new(Backlog::new(64 << 20));
        let connection = backlog.connection("10.0.0.7:1");
        let stuck = |stream: Arc<Account>| async move {
            Arc::clone(&stream).room().await;
            let _waiting = stream.add(36 << 10);
            stream.ended().await;
        };
        for _ in 0..4095 {
            tokio::spawn(stuck(connection.stream()));
        }
        while backlog.bytes() < backlog.limit() {
            tokio::task::yield_now().await;
        }
        let (reader, began) = (backlog.connection("10.0.0.8:1").stream(), Instant::now());
        for _ in 0..100 {
            Arc::clone(&reader).room().await;
            drop(reader.add(36 << 10));
        }
        assert!(began.elapsed() < 10 * STUCK, "{:?}", began.elapsed());
        assert!(!is_ended(&reader) && backlog.ended() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_ends_with_all_its_streams() {
        let backlog = Arc::new(Backlog::new(100));
        let (stuck, healthy) = (backlog.connection("10.0.0.7:1"), backlog.connection("10.0.0.8:1"));
        stuck.set(20);
        let streams: Vec<_> = (0..4).map(|_| stuck.stream()).collect();
        let waiting: Vec<_> = streams.iter().map(|stream| stream.add(20)).collect();
        advance(STUCK).await;
        let other = healthy.stream();
        assert!(!has_room(&other));
        assert!(streams.iter().all(|stream| is_ended(stream)) && is_ended(&stuck));
        assert!(!is_ended(&healthy) && !is_ended(&other));
        assert!(is_ended(&stuck.stream()), "nothing new begins on it");
        assert_eq!((backlog.bytes(), backlog.ended()), (100, 1));
        drop((waiting, streams, stuck));
        assert!(has_room(&other) && backlog.bytes() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_keeps_the_bytes_of_ended_streams_ends() {
        let backlog = Arc::new(Backlog::new(100));
        let (full, healthy) = (backlog.connection("10.0.0.7:1"), backlog.connection("10.0.0.8:1"));
        let (stuck, reading) = (full.stream(), full.stream());
        let waiting = stuck.add(100);
        advance(STUCK).await;
        let other = healthy.stream();
        assert!(!has_room(&other) && is_ended(&stuck) && !is_ended(&full));
        advance(LEAVE_TIMEOUT / 2).await;
        assert!(!has_room(&other) && !is_ended(&full));
        advance(LEAVE_TIMEOUT / 2).await;
        assert!(!has_room(&other) && is_ended(&full) && is_ended(&reading) && !is_ended(&healthy));
        drop((waiting, stuck, reading, full));
        assert!(has_room(&other));
    }

    #[tokio::test]
    async fn whoever_waits_for_room_goes_on_when_a_client_reads() {
        let backlog = Arc::new(Backlog::new(100));
        let stream = backlog.connection("unix").stream();
        let waiting = stream.add(100);
        let both = async { tokio::join!(Arc::clone(&stream).room(), async { drop(waiting) }) };
        both.await;
        assert_eq!(backlog.ended(), 0);
    }

    #[test]
    fn nothing_is_left_of_accounts_that_are_gone() {
        let backlog = Arc::new(Backlog::new(1000));
        for _ in 0..100 {
            let connection = backlog.connection("unix");
            let stream = connection.stream();
            let waiting = stream.add(100);
            connection.set(50);
            drop((connection, stream));
            drop(waiting);
        }
        assert_eq!((backlog.bytes(), backlog.lock().by_id.len()), (0, 0));
    }
}
