//! The division of addresses into buckets, and the digest of a bucket.

use crate::{
    fnv::fnv1a,
    identity::Endpoint,
    wire::{self, BUCKETS},
    zones::Placement,
};
use ipnetwork::IpNetwork;
use ring::digest::{SHA256, digest};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Identifies the contents of a bucket.
pub type Digest = [u8; 16];

/// The bucket of an address, or of a prefix by its network address: FNV-1a over the bytes.
pub fn bucket(address: IpAddr) -> usize {
    let hash = match address {
        IpAddr::V4(v4) => fnv1a(v4.octets()),
        IpAddr::V6(v6) => fnv1a(v6.octets()),
    };
    hash as usize % BUCKETS
}

/// The contents of a bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    pub(super) prefixes: BTreeMap<IpNetwork, Placement>,
    pub(super) identities: BTreeMap<IpAddr, Arc<Endpoint>>,
}

impl Bucket {
    /// Encodes the update that replaces a bucket by this one.
    pub(super) fn encode(&self, index: usize) -> Vec<u8> {
        wire::encode_bucket(Some(index as u32), &self.prefixes, &self.identities)
    }

    /// The updates that replace a bucket by this one, none larger than an agent takes.
    pub(super) fn pieces(&self, index: usize) -> Vec<Vec<u8>> {
        wire::encode_pieces(index as u32, &self.prefixes, &self.identities)
    }

    /// The update that adds the contents of this bucket.
    pub(super) fn encode_added(&self) -> Vec<u8> {
        wire::encode_bucket(None, &self.prefixes, &self.identities)
    }
}

/// The digest of an encoded bucket.
pub(super) fn digest_of(encoded: &[u8]) -> Digest {
    let mut short = Digest::default();
    short.copy_from_slice(&digest(&SHA256, encoded).as_ref()[..size_of::<Digest>()]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_prefix_spread_over_the_buckets() {
        let mut filled = [0; BUCKETS];
        for n in 0..150_000u32 {
            filled[bucket(IpAddr::from((0x0a00_0000 + n).to_be_bytes()))] += 1;
        }
        let (least, most) = (filled.iter().min().unwrap(), filled.iter().max().unwrap());
        assert!(*least > 50 && *most < 400, "{least} to {most}");
    }
}
