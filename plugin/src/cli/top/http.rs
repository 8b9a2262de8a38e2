//! Prices and findings, from the HTTP port of the same server. Numbers of traffic come from the counters alone.

use super::{
    amount::{Price, Prices},
    args::Args,
    update::{Advice, Answer, Finding, Update},
};
use crate::{
    api::Target,
    cli::{Failure, plain::plain},
    metrics::{AskError, ask},
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc::Sender, watch},
    time::timeout,
};

/// How often prices and findings are read again.
const INTERVAL: Duration = Duration::from_secs(30);
/// The ports of a controller, and of an agent or a demo.
const PORTS: [u16; 2] = [9981, 9980];
/// The findings in a list.
const FINDINGS: usize = 100;

#[derive(Deserialize)]
struct Report {
    rows: Vec<ReportRow>,
}

#[derive(Deserialize)]
struct ReportRow {
    key: ZonePair,
    bytes: u64,
    cost: Cost,
}

#[derive(Deserialize)]
struct ZonePair {
    source_zone: String,
    destination_zone: String,
}

#[derive(Deserialize)]
struct Cost {
    usd: String,
    unpriced_bytes: u64,
}

#[derive(Deserialize)]
struct AdviceAnswer {
    findings: Vec<FindingAnswer>,
    recorded_seconds: u64,
    needed_seconds: u64,
}

#[derive(Deserialize)]
struct FindingAnswer {
    id: String,
    rule: String,
    subject: String,
    action: String,
    confidence: String,
    saving_usd_per_month: String,
    bytes_per_month: u64,
    evidence: Vec<String>,
    risk: Vec<String>,
    patch: Option<PatchAnswer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PatchAnswer {
    command: String,
    text: String,
}

fn refused(error: impl std::fmt::Display) -> String {
    plain(&error.to_string())
}

/// Prices by pair of zones, of a report by pair of zones.
fn prices(text: &str) -> Answer<Prices> {
    let report: Report = serde_json::from_str(text).map_err(|error| refused(format!("the report: {error}")))?;
    let price = |row: &ReportRow| {
        let usd: f64 = row.cost.usd.parse().ok()?;
        let is_priced = row.bytes > row.cost.unpriced_bytes && usd.is_finite();
        let (usd_per_byte, is_partial) = (usd / row.bytes as f64, row.cost.unpriced_bytes > 0);
        is_priced.then_some(Price { usd_per_byte, is_partial })
    };
    let row = |row: ReportRow| {
        let price = price(&row);
        ((plain(&row.key.source_zone), plain(&row.key.destination_zone)), price)
    };
    Ok(report.rows.into_iter().map(row).collect())
}

fn advice(text: &str) -> Answer<Advice> {
    let answer: AdviceAnswer = serde_json::from_str(text).map_err(|error| refused(format!("the advice: {error}")))?;
    let plain_all = |texts: Vec<String>| texts.iter().map(|text| plain(text)).collect();
    let finding = |finding: FindingAnswer| {
        let patch = finding.patch.unwrap_or_default();
        Finding {
            id: plain(&finding.id),
            rule: plain(&finding.rule),
            subject: plain(&finding.subject),
            action: plain(&finding.action),
            confidence: plain(&finding.confidence),
            usd_per_month: finding.saving_usd_per_month.parse().unwrap_or_default(),
            bytes_per_month: finding.bytes_per_month,
            evidence: plain_all(finding.evidence),
            risk: plain_all(finding.risk),
            patch: plain(if patch.command.is_empty() { &patch.text } else { &patch.command }),
        }
    };
    Ok(Advice {
        findings: answer.findings.into_iter().take(FINDINGS).map(finding).collect(),
        recorded: answer.recorded_seconds,
        needed: answer.needed_seconds,
    })
}

/// The HTTP ports to try: the named one, or those of the host whose counters are shown.
fn ports(args: &Args) -> Vec<String> {
    if let Some(http) = &args.http {
        return vec![http.clone()];
    }
    let host = match &args.server {
        Some(Target::Tcp(address)) => address.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host),
        Some(Target::Unix(_)) | None => "127.0.0.1",
    };
    PORTS.iter().map(|port| format!("{host}:{port}")).collect()
}

