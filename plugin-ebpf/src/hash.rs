//! The hashes of flow keys, which name cells of the index, and of addresses.

use meridian_abi::{
    flow::{FlowKey, V4, V6},
    settings::HASH_KEYS,
};

/// Odd, and without a pattern in its bits: the fraction of e.
const ODD: u64 = 0xb7e1_5162_8aed_2a6b;

/// The secret key of the hashes. Nobody who does not know it can choose flow keys of one hash.
pub type Keys = [u32; HASH_KEYS];

/// A flow key that can be hashed.
pub trait Hash {
    /// The hash: NH (the family of UMAC, RFC 4418) over the words of the key, and a mix of its bits. The products do not
    /// wait for one another.
    fn hash(&self, keys: &Keys) -> u64;
}

/// The product of two words of a key, each with its word of the secret.
#[inline(always)]
fn product(keys: &Keys, at: usize, first: u32, second: u32) -> u64 {
    first.wrapping_add(keys[at]) as u64 * second.wrapping_add(keys[at + 1]) as u64
}

/// Spreads the sum's upper bits, which depend on all words, over the whole hash.
#[inline(always)]
fn mix(sum: u64) -> u64 {
    let product = (sum ^ sum >> 32).wrapping_mul(ODD);
    product ^ product >> 32
}

/// The hash of an address, as an event has it.
#[inline(always)]
pub fn address(keys: &Keys, [a, b, c, d]: [u32; 4]) -> u64 {
    mix(product(keys, 0, a, b).wrapping_add(product(keys, 2, c, d)))
}

#[inline(always)]
fn rest<A>(key: &FlowKey<A>) -> u32 {
    (key.service_port as u32) << 16 | (key.protocol as u32) << 8 | key.side_and_path.byte() as u32
}

impl Hash for FlowKey<V4> {
    #[inline(always)]
    fn hash(&self, keys: &Keys) -> u64 {
        let addresses = product(keys, 0, self.source.0, self.destination.0);
        mix(addresses.wrapping_add(product(keys, 2, rest(self), 0)))
    }
}

impl Hash for FlowKey<V6> {
    #[inline(always)]
    fn hash(&self, keys: &Keys) -> u64 {
        let V6([a, b, c, d]) = self.source;
        let V6([e, f, g, h]) = self.destination;
        let source = product(keys, 0, a, b).wrapping_add(product(keys, 2, c, d));
        let destination = product(keys, 4, e, f).wrapping_add(product(keys, 6, g, h));
        mix(source.wrapping_add(destination).wrapping_add(product(keys, 8, rest(self), 0)))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use meridian_abi::{
        flow::{PacketPath, ServiceSide, SideAndPath},
        index,
    };
    use std::{vec, vec::Vec};

    const KEYS: Keys = [
        0x243f_6a88,
        0x85a3_08d3,
        0x1319_8a2e,
        0x0370_7344,
        0xa409_3822,
        0x299f_31d0,
        0x082e_fa98,
        0xec4e_6c89,
        0x4528_21e6,
        0x38d0_1377,
    ];

    /// How many of the keys find no cell in an index.
    fn left_out<K: Hash>(keys: impl Iterator<Item = K>) -> usize {
        let mut taken = vec![false; (index::PAIRS * 2) as usize];
        let place = |key: K| {
            let hash = key.hash(&KEYS);
            let mut cells = (0..2 * index::PROBES).map(|probe| index::pair(hash, probe / 2) * 2 + probe % 2);
            cells.find(|cell| !std::mem::replace(&mut taken[*cell as usize], true)).is_none()
        };
        keys.map(place).filter(|left_out| *left_out).count()
    }

    fn key<A>(source: A, destination: A, service_port: u16) -> FlowKey<A> {
        let side_and_path = SideAndPath::new(ServiceSide::Destination, PacketPath::Sent);
        FlowKey { source, destination, service_port, protocol: 6, side_and_path }
    }

    #[test]
    fn keys_as_clusters_have_them_fill_a_table_and_hardly_one_finds_no_cell() {
        let pods: Vec<u32> = (0..362).map(|n: u32| u32::from_ne_bytes([10, 0, (n / 2) as u8, (n % 2) as u8])).collect();
        let v4 = pods.iter().flat_map(|from| pods.iter().map(|to| key(V4(*from), V4(*to), 8080)));
        assert!(left_out(v4) < 131);
        let v6 = |word: u32| V6([0xfd00_u32.to_be(), 0, 0, word]);
        let v6 = pods.iter().flat_map(|from| pods.iter().map(|to| key(v6(*from), v6(*to), 8080)));
        assert!(left_out(v6) < 131);
        let ports = |pods: [u32; 2]| (0..65_535).map(move |port| key(V4(pods[0]), V4(pods[1]), port));
        assert!(left_out(ports([pods[0], pods[1]]).chain(ports([pods[1], pods[0]]))) < 131);
        assert_eq!(left_out(ports([pods[0], pods[1]])), 0, "half of a table");
    }
}
