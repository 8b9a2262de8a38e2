//! Field masks: sends only the fields of a flow that were asked for.
//!
//! A mask works on the encoded message, by field number, so it need not know the fields. Names come
//! from the descriptors that the build kept.

use crate::proto::{DESCRIPTORS, flow::Flow};
use prost::Message;
use prost_types::{DescriptorProto, FieldDescriptorProto, FieldMask, FileDescriptorSet, field_descriptor_proto::Type};
use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};
use tonic::Status;

/// The fields of every message, by the message's full name.
static SCHEMA: LazyLock<HashMap<String, HashMap<String, Field>>> = LazyLock::new(schema);

const FLOW: &str = ".flow.Flow";

#[derive(Debug)]
struct Field {
    number: u64,
    /// The message's full name, if it is one and there is one of it.
    message: Option<String>,
    /// Whether it is one of several of which a message has one.
    is_choice: bool,
}

fn schema() -> HashMap<String, HashMap<String, Field>> {
    let mut schema = HashMap::new();
    // The build has made it; a test decodes it.
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
    for file in &files {
        for message in &file.message_type {
            add_message(&mut schema, &format!(".{}", file.package()), message);
        }
    }
    schema
}

fn add_message(schema: &mut HashMap<String, HashMap<String, Field>>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        add_message(schema, &name, nested);
    }
    let field = |field: &FieldDescriptorProto| {
        let single = field.label() != prost_types::field_descriptor_proto::Label::Repeated;
        let message = (field.r#type() == Type::Message && single).then(|| field.type_name().to_owned());
        let (number, is_choice) = (field.number().unsigned_abs().into(), field.oneof_index.is_some());
        (field.name().to_owned(), Field { number, message, is_choice })
    };
    schema.insert(name, message.field.iter().map(field).collect());
}

/// A mask over `flow.Flow`.
#[derive(Debug)]
pub(super) struct Mask(Fields);

/// The fields to keep, by number.
#[derive(Debug, Default)]
struct Fields(BTreeMap<u64, Kept>);

/// How much of a field is kept.
#[derive(Debug)]
enum Kept {
    Whole,
    /// Parts of a message. As Hubble sends it, the message is there, though empty, where the flow has
    /// none; unless it is one of several of which a message has one.
    Parts {
        fields: Fields,
        is_choice: bool,
    },
}

impl Mask {
    /// Of a request; `None` where it asks for whole flows.
    ///
    /// # Errors
    /// A path that is no field of a flow, with the code and text of Hubble's own server.
    pub(super) fn new(mask: Option<&FieldMask>) -> Result<Option<Self>, Status> {
        let paths = mask.map_or(&[][..], |mask| &mask.paths);
        let mut fields = Fields::default();
        for path in paths {
            fields.keep(FLOW, path).ok_or_else(|| Status::unknown("invalid fieldmask"))?;
        }
        Ok((!paths.is_empty()).then_some(Self(fields)))
    }

    /// The flow with the fields that are kept.
    pub(super) fn apply(&self, flow: &Flow) -> Flow {
        let mut masked = Vec::new();
        self.0.copy(&flow.encode_to_vec(), &mut masked);
        // What was encoded here can be decoded here.
        Flow::decode(masked.as_slice()).unwrap_or_default()
    }
}

impl Fields {
    fn keep(&mut self, message: &str, path: &str) -> Option<()> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let field = SCHEMA.get(message)?.get(name)?;
        match rest {
            None => {
                self.0.insert(field.number, Kept::Whole);
            }
            Some(rest) => {
                // A field that is kept whole stays so, but its path must be right.
                let mut scratch = Self::default();
                let none = || Kept::Parts { fields: Self::default(), is_choice: field.is_choice };
                let parts = match self.0.entry(field.number).or_insert_with(none) {
                    Kept::Parts { fields, .. } => fields,
                    Kept::Whole => &mut scratch,
                };
                parts.keep(field.message.as_deref()?, rest)?;
            }
        }
        Some(())
    }

    /// Copies the fields that are kept from one encoded message to another.
    fn copy(&self, mut from: &[u8], to: &mut Vec<u8>) -> Option<()> {
        let mut seen = Vec::new();
        while !from.is_empty() {
            let start = from;
            let key = varint(&mut from)?;
            let header = start.len() - from.len();
            let content = match key & 7 {
                0 => {
                    let before = from;
                    varint(&mut from)?;
                    &before[..before.len() - from.len()]
                }
                1 => take(&mut from, 8)?,
                2 => {
                    let len = usize::try_from(varint(&mut from)?).ok()?;
                    take(&mut from, len)?
                }
                5 => take(&mut from, 4)?,
                _ => return None,
            };
            match self.0.get(&(key >> 3)) {
                None => {}
                Some(Kept::Whole) => to.extend_from_slice(&start[..start.len() - from.len()]),
                Some(Kept::Parts { fields, .. }) => {
                    seen.push(key >> 3);
                    to.extend_from_slice(&start[..header]);
                    fields.copy_message(content, to)?;
                }
            }
        }
        for (number, kept) in &self.0 {
            if let Kept::Parts { fields, is_choice: false } = kept
                && !seen.contains(number)
            {
                put_varint(number << 3 | 2, to);
                fields.copy_message(&[], to)?;
            }
        }
        Some(())
    }

    /// The same with its length before it.
    fn copy_message(&self, from: &[u8], to: &mut Vec<u8>) -> Option<()> {
        let mut inner = Vec::new();
        self.copy(from, &mut inner)?;
        put_varint(inner.len() as u64, to);
        to.extend_from_slice(&inner);
        Some(())
    }
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(taken)
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(from).ok()
}

fn put_varint(value: u64, to: &mut Vec<u8>) {
    prost::encoding::encode_varint(value, to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::{Endpoint, Ip, Layer4, Tcp, TcpFlags, Verdict, layer4::Protocol};

    fn mask(paths: &[&str]) -> Result<Option<Mask>, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Mask::new(Some(&FieldMask { paths }))
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
        let masked = mask(&["verdict", "source.namespace", "source.pod_name", "l4", "is_reply"])
            .unwrap()
            .unwrap()
            .apply(&flow());
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
        let masked =
            mask(&["source.pod_name", "l4.UDP.source_port", "l4.TCP.flags.SYN"]).unwrap().unwrap().apply(&bare);
        let tcp = Tcp { flags: Some(TcpFlags::default()), ..Tcp::default() };
        let l4 = Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) });
        assert_eq!(masked, Flow { source: Some(Endpoint::default()), l4, ..Flow::default() });
    }

    #[test]
    fn the_parent_wins_in_either_order() {
        for paths in [["source", "source.namespace"], ["source.namespace", "source"]] {
            let masked = mask(&paths).unwrap().unwrap().apply(&flow());
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
            let status = mask(&[path]).unwrap_err();
            assert_eq!((status.code(), status.message()), (tonic::Code::Unknown, "invalid fieldmask"), "{path}");
        }
    }

    #[test]
    fn no_mask_is_none() {
        assert!(mask(&[]).unwrap().is_none());
        assert!(Mask::new(None).unwrap().is_none());
    }
}
