//! A bound on the memory that the requests of all clients keep together.
//!
//! A value is kept together with its size. When a new value does not fit, the largest ones are dropped, the oldest of
//! equals first: their requests fail at their next use, and the memory is free at once, also if their clients read
//! nothing.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// The memory for the values of all requests.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    kept: Mutex<BudgetEntries>,
    displaced: AtomicU64,
}

#[derive(Default)]
struct BudgetEntries {
    /// By age.
    values: BTreeMap<u64, (usize, Arc<dyn Drain>)>,
    next: u64,
    bytes: usize,
}

impl fmt::Debug for BudgetEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("values", &self.values.len()).field("bytes", &self.bytes).finish()
    }
}

/// A value that can be dropped while others hold its place.
trait Drain: Send + Sync {
    fn drain(&self);
}

impl<T: Send> Drain for Mutex<Option<T>> {
    fn drain(&self) {
        // The value is dropped after the lock is given back.
        let value = lock(self).take();
        drop(value);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here can panic between two changes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value within the budget, until it is dropped or gives way to others.
pub struct Budgeted<T> {
    value: Arc<Mutex<Option<T>>>,
    budget: Arc<Budget>,
    /// The value's id in the budget.
    id: u64,
}

impl<T> fmt::Debug for Budgeted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budgeted").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Budget {
    /// All values together may have this many bytes. A larger one is kept alone.
    pub fn new(limit: usize) -> Self {
        Self { limit, kept: Mutex::default(), displaced: AtomicU64::new(0) }
    }

    /// Keeps a value of this size; values that are larger or older give way if there is no room.
    pub fn keep<T: Send + 'static>(self: &Arc<Self>, value: T, bytes: usize) -> Budgeted<T> {
        let value = Arc::new(Mutex::new(Some(value)));
        let mut drained = Vec::new();
        let mut kept = lock(&self.kept);
        while kept.bytes + bytes > self.limit {
            // The first of the largest: ids grow with time.
            let largest = kept.values.iter().max_by_key(|(id, (bytes, _))| (*bytes, std::cmp::Reverse(**id)));
            let Some(id) = largest.map(|(id, _)| *id) else { break };
            drained.extend(kept.remove(id));
        }
        let id = kept.next;
        kept.next += 1;
        kept.bytes += bytes;
        let place: Arc<dyn Drain> = Arc::<Mutex<Option<T>>>::clone(&value);
        kept.values.insert(id, (bytes, place));
        drop(kept);
        self.displaced.fetch_add(drained.len() as u64, Ordering::Relaxed);
        drained.iter().for_each(|place| place.drain());
        Budgeted { value, budget: Arc::clone(self), id }
    }

    /// The bytes of all values.
    pub fn bytes(&self) -> usize {
        lock(&self.kept).bytes
    }

    /// The limit of these bytes.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// The number of values that gave way to others.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }
}

impl BudgetEntries {
    fn remove(&mut self, id: u64) -> Option<Arc<dyn Drain>> {
        let (bytes, value) = self.values.remove(&id)?;
        self.bytes -= bytes;
        Some(value)
    }
}

impl<T> Budgeted<T> {
    /// Uses the value; `None` if it has given way to others.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        lock(&self.value).as_mut().map(f)
    }

    /// Whether the value has given way to others.
    pub fn is_displaced(&self) -> bool {
        lock(&self.value).is_none()
    }
}

impl<T> Drop for Budgeted<T> {
    fn drop(&mut self) {
        let value = lock(&self.budget.kept).remove(self.id);
        drop(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_give_way_and_the_oldest_of_equals() {
        let budget = Arc::new(Budget::new(100));
        let keep = |bytes| budget.keep((), bytes);
        let (small, old, large) = (keep(10), keep(30), keep(50));
        assert_eq!(budget.bytes(), 90);
        let new = keep(30);
        assert!(large.is_displaced() && !old.is_displaced() && !new.is_displaced());
        let newer = keep(40);
        assert!(old.is_displaced() && !new.is_displaced() && !small.is_displaced());
        assert_eq!((budget.bytes(), budget.displaced()), (80, 2));
        // Displaced values are not subtracted again.
        drop((large, old, small));
        assert_eq!(budget.bytes(), 70);
        drop((new, newer));
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_displaced_value_is_free_at_once() {
        let (budget, held) = (Arc::new(Budget::new(100)), Arc::new(()));
        let first = budget.keep(Arc::clone(&held), 60);
        assert_eq!(first.with(|_| 1), Some(1));
        let _second = budget.keep((), 60);
        assert_eq!((first.with(|_| 1), Arc::strong_count(&held)), (None, 1));
    }

    #[test]
    fn no_history_of_values_exceeds_the_limit() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let (budget, mut random) = (Arc::new(Budget::new(1000)), StdRng::seed_from_u64(1));
        let mut held = Vec::new();
        for _ in 0..10_000 {
            if random.random_ratio(1, 3) && !held.is_empty() {
                drop(held.swap_remove(random.random_range(0..held.len())));
            } else {
                let bytes = random.random_range(0..300);
                held.push((budget.keep((), bytes), bytes));
            }
            let alive = held.iter().filter(|(value, _)| !value.is_displaced()).map(|(_, bytes)| bytes);
            assert_eq!(alive.sum::<usize>(), budget.bytes());
            assert!(budget.bytes() <= 1000);
        }
    }
}
