//! Random flows of all kinds as a flow log.

use crate::random::Random;
use meridian::proto::{
    DESCRIPTORS,
    flow::Flow,
    observer::{ExportEvent, export_event::ResponseTypes},
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::Timestamp;

/// The second of the first flow.
pub const START: i64 = 1_700_000_000;

/// Flows with rising times, as JSON lines.
pub fn flows(seed: u64, count: usize) -> String {
    flows_after(seed, count, 0)
}

/// Flows as by [`flows`], with this many nanoseconds added to each time.
pub fn flows_after(seed: u64, count: usize, nanos: i32) -> String {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name("observer.GetFlowsResponse").unwrap();
    let mut random = Random::new(seed);
    let mut text = String::new();
    for n in 0..count {
        let time = Some(Timestamp { seconds: START + n as i64, nanos: nanos + 1_000_000 * (n as i32 % 7) });
        let flow = Flow { time, ..random.flow() };
        let node_name = flow.node_name.clone();
        let response = ExportEvent { node_name, time, response_types: Some(ResponseTypes::Flow(flow)) };
        let json = DynamicMessage::decode(message.clone(), response.encode_to_vec().as_slice()).unwrap();
        let mut line = Vec::new();
        let options = SerializeOptions::new().use_proto_field_name(true);
        json.serialize_with_options(&mut serde_json::Serializer::new(&mut line), &options).unwrap();
        text.push_str(std::str::from_utf8(&line).unwrap());
        text.push('\n');
    }
    text
}
