//! Flows as the ring stores them: encoded once, with the parts that many flows share stored once.
//!
//! Readers get these bytes; filters decode only the few fields that they need, in place.

use crate::proto::{
    flow::{Endpoint, Flow},
    number,
    wire::{Message, len_of_bytes, put_bytes},
};
use ahash::{AHashMap, AHashSet};
use prost::{Message as _, bytes::BufMut};
use prost_types::Timestamp;
use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A flow, encoded.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Separate from the other fields, because the ring may raise it.
    pub(super) time: Option<Time>,
    /// The time is only beside the flow, not in it.
    is_time_beside: bool,
    /// Every other field.
    own: Arc<[u8]>,
    source: Option<Arc<Part>>,
    destination: Option<Arc<Part>>,
    node: Arc<Node>,
    /// The length without the time.
    len: u32,
}

/// A time and its encoded message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub(super) at: Timestamp,
    bytes: [u8; Self::LONGEST],
    len: u8,
}

impl Time {
    /// Two keys and two numbers.
    const LONGEST: usize = 22;

    const fn bytes(&self) -> &[u8] {
        self.bytes.split_at(self.len as usize).0
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        let mut bytes = [0; Self::LONGEST];
        at.encode_raw(&mut bytes.as_mut_slice());
        Self { at, bytes, len: at.encoded_len() as u8 }
    }
}

/// The fields that describe the observing node, equal in all its flows: its name, its labels and the emitter.
#[derive(Debug)]
pub(super) struct Node {
    fields: Arc<Part>,
    /// The name beside the flow, where it differs from the name in the flow.
    beside: Box<str>,
    /// The name as a field of the response that holds the flow.
    in_response: Box<[u8]>,
}

impl Node {
    pub(super) fn new(fields: Arc<Part>) -> Arc<Self> {
        Self::beside(fields, "")
    }

    /// A node with another name beside the flow than in the flow; an empty `beside` means the same name.
    fn beside(fields: Arc<Part>, beside: &str) -> Arc<Self> {
        let mut in_response = Vec::new();
        let name = if beside.is_empty() { fields.message().string(number::flow::NODE_NAME) } else { beside };
        if !name.is_empty() {
            put_bytes(number::getflowsresponse::NODE_NAME, name.as_bytes(), &mut in_response);
        }
        Arc::new(Self { fields, beside: beside.into(), in_response: in_response.into() })
    }
}

/// The fields of the message around a recorded flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// The node's name; empty where there is none.
    pub node_name: String,
    /// When the flow was seen.
    pub time: Option<Timestamp>,
}

/// Encoded bytes that flows share.
#[derive(Debug)]
pub struct Part {
    id: u64,
    bytes: Box<[u8]>,
}

impl Part {
    /// A new part with its own number.
    pub(super) fn new(bytes: Vec<u8>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), bytes: bytes.into() })
    }

    /// A number that is unique to this part.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The part: an encoded endpoint, or fields of a flow.
    pub const fn message(&self) -> Message<'_> {
        Message(&self.bytes)
    }
}

/// Parts are equal if their bytes are.
impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Part {}

impl Hash for Part {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

/// The shared parts of flows from elsewhere: equal parts are stored once.
#[derive(Debug, Default)]
pub struct Parts {
    shared: AHashSet<Arc<Part>>,
    /// By the number of their fields and the name beside the flow.
    nodes: AHashMap<(u64, String), Arc<Node>>,
    /// The number of parts at which parts that no flow uses are dropped.
    limit: usize,
}

impl Parts {
    const LEAST: usize = 1024;

    fn share(&mut self, bytes: Vec<u8>) -> Arc<Part> {
        let part = Part::new(bytes);
        if let Some(shared) = self.shared.get(&part) {
            return Arc::clone(shared);
        }
        if self.shared.len() >= self.limit {
            self.nodes.retain(|_, node| Arc::strong_count(node) > 1);
            self.shared.retain(|part| Arc::strong_count(part) > 1);
            self.limit = Self::LEAST.max(2 * self.shared.len());
        }
        self.shared.insert(Arc::clone(&part));
        part
    }

