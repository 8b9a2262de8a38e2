//! The encoding of a block: a magic word, the version, the SHA-256 of the rest, the rest's length, and the rest
//! compressed with deflate. Numbers are varints, low groups first; rows are stored by column, so that like compresses
//! with like.

use super::block::{Block, Coverage, NodeCoverage, NodeTransfer, Server, Span, Transfer, TransferKey, Workload};
use crate::zones::{Class, Location, Place, Provider, Zone};
use flate2::{Compression, Decompress, FlushDecompress, Status, write::DeflateEncoder};
use meridian_abi::Counter;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use std::{collections::BTreeMap, io::Write, sync::Arc};

const MAGIC: &[u8; 8] = b"mrdnhist";
/// Raised with every change of the encoding.
const VERSION: u8 = 1;
/// The largest encoded block that is read.
pub const MAX_ENCODED: usize = 16 << 20;
/// The largest block before it is compressed.
const MAX_DECODED: usize = 64 << 20;
/// Rows, and values of a list. A value takes far more memory than bytes.
const MAX_ROWS: usize = 1 << 20;
const MAX_LIST: usize = 1 << 18;
/// Bytes of a name. Those of Kubernetes have at most 253, of a provider ID a few hundred.
const MAX_NAME: usize = 1024;
/// Labels of a workload.
const MAX_LABELS: usize = 64;

/// Why bytes are not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Other bytes.
    #[error("it is no block of history")]
    Foreign,
    /// A block of another version.
    #[error("it is of version {0} of the encoding, not of version {VERSION}")]
    Version(u8),
    /// Bytes have changed since it was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is too large.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    /// The content is not that of a block.
    #[error("its {0} make no sense")]
    Content(&'static str),
}

impl Block {
    /// The bytes of the block.
    pub fn encode(&self) -> Vec<u8> {
        pack(&body(self))
    }

    /// The block of these bytes.
    ///
    /// # Errors
    /// They are not the bytes of a block, or have changed.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        if bytes.len() > MAX_ENCODED {
            return Err(Damaged::TooLarge(MAX_ENCODED));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(Damaged::Foreign)?;
        let (sum, checked) = rest.split_at_checked(SHA256_OUTPUT_LEN).ok_or(Damaged::Foreign)?;
        if digest(&SHA256, checked).as_ref() != sum {
            return Err(Damaged::Checksum);
        }
        let (version, rest) = checked.split_first().ok_or(Damaged::Foreign)?;
        if *version != VERSION {
            return Err(Damaged::Version(*version));
        }
        let (length, compressed) = rest.split_first_chunk::<4>().ok_or(Damaged::Foreign)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_DECODED {
            return Err(Damaged::TooLarge(MAX_DECODED));
        }
        read(&inflate(compressed, length)?)
    }
}

/// A body, compressed and sealed.
fn pack(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
    let compressed = encoder.write_all(body).and_then(|()| encoder.finish());
    let mut checked = vec![VERSION];
    checked.extend((body.len() as u32).to_le_bytes());
    checked.extend(compressed.expect("a vector takes any bytes"));
    let mut bytes = MAGIC.to_vec();
    bytes.extend(digest(&SHA256, &checked).as_ref());
    bytes.extend(checked);
    bytes
}

/// Exactly so many bytes. No memory is taken before there are bytes for it.
fn inflate(compressed: &[u8], length: usize) -> Result<Vec<u8>, Damaged> {
    let (mut inflater, mut body) = (Decompress::new(false), Vec::new());
    loop {
        let room = (length - body.len()).clamp(1, 1 << 20);
        body.reserve_exact(room);
        let (read, written) = (inflater.total_in() as usize, body.len());
        let input = compressed.get(read..).ok_or(Damaged::Content("bytes"))?;
        let status = inflater.decompress_vec(input, &mut body, FlushDecompress::None);
        if body.len() > length {
            return Err(Damaged::Content("length"));
        }
        match status {
            Ok(Status::StreamEnd) if body.len() == length => return Ok(body),
            Ok(Status::Ok | Status::BufError) if body.len() > written || inflater.total_in() as usize > read => {}
            _ => return Err(Damaged::Content("bytes")),
        }
    }
}

fn varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    // A name that is too long would make the block unreadable.
    let mut end = text.len().min(MAX_NAME);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    varint(bytes, end as u64);
    bytes.extend(&text.as_bytes()[..end]);
}