/// Reads prices and findings until the screen has gone: now and then, and when it is woken. `is_early` asks for findings
/// from however little is recorded.
pub(super) async fn follow(args: &Args, updates: Sender<Update>, woken: Arc<Notify>, is_early: watch::Receiver<bool>) {
    let ports = ports(args);
    loop {
        // It may have been renewed.
        let token = args.token.token();
        let question = if *is_early.borrow() { "&min-data=0s&floor=0" } else { "" };
        let report = first(&ports, &token, "/api/v1/report?by=zone-pair&locality=all").await;
        let found = first(&ports, &token, &format!("/api/v1/advice?cap={FINDINGS}{question}")).await;
        let report = report.and_then(|text| prices(&text));
        let found = found.and_then(|text| advice(&text));
        for update in [Update::Prices(report), Update::Advice(found)] {
            if updates.send(update).await.is_err() {
                return;
            }
        }
        // Elapsed or woken: both mean to ask again.
        let _ = timeout(INTERVAL, woken.notified()).await;
    }
}

/// The answer of the first port that has one; otherwise the refusal of a server that is there, or the last error.
async fn first(ports: &[String], token: &Result<Option<String>, Failure>, path: &str) -> Answer<String> {
    let token = token.as_ref().map_err(ToString::to_string)?;
    let (mut refusal, mut absence) = (None, String::new());
    for port in ports {
        match ask(port, token.as_deref(), path).await {
            Ok(answer) => return Ok(answer),
            Err(error @ AskError::Refused { .. }) => refusal = refusal.or(Some(refused(error))),
            Err(error) => absence = refused(error),
        }
    }
    Err(refusal.unwrap_or(absence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::plain::tests::{HOSTILE, is_harmless};

    #[test]
    fn prices_are_those_of_the_bytes_that_have_one() {
        let row = |to: &str, bytes: u64, usd: &str, unpriced: u64| {
            serde_json::json!({
                "key": { "source_zone": "a", "destination_zone": to, "locality": "cross-zone" },
                "bytes": bytes, "packets": 1, "cost": { "usd": usd, "unpriced_bytes": unpriced },
            })
        };
        let rows = [
            row("b", 1000, "0.00002", 0),
            row("c", 1000, "0.00001", 500),
            row("unknown", 7, "0", 7),
            row("d", 0, "0", 0),
        ];
        let prices = prices(&serde_json::json!({ "rows": rows }).to_string()).unwrap();
        let of = |to: &str| prices[&("a".to_owned(), to.to_owned())];
        assert_eq!(of("b"), Some(Price { usd_per_byte: 2e-8, is_partial: false }));
        assert_eq!(of("c"), Some(Price { usd_per_byte: 1e-8, is_partial: true }));
        assert_eq!((of("unknown"), of("d")), (None, None));
    }

    #[test]
    fn an_answer_that_is_no_advice_is_an_error_and_hostile_texts_are_shown_harmlessly() {
        for text in ["", "[]", "{\"findings\":[{}]}", "<html>"] {
            assert!(advice(text).is_err() && prices(text).is_err(), "{text}");
        }
        let mut finding = serde_json::json!({
            "evidence": [HOSTILE], "risk": [HOSTILE], "saving_usd_per_month": HOSTILE, "bytes_per_month": 1,
            "patch": { "command": HOSTILE },
        });
        for key in ["id", "rule", "subject", "action", "confidence"] {
            finding[key] = HOSTILE.into();
        }
        let findings = vec![finding; FINDINGS + 1];
        let answer = serde_json::json!({ "findings": findings, "recorded_seconds": 1, "needed_seconds": 2 });
        let advice = advice(&answer.to_string()).unwrap();
        assert_eq!(advice.findings.len(), FINDINGS);
        let Finding { id, rule, subject, action, confidence, evidence, risk, patch, .. } = &advice.findings[0];
        for text in [id, rule, subject, action, confidence, &evidence[0], &risk[0], patch] {
            assert!(is_harmless(text) && !text.is_empty(), "{text}");
        }
    }
}