    fn node(&mut self, bytes: Vec<u8>, beside: &str) -> Arc<Node> {
        let fields = self.share(bytes);
        let is_same = fields.message().string(number::flow::NODE_NAME) == beside;
        let beside = if is_same { "" } else { beside };
        let node = self.nodes.entry((fields.id(), beside.to_owned()));
        Arc::clone(node.or_insert_with_key(|(_, beside)| Node::beside(fields, beside)))
    }
}

impl Encoded {
    /// Encodes a flow from elsewhere.
    pub fn new(flow: Flow, parts: &mut Parts) -> Self {
        Self::recorded(flow, &Beside::default(), parts)
    }

    /// Encodes a flow from elsewhere, with the fields of the message around it.
    pub fn recorded(mut flow: Flow, beside: &Beside, parts: &mut Parts) -> Self {
        let time = flow.time.take();
        let is_time_beside = time.is_none() && beside.time.is_some();
        let mut end = |end: Option<Endpoint>| end.map(|end| parts.share(end.encode_to_vec()));
        let (source, destination) = (end(flow.source.take()), end(flow.destination.take()));
        let node = parts.node(node(&mut flow), &beside.node_name);
        let joined = Self::join(time.or(beside.time), &flow.encode_to_vec(), (source, destination), node);
        Self { is_time_beside, ..joined }
    }

    /// A flow from encoded parts. `own` has every field except the ends, the node's fields and the time.
    pub(super) fn of_parts(
        time: Timestamp,
        own: &[u8],
        source: Arc<Part>,
        destination: Arc<Part>,
        node: Arc<Node>,
    ) -> Self {
        Self::join(Some(time), own, (Some(source), Some(destination)), node)
    }

    fn join(
        time: Option<Timestamp>,
        own: &[u8],
        (source, destination): (Option<Arc<Part>>, Option<Arc<Part>>),
        node: Arc<Node>,
    ) -> Self {
        let end =
            |number, part: &Option<Arc<Part>>| part.as_ref().map_or(0, |part| len_of_bytes(number, part.bytes.len()));
        let ends = end(number::flow::SOURCE, &source) + end(number::flow::DESTINATION, &destination);
        // Flows never come near four gigabytes.
        let len = u32::try_from(own.len() + ends + node.fields.bytes.len()).unwrap_or(u32::MAX);
        let time = time.map(Time::from);
        Self { time, is_time_beside: false, own: own.into(), source, destination, node, len }
    }

    /// The time of the flow.
    pub fn time(&self) -> Option<Timestamp> {
        self.time.as_ref().map(|time| time.at)
    }

    /// The encoded time beside the flow.
    pub fn time_beside(&self) -> Option<Message<'_>> {
        self.time.as_ref().map(|time| Message(time.bytes()))
    }

    /// The encoded time in the flow itself; `None` if the time is only beside the flow.
    pub fn time_message(&self) -> Option<Message<'_>> {
        self.time_beside().filter(|_| !self.is_time_beside)
    }

    /// All fields except the ends, the node's fields and the time.
    pub fn own(&self) -> Message<'_> {
        Message(&self.own)
    }

    /// The encoded source.
    pub fn source(&self) -> Option<&Part> {
        self.source.as_deref()
    }

    /// The encoded destination.
    pub fn destination(&self) -> Option<&Part> {
        self.destination.as_deref()
    }

    /// The fields that describe the observing node: its name, its labels and the emitter.
    pub fn node(&self) -> &Part {
        &self.node.fields
    }

    /// The node's name as an encoded field of the response that holds the flow; empty if there is no name.
    pub fn node_in_response(&self) -> &[u8] {
        &self.node.in_response
    }

    /// The name of the observing node: the name in the flow, or else the name beside it.
    pub fn node_name(&self) -> &str {
        match self.node().message().string(number::flow::NODE_NAME) {
            "" => &self.node.beside,
            name => name,
        }
    }

    /// The length of the output of [`Self::write`].
    pub fn encoded_len(&self) -> usize {
        let time = self.time_message().map_or(0, |time| len_of_bytes(number::flow::TIME, time.0.len()));
        time + self.len as usize
    }

    /// Appends the encoded flow.
    pub fn write(&self, to: &mut impl BufMut) {
        if let Some(time) = self.time_message() {
            put_bytes(number::flow::TIME, time.0, to);
        }
        to.put_slice(&self.own);
        for (number, part) in [(number::flow::SOURCE, self.source()), (number::flow::DESTINATION, self.destination())] {
            if let Some(part) = part {
                put_bytes(number, &part.bytes, to);
            }
        }
        to.put_slice(&self.node.fields.bytes);
    }

    /// The flow, decoded.
    pub fn decode(&self) -> Flow {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        self.write(&mut bytes);
        // Flows that this process encoded can always be decoded.
        Flow::decode(bytes.as_slice()).unwrap_or_default()
    }
}