fn body(block: &Block) -> Vec<u8> {
    let mut bytes = Vec::new();
    let out = &mut bytes;
    varint(out, block.span.start);
    varint(out, block.span.seconds.into());
    list(out, &block.sites, |out, site| {
        match &site.place {
            Place::Unknown => varint(out, 0),
            Place::Internet => varint(out, 1),
            Place::Zone(zone) => {
                varint(out, 2);
                text(out, &zone.name);
                text(out, &zone.region);
            }
        }
        text(out, site.provider.as_ref().map_or("", Provider::name));
        varint(out, site.class.map_or(0, |class| 1 + class as u64));
    });
    list(out, &block.workloads, |out, workload| {
        text(out, &workload.namespace);
        text(out, &workload.kind);
        text(out, &workload.name);
        varint(out, workload.labels.len().min(MAX_LABELS) as u64);
        for (key, value) in workload.labels.iter().take(MAX_LABELS) {
            text(out, key);
            text(out, value);
        }
    });
    list(out, &block.services, |out, service| text(out, service));
    list(out, &block.coverage.nodes, |out, node| {
        text(out, &node.name);
        text(out, &node.provider_id);
        varint(out, node.reported_seconds.into());
    });
    varint(out, block.coverage.recorded_seconds.into());
    varint(out, block.transfers.len() as u64);
    for column in 0..TRANSFER_COLUMNS {
        let mut last = 0;
        for transfer in &block.transfers {
            let value = transfer_columns(transfer)[column];
            // The first column only grows.
            varint(out, if column == 0 { value - last } else { value });
            last = value;
        }
    }
    varint(out, block.nodes.len() as u64);
    for column in 0..NODE_COLUMNS {
        block.nodes.iter().for_each(|transfer| varint(out, node_columns(transfer)[column]));
    }
    bytes
}

fn list<T>(out: &mut Vec<u8>, values: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    varint(out, values.len() as u64);
    values.iter().for_each(|value| each(out, value));
}

const TRANSFER_COLUMNS: usize = 9;
const NODE_COLUMNS: usize = 5;

fn transfer_columns(Transfer { key, counter }: &Transfer) -> [u64; TRANSFER_COLUMNS] {
    let [source, destination] = key.workloads.map(u64::from);
    let [from, to] = key.sites.map(u64::from);
    let served = u64::from(key.protocol) << 2 | key.server as u64;
    [source, destination, from, to, key.service.into(), key.port.into(), served, counter.bytes, counter.packets]
}

fn node_columns(NodeTransfer { node, is_receiver, sites, counter }: &NodeTransfer) -> [u64; NODE_COLUMNS] {
    let [from, to] = sites.map(u64::from);
    [u64::from(*node) << 1 | u64::from(*is_receiver), from, to, counter.bytes, counter.packets]
}

/// The rest of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let group = u64::from(byte & 0x7f);
            // The tenth byte has one bit.
            if shift == 63 && group > 1 {
                return None;
            }
            number |= group << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.varint()?.try_into().ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length: usize = self.number()?;
        let (text, rest) = self.0.split_at_checked(length).filter(|_| length <= MAX_NAME)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    /// How many things follow, each of at least one byte.
    fn count(&mut self) -> Option<usize> {
        let count: usize = self.number()?;
        (count <= self.0.len() && count <= MAX_LIST).then_some(count)
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count()?;
        // Memory is taken as there are bytes for it.
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(each(self)?);
        }
        Some(values)
    }

    fn span(&mut self) -> Option<Span> {
        Some(Span { start: self.varint()?, seconds: self.number()? })
    }

    fn sites(&mut self) -> Option<Vec<Location>> {
        self.list(|reader| {
            let place = match reader.varint()? {
                0 => Place::Unknown,
                1 => Place::Internet,
                2 => Place::Zone(Arc::new(Zone { name: reader.text()?.into(), region: reader.text()?.into() })),
                _ => return None,
            };
            let provider = match reader.text()? {
                "" => None,
                name => Some(Provider::new(name)?),
            };
            let class = match reader.number::<usize>()? {
                0 => None,
                class => Some(*Class::ALL.get(class - 1)?),
            };
            Some(Location { place, provider, class })
        })
    }

    fn workloads(&mut self) -> Option<Vec<Workload>> {
        self.list(|reader| {
            let [namespace, kind, name] = [reader.text()?, reader.text()?, reader.text()?].map(str::to_owned);
            let mut labels = BTreeMap::new();
            for _ in 0..reader.number::<usize>().filter(|count| *count <= MAX_LABELS)? {
                labels.insert(reader.text()?.to_owned(), reader.text()?.to_owned());
            }
            Some(Workload { namespace, kind, name, labels })
        })
    }

    fn nodes(&mut self) -> Option<Vec<NodeCoverage>> {
        self.list(|reader| {
            let (name, provider_id) = (reader.text()?.to_owned(), reader.text()?.to_owned());
            Some(NodeCoverage { name, provider_id, reported_seconds: reader.number()? })
        })
    }

    /// Rows, read column by column.
    fn rows<T: Copy>(&mut self, empty: T, columns: &[Set<T>], sizes: &Sizes) -> Option<Vec<T>> {
        let count: usize = self.number()?;
        // Each row has a byte in each column.
        if count > MAX_ROWS || count * columns.len() > self.0.len() {
            return None;
        }
        let mut rows = vec![empty; count];
        for set in columns {
            let mut last = 0;
            for row in &mut rows {
                last = set(row, self.varint()?, sizes, last)?;
            }
        }
        Some(rows)
    }
}

/// How long the lists are that rows refer to.
struct Sizes {
    workloads: usize,
    sites: usize,
    services: usize,
    nodes: usize,
}

