//! Reads flow logs: lines of JSON as Hubble's exporter and `hubble observe --output jsonpb` write them.

use crate::{
    flows::{Encoded, Lost, Parts, Record},
    proto::{
        POOL,
        flow::{Flow, LostEventSource},
        observer::{ExportEvent, export_event::ResponseTypes},
    },
};
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use prost_types::Timestamp;
use serde_json::Value;
use std::{
    io::{self, BufRead, Read},
    time::SystemTime,
};

/// The longest line that is read. A flow is a thousand times smaller.
const LONGEST_LINE: u64 = 1 << 20;

/// Understands lines.
#[derive(Debug)]
pub struct Reader {
    event: MessageDescriptor,
    flow: MessageDescriptor,
    parts: Parts,
}

/// What a line is.
#[derive(Debug)]
pub enum Line {
    /// A flow or a loss.
    Record(Record),
    /// Something of a cluster or an agent, which is no flow.
    Other,
    /// Not a line of a flow log, and why.
    Bad(String),
}

impl Reader {
    /// With the messages that this build knows.
    ///
    /// # Panics
    /// The build's own descriptors are not whole; a test reads them.
    #[expect(clippy::expect_used, reason = "the build made them")]
    pub fn new() -> Self {
        let message = |name: &str| POOL.get_message_by_name(name).expect("a message of the build");
        Self { event: message("observer.ExportEvent"), flow: message("flow.Flow"), parts: Parts::default() }
    }

    /// Shows each line to `see`, with its number from 1. Empty lines are none.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&mut self, mut lines: impl BufRead, mut see: impl FnMut(u64, Line)) -> io::Result<()> {
        let (mut number, mut bytes) = (0, Vec::new());
        loop {
            bytes.clear();
            number += 1;
            if lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            if bytes.len() as u64 == LONGEST_LINE && bytes.last() != Some(&b'\n') {
                see(number, Line::Bad(format!("the line is longer than {LONGEST_LINE} bytes")));
                skip_line(&mut lines)?;
            } else if !bytes.trim_ascii().is_empty() {
                see(number, self.line(&bytes));
            }
        }
    }

    fn line(&mut self, bytes: &[u8]) -> Line {
        self.parse(bytes).unwrap_or_else(Line::Bad)
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<Line, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
        let object = value.as_object().ok_or("not a JSON object")?;
        // Older logs hold the flow alone.
        let wrapped = ["flow", "lost_events", "node_status", "agent_event", "debug_event"];
        if !wrapped.iter().any(|key| object.contains_key(*key) || object.contains_key(&camel(key))) {
            let flow: Flow = decode(&self.flow, &value)?.transcode_to().map_err(|error| error.to_string())?;
            return Ok(self.record(flow));
        }
        let event: ExportEvent = decode(&self.event, &value)?.transcode_to().map_err(|error| error.to_string())?;
        Ok(match event.response_types {
            Some(ResponseTypes::Flow(flow)) => self.record(flow),
            Some(ResponseTypes::LostEvents(lost)) => {
                let time = |time: Option<Timestamp>| SystemTime::try_from(time.or(event.time)?).ok();
                Line::Record(Record::Lost(Box::new(Lost {
                    node: event.node_name,
                    source: LostEventSource::try_from(lost.source).unwrap_or_default(),
                    count: lost.num_events_lost,
                    first: time(lost.first).unwrap_or(SystemTime::UNIX_EPOCH),
                    last: time(lost.last).unwrap_or(SystemTime::UNIX_EPOCH),
                })))
            }
            _ => Line::Other,
        })
    }

    fn record(&mut self, flow: Flow) -> Line {
        Line::Record(Record::Flow(Encoded::new(flow, &mut self.parts)))
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

/// Fields that a newer Cilium has and this build does not know are left out.
fn decode(message: &MessageDescriptor, value: &Value) -> Result<DynamicMessage, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    prost_reflect::DynamicMessage::deserialize_with_options(message.clone(), value, &options)
        .map_err(|error| error.to_string())
}

fn camel(key: &str) -> String {
    let mut parts = key.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |camel, part| camel + &part[..1].to_uppercase() + &part[1..])
}

fn skip_line(lines: &mut impl BufRead) -> io::Result<()> {
    loop {
        let (len, ended) = {
            let buffer = lines.fill_buf()?;
            match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            }
        };
        lines.consume(len);
        if ended {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::Verdict;

    fn lines(text: &[u8]) -> Vec<(u64, Line)> {
        let mut lines = Vec::new();
        Reader::new().read(text, |number, line| lines.push((number, line))).unwrap();
        lines
    }

    #[test]
    fn lines_are_flows_losses_or_named_as_bad() {
        let text = br#"{"flow":{"time":"2026-11-23T10:00:00.123456789Z","verdict":"FORWARDED","IP":{"source":"10.0.0.1","ipVersion":"IPv4"},"is_reply":false,"Summary":"UDP","new_field":1,"extensions":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"bytes":1500}}},"node_name":"node-a","time":"2026-11-23T10:00:00.123456789Z"}

{"uuid":"old","node_name":"n"}
{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"},"node_name":"node-a","time":"2026-11-23T10:00:01Z"}
{"node_status":{"state_change":"NODE_CONNECTED"}}
{"flow":{"verdict":[]}}
[1]
{"flow":
"#;
        let lines = lines(text);
        let flow = |index: usize| match &lines[index] {
            (number, Line::Record(Record::Flow(flow))) => (*number, flow.decode()),
            other => panic!("{other:?}"),
        };
        let (number, first) = flow(0);
        assert_eq!((number, first.verdict, first.is_reply), (1, Verdict::Forwarded as i32, Some(false)));
        assert_eq!(first.time.unwrap().nanos, 123_456_789);
        assert_eq!(first.ip.as_ref().unwrap().source, "10.0.0.1");
        assert_eq!(first.extensions.as_ref().unwrap().type_url, "type.googleapis.com/google.protobuf.Struct");
        assert_eq!((flow(1).0, flow(1).1.uuid.as_str()), (3, "old"));
        assert!(matches!(
            &lines[2],
            (4, Line::Record(Record::Lost(lost))) if (lost.count, lost.source) == (7, LostEventSource::HubbleRingBuffer)
        ));
        assert!(matches!(&lines[3], (5, Line::Other)));
        let bad: Vec<u64> = lines[4..]
            .iter()
            .map(|(number, line)| match line {
                Line::Bad(_) => *number,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(bad, [6, 7, 8]);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut text = vec![b'x'; 3 << 20];
        text.extend(b"\n{\"uuid\":\"after\"}\n");
        let lines = lines(&text);
        assert!(matches!(&lines[0], (1, Line::Bad(why)) if why.contains("longer than")));
        assert!(matches!(&lines[1], (2, Line::Record(Record::Flow(flow))) if flow.decode().uuid == "after"));
    }
}
