//! Advice as JSON: money as decimal numbers in strings.

use super::{
    Advice,
    finding::{Finding, Monthly},
    patch::Patch,
};
use serde_json::{Value, json};

impl Advice {
    /// The advice as JSON.
    pub fn json(&self) -> Value {
        let findings: Vec<Value> = self.findings.iter().map(Finding::json).collect();
        json!({
            "findings": findings,
            "saving_usd_per_month": self.saving.cost.exact(),
            "crossing": amount(&self.crossing),
            "below_floor": self.below_floor,
            "above_cap": self.above_cap,
            "recorded_seconds": self.recorded_ms / 1000,
            "needed_seconds": self.needed_ms / 1000,
            "left_out_bytes": self.left_out_bytes,
        })
    }
}

impl Finding {
    /// The finding as JSON.
    pub fn json(&self) -> Value {
        let Self { id, rule, subject, action, saving, traffic, evidence, risk, patch, confidence, state } = self;
        json!({
            "id": id,
            "rule": rule.number(),
            "subject": subject,
            "action": action,
            "saving_usd_per_month": saving.cost.exact(),
            "bytes_per_month": saving.bytes,
            "unpriced_bytes_per_month": saving.unpriced_bytes,
            "traffic": amount(traffic),
            "evidence": evidence,
            "risk": risk,
            "patch": patch.as_ref().map(Patch::json),
            "confidence": confidence.name(),
            "state": state.name(),
        })
    }
}

pub(super) fn amount(Monthly { bytes, cost, unpriced_bytes }: &Monthly) -> Value {
    json!({
        "bytes_per_month": bytes,
        "usd_per_month": cost.exact(),
        "unpriced_bytes_per_month": unpriced_bytes,
    })
}
