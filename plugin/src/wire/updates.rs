//! Changes of the table and of endpoints as the feed's messages, and back.

use super::zones;
use crate::{
    identity::{Endpoint, Pool, Workload},
    proto::v1::{self, Prefix, Update},
    zones::{Place, Placement, Zone},
};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use ipnetwork::IpNetwork;
use meridian_abi::zone::PrefixKind;
use prost::{Message, bytes::Bytes};
use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read, Write},
    net::IpAddr,
    sync::Arc,
    time::SystemTime,
};

/// The number of buckets that addresses are divided into.
pub const BUCKETS: usize = 1024;

/// Changes of the table and of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changes of prefixes.
    pub zones: Vec<crate::zones::Change>,
    /// Changes of addresses.
    pub identities: Vec<crate::identity::Change>,
}

impl Changes {
    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.identities.is_empty()
    }
}

/// A malformed message of the feed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not a prefix, or a prefix with host bits set.
    #[error("`{0}` is not a prefix")]
    Prefix(String),
    /// Not an address.
    #[error("`{0}` is not an address")]
    Address(String),
    /// A kind of prefix that the feed does not send.
    #[error("prefix {0} is of the kind `{1}`")]
    Kind(String, String),
    /// A bucket number out of range.
    #[error("there is no bucket {0}")]
    Bucket(u32),
    /// Bytes that can't be decoded as a message.
    #[error("{0}")]
    Malformed(#[from] prost::DecodeError),
    /// Bytes that can't be decompressed, or that are too large when decompressed.
    #[error("an update can't be unpacked: {0}")]
    Packed(#[from] io::Error),
    /// More than an update may be.
    #[error("an update is larger than {UPDATE_BYTES} bytes, unpacked")]
    TooLarge,
}

/// The most bytes of an update when decompressed. A bucket of a table of a million addresses takes a quarter of it.
const UPDATE_BYTES: u64 = 16 << 20;
/// The maximum size of an update that we send, before compression: far below the limits of a receiver for a message
/// (4 MiB) and an update. A bucket of a million addresses' state is a quarter of it.
pub const PIECE_BYTES: usize = 1 << 20;

/// Compresses an update for sending. Names repeat, so it compresses well.
pub fn pack(update: &[u8]) -> Bytes {
    packed(update, Compression::fast())
}

/// The same for an update that thousands of agents receive, in a few times the time.
pub fn pack_well(update: &[u8]) -> Bytes {
    packed(update, Compression::default())
}

fn packed(update: &[u8], level: Compression) -> Bytes {
    let mut packed = DeflateEncoder::new(Vec::new(), level);
    // Writing to a Vec can't fail.
    let _ = packed.write_all(update);
    Bytes::from(packed.finish().unwrap_or_default().into_boxed_slice())
}

/// Decompresses an update.
pub fn unpack(packed: &[u8]) -> Result<Update, WireError> {
    let mut update = Vec::new();
    if !packed.is_empty() {
        DeflateDecoder::new(packed).take(UPDATE_BYTES + 1).read_to_end(&mut update)?;
    }
    if update.len() as u64 > UPDATE_BYTES {
        return Err(WireError::TooLarge);
    }
    Ok(Update::decode(update.as_slice())?)
}

/// Encodes an update with the contents of a bucket. It replaces the bucket if `bucket` is set, and otherwise only
/// adds to the table.
pub fn encode_bucket(
    bucket: Option<u32>,
    prefixes: &BTreeMap<IpNetwork, Placement>,
    identities: &BTreeMap<IpAddr, Arc<Endpoint>>,
) -> Vec<u8> {
    let update = Update {
        bucket,
        prefixes: prefixes.iter().map(|(prefix, placement)| zones::prefix(prefix, placement)).collect(),
        endpoints: identities.iter().map(|(address, endpoint)| zones::endpoint_message(*address, endpoint)).collect(),
        ..Update::default()
    };
    update.encode_to_vec()
}

/// The updates that together replace a bucket by this content, each of at most [`PIECE_BYTES`]: the first
/// replaces, the others add. A larger item can't be sent and is left out.
pub fn encode_pieces(
    bucket: u32,
    prefixes: &BTreeMap<IpNetwork, Placement>,
    identities: &BTreeMap<IpAddr, Arc<Endpoint>>,
) -> Vec<Vec<u8>> {
    let mut pieces = Pieces { open: Update { bucket: Some(bucket), ..Update::default() }, bytes: 0, done: Vec::new() };
    for (prefix, placement) in prefixes {
        let prefix = zones::prefix(prefix, placement);
        if pieces.has_room(prefix.encoded_len()) {
            pieces.open.prefixes.push(prefix);
        }
    }
    for (address, endpoint) in identities {
        let endpoint = zones::endpoint_message(*address, endpoint);
        if pieces.has_room(endpoint.encoded_len()) {
            pieces.open.endpoints.push(endpoint);
        }
    }
    pieces.done.push(pieces.open.encode_to_vec());
    pieces.done
}

/// An update that adds the next entries, of about `limit` bytes; `None` if there are none. A larger entry than
/// [`PIECE_BYTES`] can't be sent and is left out.
pub fn encode_some(
    prefixes: &mut impl Iterator<Item = (IpNetwork, Placement)>,
    identities: &mut impl Iterator<Item = (IpAddr, Arc<Endpoint>)>,
    limit: usize,
) -> Option<Vec<u8>> {
    let (mut update, mut bytes, mut has_any) = (Update::default(), 0, false);
    while bytes < limit {
        if let Some((prefix, placement)) = prefixes.next() {
            let prefix = zones::prefix(&prefix, &placement);
            let entry = prefix.encoded_len();
            if is_sendable(entry) {
                bytes += entry;
                update.prefixes.push(prefix);
            }
        } else if let Some((address, endpoint)) = identities.next() {
            let endpoint = zones::endpoint_message(address, &endpoint);
            let entry = endpoint.encoded_len();
            if is_sendable(entry) {
                bytes += entry;
                update.endpoints.push(endpoint);
            }
        } else {
            break;
        }
        has_any = true;
    }
    has_any.then(|| update.encode_to_vec())
}

/// The tag and the length of an entry of an update, and of an update's bucket, at most.
const FRAME_BYTES: usize = 8;

/// Whether an entry of this size has room in an update.
fn is_sendable(entry: usize) -> bool {
    let is_sendable = entry + 2 * FRAME_BYTES <= PIECE_BYTES;
    if !is_sendable {
        tracing::error!(bytes = entry, "an entry of the table is too large to be sent");
    }
    is_sendable
}

struct Pieces {
    open: Update,
    bytes: usize,
    done: Vec<Vec<u8>>,
}

impl Pieces {
    /// Makes room for an entry of this size; `false` if no update has it.
    fn has_room(&mut self, entry: usize) -> bool {
        if !is_sendable(entry) {
            return false;
        }
        let entry = entry + FRAME_BYTES;
        if self.bytes + entry + FRAME_BYTES > PIECE_BYTES {
            self.done.push(std::mem::take(&mut self.open).encode_to_vec());
            self.bytes = 0;
        }
        self.bytes += entry;
        true
    }
}

/// The update of changes.
pub fn encode_changes(changes: &Changes) -> Vec<u8> {
    let mut update = Update::default();
    for (prefix, placement) in &changes.zones {
        match placement {
            Some(placement) => update.prefixes.push(zones::prefix(prefix, placement)),
            None => update.removed_prefixes.push(prefix.to_string()),
        }
    }
    for (address, endpoint) in &changes.identities {
        match endpoint {
            Some(endpoint) => update.endpoints.push(zones::endpoint_message(*address, endpoint)),
            None => update.removed_addresses.push(address.to_string()),
        }
    }
    update.encode_to_vec()
}

/// Decodes updates. Names that repeat share one copy.
#[derive(Debug, Default)]
pub struct Reader {
    zones: HashSet<Arc<Zone>>,
    pool: Pool,
}

impl Reader {
    /// The changes in an update, and the bucket that it replaces.
    pub fn read(&mut self, update: Update) -> Result<(Option<usize>, Changes), WireError> {
        let bucket = update.bucket.map(|index| {
            let known = usize::try_from(index).ok().filter(|index| *index < BUCKETS);
            known.ok_or(WireError::Bucket(index))
        });
        let mut changes = Changes::default();
        for prefix in update.prefixes {
            let (network, placement) = self.placement(prefix)?;
            changes.zones.push((network, Some(placement)));
        }
        for message in update.endpoints {
            let address = address(&message.address)?;
            let endpoint = self.pool.endpoint(endpoint(message));
            changes.identities.push((address, Some(Arc::new(endpoint))));
        }
        for prefix in update.removed_prefixes {
            changes.zones.push((network(&prefix)?, None));
        }
        for removed in update.removed_addresses {
            changes.identities.push((address(&removed)?, None));
        }
        Ok((bucket.transpose()?, changes))
    }

    fn placement(&mut self, prefix: Prefix) -> Result<(IpNetwork, Placement), WireError> {
        let network = network(&prefix.cidr)?;
        let kind = match prefix.kind.as_str() {
            "cluster" => PrefixKind::Cluster,
            "external" => PrefixKind::External,
            _ => return Err(WireError::Kind(prefix.cidr, prefix.kind)),
        };
        let place = match prefix.zone.as_str() {
            "unknown" | "" => Place::Unknown,
            _ => {
                let zone = Zone { name: prefix.zone, region: prefix.region };
                let known = self.zones.get(&zone).cloned();
                Place::Zone(known.unwrap_or_else(|| {
                    let zone = Arc::new(zone);
                    self.zones.insert(Arc::clone(&zone));
                    zone
                }))
            }
        };
        Ok((network, Placement { place, kind, origin: prefix.origin.into() }))
    }
}

fn network(text: &str) -> Result<IpNetwork, WireError> {
    let parsed: Option<IpNetwork> = text.parse().ok();
    parsed.filter(|prefix| prefix.ip() == prefix.network()).ok_or_else(|| WireError::Prefix(text.to_owned()))
}

fn address(text: &str) -> Result<IpAddr, WireError> {
    text.parse().map_err(|_| WireError::Address(text.to_owned()))
}

fn endpoint(message: v1::Endpoint) -> Endpoint {
    let labels = message.labels.iter().filter_map(|label| label.split_once('='));
    let (kind, name) = (message.workload_kind, message.workload);
    Endpoint {
        labels: Arc::new(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        namespace: message.namespace.into(),
        pod: message.pod.into(),
        workload: (!kind.is_empty()).then(|| Arc::new(Workload { kind, name })),
        services: message.services.into(),
        node: message.node.into(),
        since: message.since.and_then(|since| SystemTime::try_from(since).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> Place {
        Place::Zone(Arc::new(Zone { name: name.into(), region: "eu-1".into() }))
    }

    #[test]
    fn a_message_arrives_as_sent() {
        let placement = |place, kind, origin: &str| Some(Placement { place, kind, origin: origin.into() });
        let endpoint = Endpoint {
            namespace: "shop".into(),
            pod: "cart-0".into(),
            workload: Some(Arc::new(Workload { kind: "StatefulSet".into(), name: "cart".into() })),
            labels: Arc::new([("app".to_owned(), "cart=1".to_owned()), ("tier".to_owned(), String::new())].into()),
            services: ["cart".to_owned()].into(),
            node: "node-a".into(),
            since: Some(SystemTime::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 5)),
        };
        let changes = Changes {
            zones: vec![
                ("10.0.1.0/24".parse().unwrap(), placement(zone("eu-1a"), PrefixKind::Cluster, "Node a")),
                ("fd00::1/128".parse().unwrap(), placement(Place::Unknown, PrefixKind::Cluster, "Node b")),
                ("10.9.0.0/16".parse().unwrap(), placement(zone("eu-1b"), PrefixKind::External, "external db")),
                ("10.0.2.0/24".parse().unwrap(), None),
            ],
            identities: vec![
                ("10.0.1.7".parse().unwrap(), Some(Arc::new(endpoint))),
                ("10.0.0.1".parse().unwrap(), Some(Arc::new(Endpoint::node("node-a")))),
                ("fd00::9".parse().unwrap(), None),
            ],
        };
        let update = unpack(&pack(&encode_changes(&changes))).unwrap();
        assert_eq!(Reader::default().read(update).unwrap(), (None, changes));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let read = |update| Reader::default().read(update).unwrap_err().to_string();
        let prefix = |cidr: &str, kind: &str| Prefix { cidr: cidr.into(), kind: kind.into(), ..Prefix::default() };
        let of = |prefix| Update { prefixes: vec![prefix], ..Update::default() };
        assert_eq!(read(of(prefix("10.0.0.1/24", "cluster"))), "`10.0.0.1/24` is not a prefix");
        assert_eq!(read(of(prefix("10.0.0.0/24", "default"))), "prefix 10.0.0.0/24 is of the kind `default`");
        assert_eq!(read(Update { removed_addresses: vec!["x".into()], ..Update::default() }), "`x` is not an address");
        assert_eq!(read(Update { bucket: Some(1024), ..Update::default() }), "there is no bucket 1024");
        assert!(unpack(b"nonsense").unwrap_err().to_string().starts_with("an update can't be unpacked"));
        // Zeros compress well: decompressing stops at the limit.
        let bomb = pack(&vec![0; 20 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(unpack(&bomb).unwrap_err().to_string(), "an update is larger than 16777216 bytes, unpacked");
    }
}
