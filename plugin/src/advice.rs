//! Advice: changes that reduce traffic between zones, their savings, and their risks. Rules over the measured traffic
//! and the cluster's objects. Pure; nothing is ever applied.
//!
//! The findings are the same whatever the order of the input. Each byte is in one finding at most, so the savings never
//! exceed what traffic between zones cost. docs/advice.md has the rules.

mod capacity;
mod change_question;
mod engine;
mod finding;
mod form;
mod json;
mod patch;
mod priced_flows;
mod question;
mod rules;
mod snapshot;
mod table;
mod traffic;
mod whatif;
mod whatif_form;

pub use change_question::BadChange;
pub use finding::{Confidence, Finding, Monthly, Rule, State};
pub use form::{NoFinding, OutputFormat};
pub use patch::{Merge, Patch};
pub use question::{AdviceRequest, InvalidAdviceRequest};
pub use snapshot::Snapshot;
pub use traffic::{Flow, Load, MAX_PAIRS, Share, Traffic};
pub use whatif::{Change, NoAnswer, Preferred, WhatIf, ZoneEndpoints, ZoneTraffic};

use crate::cost::{Money, Price, Unit};
use engine::Engine;
use std::time::Duration;

/// The findings to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The smallest amount in a month. Bytes without a price count at 0.02 dollars for 10⁹.
    pub floor: Money,
    /// The most findings.
    pub cap: usize,
    /// The shortest time that has to be recorded.
    pub min_recorded: Duration,
}

impl Options {
    /// The default of `cap`, and the most that it can be.
    pub const CAP: usize = 50;
    /// The largest `cap`.
    pub const MAX_CAP: usize = 1000;

    /// Everything, whatever it saves and however short the time is.
    pub const fn all() -> Self {
        Self { floor: Money::ZERO, cap: Self::MAX_CAP, min_recorded: Duration::ZERO }
    }
}

impl Default for Options {
    fn default() -> Self {
        // A dollar: 10⁹ bytes at one dollar for that many.
        let dollar = Price::parse("1").map(|price| price.of(1_000_000_000, Unit::Gigabyte)).unwrap_or_default();
        Self { floor: dollar, cap: Self::CAP, min_recorded: Duration::from_secs(24 * 3600) }
    }
}

/// The findings, and the total that they are part of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// The changes, by saving; a change that another one needs stands before it.
    pub findings: Vec<Finding>,
    /// The saving of all findings in a month, hidden ones included.
    pub saving: Monthly,
    /// All traffic between zones in a month.
    pub crossing: Monthly,
    /// Findings below the floor.
    pub below_floor: usize,
    /// Findings above the cap.
    pub above_cap: usize,
    /// Time that was recorded, in milliseconds, and how much of it is needed.
    pub recorded_ms: u64,
    /// The time that has to be recorded, in milliseconds.
    pub needed_ms: u64,
    /// Bytes of pairs for which there was no room.
    pub left_out_bytes: u64,
}

impl Advice {
    /// The advice for a snapshot.
    pub fn new(snapshot: &Snapshot<'_>, options: &Options) -> Self {
        let recorded_ms = snapshot.traffic.recorded_ms();
        let needed_ms = u64::try_from(options.min_recorded.as_millis()).unwrap_or(u64::MAX);
        let left_out_bytes = snapshot.traffic.left_out();
        let mut advice = Self { recorded_ms, needed_ms, left_out_bytes, ..Self::default() };
        if recorded_ms == 0 || recorded_ms < needed_ms {
            return advice;
        }
        let mut engine = Engine::new(snapshot);
        rules::apply(&mut engine);
        advice.crossing = engine.priced.crossing();
        let mut findings = engine.finish();
        for finding in &findings {
            advice.saving.bytes = advice.saving.bytes.saturating_add(finding.saving.bytes);
            advice.saving.cost += finding.saving.cost;
            let unpriced = &mut advice.saving.unpriced_bytes;
            *unpriced = unpriced.saturating_add(finding.saving.unpriced_bytes);
        }
        let all = findings.len();
        findings.retain(|finding| is_above(finding, options.floor));
        advice.below_floor = all - findings.len();
        advice.above_cap = findings.len().saturating_sub(options.cap);
        findings.truncate(options.cap);
        advice.findings = findings;
        advice
    }

    /// The same with the first findings alone.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        let findings: Vec<Finding> = self.findings.iter().take(count).cloned().collect();
        let above_cap = self.above_cap + self.findings.len() - findings.len();
        Self { findings, above_cap, ..self.clone() }
    }

    /// Whether too little time was recorded for advice.
    pub const fn is_too_early(&self) -> bool {
        self.recorded_ms == 0 || self.recorded_ms < self.needed_ms
    }
}

/// Whether a finding reaches the floor: by its saving, or by the cost of its traffic if it only explains.
fn is_above(finding: &Finding, floor: Money) -> bool {
    let is_explained = finding.saving == Monthly::default();
    let Monthly { cost, unpriced_bytes, .. } = if is_explained { finding.traffic } else { finding.saving };
    let assumed = Price::parse("0.02").map(|price| price.of(unpriced_bytes, Unit::Gigabyte)).unwrap_or_default();
    [cost, assumed].into_iter().sum::<Money>() >= floor
}

#[cfg(test)]
mod tests;
