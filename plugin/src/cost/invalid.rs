//! The reasons for which a price file is refused.

use super::money::{DiscountError, PriceError};
use crate::{yaml, zones::InvalidProvider};

/// The reason for which a line of a price file is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPrices {
    /// The text is not YAML of this form.
    #[error(transparent)]
    Yaml(#[from] yaml::Invalid),
    /// There are more rules than one file may have.
    #[error("{count} rules are too many (at most {limit})")]
    TooManyRules {
        /// The number of rules.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A rule has no id, or one that is no short line.
    #[error("a rule needs an id of one line")]
    NoId,
    /// Two rules have one id.
    #[error("two rules have the id {id}")]
    SameId {
        /// The id.
        id: String,
    },
    /// A rule is invalid.
    #[error("rule {id}: {reason}")]
    Rule {
        /// The rule's id.
        id: String,
        /// The reason.
        reason: InvalidRule,
    },
    /// The provider of a discount is invalid.
    #[error(transparent)]
    Provider(#[from] InvalidProvider),
    /// A discount is invalid.
    #[error(transparent)]
    Discount(#[from] DiscountError),
}

/// The reason for which a rule is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRule {
    /// It has a price and a reason for having none.
    #[error("it has a price and is `unpriced`")]
    PricedAndUnpriced,
    /// It has no price and no reason for having none.
    #[error("it needs `sender` and `receiver`, or `unpriced`")]
    NoTerms,
    /// A price is invalid.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// The provider is invalid.
    #[error(transparent)]
    Provider(#[from] InvalidProvider),
    /// A list names a group that the file lacks.
    #[error("there is no group {name}")]
    NoGroup {
        /// The group.
        name: String,
    },
    /// A text in `between` is none of its names.
    #[error("between: `{text}` is none of same-zone, zones and regions")]
    Between {
        /// The text, on one line.
        text: String,
    },
    /// A list has too many names.
    #[error("more than {limit} names in a list")]
    TooManyNames {
        /// The limit.
        limit: usize,
    },
    /// A text is no name or beginning of names.
    #[error("`{text}` is not a name, or the beginning of names before `*`")]
    Name {
        /// The text, on one line.
        text: String,
    },
}
