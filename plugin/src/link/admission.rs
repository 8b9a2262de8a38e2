//! Places for connections: how many there are at one time in all and of one address, and which of them gives
//! way to a new one.
//!
//! A newcomer always gets a place. The place is taken from the address that holds most of them, and there from
//! the connection that has been idle for longest, so whoever holds many places only displaces themselves. An
//! address with one connection keeps it as long as another one holds more.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio_util::sync::CancellationToken;

/// Places for connections.
#[derive(Debug)]
pub struct Admission {
    /// Places in all.
    total: usize,
    /// Places of one address.
    by_address: usize,
    places: Mutex<Places>,
    /// Connections that had to give way.
    pub displaced: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    /// Grows with every connection and every change of one: what is smaller has waited for longer.
    clock: u64,
    held: HashMap<u64, Held>,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Held {
    address: IpAddr,
    /// Whether something is done for the client now.
    is_busy: bool,
    since: u64,
    displaced: CancellationToken,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    id: u64,
    displaced: CancellationToken,
}

impl Admission {
    /// This many places in all, and of one address.
    pub fn new(total: usize, by_address: usize) -> Self {
        Self { total, by_address, places: Mutex::default(), displaced: AtomicU64::new(0) }
    }

    /// A place for a connection from this address.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Place {
        let address = address.to_canonical();
        let mut places = self.lock();
        if places.by_address.get(&address).is_some_and(|held| *held >= self.by_address) {
            self.displace(&mut places, address);
        } else if places.held.len() >= self.total
            && let Some((greedy, _)) = places.by_address.iter().max_by_key(|(_, held)| **held)
        {
            let greedy = match places.by_address.iter().filter(|(_, held)| **held > 1).count() {
                // Every address has one: the oldest of all.
                0 => places.longest(|_| true).map(|id| places.held[&id].address),
                _ => Some(*greedy),
            };
            if let Some(greedy) = greedy {
                self.displace(&mut places, greedy);
            }
        }
        let (id, displaced) = (places.tick(), CancellationToken::new());
        places.held.insert(id, Held { address, is_busy: false, since: id, displaced: displaced.clone() });
        *places.by_address.entry(address).or_default() += 1;
        Place { admission: Arc::clone(self), id, displaced }
    }

    /// Takes a place of this address away.
    fn displace(&self, places: &mut Places, address: IpAddr) {
        if let Some(id) = places.longest(|held| held.address == address) {
            places.free(id);
            self.displaced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connections that are held.
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing in here can panic between two changes that belong together.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The connection that has been idle for longest, or where none is, busy.
    fn longest(&self, concerned: impl Fn(&Held) -> bool) -> Option<u64> {
        let those = self.held.iter().filter(|(_, held)| concerned(held));
        those.min_by_key(|(_, held)| (held.is_busy, held.since)).map(|(id, _)| *id)
    }

    fn free(&mut self, id: u64) {
        let Some(held) = self.held.remove(&id) else { return };
        held.displaced.cancel();
        if let Some(count) = self.by_address.get_mut(&held.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&held.address);
            }
        }
    }
}

impl Place {
    /// Notes whether something is done for the client from now on, or it is waited for.
    pub fn set_busy(&self, is_busy: bool) {
        let mut places = self.admission.lock();
        let now = places.tick();
        if let Some(held) = places.held.get_mut(&self.id) {
            (held.is_busy, held.since) = (is_busy, now);
        }
    }

    /// Waits until the place is another's.
    pub async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.lock().free(self.id);
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
        let mut hostile: Vec<Place> = (0..1000).map(|n| admission.admit(address(100 + n as u8 % 10))).collect();
        assert!(!honest.displaced.is_cancelled());
        assert_eq!(admission.held(), 64);
        // The same over a mapped address.
        let mapped = |_| admission.admit("::ffff:10.0.0.100".parse().unwrap());
        hostile.extend((0..100).map(mapped));
        assert!(admission.lock().by_address[&address(100)] <= 16);
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
        let places: Vec<Place> = (0..8).map(|n| admission.admit(address(n))).collect();
        let gone: Vec<bool> = places.iter().map(|place| place.displaced.is_cancelled()).collect();
        assert_eq!(gone, [true, true, true, true, false, false, false, false]);
    }
}
