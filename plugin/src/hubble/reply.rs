//! `observer.GetFlowsResponse`, encoded: a flow goes out as the ring keeps it.

use super::mask::Mask;
use crate::{
    flows::{Encoded, put_time},
    proto::{
        number::getflowsresponse as number,
        observer::ExportEvent,
        wire::{put_bytes, put_len},
    },
};
use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};

/// A response to GetFlows, encoded.
#[derive(Clone, Debug, Default)]
pub struct Reply(Vec<u8>);

impl Reply {
    /// A flow; of a masked one, node and time are as the mask leaves them.
    pub(super) fn flow(flow: &Encoded, mask: Option<&mut Mask>) -> Self {
        let mut bytes;
        match mask {
            None => {
                let len = flow.encoded_len();
                bytes = Vec::with_capacity(len + 64);
                put_len(number::FLOW, len, &mut bytes);
                flow.write(&mut bytes);
                if !flow.node_name().is_empty() {
                    put_bytes(number::NODE_NAME, flow.node_name().as_bytes(), &mut bytes);
                }
                if let Some(time) = flow.time() {
                    put_time(number::TIME, &time, &mut bytes);
                }
            }
            Some(mask) => {
                let masked = mask.apply(flow);
                bytes = Vec::with_capacity(masked.flow.len() + 64);
                put_bytes(number::FLOW, masked.flow, &mut bytes);
                if let Some(name) = masked.node_name {
                    put_bytes(number::NODE_NAME, name, &mut bytes);
                }
                if let Some(time) = masked.time {
                    put_bytes(number::TIME, time, &mut bytes);
                }
            }
        }
        Self(bytes)
    }

    /// What it says.
    ///
    /// # Errors
    /// It comes from a server that does not speak Hubble's language.
    pub fn event(&self) -> Result<ExportEvent, DecodeError> {
        // The two messages have the same fields.
        ExportEvent::decode(self.0.as_slice())
    }
}

impl From<ExportEvent> for Reply {
    fn from(event: ExportEvent) -> Self {
        Self(event.encode_to_vec())
    }
}

impl Message for Reply {
    fn encode_raw(&self, to: &mut impl BufMut) {
        to.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Every field that it has is a text or a message.
        if wire_type != WireType::LengthDelimited {
            return encoding::skip_field(wire_type, tag, from, context);
        }
        let mut bytes = Vec::new();
        encoding::bytes::merge(wire_type, &mut bytes, from, context)?;
        put_bytes(tag.into(), &bytes, &mut self.0);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{
        flow::{Flow, LostEvent},
        observer::export_event::ResponseTypes,
    };
    use prost_types::Timestamp;

    #[test]
    fn a_reply_is_hubbles_response() {
        let time = Some(Timestamp { seconds: 7, nanos: 0 });
        let flow = Flow { time, uuid: "u".into(), node_name: "node-a".into(), ..Flow::default() };
        let reply = Reply::flow(&flow.clone().into(), None);
        let expected =
            ExportEvent { node_name: "node-a".into(), time, response_types: Some(ResponseTypes::Flow(flow)) };
        assert_eq!(reply.event().unwrap(), expected);
        // As a client reads it.
        assert_eq!(Reply::decode(reply.encode_to_vec().as_slice()).unwrap().event().unwrap(), expected);
        let lost = LostEvent { num_events_lost: 3, ..LostEvent::default() };
        let lost = ExportEvent { response_types: Some(ResponseTypes::LostEvents(lost)), ..ExportEvent::default() };
        assert_eq!(Reply::from(lost.clone()).event().unwrap(), lost);
        assert_eq!(Reply::flow(&Flow::default().into(), None).event().unwrap().node_name, "");
    }
}
