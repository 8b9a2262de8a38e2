//! The numbers of the flow entries of an IP version: the index by which programs find entries, and the ring of free
//! numbers, in shared memory. See [`meridian_abi::index`].

use super::{
    Error,
    maps::Maps,
    memory::{Memory, SharedLine, SharedNumbers, SharedPair},
};
use meridian_abi::{IpVersion, control, index};
use std::sync::atomic::{AtomicU32, Ordering};

/// The bits of a word of a [`NumberSet`].
const BITS: usize = u64::BITS as usize;

/// A set of numbers.
#[derive(Clone, Debug)]
pub(super) struct NumberSet(Vec<u64>);

impl NumberSet {
    /// The set of these numbers below `limit`.
    pub(super) fn new(limit: usize, numbers: impl IntoIterator<Item = usize>) -> Self {
        let mut words = vec![0; limit.div_ceil(BITS)];
        for number in numbers {
            if let Some(word) = words.get_mut(number / BITS) {
                *word |= 1 << (number % BITS);
            }
        }
        Self(words)
    }

    /// Whether the set has a number.
    pub(super) fn has(&self, number: usize) -> bool {
        self.0.get(number / BITS).is_some_and(|word| word >> (number % BITS) & 1 != 0)
    }
}

/// The index of an IP version, and its free numbers.
pub(super) struct Numbers {
    index: Memory<SharedPair>,
    ring: Memory<SharedLine>,
    both: Memory<SharedNumbers>,
    /// The element of `both`.
    at: usize,
    entries: usize,
}

impl Numbers {
    /// The numbers of an IP version with room for this many entries.
    pub(super) fn map(maps: &Maps, version: IpVersion, entries: usize) -> Result<Self, Error> {
        let at = control::straight(version) as usize;
        Ok(Self {
            index: Memory::map(&maps.indexes[at], index::PAIRS as usize)?,
            ring: Memory::map(&maps.free[at], entries.div_ceil(index::CELLS as usize))?,
            both: Memory::map(&maps.numbers, 2)?,
            at,
            entries,
        })
    }

    fn counts(&self) -> &SharedNumbers {
        &self.both.values()[self.at]
    }

    /// The first number that no entry has had.
    pub(super) fn next(&self) -> usize {
        usize::try_from(self.counts().next.load(Ordering::SeqCst)).map_or(self.entries, |next| next.min(self.entries))
    }

    /// The numbers in the ring.
    pub(super) fn free(&self) -> NumberSet {
        let (taken, given) = (self.counts().taken.load(Ordering::SeqCst), self.counts().given.load(Ordering::SeqCst));
        let count = usize::try_from(given.saturating_sub(taken)).map_or(self.entries, |count| count.min(self.entries));
        let places = (0..count).map(|n| self.place(taken.wrapping_add(n as u64)));
        NumberSet::new(self.entries, places.map(|place| place.load(Ordering::Relaxed) as usize))
    }

    /// Clears the cells of entries that are out of use: no program that starts now finds their numbers.
    pub(super) fn clear(&self, numbers: &NumberSet, step: impl Fn()) {
        // All of them at once, because the way from a number to its cell is a search.
        for cell in self.index.values().iter().flat_map(|pair| &pair.0) {
            let word = cell.load(Ordering::Relaxed);
            if index::is_entry(word) && numbers.has(index::number(word) as usize) {
                // Programs write only to empty cells.
                cell.store(index::EMPTY, Ordering::SeqCst);
                step();
            }
        }
    }

    /// Puts a number into the ring. No entry has it, no cell names it, and no program has found it in one.
    pub(super) fn give(&self, number: usize, step: impl Fn()) {
        let given = self.counts().given.load(Ordering::SeqCst);
        self.place(given).store(number as u32, Ordering::Relaxed);
        step();
        // A process that is killed before has changed nothing: a number is in the ring once this counts it.
        self.counts().given.store(given.wrapping_add(1), Ordering::SeqCst);
        step();
    }

    fn place(&self, at: u64) -> &AtomicU32 {
        let at = at as usize % self.entries;
        &self.ring.values()[at / index::CELLS as usize].0[at % index::CELLS as usize]
    }
}

#[cfg(test)]
impl Numbers {
    /// Memory of a test.
    pub(super) fn of_test(entries: usize) -> Self {
        let ring = Memory::of_test(entries.div_ceil(index::CELLS as usize));
        Self { index: Memory::of_test(index::PAIRS as usize), ring, both: Memory::of_test(2), at: 0, entries }
    }

    /// A free number, taken as programs take one.
    pub(super) fn take(&self) -> Option<usize> {
        let (counts, next) = (self.counts(), self.next());
        let taken = counts.taken.load(Ordering::SeqCst);
        if taken < counts.given.load(Ordering::SeqCst) {
            counts.taken.store(taken + 1, Ordering::SeqCst);
            return Some(self.place(taken).load(Ordering::Relaxed) as usize);
        }
        counts.next.store((next + 1).min(self.entries) as u64, Ordering::SeqCst);
        (next < self.entries).then_some(next)
    }

    /// The cells of the index.
    pub(super) fn cells(&self) -> impl Iterator<Item = &AtomicU32> {
        self.index.values().iter().flat_map(|pair| &pair.0)
    }
}
