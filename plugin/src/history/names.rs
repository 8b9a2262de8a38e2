//! Values with numbers, in the order in which they came.

use indexmap::{Equivalent, IndexSet};
use std::{borrow::Borrow, hash::Hash, ops::Index};

/// Values with numbers.
#[derive(Clone, Debug)]
pub struct Names<T>(IndexSet<T, ahash::RandomState>);

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(IndexSet::default())
    }
}

impl<T: Eq + Hash> Names<T> {
    /// The number of a value, which is added if it is new.
    pub fn number<Q>(&mut self, value: &Q) -> u32
    where
        T: Borrow<Q>,
        Q: ToOwned<Owned = T> + Eq + Hash + Equivalent<T> + ?Sized,
    {
        self.find(value).unwrap_or_else(|| self.0.insert_full(value.to_owned()).0 as u32)
    }

    /// The number of a value, if it has one.
    pub fn find<Q: Hash + Equivalent<T> + ?Sized>(&self, value: &Q) -> Option<u32> {
        // A block and a range of blocks have fewer than 2^32 values: their rows are bounded.
        self.0.get_index_of(value).map(|number| number as u32)
    }
}

impl<T> Names<T> {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values, by number.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<u32> for Names<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.0[number as usize]
    }
}

impl<T: Clone + Ord> Names<T> {
    /// The values that are used, sorted, and the new number of each old one.
    pub(super) fn sorted(&self, used: impl Iterator<Item = u32>) -> (Vec<T>, Vec<u32>) {
        let mut is_used = vec![false; self.len()];
        used.for_each(|number| is_used[number as usize] = true);
        let mut order: Vec<u32> = (0..self.len() as u32).filter(|number| is_used[*number as usize]).collect();
        order.sort_by(|a, b| self[*a].cmp(&self[*b]));
        let mut numbers = vec![0; self.len()];
        order.iter().zip(0..).for_each(|(old, new)| numbers[*old as usize] = new);
        (order.iter().map(|old| self[*old].clone()).collect(), numbers)
    }
}
