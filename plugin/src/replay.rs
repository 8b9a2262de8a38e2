//! Reads flow logs: JSON as Hubble's exporter and `hubble observe --output jsonpb` write it, and as collectors store
//! it.
//!
//! A log may be compressed, in UTF-16, an array, indented, or have a container runtime's prefix before each line; a
//! flow may be in a field of a collector's object. Everything that is not a flow is left out, with a reason. Memory is
//! bounded, regardless of a file's contents.

mod copies;
mod cut;
mod known;
mod order;
mod parts;
mod piece;
mod quoting;
mod reason;
mod scan;
mod unpack;

pub use known::Unknown;
pub use order::Order;
pub use reason::Reason;

use crate::{
    flows::{Beside, Encoded, Lost, Parts, Record},
    proto::{
        POOL,
        flow::{AgentEvent, DebugEvent, Flow, LostEvent, LostEventSource},
        observer::{GetAgentEventsResponse, GetDebugEventsResponse},
    },
};
use copies::Copies;
use cut::CutLines;
use known::decode;
use piece::Piece;
use prost_reflect::MessageDescriptor;
use prost_types::{Any, Timestamp};
use scan::Scanner;
use serde_json::{Map, Value};
use std::io::{self, ErrorKind, Read};

/// The limit of nested strings with JSON: one collector's line inside another one's.
const TEXTS: usize = 3;

/// Parses flow logs.
#[derive(Debug)]
pub struct Reader {
    flow: MessageDescriptor,
    endpoint: MessageDescriptor,
    lost: MessageDescriptor,
    agent_event: MessageDescriptor,
    debug_event: MessageDescriptor,
    node_status: MessageDescriptor,
    parts: Parts,
    unknown: Unknown,
    copies: Copies,
}

/// The content of a text.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Text {
    NotJson,
    NoFlow,
    Flows,
}

/// An entry of a log.
#[derive(Debug)]
pub enum Line {
    /// A flow or a loss.
    Record(Record),
    /// An event of Cilium's agent.
    Agent(GetAgentEventsResponse),
    /// A debug event of Cilium's agent.
    Debug(GetDebugEventsResponse),
    /// Something left out: the reason, and the details.
    Left(Reason, String),
}

impl Reader {
    /// A reader for the messages of this build.
    ///
    /// # Panics
    /// The build's descriptors are incomplete; a test decodes them.
    #[expect(clippy::expect_used, reason = "the build made them")]
    pub fn new() -> Self {
        let message = |name: &str| POOL.get_message_by_name(name).expect("a message of the build");
        Self {
            flow: message("flow.Flow"),
            endpoint: message("flow.Endpoint"),
            lost: message("flow.LostEvent"),
            agent_event: message("flow.AgentEvent"),
            debug_event: message("flow.DebugEvent"),
            node_status: message("relay.NodeStatusEvent"),
            parts: Parts::default(),
            unknown: Unknown::default(),
            copies: Copies::default(),
        }
    }

    /// Fields and values that were left out of flows because this build does not have them.
    pub const fn unknown(&self) -> &Unknown {
        &self.unknown
    }

