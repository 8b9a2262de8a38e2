//! Random changes of an input: bits, bytes, numbers at their limits, parts that are removed, repeated, or come from
//! another input.

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Numbers at which code changes its mind, as varints and as fixed numbers.
const LIMITS: [u64; 10] = [0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 60, i64::MAX as u64, u64::MAX];
/// Texts at which parsers change their mind.
const TEXTS: [&str; 14] = ["\"", "\\", "{", "}", "[", "]", ": ", "\n- ", "&a ", "*a", "/0", "::", "1e308", "\u{202e}"];

/// Makes inputs, the same for the same seed.
pub struct Mutator {
    random: StdRng,
    largest: usize,
}

impl Mutator {
    pub fn new(seed: u64, largest: usize) -> Self {
        Self { random: StdRng::seed_from_u64(seed), largest }
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        self.random.random_range(0..len)
    }

    /// A changed copy of an input, perhaps with parts of another one.
    pub fn mutate(&mut self, input: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..self.random.random_range(1..=4) {
            self.change(&mut bytes, others);
        }
        bytes.truncate(self.largest);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.random.random_range(0..=bytes.len());
        let end = self.random.random_range(at..=bytes.len().min(at + 64));
        match self.random.random_range(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = self.random.random(),
            2 => drop(bytes.splice(at..end, [])),
            3 => {
                let part = bytes[at..end].repeat(self.random.random_range(1..=16));
                drop(bytes.splice(at..at, part));
            }
            4 => {
                let number = LIMITS[self.random.random_range(0..LIMITS.len())];
                let mut encoded = Vec::new();
                if self.random.random() {
                    prost::encoding::encode_varint(number, &mut encoded);
                } else {
                    encoded = number.to_string().into_bytes();
                }
                drop(bytes.splice(at..end.min(at + encoded.len()), encoded));
            }
            5 => {
                let text = TEXTS[self.random.random_range(0..TEXTS.len())];
                drop(bytes.splice(at..at, text.bytes()));
            }
            6 => {
                let other = &others[self.random.random_range(0..others.len())];
                let from = self.random.random_range(0..=other.len());
                let to = self.random.random_range(from..=other.len().min(from + 256));
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ => bytes.truncate(at),
        }
    }
}
