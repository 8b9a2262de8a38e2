//! A flow as expressions see it: fields, read from the encoded flow.

use super::program::Path;
use crate::{
    flows::{Encoded, Part},
    proto::{
        number::flow,
        schema::{self, FieldType, Kind, MessageType},
        wire::{self, Value},
    },
};
use cel::{
    ExecutionError,
    common::{
        traits::Indexer,
        types::{
            CelBool, CelBytes, CelDouble, CelDuration, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString,
            CelTimestamp, CelUInt, Type,
        },
        value::{CowVal, StaticVal, Val},
    },
};
use chrono::{DateTime, TimeDelta};
use std::{any::Any, collections::HashMap, sync::Arc};

type Boxed<'v> = Box<dyn Val + 'v>;

/// The value of a path, or its presence.
pub(super) fn of_path<'f>(flow: &'f Encoded, path: &Path) -> Boxed<'f> {
    let Some((first, rest)) = path.fields.split_first() else {
        // The path is the flow itself.
        let mut bytes = Vec::with_capacity(flow.encoded_len());
        flow.write(&mut bytes);
        return match schema::message("flow.Flow") {
            Some(of) => Box::new(Message { bytes, of }),
            None => Box::new(CelNull),
        };
    };
    let Some((last, between)) = rest.split_last() else {
        return of_field(first, || values_of_flow(flow, first.number), path.is_test, CelString::from);
    };
    let mut message = values_of_flow(flow, first.number).next().map(Value::message);
    for field in between {
        message = message.and_then(|message| message.message(field.number));
    }
    let message = message.unwrap_or_default();
    of_field(last, || message.values(last.number), path.is_test, CelString::from)
}

/// The encoded values of a field of a flow.
fn values_of_flow(flow: &Encoded, number: u64) -> impl Iterator<Item = Value<'_>> {
    let (apart, message) = match number {
        flow::TIME => (flow.time_message(), wire::Message::default()),
        flow::SOURCE => (flow.source().map(Part::message), wire::Message::default()),
        flow::DESTINATION => (flow.destination().map(Part::message), wire::Message::default()),
        flow::NODE_NAME | flow::NODE_LABELS | flow::EMITTER => (None, flow.node().message()),
        _ => (None, flow.own()),
    };
    apart.map(|message| Value::Bytes(message.0)).into_iter().chain(message.values(number))
}

