//! Where the search for a flow entry begins.

use meridian_abi::flow::{FlowKey, V4, V6};

/// Odd, and without a pattern in their bits: the fractions of the golden ratio and of e.
const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
const SECOND: u64 = 0xb7e1_5162_8aed_2a6b;

/// A key that can be hashed.
pub trait Hash {
    /// The hash. Who does not know the seed can't choose keys of one hash.
    fn hash(&self, seed: u64) -> u64;
}

/// Neighbours that are looked at together.
const RUN: u32 = 4;

/// The slot to look at after `probe` others, of a table with `mask` + 1 slots: a run of neighbours,
/// which are in the same lines of the cache, then another run elsewhere, because full neighbourhoods
/// grow.
#[inline(always)]
pub const fn slot(hash: u64, probe: u32, mask: u32) -> u32 {
    let (start, step) = (hash as u32, (hash >> 32) as u32);
    start.wrapping_add((probe / RUN).wrapping_mul(step)).wrapping_add(probe % RUN) & mask
}

#[inline(always)]
fn words(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(FIRST);
    product ^ product >> 32
}

#[inline(always)]
fn end(hash: u64) -> u64 {
    let product = hash.wrapping_mul(SECOND);
    product ^ product >> 32
}

#[inline(always)]
fn rest<A>(key: &FlowKey<A>) -> u64 {
    (key.service_port as u64) << 16 | (key.protocol as u64) << 8 | key.side_and_path.byte() as u64
}

impl Hash for FlowKey<V4> {
    #[inline(always)]
    fn hash(&self, seed: u64) -> u64 {
        end(mix(mix(seed, words(self.source.0, self.destination.0)), rest(self)))
    }
}

impl Hash for FlowKey<V6> {
    #[inline(always)]
    fn hash(&self, seed: u64) -> u64 {
        let V6([a, b, c, d]) = self.source;
        let V6([e, f, g, h]) = self.destination;
        let addresses = mix(mix(mix(mix(seed, words(a, b)), words(c, d)), words(e, f)), words(g, h));
        end(mix(addresses, rest(self)))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use meridian_abi::flow::{PROBES, PacketPath, ServiceSide, SideAndPath};
    use std::{vec, vec::Vec};

    /// How many of the keys find no slot in a table.
    fn left_out<K: Hash>(keys: impl Iterator<Item = K>, slots: usize) -> usize {
        let mut taken = vec![false; slots];
        let place = |key: K| {
            let hash = key.hash(0x1234_5678_9abc_def0);
            let mut probes = (0..PROBES).map(|probe| slot(hash, probe, slots as u32 - 1) as usize);
            probes.find(|slot| !std::mem::replace(&mut taken[*slot], true)).is_none()
        };
        keys.map(place).filter(|left_out| *left_out).count()
    }

    fn key<A>(source: A, destination: A, service_port: u16) -> FlowKey<A> {
        let side_and_path = SideAndPath::new(ServiceSide::Destination, PacketPath::Sent);
        FlowKey { source, destination, service_port, protocol: 6, side_and_path }
    }

    #[test]
    fn keys_as_clusters_have_them_fill_half_of_a_table_and_hardly_one_is_left_out() {
        let pods: Vec<u32> = (0..256).map(|n| u32::from_be_bytes([10, 0, n as u8, 7]).to_be()).collect();
        let v4 = pods.iter().flat_map(|from| pods.iter().map(|to| key(V4(*from), V4(*to), 8080)));
        assert!(left_out(v4, 131_072) < 8);
        let v6 = |word: u32| V6([0xfd00_u32.to_be(), 0, 0, word]);
        let v6 = pods.iter().flat_map(|from| pods.iter().map(|to| key(v6(*from), v6(*to), 8080)));
        assert!(left_out(v6, 131_072) < 8);
        let ports = (0..65_535).map(|port| key(V4(pods[0]), V4(pods[1]), port));
        assert!(left_out(ports, 131_072) < 8);
    }

    #[test]
    fn a_table_of_64_slots_can_be_filled() {
        let keys = (0..10_000).map(|port| key(V4(1), V4(2), port));
        assert_eq!(left_out(keys, 64), 10_000 - 64);
    }
}