impl From<Flow> for Encoded {
    fn from(flow: Flow) -> Self {
        Self::new(flow, &mut Parts::default())
    }
}

/// Moves the fields that describe the node out of a flow, and encodes them.
pub(super) fn node(flow: &mut Flow) -> Vec<u8> {
    let (node_name, node_labels) = (std::mem::take(&mut flow.node_name), std::mem::take(&mut flow.node_labels));
    Flow { node_name, node_labels, emitter: flow.emitter.take(), ..Flow::default() }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::{Emitter, Verdict};

    fn flow(uuid: &str) -> Flow {
        let end = |pod: &str| Some(Endpoint { pod_name: pod.into(), ..Endpoint::default() });
        Flow {
            time: Some(Timestamp { seconds: 7, nanos: 9 }),
            uuid: uuid.into(),
            verdict: Verdict::Dropped.into(),
            source: end("a"),
            destination: end("b"),
            node_name: "node-a".into(),
            node_labels: vec!["zone=a".into()],
            emitter: Some(Emitter { name: "Hubble".into(), version: "1".into() }),
            ..Flow::default()
        }
    }

    #[test]
    fn a_flow_comes_out_as_it_went_in() {
        for flow in [flow("u"), Flow::default(), Flow { destination: None, ..flow("v") }] {
            let encoded = Encoded::from(flow.clone());
            let mut bytes = Vec::new();
            encoded.write(&mut bytes);
            assert_eq!(bytes.len(), encoded.encoded_len());
            assert_eq!((encoded.decode(), encoded.node_name()), (flow.clone(), flow.node_name.as_str()));
        }
    }

    #[test]
    fn fields_beside_a_flow_do_not_enter_it() {
        let beside = |name: &str| Beside { node_name: name.into(), time: Some(Timestamp { seconds: 9, nanos: 0 }) };
        let mut parts = Parts::default();
        let bare = Flow { uuid: "u".into(), ..Flow::default() };
        let encoded = Encoded::recorded(bare.clone(), &beside("node-b"), &mut parts);
        assert_eq!((encoded.decode(), encoded.node_name(), encoded.time().unwrap().seconds), (bare, "node-b", 9));
        assert!(encoded.time_message().is_none() && encoded.time_beside().is_some());
        // The name in the flow counts; the name beside the flow stays beside it.
        let encoded = Encoded::recorded(flow("u"), &beside("east/node-a"), &mut parts);
        assert_eq!((encoded.decode(), encoded.node_name(), encoded.time().unwrap().seconds), (flow("u"), "node-a", 7));
        assert!(encoded.node_in_response().ends_with(b"east/node-a"));
        assert!(Encoded::recorded(flow("u"), &beside("node-a"), &mut parts).node_in_response().ends_with(b"node-a"));
    }

    #[test]
    fn any_time_is_encoded() {
        for (seconds, nanos) in [(0, 0), (1_700_000_000, 999_999_999), (-1, 5), (i64::MIN, -1), (i64::MAX, i32::MIN)] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(Time::from(time).bytes(), time.encode_to_vec());
        }
    }

    #[test]
    fn parts_are_shared_and_forgotten_when_nobody_holds_them() {
        let mut parts = Parts::default();
        let (a, b) = (Encoded::new(flow("a"), &mut parts), Encoded::new(flow("b"), &mut parts));
        assert_eq!(a.source().unwrap().id(), b.source().unwrap().id());
        assert_ne!(a.source().unwrap().id(), a.destination().unwrap().id());
        for n in 0..10_000 {
            drop(Encoded::new(Flow { node_name: n.to_string(), ..flow("c") }, &mut parts));
        }
        assert!(parts.shared.len() <= Parts::LEAST + 3, "{}", parts.shared.len());
        assert_eq!(Encoded::new(flow("d"), &mut parts).source().unwrap().id(), a.source().unwrap().id());
    }
}
