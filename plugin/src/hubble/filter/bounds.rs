//! How much the filters of a request may ask for.

use crate::proto::flow::{FlowFilter, flow_filter::Experimental};

/// The limit of values in all filters of a request. Each may be compared with each flow of the ring.
pub(in crate::hubble) const VALUES: usize = 1000;
/// The regular expressions among them: each may take [`super::go::REGEXP_BYTES`] of memory.
pub(super) const REGEXPS: usize = 64;
/// The limit of the memory that the filters of a request take, compiled.
pub(super) const BYTES: usize = 16 << 20;
/// The limit of CEL expressions.
const EXPRESSIONS: usize = 16;
/// Values up to which a request compares with a flow in no time.
const CHEAP_VALUES: usize = 64;

/// A request that asks for too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Values of fields.
    #[error("too many filters: more than {VALUES} values")]
    Values,
    /// Regular expressions.
    #[error("too many regular expressions: more than {REGEXPS}")]
    Regexps,
    /// Memory for all of them.
    #[error("the filters take too much memory: more than {} MiB", BYTES >> 20)]
    Bytes,
    /// CEL expressions.
    #[error("too many CEL expressions: more than {EXPRESSIONS}")]
    Expressions,
}

/// The sums over the filters of a request. Hubble bounds none of them: a request of a few megabytes could keep a CPU
/// busy for minutes.
#[derive(Debug, Default)]
pub(super) struct Sums {
    values: usize,
    regexps: usize,
    expressions: usize,
    bytes: usize,
}

impl Sums {
    /// Adds a filter, and the values in it that have to be compiled.
    ///
    /// # Errors
    /// These are too many.
    pub(super) fn add_filter(&mut self, filter: &FlowFilter) -> Result<(), TooMany> {
        let FlowFilter { dns_query, http_path, http_url, experimental, .. } = filter;
        self.regexps += dns_query.len() + http_path.len() + http_url.len();
        self.expressions += experimental.as_ref().map_or(0, |Experimental { cel_expression }| cel_expression.len());
        if self.regexps > REGEXPS {
            return Err(TooMany::Regexps);
        }
        if self.expressions > EXPRESSIONS {
            return Err(TooMany::Expressions);
        }
        self.add_values(1)
    }

    /// Adds the values of a field.
    ///
    /// # Errors
    /// These are too many.
    pub(super) const fn add_values(&mut self, values: usize) -> Result<(), TooMany> {
        self.values = self.values.saturating_add(values);
        if self.values > VALUES { Err(TooMany::Values) } else { Ok(()) }
    }

    /// Adds the memory of a check.
    ///
    /// # Errors
    /// All checks together take too much.
    pub(super) const fn add_bytes(&mut self, bytes: usize) -> Result<(), TooMany> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > BYTES { Err(TooMany::Bytes) } else { Ok(()) }
    }

    /// The number of filters and values.
    pub(super) const fn values(&self) -> usize {
        self.values
    }

    /// The memory of all checks that have a size of their own.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the filters may take long for a flow.
    pub(super) const fn are_costly(&self) -> bool {
        self.values > CHEAP_VALUES || self.expressions > 0
    }
}
