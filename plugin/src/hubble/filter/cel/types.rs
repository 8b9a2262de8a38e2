//! The types of expressions, and which types are compatible.

use crate::proto::schema::{self, FieldType, Kind, MessageType};
use std::{collections::BTreeMap, fmt};

#[derive(Clone, Debug)]
pub(super) enum Type {
    /// Known only at evaluation.
    Dyn,
    /// A `google.protobuf.Any`, which behaves like `Dyn`.
    Any,
    /// The element type of an empty list: compatible with any.
    Nothing,
    /// The type of a refused expression; it causes no further errors.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Box<Self>),
    Map(Box<Self>, Box<Self>),
    Message(&'static MessageType),
    /// One of Google's wrappers: a value or null.
    Wrapper(Box<Self>),
    /// The type of a type, which `type` returns.
    Meta,
    /// A type parameter: the same type everywhere in a declaration.
    Parameter(char),
}

/// The types bound to the parameters of a declaration.
pub(super) type Bindings = BTreeMap<char, Type>;

impl Type {
    pub(super) fn list(of: Self) -> Self {
        Self::List(Box::new(of))
    }

    pub(super) fn of_field(field: &FieldType) -> Self {
        let of = match &field.kind {
            Kind::Bool => Self::Bool,
            Kind::Int => Self::Int,
            Kind::Uint => Self::Uint,
            Kind::Double => Self::Double,
            Kind::String => Self::String,
            Kind::Bytes => Self::Bytes,
            Kind::Message(name) => Self::of_message(name),
        };
        if field.is_repeated { Self::list(of) } else { of }
    }

    fn of_message(name: &str) -> Self {
        let wrapper = |of| Self::Wrapper(Box::new(of));
        match name {
            "google.protobuf.Any" => Self::Any,
            "google.protobuf.Timestamp" => Self::Timestamp,
            "google.protobuf.Duration" => Self::Duration,
            "google.protobuf.Struct" => Self::Map(Box::new(Self::String), Box::new(Self::Dyn)),
            "google.protobuf.ListValue" => Self::list(Self::Dyn),
            "google.protobuf.Value" => Self::Dyn,
            "google.protobuf.BoolValue" => wrapper(Self::Bool),
            "google.protobuf.Int32Value" | "google.protobuf.Int64Value" => wrapper(Self::Int),
            "google.protobuf.UInt32Value" | "google.protobuf.UInt64Value" => wrapper(Self::Uint),
            "google.protobuf.FloatValue" | "google.protobuf.DoubleValue" => wrapper(Self::Double),
            "google.protobuf.StringValue" => wrapper(Self::String),
            "google.protobuf.BytesValue" => wrapper(Self::Bytes),
            name => schema::message(name).map_or(Self::Dyn, Self::Message),
        }
    }

    /// Whether the type is known only at evaluation.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any | Self::Error)
    }

    const fn is_nothing(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::List(of) => of.is_nothing(),
            _ => false,
        }
    }

    const fn can_be_null(&self) -> bool {
        matches!(self, Self::Null | Self::Wrapper(_) | Self::Message(_) | Self::Timestamp | Self::Duration)
    }

    /// Whether a value of this type is accepted where `wanted` is expected.
    pub(super) fn fits(&self, wanted: &Self, bindings: &mut Bindings) -> bool {
        match (self, wanted) {
            (_, Self::Parameter(name)) => match bindings.get(name).cloned() {
                None => {
                    bindings.insert(*name, self.clone());
                    true
                }
                Some(bound) if self.fits(&bound, bindings) => {
                    // The more general type stays bound.
                    if bound.is_nothing() || self.is_open() && !bound.is_open() {
                        bindings.insert(*name, self.clone());
                    }
                    true
                }
                Some(bound) if bound.fits(self, bindings) => {
                    bindings.insert(*name, self.clone());
                    true
                }
                Some(_) => false,
            },
            (Self::Nothing, _) | (_, Self::Nothing) => true,
            (has, wanted) if has.is_open() || wanted.is_open() => true,
            (Self::Null, wanted) => wanted.can_be_null(),
            (has, Self::Null) => has.can_be_null(),
            (Self::Wrapper(has), Self::Wrapper(wanted)) => has.fits(wanted, bindings),
            (has, Self::Wrapper(wanted)) => has.fits(wanted, bindings),
            (Self::Wrapper(has), wanted) => has.fits(wanted, bindings),
            (Self::List(has), Self::List(wanted)) => has.fits(wanted, bindings),
            (Self::Map(key, value), Self::Map(wanted_key, wanted_value)) => {
                key.fits(wanted_key, bindings) && value.fits(wanted_value, bindings)
            }
            (Self::Message(has), Self::Message(wanted)) => std::ptr::eq(*has, *wanted),
            (has, wanted) => std::mem::discriminant(has) == std::mem::discriminant(wanted),
        }
    }

    /// The type with its parameters replaced.
    pub(super) fn with(&self, bindings: &Bindings) -> Self {
        match self {
            Self::Parameter(name) => bindings.get(name).cloned().unwrap_or(Self::Dyn),
            Self::List(of) => Self::list(of.with(bindings)),
            Self::Map(key, value) => Self::Map(Box::new(key.with(bindings)), Box::new(value.with(bindings))),
            other => other.clone(),
        }
    }

    /// The common type of a list's elements; `Dyn` if they differ.
    pub(super) fn join(self, other: Self) -> Self {
        let mut bindings = Bindings::new();
        if self.is_nothing() {
            other
        } else if self.is_open() || other.fits(&self, &mut bindings) {
            self
        } else if self.fits(&other, &mut bindings) {
            other
        } else {
            Self::Dyn
        }
    }
}

impl Type {
    /// The type's name in the error about a wrong result type.
    pub(super) fn as_result(&self) -> String {
        match self {
            Self::Any => "google.protobuf.Any".into(),
            Self::Timestamp => "google.protobuf.Timestamp".into(),
            Self::Duration => "google.protobuf.Duration".into(),
            Self::Null => "null_type".into(),
            other => other.to_string(),
        }
    }
}

/// The type's name in errors.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Nothing => f.write_str("dyn"),
            Self::Any => f.write_str("any"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Message(message) => f.write_str(&message.name),
            Self::Wrapper(of) => write!(f, "wrapper({of})"),
            Self::Meta => f.write_str("type"),
            Self::Parameter(name) => write!(f, "{name}"),
        }
    }
}