/// A field of a message from its encoded values.
fn of_field<'a, 'v, V>(
    field: &FieldType,
    values: impl Fn() -> V,
    is_test: bool,
    text: impl Fn(&'a str) -> CelString<'v>,
) -> Boxed<'v>
where
    V: Iterator<Item = Value<'a>>,
{
    if is_test {
        return Box::new(CelBool::from(values().any(|value| field.is_message() || !is_empty(value))));
    }
    if field.is_repeated {
        let list: Vec<Boxed<'v>> = values().map(|value| of_value(&field.kind, Some(value), &text)).collect();
        return Box::new(CelList::from(list));
    }
    of_value(&field.kind, values().next(), &text)
}

fn is_empty(value: Value<'_>) -> bool {
    matches!(value, Value::Varint(0) | Value::Fixed64(0) | Value::Fixed32(0) | Value::Bytes([]))
}

/// A value; an unset field has its default value.
fn of_value<'a, 'v>(kind: &Kind, value: Option<Value<'a>>, text: &impl Fn(&'a str) -> CelString<'v>) -> Boxed<'v> {
    let varint = match value {
        Some(Value::Varint(value)) => value,
        _ => 0,
    };
    match kind {
        Kind::Bool => Box::new(CelBool::from(varint != 0)),
        Kind::Int => Box::new(CelInt::from(varint.cast_signed())),
        Kind::Uint => Box::new(CelUInt::from(varint)),
        Kind::Double => Box::new(CelDouble::from(match value {
            Some(Value::Fixed64(bits)) => f64::from_bits(bits),
            Some(Value::Fixed32(bits)) => f32::from_bits(bits).into(),
            _ => 0.0,
        })),
        Kind::String => Box::new(text(value.map_or("", Value::text))),
        Kind::Bytes => Box::new(CelBytes::from(value.map_or(&[][..], |value| value.message().0).to_vec())),
        Kind::Message(name) => of_message(name, value.map(Value::message), text),
    }
}

fn of_message<'a, 'v>(
    name: &str,
    message: Option<wire::Message<'a>>,
    text: &impl Fn(&'a str) -> CelString<'v>,
) -> Boxed<'v> {
    let seconds = || message.map_or((0, 0), |message| (message.varint(1).cast_signed(), message.varint(2)));
    let wrapped = |kind| match message {
        None => Box::new(CelNull) as Boxed<'v>,
        Some(message) => of_value(kind, message.value(1), text),
    };
    match name {
        "google.protobuf.Timestamp" => {
            let (seconds, nanos) = seconds();
            let time = DateTime::from_timestamp(seconds, nanos as u32).unwrap_or_default();
            Box::new(CelTimestamp::from(time.fixed_offset()))
        }
        "google.protobuf.Duration" => {
            let (seconds, nanos) = seconds();
            let time = TimeDelta::new(seconds, nanos as u32).unwrap_or_default();
            Box::new(CelDuration::from(time))
        }
        "google.protobuf.BoolValue" => wrapped(&Kind::Bool),
        "google.protobuf.Int32Value" | "google.protobuf.Int64Value" => wrapped(&Kind::Int),
        "google.protobuf.UInt32Value" | "google.protobuf.UInt64Value" => wrapped(&Kind::Uint),
        "google.protobuf.FloatValue" | "google.protobuf.DoubleValue" => wrapped(&Kind::Double),
        "google.protobuf.StringValue" => wrapped(&Kind::String),
        "google.protobuf.BytesValue" => wrapped(&Kind::Bytes),
        "google.protobuf.Any" => {
            let url = message.map_or("", |message| message.string(1));
            let inner = message.and_then(|message| message.message(2)).unwrap_or_default();
            match url.rsplit('/').next() {
                Some("") | None => Box::new(CelNull),
                Some(name) => of_message(name, Some(inner), text),
            }
        }
        "google.protobuf.Struct" => {
            let entries = message.into_iter().flat_map(|message| message.messages(1)).map(|entry| {
                let value = entry.message(2).unwrap_or_default();
                (CelMapKey::from(entry.string(1).to_owned()), of_json(value, text))
            });
            Box::new(CelMap::from(entries.collect::<HashMap<CelMapKey<'v>, Boxed<'v>>>()))
        }
        "google.protobuf.ListValue" => {
            let values = message.into_iter().flat_map(|message| message.messages(1));
            Box::new(CelList::from(values.map(|value| of_json(value, text)).collect::<Vec<_>>()))
        }
        "google.protobuf.Value" => of_json(message.unwrap_or_default(), text),
        name => match schema::message(name) {
            Some(of) => Box::new(Message { bytes: message.unwrap_or_default().0.to_vec(), of }),
            None => Box::new(CelNull),
        },
    }
}

/// A `google.protobuf.Value`.
fn of_json<'a, 'v>(value: wire::Message<'a>, text: &impl Fn(&'a str) -> CelString<'v>) -> Boxed<'v> {
    let Some(field) = value.fields().last() else { return Box::new(CelNull) };
    match field.number {
        2 => of_value(&Kind::Double, Some(field.value), text),
        3 => of_value(&Kind::String, Some(field.value), text),
        4 => of_value(&Kind::Bool, Some(field.value), text),
        5 => of_message("google.protobuf.Struct", Some(field.value.message()), text),
        6 => of_message("google.protobuf.ListValue", Some(field.value.message()), text),
        _ => Box::new(CelNull),
    }
}

/// A message inside the flow that an expression handles as a value, such as one of several workloads.
#[derive(Clone, Debug)]
struct Message {
    bytes: Vec<u8>,
    of: &'static MessageType,
}

static MESSAGE: Type = Type::new_unspecified_type("message");

impl Val for Message {
    fn get_type(&self) -> &Type {
        &MESSAGE
    }

    fn cel_type() -> &'static Type {
        &MESSAGE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn into_indexer<'v>(self: Box<Self>) -> Option<Box<dyn Indexer + 'v>>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        // This process encoded both, with the same order of fields.
        other.downcast_ref::<Self>().is_some_and(|other| std::ptr::eq(self.of, other.of) && self.bytes == other.bytes)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Message {}

impl Indexer for Message {
    /// A field by its name; `?` before the name asks for its presence.
    fn get<'b, 'v>(&'b self, name: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = name.downcast_ref::<CelString<'_>>().map_or("", |name| name.inner());
        let (name, is_test) = name.strip_prefix('?').map_or((name, false), |name| (name, true));
        let field = self.of.field(name).ok_or_else(|| ExecutionError::NoSuchKey(Arc::new(name.to_owned())))?;
        let values = || wire::Message(&self.bytes).values(field.number);
        Ok(CowVal::Owned(of_field(field, values, is_test, |text| CelString::from(text.to_owned()))))
    }

    fn steal<'v>(self: Box<Self>, name: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(name).map(CowVal::into_owned)
    }
}
