//! Field masks: send only the requested fields of a flow.
//!
//! A mask works on the encoded message, by field number. Masked ends are cached, since many flows share an end.

use crate::{
    flows::{Encoded, Part},
    proto::{
        number,
        schema::{self, Kind, MessageType},
        wire::{Message, Value, put_bytes},
    },
};
use ahash::AHashMap;
use prost_types::FieldMask;
use tonic::Status;

/// The limit of cached masked ends; all are dropped at the limit.
const ENDS: usize = 4096;

/// A mask over `flow.Flow`.
#[derive(Debug)]
pub(super) struct Mask {
    fields: Fields,
    /// The masked ends, by field number and the end's id.
    ends: AHashMap<(u64, u64), Vec<u8>>,
    masked: Vec<u8>,
}

/// A path that is no field of a flow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid fieldmask: `{0}` is no field of a flow")]
pub struct NoSuchField(String);

impl From<NoSuchField> for Status {
    /// The code and text of Hubble's own server.
    fn from(_: NoSuchField) -> Self {
        Self::unknown("invalid fieldmask")
    }
}

/// A masked flow, encoded, and the masked fields that a response has beside it.
#[derive(Debug)]
pub(super) struct Masked<'m> {
    pub(super) flow: &'m [u8],
    pub(super) node_name: Option<&'m [u8]>,
    pub(super) time: Option<&'m [u8]>,
}

/// The fields to keep, sorted by number.
#[derive(Debug, Default)]
struct Fields(Vec<(u64, Selection)>);

/// The part of a field that is kept.
#[derive(Debug)]
enum Selection {
    Whole,
    /// Parts of a message. As in Hubble, an absent message is sent as an empty one, unless it belongs to a oneof.
    Parts {
        fields: Fields,
        is_choice: bool,
    },
}

impl Mask {
    /// The mask of a request; `None` if the request asks for whole flows.
    ///
    /// # Errors
    /// A path that is not a field of a flow.
    pub(super) fn new(mask: Option<&FieldMask>) -> Result<Option<Self>, NoSuchField> {
        let paths = mask.map_or(&[][..], |mask| &mask.paths);
        let mut fields = Fields::default();
        for path in paths {
            schema::message("flow.Flow")
                .and_then(|flow| fields.keep(flow, path))
                .ok_or_else(|| NoSuchField(path.clone()))?;
        }
        Ok((!paths.is_empty()).then(|| Self { fields, ends: AHashMap::default(), masked: Vec::new() }))
    }

    /// The flow reduced to the kept fields.
    pub(super) fn apply(&mut self, flow: &Encoded) -> Masked<'_> {
        let Self { fields, ends, masked } = self;
        masked.clear();
        if let Some(time) = flow.time_message() {
            match fields.get(number::flow::TIME) {
                None => {}
                Some(Selection::Whole) => put_bytes(number::flow::TIME, time.0, masked),
                Some(Selection::Parts { fields, .. }) => fields.copy_message(number::flow::TIME, time, masked),
            }
        }
        fields.copy(flow.own(), masked);
        let mut end = |number: u64, part: Option<&Part>| match (fields.get(number), part) {
            (None, _) | (_, None) => {}
            (Some(Selection::Whole), Some(part)) => put_bytes(number, part.message().0, masked),
            (Some(Selection::Parts { fields, .. }), Some(part)) => {
                if ends.len() >= ENDS {
                    ends.clear();
                }
                let kept = ends.entry((number, part.id())).or_insert_with(|| {
                    let mut kept = Vec::new();
                    fields.copy_message(number, part.message(), &mut kept);
                    kept
                });
                masked.extend_from_slice(kept);
            }
        };
        end(number::flow::SOURCE, flow.source());
        end(number::flow::DESTINATION, flow.destination());
        fields.copy(flow.node().message(), masked);
        fields.add_empty(masked, |number| match number {
            number::flow::TIME => flow.time_message().is_some(),
            number::flow::SOURCE => flow.source().is_some(),
            number::flow::DESTINATION => flow.destination().is_some(),
            number => flow.own().value(number).or_else(|| flow.node().message().value(number)).is_some(),
        });
        let bytes = |number| match Message(masked).value(number) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        };
        Masked { node_name: bytes(number::flow::NODE_NAME), time: bytes(number::flow::TIME), flow: masked }
    }
}

impl Fields {
    fn get(&self, number: u64) -> Option<&Selection> {
        self.0.iter().find(|(kept, _)| *kept == number).map(|(_, kept)| kept)
    }

