//! The change between two ranges of the history, and whether it exceeds the differences among the weeks before. These
//! are estimates: numbers here are rounded.

use super::time::time;
use crate::units::human;
use serde_json::{Value, json};

/// Standard deviations beyond which a change is more than noise.
const SIGMAS: f64 = 2.0;

/// The change between two ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub(super) before: (u64, u64),
    /// Hours of the week that both ranges have.
    pub(super) matched_hours: usize,
    pub(super) bytes_per_month: [f64; 2],
    pub(super) dollars_per_month: [f64; 2],
    /// The standard deviation of bytes a month among the weeks before, and how many there are; `None` below two.
    pub(super) noise: Option<(f64, usize)>,
}

impl Comparison {
    /// Whether the change is more than noise; `None` where that is not known.
    pub fn is_beyond_noise(&self) -> Option<bool> {
        let [before, after] = self.bytes_per_month;
        self.noise.map(|(noise, _)| (after - before).abs() > SIGMAS * noise)
    }

    /// The comparison in one sentence.
    pub fn verdict(&self) -> String {
        let [before, after] = self.bytes_per_month;
        let word = |difference: f64| if difference < 0.0 { "less" } else { "more" };
        let percent =
            if before == 0.0 { String::new() } else { format!(" ({:+.1} %)", (after / before - 1.0) * 100.0) };
        let [cost_before, cost_after] = self.dollars_per_month;
        let change = format!(
            "{} a month {}{percent} and {:.2} USD a month {} than before",
            human((after - before).abs() as u64),
            word(after - before),
            (cost_after - cost_before).abs(),
            word(cost_after - cost_before),
        );
        match (self.is_beyond_noise(), self.noise) {
            (Some(true), Some((noise, weeks))) => {
                format!(
                    "{change}: more than the {weeks} weeks before differ among themselves ({}).",
                    human(noise as u64)
                )
            }
            (Some(false), Some((noise, weeks))) => format!(
                "{change}: no more than the {weeks} weeks before differ among themselves ({}).",
                human(noise as u64)
            ),
            _ => format!("{change}: whether that is noise is not known with less than two weeks before."),
        }
    }

    /// The comparison as JSON.
    pub(super) fn json(&self) -> Value {
        let [bytes_before, bytes_after] = self.bytes_per_month.map(|bytes| bytes as u64);
        let [usd_before, usd_after] = self.dollars_per_month.map(|dollars| format!("{dollars:.2}"));
        json!({
            "from": time(self.before.0),
            "to": time(self.before.1),
            "matched_hours_of_week": self.matched_hours,
            "before": { "bytes_per_month": bytes_before, "usd_per_month": usd_before },
            "after": { "bytes_per_month": bytes_after, "usd_per_month": usd_after },
            "noise_bytes_per_month": self.noise.map(|(noise, _)| noise as u64),
            "is_beyond_noise": self.is_beyond_noise(),
            "verdict": self.verdict(),
        })
    }
}
