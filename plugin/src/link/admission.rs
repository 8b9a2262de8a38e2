//! Places for connections: how many there are at one time in all and of one client (an address, or a node), and which of
//! them gives way to a new one.
//!
//! A newcomer always gets a place. The place is taken from the client that holds most of them, and there from
//! the connection that has been idle for longest, so a client with many places displaces only itself. A
//! client with one connection keeps it as long as another one holds more.
//!
//! Where thousands of clients with a connection each come at once, as the agents of new nodes do, those that give way
//! would come again, and the work for them was in vain. So a server that is full of young connections of many clients
//! waits a little before it accepts the next one: the kernel keeps them in order.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The age up to which a connection is young.
const YOUNG: Duration = Duration::from_secs(2);
/// A client with more connections than this has some that can give way.
const FEW: usize = 8;
/// How often a server that waits looks for room.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Places for connections.
#[derive(Debug)]
pub struct Admission<K = IpAddr> {
    /// Places in all.
    total: usize,
    /// Places of one client.
    by_client: usize,
    places: Mutex<Places<K>>,
    /// Connections that had to give way.
    pub displaced: AtomicU64,
}

#[derive(Debug)]
struct Places<K> {
    /// Grows with every connection and every change of one: the smallest has waited longest.
    clock: u64,
    held: HashMap<u64, PermitEntry<K>>,
    by_client: HashMap<K, usize>,
}

#[derive(Debug)]
struct PermitEntry<K> {
    client: K,
    /// Whether something is done for the client now.
    is_busy: bool,
    since: u64,
    admitted: Instant,
    displaced: CancellationToken,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    holder: Arc<dyn Holder>,
    id: u64,
    displaced: CancellationToken,
}

/// The peer that holds a place.
trait Holder: fmt::Debug + Send + Sync {
    fn set_busy(&self, id: u64, is_busy: bool);
    fn free(&self, id: u64);
}

impl<K: Client> Admission<K> {
    /// This many places in all, and of one client.
    pub fn new(total: usize, by_client: usize) -> Self {
        let places = Places { clock: 0, held: HashMap::new(), by_client: HashMap::new() };
        Self { total, by_client, places: Mutex::new(places), displaced: AtomicU64::new(0) }
    }

    /// A place for a connection of this client.
    pub fn admit(self: &Arc<Self>, client: K) -> Permit {
        let client = client.canonical();
        let mut places = self.lock();
        let displaced = if places.by_client.get(&client).is_some_and(|held| *held >= self.by_client) {
            places.longest(|held| held.client == client)
        } else if places.held.len() >= self.total {
            places.greediest()
        } else {
            None
        };
        if let Some(displaced) = displaced {
            places.free(displaced);
            self.displaced.fetch_add(1, Ordering::Relaxed);
        }
        let (id, displaced) = (places.tick(), CancellationToken::new());
        *places.by_client.entry(client.clone()).or_default() += 1;
        places.held.insert(
            id,
            PermitEntry { client, is_busy: false, since: id, admitted: Instant::now(), displaced: displaced.clone() },
        );
        Permit { holder: Arc::clone(self) as _, id, displaced }
    }

    /// Waits until a newcomer displaces no young connection of a client with few of them.
    pub async fn room(&self) {
        while self.is_crowded() {
            sleep(POLL_INTERVAL).await;
        }
    }

    fn is_crowded(&self) -> bool {
        let places = self.lock();
        places.held.len() >= self.total
            && places.by_client.values().all(|held| *held <= FEW)
            && places.held.values().all(|held| held.admitted.elapsed() < YOUNG)
    }

    /// Connections that are held.
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    fn lock(&self) -> MutexGuard<'_, Places<K>> {
        // Nothing in here can panic between two changes that belong together.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The identity of a client.
pub trait Client: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static {
    /// The same client, whichever way it is written.
    fn canonical(self) -> Self {
        self
    }
}

impl Client for IpAddr {
    fn canonical(self) -> Self {
        self.to_canonical()
    }
}

impl Client for String {}

impl<K: Client> Holder for Admission<K> {
    fn set_busy(&self, id: u64, is_busy: bool) {
        let mut places = self.lock();
        let now = places.tick();
        if let Some(held) = places.held.get_mut(&id) {
            (held.is_busy, held.since) = (is_busy, now);
        }
    }

