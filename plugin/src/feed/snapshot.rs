//! The whole state for agents without a table: sorted by workload, so that it compresses to a fraction of what its
//! buckets take. Encoded once, part by part as the first agent needs it, and shared by all.

use super::buckets::Bucket;
use crate::{
    identity::Endpoint,
    wire::{self, BUCKETS},
    zones::Placement,
};
use ipnetwork::IpNetwork;
use prost::bytes::Bytes;
use std::{cmp::Ordering, net::IpAddr, sync::Arc, vec};

/// The size of an update before compression: the compression looks back less far, and more would hold up the store
/// while an update is encoded.
const PIECE_BYTES: usize = 128 << 10;

/// The state at a version.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) version: u64,
    pieces: Vec<Bytes>,
    /// The entries that are not encoded yet.
    prefixes: vec::IntoIter<(IpNetwork, Placement)>,
    identities: vec::IntoIter<(IpAddr, Arc<Endpoint>)>,
}

impl Snapshot {
    /// The state in these buckets.
    pub(super) fn new<'a>(version: u64, buckets: impl Iterator<Item = &'a Bucket> + Clone) -> Self {
        let prefixes = buckets.clone().flat_map(|bucket| &bucket.prefixes);
        let mut prefixes: Vec<_> = prefixes.map(|(prefix, placement)| (*prefix, placement.clone())).collect();
        prefixes.sort_unstable_by(|(a, at_a), (b, at_b)| (&at_a.origin, a).cmp(&(&at_b.origin, b)));
        let identities = buckets.flat_map(|bucket| &bucket.identities);
        let mut identities: Vec<_> = identities.map(|(address, endpoint)| (*address, Arc::clone(endpoint))).collect();
        identities.sort_unstable_by(|(a, of_a), (b, of_b)| by_workload(of_a, of_b).then(a.cmp(b)));
        // The agent may have something nevertheless: all buckets are emptied first.
        let pieces = (0..BUCKETS).map(|index| wire::pack(&Bucket::default().encode(index))).collect();
        Self { version, pieces, prefixes: prefixes.into_iter(), identities: identities.into_iter() }
    }

    /// An update, and whether it is the last one; `None` behind the last one.
    pub(super) fn piece(&mut self, index: usize) -> Option<(Bytes, bool)> {
        while self.pieces.len() <= index {
            let update = wire::encode_some(&mut self.prefixes, &mut self.identities, PIECE_BYTES)?;
            self.pieces.push(wire::pack_well(&update));
            if self.is_encoded() {
                // Frees what the entries were in.
                (self.prefixes, self.identities) = Default::default();
            }
        }
        Some((self.pieces[index].clone(), index + 1 == self.pieces.len() && self.is_encoded()))
    }

    fn is_encoded(&self) -> bool {
        self.prefixes.len() == 0 && self.identities.len() == 0
    }
}

fn by_workload(a: &Endpoint, b: &Endpoint) -> Ordering {
    let key = |endpoint: &Endpoint| (endpoint.namespace.as_ptr(), endpoint.workload.as_ref().map(Arc::as_ptr));
    // Those of a workload mostly share its name.
    if key(a) == key(b) {
        return a.pod.cmp(&b.pod);
    }
    (&a.namespace, &a.workload, &a.pod).cmp(&(&b.namespace, &b.workload, &b.pod))
}