fn index(value: u64, limit: usize) -> Option<u32> {
    let value = u32::try_from(value).ok()?;
    ((value as usize) < limit).then_some(value)
}

const EMPTY: Transfer = Transfer {
    key: TransferKey { workloads: [0; 2], sites: [0; 2], service: 0, port: 0, protocol: 0, server: Server::Unknown },
    counter: Counter { bytes: 0, packets: 0 },
};

/// Sets a column of a row; gets the value that it returned for the row before.
type Set<T> = fn(&mut T, u64, &Sizes, u64) -> Option<u64>;

/// The columns that rows of both kinds have.
trait Row {
    fn sites(&mut self) -> &mut [u32; 2];
    fn counter(&mut self) -> &mut Counter;
}

impl Row for Transfer {
    fn sites(&mut self) -> &mut [u32; 2] {
        &mut self.key.sites
    }

    fn counter(&mut self) -> &mut Counter {
        &mut self.counter
    }
}

impl Row for NodeTransfer {
    fn sites(&mut self) -> &mut [u32; 2] {
        &mut self.sites
    }

    fn counter(&mut self) -> &mut Counter {
        &mut self.counter
    }
}

fn set_site<R: Row, const END: usize>(row: &mut R, value: u64, sizes: &Sizes, _last: u64) -> Option<u64> {
    row.sites()[END] = index(value, sizes.sites)?;
    Some(0)
}

fn set_bytes<R: Row>(row: &mut R, value: u64, _sizes: &Sizes, _last: u64) -> Option<u64> {
    row.counter().bytes = value;
    Some(0)
}

fn set_packets<R: Row>(row: &mut R, value: u64, _sizes: &Sizes, _last: u64) -> Option<u64> {
    row.counter().packets = value;
    Some(0)
}

const TRANSFER_SETTERS: [Set<Transfer>; TRANSFER_COLUMNS] = [
    |row, value, sizes, last| {
        let value = last.checked_add(value)?;
        row.key.workloads[0] = index(value, sizes.workloads)?;
        Some(value)
    },
    |row, value, sizes, _| index(value, sizes.workloads).map(|value| row.key.workloads[1] = value).map(|()| 0),
    set_site::<_, 0>,
    set_site::<_, 1>,
    |row, value, sizes, _| index(value, sizes.services).map(|value| row.key.service = value).map(|()| 0),
    |row, value, _, _| u16::try_from(value).ok().map(|value| row.key.port = value).map(|()| 0),
    |row, value, _, _| {
        row.key.protocol = u8::try_from(value >> 2).ok()?;
        row.key.server = *Server::ALL.get((value & 3) as usize)?;
        Some(0)
    },
    set_bytes,
    set_packets,
];

const NODE_SETTERS: [Set<NodeTransfer>; NODE_COLUMNS] = [
    |row, value, sizes, _| {
        (row.node, row.is_receiver) = (index(value >> 1, sizes.nodes)?, value & 1 == 1);
        Some(0)
    },
    set_site::<_, 0>,
    set_site::<_, 1>,
    set_bytes,
    set_packets,
];

/// The bytes or packets, whichever are more, if their sum is a number.
fn sum(mut counters: impl Iterator<Item = Counter>) -> Option<u64> {
    counters.try_fold(0_u64, |sum, counter| sum.checked_add(counter.bytes.max(counter.packets)))
}

fn read(body: &[u8]) -> Result<Block, Damaged> {
    let mut reader = Reader(body);
    let span = reader.span().filter(|span| span.is_whole()).ok_or(Damaged::Content("times"))?;
    let sites = reader.sites().ok_or(Damaged::Content("sites"))?;
    let workloads = reader.workloads().ok_or(Damaged::Content("workloads"))?;
    let services = reader.list(|reader| reader.text().map(str::to_owned)).ok_or(Damaged::Content("services"))?;
    let nodes = reader.nodes().ok_or(Damaged::Content("nodes"))?;
    let recorded_seconds = reader.number().ok_or(Damaged::Content("seconds"))?;
    let coverage = Coverage { recorded_seconds, nodes };
    let sizes =
        Sizes { workloads: workloads.len(), sites: sites.len(), services: services.len(), nodes: coverage.nodes.len() };
    let transfers = reader.rows(EMPTY, &TRANSFER_SETTERS, &sizes).ok_or(Damaged::Content("rows"))?;
    let empty = NodeTransfer { node: 0, is_receiver: false, sites: [0; 2], counter: Counter::default() };
    let nodes = reader.rows(empty, &NODE_SETTERS, &sizes).ok_or(Damaged::Content("rows of nodes"))?;
    let sums = [sum(transfers.iter().map(|row| row.counter)), sum(nodes.iter().map(|row| row.counter))];
    if sums.contains(&None) {
        return Err(Damaged::Content("sums"));
    }
    if !reader.0.is_empty() {
        return Err(Damaged::Content("last bytes"));
    }
    Ok(Block { span, workloads, sites, services, transfers, nodes, coverage })
}

#[cfg(test)]
mod tests;
