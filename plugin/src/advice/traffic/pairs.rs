//! The sums of pairs. Rows of a block are sorted, so hour after hour most pairs follow the same pair as before: each sum
//! knows its successor, and a row that is the successor of the row before it needs no hash and little new memory.

use super::loads::LoadPart;
use indexmap::IndexMap;

/// The limit of pairs. Bytes of further pairs are `left_out`.
pub const MAX_PAIRS: usize = 1 << 18;

/// The ends and the service of some traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PairKey {
    /// The client and the server.
    pub(super) workloads: [u32; 2],
    pub(super) sites: [u32; 2],
    pub(super) service: u32,
    pub(super) port: u16,
    pub(super) protocol: u8,
    /// Whether it is known which end serves. If not, the smaller end is the first.
    pub(super) is_known: bool,
}

impl PairKey {
    /// The same pair from its other end.
    pub(super) const fn turned(self) -> Self {
        let ([a, b], [from, to]) = (self.workloads, self.sites);
        Self { workloads: [b, a], sites: [to, from], ..self }
    }
}

/// The sums of a pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    /// Bytes to the server, and bytes to the client.
    pub(super) bytes: [u64; 2],
    part: LoadPart,
    /// The pair of the next row, after a row to the server and after one to the client.
    next: [u32; 2],
}

/// The pairs with their sums.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    sums: IndexMap<PairKey, Sums, ahash::RandomState>,
    /// The pair and direction of the row before.
    last: Option<(usize, usize)>,
    left_out: u64,
}

impl Pairs {
    /// Adds bytes to the server (direction 0) or to the client (1), and gives the load that they are a part of: that of
    /// `part` for a new pair.
    pub(super) fn add(
        &mut self,
        key: PairKey,
        (direction, bytes): (usize, u64),
        part: impl FnOnce() -> LoadPart,
    ) -> LoadPart {
        let Some(at) = self.successor(&key).or_else(|| self.find(&key)) else {
            return self.insert(key, (direction, bytes), part());
        };
        self.follow(at, direction);
        let sums = &mut self.sums[at];
        sums.bytes[direction] = sums.bytes[direction].saturating_add(bytes);
        sums.part
    }

    /// The pair that came after the last one before, if it is this one.
    fn successor(&self, key: &PairKey) -> Option<usize> {
        let (last, direction) = self.last?;
        let guess = self.sums[last].next[direction] as usize;
        self.sums.get_index(guess).filter(|(other, _)| *other == key).map(|_| guess)
    }

    fn find(&self, key: &PairKey) -> Option<usize> {
        self.sums.get_index_of(key)
    }

    fn insert(&mut self, key: PairKey, (direction, bytes): (usize, u64), part: LoadPart) -> LoadPart {
        if self.sums.len() >= MAX_PAIRS {
            self.left_out = self.left_out.saturating_add(bytes);
            return part;
        }
        let mut sums = Sums { bytes: [0; 2], part, next: [u32::MAX; 2] };
        sums.bytes[direction] = bytes;
        let (at, _) = self.sums.insert_full(key, sums);
        self.follow(at, direction);
        part
    }

    /// Makes a pair the successor of the last one, and the last one of the next row.
    fn follow(&mut self, at: usize, direction: usize) {
        if let Some((last, direction)) = self.last.replace((at, direction)) {
            // There are at most 2^18.
            self.sums[last].next[direction] = at as u32;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PairKey, &Sums)> {
        self.sums.iter()
    }

    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }
}
