//! What arrives while the screen is shown: counters, prices and findings, or the reason why there are none.

use super::amount::Prices;
use crate::proto::v1::WatchResponse;

/// What is wrong, in words, where there is no answer.
pub(super) type Answer<T> = Result<T, String>;

/// What to change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Advice {
    pub(super) findings: Vec<Finding>,
    /// Seconds that are recorded, and that advice needs.
    pub(super) recorded: u64,
    pub(super) needed: u64,
}

/// A change, in texts that a terminal shows as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Finding {
    pub(super) id: String,
    pub(super) rule: String,
    pub(super) subject: String,
    pub(super) action: String,
    pub(super) confidence: String,
    pub(super) usd_per_month: f64,
    pub(super) bytes_per_month: u64,
    pub(super) evidence: Vec<String>,
    pub(super) risk: Vec<String>,
    pub(super) patch: String,
}

/// Something that has arrived.
#[derive(Debug)]
pub(super) enum Update {
    Counters(Box<WatchResponse>),
    /// No counters, and why.
    Away(String),
    Prices(Answer<Prices>),
    Advice(Answer<Advice>),
}
