//! Messages as JSON, in Hubble's form.
//!
//! The output equals that of Hubble's exporter byte for byte: fields by name in the order of their declaration,
//! 64-bit numbers as strings, times as RFC 3339, no unset fields, and the characters escaped that are special in
//! HTML. The input is an encoded message in which every field occurs once.

use super::{
    POOL,
    wire::{Message, Value},
};
use ahash::AHashMap;
use prost::DecodeError;
use prost_reflect::{Cardinality, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use std::sync::LazyLock;

/// The JSON form of each message, by its full name.
static SHAPES: LazyLock<AHashMap<String, Shape>> =
    LazyLock::new(|| POOL.all_messages().map(|of| (of.full_name().to_owned(), Shape::new(&of))).collect());

/// The reason why a message has no JSON form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// The type of a message is unknown.
    #[error("unknown message type {0}")]
    Type(String),
    /// A number that JSON does not have.
    #[error("a number is not finite")]
    Number,
    /// A time before the year 1 or after the year 9999.
    #[error("a time is in no calendar")]
    Time,
}

/// JSON that is no message.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// A type that is not known.
    #[error("there is no message {0}")]
    Type(String),
    /// A field that is not known, or a value of another type.
    #[error(transparent)]
    Field(#[from] serde_json::Error),
    /// A message of another type.
    #[error(transparent)]
    Message(#[from] DecodeError),
}

/// Reads a message from JSON.
///
/// # Errors
/// The JSON is not such a message, or has an unknown field.
pub fn read<M: prost::Message + Default>(name: &str, value: &serde_json::Value) -> Result<M, Unreadable> {
    let message = POOL.get_message_by_name(name).ok_or_else(|| Unreadable::Type(name.to_owned()))?;
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    Ok(DynamicMessage::deserialize_with_options(message, value, &options)?.transcode_to()?)
}

/// Appends an encoded message of this type as JSON.
///
/// # Errors
/// Something in the message has no JSON form. The text appended so far stays.
pub fn write(name: &str, message: Message<'_>, to: &mut String) -> Result<(), Unwritable> {
    write_message(name, message, None, to)
}

#[derive(Debug)]
struct Shape {
    /// In the order of their declaration.
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    number: u64,
    name: String,
    kind: Kind,
    is_repeated: bool,
    /// Whether the field is written even if it has its default value.
    has_presence: bool,
}

impl Shape {
    fn new(of: &MessageDescriptor) -> Self {
        let field = |field: &FieldDescriptor| Field {
            number: field.number().into(),
            name: field.name().to_owned(),
            kind: field.kind(),
            is_repeated: field.cardinality() == Cardinality::Repeated,
            has_presence: field.supports_presence(),
        };
        let declared = of.descriptor_proto().field.iter();
        let fields = declared.filter_map(|it| of.get_field(it.number().unsigned_abs())).map(|it| field(&it)).collect();
        Self { fields }
    }
}

/// Writes a message; with `kind`, its type becomes the first field.
fn write_message(name: &str, message: Message<'_>, kind: Option<&str>, to: &mut String) -> Result<(), Unwritable> {
    if let Some(write) = well_known(name) {
        return write(message, to);
    }
    let shape = SHAPES.get(name).ok_or_else(|| Unwritable::Type(name.to_owned()))?;
    let mut separator = "{";
    if let Some(kind) = kind {
        to.push_str("{\"@type\":");
        write_text(kind, to);
        separator = ",";
    }
    for field in &shape.fields {
        let mut values = message.values(field.number).filter(|value| field.is_there(*value)).peekable();
        if values.peek().is_none() {
            continue;
        }
        to.push_str(separator);
        separator = ",";
        to.push('"');
        to.push_str(&field.name);
        to.push_str("\":");
        if field.is_repeated {
            let mut separator = '[';
            for value in values {
                to.push(separator);
                separator = ',';
                field.write(value, to)?;
            }
            to.push(']');
        } else if let Some(value) = values.last() {
            field.write(value, to)?;
        }
    }
    to.push_str(if separator == "{" { "{}" } else { "}" });
    Ok(())
}

impl Field {
    fn is_there(&self, value: Value<'_>) -> bool {
        self.is_repeated
            || self.has_presence
            || !matches!(value, Value::Varint(0) | Value::Fixed64(0) | Value::Fixed32(0) | Value::Bytes([]))
    }

    fn write(&self, value: Value<'_>, to: &mut String) -> Result<(), Unwritable> {
        use std::fmt::Write;
        // Writing to a string can't fail.
        let _ = match (&self.kind, value) {
            (Kind::Message(of), value) => return write_message(of.full_name(), value.message(), None, to),
            (Kind::String, value) => return put_text(value.text(), to),
            (Kind::Bool, Value::Varint(n)) => write!(to, "{}", n != 0),
            (Kind::Enum(of), Value::Varint(n)) => match of.get_value(n as i32) {
                Some(value) => write!(to, "\"{}\"", value.name()),
                None => write!(to, "{}", n as i32),
            },
            (Kind::Int32, Value::Varint(n)) => write!(to, "{}", n as i32),
            (Kind::Uint32, Value::Varint(n)) => write!(to, "{}", n as u32),
            (Kind::Int64, Value::Varint(n)) => write!(to, "\"{}\"", n as i64),
            (Kind::Uint64, Value::Varint(n)) => write!(to, "\"{n}\""),
            (Kind::Double, Value::Fixed64(bits)) => return write_double(f64::from_bits(bits), to),
            // Hubble's messages have no other types.
            (kind, _) => return Err(Unwritable::Type(format!("{kind:?}"))),
        };
        Ok(())
    }
}

type Write = fn(Message<'_>, &mut String) -> Result<(), Unwritable>;

/// The writers of well-known messages, which have a JSON form of their own.
fn well_known(name: &str) -> Option<Write> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "Any" => write_any,
        "Timestamp" => write_timestamp,
        "Struct" => write_struct,
        "Value" => write_value,
        "ListValue" => write_list,
        "BoolValue" => |message, to| put(if message.bool(1) { "true" } else { "false" }, to),
        "Int32Value" => |message, to| put(&(message.varint(1) as i32).to_string(), to),
        "UInt32Value" => |message, to| put(&(message.varint(1) as u32).to_string(), to),
        "StringValue" => |message, to| put_text(message.string(1), to),
        _ => return None,
    })
}