    fn keep(&mut self, message: &MessageType, path: &str) -> Option<()> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let field = message.field(name)?;
        let at = self.0.partition_point(|(number, _)| *number < field.number);
        let is_new = self.0.get(at).is_none_or(|(number, _)| *number != field.number);
        let Some(rest) = rest else {
            if is_new {
                self.0.insert(at, (field.number, Selection::Whole));
            } else {
                self.0[at].1 = Selection::Whole;
            }
            return Some(());
        };
        if is_new {
            let none = Selection::Parts { fields: Self::default(), is_choice: field.is_choice };
            self.0.insert(at, (field.number, none));
        }
        // A field that is kept whole stays whole, but a path below it must still be valid.
        let mut scratch = Self::default();
        let parts = match &mut self.0[at].1 {
            Selection::Parts { fields, .. } => fields,
            Selection::Whole => &mut scratch,
        };
        match &field.kind {
            Kind::Message(message) if !field.is_repeated => parts.keep(schema::message(message)?, rest),
            _ => None,
        }
    }

    /// Copies the kept fields that are set.
    fn copy(&self, from: Message<'_>, to: &mut Vec<u8>) {
        for field in from.fields() {
            match self.get(field.number) {
                None => {}
                Some(Selection::Whole) => to.extend_from_slice(field.whole),
                Some(Selection::Parts { fields, .. }) => fields.copy_message(field.number, field.value.message(), to),
            }
        }
    }

    /// Copies the kept fields of a message in a field.
    fn copy_message(&self, number: u64, from: Message<'_>, to: &mut Vec<u8>) {
        let mut inner = Vec::new();
        self.copy(from, &mut inner);
        self.add_empty(&mut inner, |number| from.value(number).is_some());
        put_bytes(number, &inner, to);
    }

    /// Appends partly kept messages that the flow does not have, as empty ones.
    fn add_empty(&self, to: &mut Vec<u8>, is_there: impl Fn(u64) -> bool) {
        for (number, kept) in &self.0 {
            if let Selection::Parts { fields, is_choice: false } = kept
                && !is_there(*number)
            {
                fields.copy_message(*number, Message::default(), to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::{Emitter, Endpoint, Flow, Ip, Layer4, Tcp, TcpFlags, Verdict, layer4::Protocol};
    use prost::Message as _;
    use prost_types::Timestamp;

    fn mask(paths: &[&str]) -> Result<Option<Mask>, NoSuchField> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Mask::new(Some(&FieldMask { paths }))
    }

    fn apply(paths: &[&str], flow: Flow) -> Flow {
        let mut mask = mask(paths).unwrap().unwrap();
        let flow = Encoded::from(flow);
        let masked = Flow::decode(mask.apply(&flow).flow).unwrap();
        assert_eq!(masked, Flow::decode(mask.apply(&flow).flow).unwrap(), "the second time");
        masked
    }

    fn flow() -> Flow {
        let source = Endpoint {
            id: 3,
            identity: 7,
            namespace: "shop".into(),
            pod_name: "cart-0".into(),
            labels: vec!["k8s:app=cart".into()],
            ..Endpoint::default()
        };
        Flow {
            verdict: Verdict::Forwarded.into(),
            node_name: "node-a".into(),
            is_reply: Some(false),
            l4: Some(Layer4 {
                protocol: Some(Protocol::Tcp(Tcp { source_port: 1, destination_port: 2, flags: None })),
            }),
            ip: Some(Ip { source: "10.0.0.1".into(), ..Ip::default() }),
            destination: Some(source.clone()),
            source: Some(source),
            ..Flow::default()
        }
    }

    #[test]
    fn only_masked_fields_are_sent() {
        let masked = apply(&["verdict", "source.namespace", "source.pod_name", "l4", "is_reply"], flow());
        let source = Endpoint { namespace: "shop".into(), pod_name: "cart-0".into(), ..Endpoint::default() };
        let expected = Flow {
            verdict: Verdict::Forwarded.into(),
            source: Some(source),
            l4: flow().l4,
            is_reply: Some(false),
            ..Flow::default()
        };
        assert_eq!(masked, expected);
    }

    #[test]
    fn a_message_of_which_parts_are_asked_for_is_there_though_empty() {
        let bare = Flow { l4: flow().l4, ..Flow::default() };
        let masked = apply(&["source.pod_name", "l4.UDP.source_port", "l4.TCP.flags.SYN"], bare);
        let tcp = Tcp { flags: Some(TcpFlags::default()), ..Tcp::default() };
        let l4 = Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) });
        assert_eq!(masked, Flow { source: Some(Endpoint::default()), l4, ..Flow::default() });
    }

    #[test]
    fn time_and_node_are_fields_like_others() {
        let emitter = Some(Emitter { name: "Hubble".into(), version: "1".into() });
        let whole = Flow { time: Some(Timestamp { seconds: 7, nanos: 9 }), emitter, ..flow() };
        let masked = apply(&["time.seconds", "emitter.name", "node_name"], whole.clone());
        let expected = Flow {
            time: Some(Timestamp { seconds: 7, nanos: 0 }),
            emitter: Some(Emitter { name: "Hubble".into(), version: String::new() }),
            node_name: "node-a".into(),
            ..Flow::default()
        };
        assert_eq!(masked, expected);
        assert_eq!(apply(&["time"], whole).time.unwrap().nanos, 9);
        let bare = apply(&["time.nanos", "emitter.name", "destination"], Flow::default());
        let (time, emitter) = (Some(Timestamp::default()), Some(Emitter::default()));
        assert_eq!(bare, Flow { time, emitter, ..Flow::default() });
    }

    #[test]
    fn the_parent_wins_in_either_order() {
        for paths in [["source", "source.namespace"], ["source.namespace", "source"]] {
            let masked = apply(&paths, flow());
            assert_eq!(masked, Flow { source: flow().source, ..Flow::default() });
        }
    }

    #[test]
    fn the_stock_clients_default_mask_is_understood() {
        let default = "time verdict ethernet IP l4 source.identity source.namespace source.pod_name \
            destination.identity destination.namespace destination.pod_name Type node_name l7 event_type \
            source_service destination_service is_reply Summary ip_trace_id";
        assert!(mask(&default.split_whitespace().collect::<Vec<_>>()).unwrap().is_some());
        assert!(mask(&["source.ID", "l4.TCP.source_port", "extensions.type_url"]).is_ok());
    }

    #[test]
    fn a_path_that_is_no_field_is_refused_as_hubble_does() {
        for path in ["nothing", "source.id", "source.", "", "verdict.x", "node_labels.x", "source.labels.x"] {
            let error = mask(&["uuid", path]).unwrap_err();
            assert_eq!(error, NoSuchField(path.into()));
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (tonic::Code::Unknown, "invalid fieldmask"), "{path}");
        }
    }

    #[test]
    fn no_mask_is_none() {
        assert!(mask(&[]).unwrap().is_none());
        assert!(Mask::new(None).unwrap().is_none());
    }
}
