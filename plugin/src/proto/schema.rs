//! The structure of messages: fields by name, from the descriptors that the build kept.

use super::POOL;
use ahash::AHashMap;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use std::sync::LazyLock;

/// Every message and enum of the build.
static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::new);

#[derive(Debug, Default)]
struct Schema {
    messages: AHashMap<String, MessageType>,
    enums: AHashMap<String, i32>,
}

/// The type of a message.
#[derive(Debug)]
pub struct MessageType {
    /// Its full name, such as `flow.Flow`.
    pub name: String,
    fields: AHashMap<String, FieldType>,
}

/// The type of a field.
#[derive(Debug)]
pub struct FieldType {
    /// The field's number.
    pub number: u64,
    /// The type of each value.
    pub kind: Kind,
    /// Whether the field is repeated.
    pub is_repeated: bool,
    /// Whether the field belongs to a oneof.
    pub is_choice: bool,
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bool.
    Bool,
    /// A signed number, or an enum's value.
    Int,
    /// An unsigned number.
    Uint,
    /// A floating-point number.
    Double,
    /// A string.
    String,
    /// Bytes.
    Bytes,
    /// The message of this full name.
    Message(String),
}

/// The type of a message by its full name, such as `flow.Flow`.
pub fn message(name: &str) -> Option<&'static MessageType> {
    SCHEMA.messages.get(name)
}

/// The number of an enum's value by its full name, such as `flow.Verdict.FORWARDED`.
pub fn enum_value(name: &str) -> Option<i32> {
    SCHEMA.enums.get(name).copied()
}

impl MessageType {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&FieldType> {
        self.fields.get(name)
    }
}

impl Schema {
    fn new() -> Self {
        let mut schema = Self::default();
        // The descriptors come from the build; a test decodes them.
        for file in POOL.file_descriptor_protos() {
            file.enum_type.iter().for_each(|of| schema.add_enum(file.package(), of));
            file.message_type.iter().for_each(|message| schema.add_message(file.package(), message));
        }
        schema
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.add_message(&name, nested));
        message.enum_type.iter().for_each(|of| self.add_enum(&name, of));
        let fields = message.field.iter().map(|field| (field.name().to_owned(), FieldType::new(field))).collect();
        self.messages.insert(name.clone(), MessageType { name, fields });
    }

    fn add_enum(&mut self, scope: &str, of: &EnumDescriptorProto) {
        for value in &of.value {
            self.enums.insert(format!("{scope}.{}.{}", of.name(), value.name()), value.number());
        }
    }
}

impl FieldType {
    fn new(field: &FieldDescriptorProto) -> Self {
        let kind = match field.r#type() {
            Type::Bool => Kind::Bool,
            Type::Double | Type::Float => Kind::Double,
            Type::String => Kind::String,
            Type::Bytes => Kind::Bytes,
            Type::Message | Type::Group => Kind::Message(field.type_name().trim_start_matches('.').to_owned()),
            Type::Uint32 | Type::Uint64 | Type::Fixed32 | Type::Fixed64 => Kind::Uint,
            Type::Int32 | Type::Int64 | Type::Sint32 | Type::Sint64 | Type::Sfixed32 | Type::Sfixed64 | Type::Enum => {
                Kind::Int
            }
        };
        Self {
            number: field.number().unsigned_abs().into(),
            kind,
            is_repeated: field.label() == Label::Repeated,
            is_choice: field.oneof_index.is_some(),
        }
    }

    /// Whether the values are messages: an empty message still counts as set.
    pub const fn is_message(&self) -> bool {
        matches!(self.kind, Kind::Message(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::number;

    #[test]
    fn messages_and_enums_are_known_by_name() {
        let flow = message("flow.Flow").unwrap();
        let source = flow.field("source").unwrap();
        assert_eq!((source.number, &source.kind), (number::flow::SOURCE, &Kind::Message("flow.Endpoint".into())));
        assert_eq!(flow.field("verdict").unwrap().kind, Kind::Int);
        assert!(flow.field("node_labels").unwrap().is_repeated);
        assert!(message("flow.Layer4").unwrap().field("TCP").unwrap().is_choice);
        assert_eq!(enum_value("flow.Verdict.DROPPED"), Some(2));
        assert!(message("google.protobuf.Timestamp").is_some() && message("flow.Nothing").is_none());
    }
}