    /// Calls `visit` with each entry of a file and its line number, from 1.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&mut self, from: impl Read, mut visit: impl FnMut(u64, Line)) -> io::Result<()> {
        let text = match unpack::text(from) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                visit(1, Line::Left(Reason::Packed, error.to_string()));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (mut scanner, mut reported, mut cut) = (Scanner::new(text), 0, CutLines::new());
        loop {
            let (number, piece) = match scanner.next() {
                Ok(Some(found)) => found,
                Ok(None) => {
                    cut.unfinished().for_each(|line| {
                        visit(line, Line::Left(Reason::NotJson, "not JSON: a line that was cut has no end".into()));
                    });
                    return Ok(());
                }
                Err(error) => {
                    let is_broken = |kind| matches!(kind, ErrorKind::InvalidData | ErrorKind::InvalidInput);
                    if !is_broken(error.kind()) && error.kind() != ErrorKind::UnexpectedEof {
                        return Err(error);
                    }
                    visit(0, Line::Left(Reason::Broken, format!("the rest of the file can't be unpacked: {error}")));
                    return Ok(());
                }
            };
            let mut visit = |line: Line| {
                // A line is reported once, however many parts of it are left out.
                let is_left = matches!(line, Line::Left(Reason::NotJson | Reason::NoFlow, _));
                if !is_left || std::mem::replace(&mut reported, number) != number {
                    visit(number, line);
                }
            };
            match piece {
                Piece::Left(reason, text) => visit(Line::Left(reason, text)),
                Piece::Object(object) => {
                    let Some(object) = cut.join(number, object) else { continue };
                    if !self.object(object, 0, &mut visit) {
                        visit(no_flow());
                    }
                }
                Piece::Text(text) => match self.text(&text, 0, &mut visit) {
                    Text::Flows => {}
                    Text::NoFlow => visit(no_flow()),
                    Text::NotJson => visit(Line::Left(Reason::NotJson, "not JSON, or not whole".into())),
                },
            }
        }
    }

    /// Handles the entries in an object. Returns whether there were any.
    fn object(&mut self, object: Map<String, Value>, texts: usize, visit: &mut dyn FnMut(Line)) -> bool {
        if let Some((message, value)) = self.find(&object) {
            // A collector may keep the text beside the object that it read from it.
            if !self.copies.is_copy(&value) {
                visit(self.event(&object, &message, &value));
            }
            return true;
        }
        // A collector's object with the flow in one of its fields.
        self.copies.begin();
        let mut found = false;
        for value in object.into_values() {
            let before = self.copies.found();
            found |= self.value(value, texts, visit);
            self.copies.end_of_field(before);
        }
        self.copies.end();
        found
    }

    fn values(&mut self, values: impl Iterator<Item = Value>, texts: usize, visit: &mut dyn FnMut(Line)) -> bool {
        let mut found = false;
        for value in values {
            found |= self.value(value, texts, visit);
        }
        found
    }

    fn value(&mut self, value: Value, texts: usize, visit: &mut dyn FnMut(Line)) -> bool {
        match value {
            Value::Object(object) => self.object(object, texts, visit),
            Value::Array(values) => match bytes(&values) {
                Some(bytes) => matches!(self.text(&String::from_utf8_lossy(&bytes), texts, visit), Text::Flows),
                None => self.values(values.into_iter(), texts, visit),
            },
            Value::String(text) => matches!(self.text(&text, texts, visit), Text::Flows),
            _ => false,
        }
    }

    /// Handles the entries in a text.
    fn text(&mut self, text: &str, texts: usize, visit: &mut dyn FnMut(Line)) -> Text {
        let (mut scanner, mut found) = (Scanner::new(text.as_bytes()), Text::NotJson);
        if texts >= TEXTS || !text.contains('{') {
            return found;
        }
        while let Ok(Some((_, piece))) = scanner.next() {
            let has_flows = match piece {
                Piece::Object(object) => self.object(object, texts + 1, visit),
                Piece::Text(text) => matches!(self.text(&text, texts + 1, visit), Text::Flows),
                Piece::Left(..) => continue,
            };
            found = found.max(if has_flows { Text::Flows } else { Text::NoFlow });
        }
        found
    }

    /// The event in the object, if it is one, and its message.
    fn find(&self, object: &Map<String, Value>) -> Option<(MessageDescriptor, Value)> {
        let inner = |key: &str| object.get(key).filter(|value| value.is_object());
        let kinds = [
            (inner("flow"), &self.flow),
            (inner("lost_events").or_else(|| inner("lostEvents")), &self.lost),
            (inner("agent_event").or_else(|| inner("agentEvent")), &self.agent_event),
            (inner("debug_event").or_else(|| inner("debugEvent")), &self.debug_event),
            (inner("node_status").or_else(|| inner("nodeStatus")), &self.node_status),
        ];
        // Other objects may have these keys with other values.
        let beside = beside(object);
        let is_hubbles = !beside.node_name.is_empty();
        let is_it = |value: &Value, message| {
            let Some(it) = value.as_object() else { return false };
            // A field mask may have removed every field of a flow.
            let is_masked = it.is_empty() && is_hubbles && beside.time.is_some();
            let known = known::fields(message, it);
            is_masked || known > 0 && (is_hubbles || 2 * known >= it.len())
        };
        let found =
            kinds.into_iter().find_map(|(value, message)| Some((value.filter(|it| is_it(it, message))?, message)));
        match found {
            Some((value, message)) => Some((message.clone(), value.clone())),
            // Older logs have only the event, and so has `hubble observe` with its legacy output.
            None => {
                let bare = [&self.lost, &self.agent_event, &self.debug_event];
                let other = || bare.into_iter().find(|message| known::is_event(message, object));
                let message = if self.is_flow(object) { Some(&self.flow) } else { other() };
                message.map(|message| (message.clone(), Value::Object(object.clone())))
            }
        }
    }

    fn event(&mut self, object: &Map<String, Value>, message: &MessageDescriptor, value: &Value) -> Line {
        if value.as_object() == Some(object) {
            return self.read_event(message, value, Beside::default());
        }
        self.note_beside(object);
        self.read_event(message, value, beside(object))
    }

    fn read_event(&mut self, message: &MessageDescriptor, value: &Value, beside: Beside) -> Line {
        let Beside { node_name, time } = beside.clone();
        let unknown = &mut self.unknown;
        let read = match message.name() {
            "Flow" => Ok(self.read_flow(value, &beside)),
            "LostEvent" => decode(message, value, unknown).map(|lost| Line::Record(loss(&lost, beside))),
            "AgentEvent" => decode::<AgentEvent>(message, value, unknown)
                .map(|event| Line::Agent(GetAgentEventsResponse { agent_event: Some(event), node_name, time })),
            "DebugEvent" => decode::<DebugEvent>(message, value, unknown)
                .map(|event| Line::Debug(GetDebugEventsResponse { debug_event: Some(event), node_name, time })),
            _ => Ok(Line::Left(Reason::NodeStatus, "the state of nodes".into())),
        };
        read.unwrap_or_else(|error| Line::Left(Reason::Malformed, error.to_string()))
    }

    fn read_flow(&mut self, value: &Value, beside: &Beside) -> Line {
        match decode::<Flow>(&self.flow, value, &mut self.unknown) {
            Ok(mut flow) => {
                // An empty Any is written as an object without fields.
                let is_empty = |any: &Value| any.as_object().is_some_and(Map::is_empty);
                if flow.extensions.is_none() && value.get("extensions").is_some_and(is_empty) {
                    flow.extensions = Some(Any::default());
                }
                Line::Record(Record::Flow(Encoded::recorded(flow, beside, &mut self.parts)))
            }
            Err(error) => Line::Left(Reason::Malformed, format!("not Hubble's flow: {error}")),
        }
    }

    /// Whether the object is a flow itself: it has fields that only flows have, and most of its fields are a flow's.
    fn is_flow(&self, object: &Map<String, Value>) -> bool {
        const OWN: [&str; 16] = [
            "verdict",
            "IP",
            "l4",
            "l7",
            "Type",
            "Summary",
            "ethernet",
            "event_type",
            "eventType",
            "is_reply",
            "isReply",
            "traffic_direction",
            "trafficDirection",
            "trace_observation_point",
            "traceObservationPoint",
            "drop_reason_desc",
        ];
        let is_end = |key: &str| match object.get(key) {
            Some(Value::Object(end)) => known::fields(&self.endpoint, end) > 0,
            _ => false,
        };
        let known = known::fields(&self.flow, object);
        // Other programs have verdicts, too, with values of their own.
        let is_own = |key: &&str| object.get(*key).is_some_and(|value| known::fits(&self.flow, key, value));
        let has_own = OWN.iter().any(is_own) || is_end("source") && is_end("destination");
        has_own && 2 * known > object.len()
    }

    /// Names unknown fields beside an event. Keys of collectors start with other characters.
    fn note_beside(&mut self, object: &Map<String, Value>) {
        const KNOWN: [&str; 12] = [
            "flow",
            "lost_events",
            "lostEvents",
            "agent_event",
            "agentEvent",
            "debug_event",
            "debugEvent",
            "node_status",
            "nodeStatus",
            "node_name",
            "nodeName",
            "time",
        ];
        for key in object.keys().filter(|key| !KNOWN.contains(&key.as_str()) && !key.starts_with(['_', '@'])) {
            self.unknown.add(key.clone());
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

fn no_flow() -> Line {
    Line::Left(Reason::NoFlow, "JSON without a flow".into())
}

/// The bytes of a text that the journal has as a list of numbers, because it is not printable.
fn bytes(values: &[Value]) -> Option<Vec<u8>> {
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    values.first().and_then(byte)?;
    values.iter().map(byte).collect()
}

fn beside(object: &Map<String, Value>) -> Beside {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let node_name = text("node_name").or_else(|| text("nodeName")).unwrap_or_default().to_owned();
    // A collector may have added a time in another format.
    let time = text("time").and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let time = time.map(|time| {
        let nanos = time.as_nanosecond();
        let seconds = nanos.div_euclid(1_000_000_000) as i64;
        Timestamp { seconds, nanos: nanos.rem_euclid(1_000_000_000) as i32 }
    });
    Beside { node_name, time }
}

fn loss(lost: &LostEvent, beside: Beside) -> Record {
    Record::Lost(Box::new(Lost {
        node: beside.node_name,
        source: LostEventSource::try_from(lost.source).unwrap_or_default(),
        count: lost.num_events_lost,
        cpu: lost.cpu,
        first: lost.first,
        last: lost.last,
        time: beside.time,
    }))
}

#[cfg(test)]
mod tests;