    fn free(&self, id: u64) {
        self.lock().free(id);
    }
}

impl<K: Client> Places<K> {
    const fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The connection that has been idle for longest, or where none is, busy.
    fn longest(&self, concerned: impl Fn(&PermitEntry<K>) -> bool) -> Option<u64> {
        let those = self.held.iter().filter(|(_, held)| concerned(held));
        those.min_by_key(|(_, held)| (held.is_busy, held.since)).map(|(id, _)| *id)
    }

    /// The longest of the client with the most; where each has one, of all.
    fn greediest(&self) -> Option<u64> {
        let (client, most) = self.by_client.iter().max_by_key(|(_, held)| **held)?;
        self.longest(|held| *most < 2 || held.client == *client)
    }

    fn free(&mut self, id: u64) {
        let Some(held) = self.held.remove(&id) else { return };
        held.displaced.cancel();
        if let Some(count) = self.by_client.get_mut(&held.client) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&held.client);
            }
        }
    }
}

impl Permit {
    /// Notes whether something is done for the client from now on, or it is waited for.
    pub fn set_busy(&self, is_busy: bool) {
        self.holder.set_busy(self.id, is_busy);
    }

    /// Waits until the place is another's.
    pub async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.holder.free(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn whoever_holds_most_places_displaces_only_themselves() {
        let admission = Arc::new(Admission::new(64, 16));
        let honest = admission.admit(address(1));
        let mut hostile: Vec<Permit> = (0..1000).map(|n| admission.admit(address(100 + n as u8 % 10))).collect();
        assert!(!honest.displaced.is_cancelled());
        assert_eq!(admission.held(), 64);
        // The same over a mapped address.
        let mapped = |_| admission.admit("::ffff:10.0.0.100".parse().unwrap());
        hostile.extend((0..100).map(mapped));
        assert!(admission.lock().by_client[&address(100)] <= 16);
        let newcomer = admission.admit(address(2));
        assert!(!newcomer.displaced.is_cancelled() && !honest.displaced.is_cancelled());
        drop(hostile);
        assert_eq!(admission.held(), 2);
    }

    #[test]
    fn idle_connections_give_way_before_busy_ones() {
        let admission = Arc::new(Admission::new(64, 2));
        let (busy, idle) = (admission.admit(address(1)), admission.admit(address(1)));
        busy.set_busy(true);
        let third = admission.admit(address(1));
        assert!(idle.displaced.is_cancelled() && !busy.displaced.is_cancelled());
        third.set_busy(true);
        let _fourth = admission.admit(address(1));
        assert!(busy.displaced.is_cancelled(), "of those that are busy, the one that has been so for longest");
        assert_eq!(admission.displaced.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn of_many_addresses_with_one_place_each_the_oldest_gives_way() {
        let admission = Arc::new(Admission::new(4, 2));
        let places: Vec<Permit> = (0..8).map(|n| admission.admit(address(n))).collect();
        let gone: Vec<bool> = places.iter().map(|place| place.displaced.is_cancelled()).collect();
        assert_eq!(gone, [true, true, true, true, false, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_new_clients_waits_for_one_another_and_for_no_hostile_one() {
        let (admission, begun) = (Arc::new(Admission::new(16, 12)), Instant::now());
        let mut crowd: Vec<Permit> = (0..16).map(|n| admission.admit(address(n))).collect();
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.room().await }
        });
        sleep(YOUNG / 4).await;
        assert!(!waiting.is_finished());
        crowd.remove(3);
        waiting.await.unwrap();
        assert!(begun.elapsed() < YOUNG / 2, "a place is free");
        // None of them goes on: the next one waits no longer than this.
        crowd.push(admission.admit(address(20)));
        admission.room().await;
        assert!((YOUNG..YOUNG + 2 * POLL_INTERVAL).contains(&begun.elapsed()));
        drop(crowd);
        // A client that takes all places that it can delays nobody.
        let begun = Instant::now();
        let _hostile: Vec<Permit> = (0..1000).map(|_| admission.admit(address(100))).collect();
        let _others: Vec<Permit> = (0..4).map(|n| admission.admit(address(n))).collect();
        assert_eq!(admission.held(), 16);
        admission.room().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