fn write_any(any: Message<'_>, to: &mut String) -> Result<(), Unwritable> {
    let (url, value) = (any.string(1), any.message(2).unwrap_or_default());
    if url.is_empty() && value.0.is_empty() {
        to.push_str("{}");
        return Ok(());
    }
    let name = url.rsplit_once('/').map_or(url, |(_, name)| name);
    if well_known(name).is_none() {
        return write_message(name, value, Some(url), to);
    }
    to.push_str("{\"@type\":");
    write_text(url, to);
    to.push_str(",\"value\":");
    write_message(name, value, None, to)?;
    to.push('}');
    Ok(())
}

fn write_timestamp(time: Message<'_>, to: &mut String) -> Result<(), Unwritable> {
    let (seconds, nanos) = (time.varint(1) as i64, time.varint(2) as i32);
    let time = (0..1_000_000_000).contains(&nanos).then(|| jiff::Timestamp::new(seconds, nanos).ok()).flatten();
    let time = time.filter(|_| (-62_135_596_800..=253_402_300_799).contains(&seconds)).ok_or(Unwritable::Time)?;
    let digits = match nanos {
        0 => 0,
        n if n % 1_000_000 == 0 => 3,
        n if n % 1000 == 0 => 6,
        _ => 9,
    };
    to.push_str(&format!("\"{time:.digits$}\""));
    Ok(())
}

fn write_struct(of: Message<'_>, to: &mut String) -> Result<(), Unwritable> {
    let mut entries: Vec<_> =
        of.messages(1).map(|entry| (entry.string(1), entry.message(2).unwrap_or_default())).collect();
    entries.sort_by_key(|(key, _)| *key);
    let mut separator = '{';
    for (key, value) in &entries {
        to.push(separator);
        separator = ',';
        write_text(key, to);
        to.push(':');
        write_value(*value, to)?;
    }
    to.push_str(if entries.is_empty() { "{}" } else { "}" });
    Ok(())
}

fn write_value(value: Message<'_>, to: &mut String) -> Result<(), Unwritable> {
    match value.fields().last().map(|field| (field.number, field.value)) {
        Some((2, Value::Fixed64(bits))) => write_double(f64::from_bits(bits), to),
        Some((3, text)) => put_text(text.text(), to),
        Some((4, Value::Varint(n))) => put(if n == 0 { "false" } else { "true" }, to),
        Some((5, of)) => write_struct(of.message(), to),
        Some((6, list)) => write_list(list.message(), to),
        _ => put("null", to),
    }
}

fn write_list(list: Message<'_>, to: &mut String) -> Result<(), Unwritable> {
    let mut separator = '[';
    for value in list.messages(1) {
        to.push(separator);
        separator = ',';
        write_value(value, to)?;
    }
    to.push_str(if separator == '[' { "[]" } else { "]" });
    Ok(())
}

