//! The types of expressions, and when one can stand for another.

use crate::proto::schema::{self, FieldType, Kind, MessageType};
use std::{collections::BTreeMap, fmt};

#[derive(Clone, Debug)]
pub(super) enum Type {
    /// Known only when it is evaluated.
    Dyn,
    /// A `google.protobuf.Any`: the same, by another name.
    Any,
    /// Of the elements of an empty list: any.
    Nothing,
    /// What has been refused: it error_chain no further errors.
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
    /// What `type` returns.
    Meta,
    /// Any type, the same one wherever it stands in a declaration.
    Parameter(char),
}

/// What the parameters of a declaration stand for.
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

    /// Whether it is known only when it is evaluated.
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

    /// Whether a value of this type can stand where `wanted` is asked for.
    pub(super) fn fits(&self, wanted: &Self, bindings: &mut Bindings) -> bool {
        match (self, wanted) {
            (_, Self::Parameter(name)) => match bindings.get(name).cloned() {
                None => {
                    bindings.insert(*name, self.clone());
                    true
                }
                Some(bound) if self.fits(&bound, bindings) => {
                    // The more general one stays.
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

    /// With what its parameters stand for.
    pub(super) fn with(&self, bindings: &Bindings) -> Self {
        match self {
            Self::Parameter(name) => bindings.get(name).cloned().unwrap_or(Self::Dyn),
            Self::List(of) => Self::list(of.with(bindings)),
            Self::Map(key, value) => Self::Map(Box::new(key.with(bindings)), Box::new(value.with(bindings))),
            other => other.clone(),
        }
    }

    /// One type for the elements of a list: what they all are, or what is known only when they are evaluated.
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
    /// As the error names it that asks for another result.
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

/// As errors name it.
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
