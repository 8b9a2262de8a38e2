//! Reads messages from JSON that a newer Cilium may have written: unknown fields are left out and named.

use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, fmt};

/// The limit of names that are listed.
const NAMES: usize = 32;

/// Fields and values left out because this build does not have them.
#[derive(Debug, Default)]
pub struct Unknown {
    names: BTreeSet<String>,
    has_more: bool,
}

impl Unknown {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn add(&mut self, name: String) {
        if self.names.len() < NAMES || self.names.contains(&name) {
            self.names.insert(name);
        } else {
            self.has_more = true;
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, name) in self.names.iter().enumerate() {
            write!(f, "{}{name}", if n == 0 { "" } else { ", " })?;
        }
        if self.has_more { f.write_str(" and others") } else { Ok(()) }
    }
}

/// A message with a field of a wrong type.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    /// The JSON is wrong.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The encoding is wrong.
    #[error(transparent)]
    Message(#[from] prost::DecodeError),
}

/// The number of an object's keys that are fields of the message.
pub(super) fn fields(message: &MessageDescriptor, object: &Map<String, Value>) -> usize {
    object.keys().filter(|key| field(message, key).is_some()).count()
}

/// Whether the value can be one of the message's field.
pub(super) fn fits(message: &MessageDescriptor, key: &str, value: &Value) -> bool {
    let Some(field) = field(message, key) else { return false };
    match field.kind() {
        Kind::Enum(of) => value.is_number() || value.as_str().is_some_and(|name| of.get_value_by_name(name).is_some()),
        Kind::Message(of) if of.full_name() == "google.protobuf.BoolValue" => value.is_boolean(),
        Kind::Message(of) => value.as_object().is_some_and(|object| fields(&of, object) > 0),
        Kind::String => value.is_string(),
        _ => true,
    }
}

/// Whether the object is a loss or an event of an agent itself: each of its keys is a field, and its enum has one of the
/// names.
pub(super) fn is_event(message: &MessageDescriptor, object: &Map<String, Value>) -> bool {
    let (of, also) = if message.name() == "LostEvent" { ("source", "num_events_lost") } else { ("type", "type") };
    let value = |name: &str| {
        let field = message.get_field_by_name(name)?;
        object.get(name).or_else(|| object.get(field.json_name()))
    };
    let has_name = value(of).is_some_and(|value| value.is_string() && fits(message, of, value));
    has_name && value(also).is_some() && fields(message, object) == object.len()
}

/// Decodes a message without its unknown fields.
///
/// # Errors
/// A field has a value of another type.
pub(super) fn decode<M: prost::Message + Default>(
    message: &MessageDescriptor,
    value: &Value,
    unknown: &mut Unknown,
) -> Result<M, Malformed> {
    let mut read = strict(message, value);
    if read.is_err() {
        let mut known = value.clone();
        let name = message.name().to_lowercase();
        prune(message, &mut known, &name, unknown);
        read = strict(message, &known);
        if read.is_err() && known.as_object_mut().and_then(|flow| flow.remove("extensions")).is_some() {
            // A known type with fields that this build does not have.
            unknown.add(format!("{name}.extensions"));
            read = strict(message, &known);
        }
    }
    Ok(read?.transcode_to()?)
}

fn strict(message: &MessageDescriptor, value: &Value) -> Result<DynamicMessage, serde_json::Error> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(message.clone(), value, &options)
}

fn field(message: &MessageDescriptor, key: &str) -> Option<prost_reflect::FieldDescriptor> {
    message.get_field_by_name(key).or_else(|| message.get_field_by_json_name(key))
}

fn prune(message: &MessageDescriptor, value: &mut Value, path: &str, unknown: &mut Unknown) {
    let Value::Object(object) = value else { return };
    object.retain(|key, value| {
        let path = format!("{path}.{key}");
        let Some(field) = field(message, key) else {
            unknown.add(path);
            return false;
        };
        match field.kind() {
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => {
                each(value, whole_number);
                true
            }
            Kind::Enum(of) => {
                each(value, whole_number);
                let is_known = |value: &Value| match value.as_str() {
                    Some(name) if of.get_value_by_name(name).is_none() => {
                        unknown.add(format!("{path} {name}"));
                        false
                    }
                    _ => true,
                };
                keep(value, is_known)
            }
            Kind::Message(of) if of.full_name() == "google.protobuf.Any" => keep(value, |value| {
                let Some(kind) = value.get("@type").and_then(Value::as_str) else {
                    // An empty Any is written as an object without fields.
                    return value.as_object().is_none_or(|any| !any.is_empty());
                };
                let name = kind.rsplit_once('/').map_or(kind, |(_, name)| name);
                let is_known = message.parent_pool().get_message_by_name(name).is_some();
                if !is_known {
                    unknown.add(format!("{path} of the type {name}"));
                }
                is_known
            }),
            Kind::Message(of) if of.parent_file().package_name() != "google.protobuf" => {
                match value {
                    Value::Array(values) if field.is_list() => {
                        values.iter_mut().for_each(|value| prune(&of, value, &path, unknown));
                    }
                    value => prune(&of, value, &path, unknown),
                }
                true
            }
            _ => true,
        }
    });
}

/// Writes a whole number as one: collectors make fractions of numbers (`6.0`), and Go's library reads those in texts, too.
fn whole_number(value: &mut Value) {
    let number = match value {
        Value::Number(number) if number.is_f64() => number.as_f64(),
        Value::String(text) if text.contains(['.', 'e', 'E']) => text.parse().ok(),
        _ => None,
    };
    // A larger number is not exact.
    if let Some(number) = number.filter(|number| number.fract() == 0.0 && number.abs() < 2_f64.powi(53)) {
        *value = (number as i64).into();
    }
}

fn each(value: &mut Value, change: impl Fn(&mut Value)) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(change),
        value => change(value),
    }
}

/// Whether the value stays; keeps only those values of a list that stay.
fn keep(value: &mut Value, mut stays: impl FnMut(&Value) -> bool) -> bool {
    match value {
        Value::Array(values) => {
            values.retain(stays);
            true
        }
        value => stays(value),
    }
}
