//! `observer.GetFlowsResponse`, encoded: a flow is sent as the ring stores it.

use super::mask::Mask;
use crate::{
    flows::{Encoded, Held},
    proto::{
        number::getflowsresponse as number,
        observer::ExportEvent,
        wire::{len_of_bytes, put_bytes, put_len},
    },
};
use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};

/// A response to GetFlows, encoded.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A flow as the ring stores it.
    Flow(Held),
    /// Any other response, as its encoded fields.
    Fields(Vec<u8>),
}

impl Reply {
    /// A masked flow, with the masked node name and time beside it.
    pub(super) fn masked(flow: &Encoded, mask: &mut Mask) -> Self {
        let masked = mask.apply(flow);
        let mut fields = Vec::with_capacity(masked.flow.len() + 64);
        put_bytes(number::FLOW, masked.flow, &mut fields);
        if let Some(name) = masked.node_name {
            put_bytes(number::NODE_NAME, name, &mut fields);
        }
        if let Some(time) = masked.time {
            put_bytes(number::TIME, time, &mut fields);
        }
        Self::Fields(fields)
    }

    /// Decodes the response.
    ///
    /// # Errors
    /// The response comes from a server that does not speak Hubble's protocol.
    pub fn event(&self) -> Result<ExportEvent, DecodeError> {
        // The two messages have the same fields.
        ExportEvent::decode(self.encode_to_vec().as_slice())
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self::Fields(Vec::new())
    }
}

impl From<ExportEvent> for Reply {
    fn from(event: ExportEvent) -> Self {
        Self::Fields(event.encode_to_vec())
    }
}

impl Message for Reply {
    fn encode_raw(&self, to: &mut impl BufMut) {
        let flow = match self {
            Self::Flow(held) => held.flow(),
            Self::Fields(fields) => return to.put_slice(fields),
        };
        let Some(flow) = flow else { return };
        put_len(number::FLOW, flow.encoded_len(), to);
        flow.write(to);
        to.put_slice(flow.node_in_response());
        if let Some(time) = flow.time_beside() {
            put_bytes(number::TIME, time.0, to);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Every field of the message is a string or a message.
        if wire_type != WireType::LengthDelimited {
            return encoding::skip_field(wire_type, tag, from, context);
        }
        let mut bytes = Vec::new();
        encoding::bytes::merge(wire_type, &mut bytes, from, context)?;
        if let Self::Flow(_) = self {
            *self = Self::Fields(self.encode_to_vec());
        }
        if let Self::Fields(fields) = self {
            put_bytes(tag.into(), &bytes, fields);
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        let flow = match self {
            Self::Flow(held) => held.flow(),
            Self::Fields(fields) => return fields.len(),
        };
        let Some(flow) = flow else { return 0 };
        let time = flow.time_beside().map_or(0, |time| len_of_bytes(number::TIME, time.0.len()));
        len_of_bytes(number::FLOW, flow.encoded_len()) + flow.node_in_response().len() + time
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flows::Ring,
        proto::{
            flow::{Flow, LostEvent},
            observer::export_event::ResponseTypes,
        },
    };
    use prost_types::Timestamp;

    #[test]
    fn a_reply_is_hubbles_response() {
        let time = Some(Timestamp { seconds: 7, nanos: 0 });
        let flow = Flow { time, uuid: "u".into(), node_name: "node-a".into(), ..Flow::default() };
        let held = |flow: Flow| {
            let ring = Ring::new(1);
            ring.push(flow.into());
            Reply::Flow(ring.read(0, 1).take(|_| true).unwrap())
        };
        let reply = held(flow.clone());
        let expected =
            ExportEvent { node_name: "node-a".into(), time, response_types: Some(ResponseTypes::Flow(flow)) };
        assert_eq!(reply.event().unwrap(), expected);
        assert_eq!(reply.encoded_len(), reply.encode_to_vec().len());
        // Decoded as by a client.
        assert_eq!(Reply::decode(reply.encode_to_vec().as_slice()).unwrap().event().unwrap(), expected);
        let lost = LostEvent { num_events_lost: 3, ..LostEvent::default() };
        let lost = ExportEvent { response_types: Some(ResponseTypes::LostEvents(lost)), ..ExportEvent::default() };
        assert_eq!(Reply::from(lost.clone()).event().unwrap(), lost);
        let empty = held(Flow::default());
        assert_eq!((empty.event().unwrap().node_name.as_str(), empty.encoded_len()), ("", 2));
    }
}
