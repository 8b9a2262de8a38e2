//! Filters that can't be, in Hubble's words: its command line shows them as they are.

use super::{
    address::InvalidIp,
    bounds::TooMany,
    cel::InvalidExpression,
    go::{InvalidNumber, InvalidRegexp, quote},
    label::InvalidSelector,
    pattern::InvalidPattern,
};

/// A filter that can't be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidFilter {
    /// A request that asks for too much.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// A protocol.
    #[error("invalid protocol filter: unknown protocol: {}", quote(.0))]
    Protocol(String),
    /// A name.
    #[error("invalid filter, name must not be empty")]
    EmptyName,
    /// A value of a field whose name Hubble gives.
    #[error("invalid {field} filter: {source}")]
    Field {
        /// The field.
        field: &'static str,
        /// The fault of the value.
        source: Box<InvalidFilter>,
    },
    /// A port.
    #[error("invalid port {}: {source}", quote(text))]
    Port {
        /// The text.
        text: String,
        /// Why it is no number of 16 bits.
        source: InvalidNumber,
    },
    /// A pattern of DNS queries.
    #[error("failed to compile regexp: {0}")]
    DnsQuery(InvalidRegexp),
    /// A pattern of URLs or paths.
    #[error("{}: {}", .0.pattern, .0)]
    Http(InvalidRegexp),
    /// A status code of HTTP.
    #[error("invalid status code prefix: {}", quote(.0))]
    StatusCode(String),
    /// A field of HTTP beside events of other layers.
    #[error("filtering by http {0} requires the event type filter to only match 'l7' events")]
    NotL7(&'static str),
    /// An address or prefix.
    #[error(transparent)]
    Ip(#[from] Box<InvalidIp>),
    /// A pattern of names.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// A selector of labels.
    #[error(transparent)]
    Selector(#[from] InvalidSelector),
    /// A CEL expression.
    #[error("error compiling CEL expression: {0}")]
    Expression(#[from] InvalidExpression),
}

impl InvalidFilter {
    /// The same with the name of the field, unless it concerns the whole request.
    pub(super) fn of(field: &'static str) -> impl FnOnce(Self) -> Self {
        move |source| match source {
            Self::TooMany(_) => source,
            source => Self::Field { field, source: Box::new(source) },
        }
    }
}