/// The shortest text for this number, with an exponent if the number is very large or very small.
fn write_double(n: f64, to: &mut String) -> Result<(), Unwritable> {
    if !n.is_finite() {
        return Err(Unwritable::Number);
    }
    let size = n.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{n:e}");
        to.push_str(&if text.contains("e-") { text } else { text.replace('e', "e+") });
    } else {
        to.push_str(&n.to_string());
    }
    Ok(())
}

/// Writes the text unchanged.
fn put(json: &str, to: &mut String) -> Result<(), Unwritable> {
    to.push_str(json);
    Ok(())
}

fn put_text(text: &str, to: &mut String) -> Result<(), Unwritable> {
    write_text(text, to);
    Ok(())
}

fn write_text(text: &str, to: &mut String) {
    to.push('"');
    let mut rest = text;
    while let Some(at) =
        rest.find(|c: char| c < ' ' || matches!(c, '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}'))
    {
        let (plain, special) = rest.split_at(at);
        to.push_str(plain);
        let Some(c) = special.chars().next() else { break };
        match c {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\u{8}' => to.push_str("\\b"),
            '\u{c}' => to.push_str("\\f"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            c => to.push_str(&format!("\\u{:04x}", c as u32)),
        }
        rest = &special[c.len_utf8()..];
    }
    to.push_str(rest);
    to.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::{CiliumEventType, Flow, FlowFilter, Layer4, Tcp, TcpFlags, layer4::Protocol};
    use prost::Message as _;
    use prost_types::{Any, Struct, Timestamp, value};

    fn json(message: &str, bytes: &[u8]) -> String {
        let mut text = String::new();
        write(message, Message(bytes), &mut text).unwrap();
        text
    }

    #[test]
    fn a_flow_is_written_in_hubbles_form() {
        let value = |kind| prost_types::Value { kind: Some(kind) };
        let fields = [
            ("b", value::Kind::NumberValue(1500.0)),
            ("a", value::Kind::StringValue("<&>".into())),
            ("c", value::Kind::NumberValue(1e21)),
            ("d", value::Kind::NumberValue(-2.5e-7)),
            ("e", value::Kind::BoolValue(false)),
        ];
        let fields = fields.map(|(key, kind)| (key.to_owned(), value(kind))).into();
        let flow = Flow {
            time: Some(Timestamp { seconds: 1_700_000_000, nanos: 120_000_000 }),
            uuid: "u\"\n\u{1}ü".into(),
            verdict: 1,
            l4: Some(Layer4 {
                protocol: Some(Protocol::Tcp(Tcp {
                    source_port: 1,
                    flags: Some(TcpFlags { syn: true, ..TcpFlags::default() }),
                    ..Tcp::default()
                })),
            }),
            is_reply: Some(false),
            event_type: Some(CiliumEventType::default()),
            socket_cookie: u64::MAX,
            node_labels: vec!["a=b".into(), String::new()],
            extensions: Some(Any {
                type_url: "type.googleapis.com/google.protobuf.Struct".into(),
                value: Struct { fields }.encode_to_vec(),
            }),
            ..Flow::default()
        };
        let expected = r#"{"time":"2023-11-14T22:13:20.120Z","uuid":"u\"\n\u0001ü","verdict":"FORWARDED","l4":{"TCP":{"source_port":1,"flags":{"SYN":true}}},"node_labels":["a=b",""],"event_type":{},"is_reply":false,"socket_cookie":"18446744073709551615","extensions":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"a":"\u003c\u0026\u003e","b":1500,"c":1e+21,"d":-2.5e-7,"e":false}}}"#;
        assert_eq!(json("flow.Flow", &flow.encode_to_vec()), expected);
        assert_eq!(json("flow.Flow", &[]), "{}");
    }

    #[test]
    fn a_value_without_json_is_an_error() {
        let any = Any { type_url: "example.com/nobody.Knows".into(), value: vec![8, 1] };
        let flow = Flow { extensions: Some(any), ..Flow::default() };
        let refused = write("flow.Flow", Message(&flow.encode_to_vec()), &mut String::new());
        assert_eq!(refused, Err(Unwritable::Type("nobody.Knows".into())));
    }

    #[test]
    fn a_filter_is_read_from_json() {
        let value = serde_json::json!({"source_pod": ["shop/"], "verdict": ["DROPPED"], "event_type": [{"type": 1}]});
        let filter: FlowFilter = read("flow.FlowFilter", &value).unwrap();
        assert_eq!((&*filter.source_pod[0], filter.verdict[0], filter.event_type[0].r#type), ("shop/", 2, 1));
        assert!(read::<FlowFilter>("flow.FlowFilter", &serde_json::json!({"source_pods": []})).is_err());
    }
}
