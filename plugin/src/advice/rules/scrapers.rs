//! R7 and R8: scrapers and collectors, which fetch much from many.

use super::stores::percent;
use crate::{
    advice::{
        engine::{Draft, Engine, display_name},
        finding::{Confidence, Rule},
        patch::Patch,
        priced_flows::{PricedFlow, Saved},
    },
    history::Workload,
};
use std::collections::{BTreeMap, BTreeSet};

/// Parts of names of programs that scrape.
const NAMES: [&str; 8] =
    ["prometheus", "vmagent", "victoria-metrics", "alloy", "grafana-agent", "collector", "telegraf", "scrape"];
/// Ports of metrics.
const PORTS: std::ops::RangeInclusive<u16> = 9090..=9999;
/// Of the bytes of a scrape, more than nine in ten are answers.
const ANSWERS: u64 = 9;
/// Number of target pods from which a client counts as a scraper: with a scraper's name, and without.
const NAMED_TARGETS: u32 = 10;
const TARGETS: u32 = 50;
/// The targets, in workloads, that two have in common to be duplicates.
const SHARED_TARGETS: usize = 3;

/// The targets of a scraper.
#[derive(Debug, Default)]
struct Scraper {
    /// The flows, also those of one zone and those that a finding is about.
    flows: Vec<usize>,
    targets: BTreeSet<(Workload, u16)>,
    bytes: u64,
}

/// Whether a workload has the name of a program that scrapes or collects.
pub(super) fn is_named(client: &Workload) -> bool {
    NAMES.iter().any(|part| client.name.contains(part))
}

fn is_scrape(entry: &PricedFlow<'_>) -> bool {
    let flow = &entry.flow;
    let [requests, answers] = flow.bytes;
    let is_answered = flow.is_known && answers > requests.saturating_mul(ANSWERS);
    // The names last: they take longest.
    is_answered && !flow.client.is_other() && (PORTS.contains(&flow.port) || is_named(flow.client))
}

fn scrapers<'a>(engine: &Engine<'a>) -> BTreeMap<&'a Workload, Scraper> {
    let mut scrapers: BTreeMap<&Workload, Scraper> = BTreeMap::new();
    for (number, entry) in engine.priced.flows.iter().enumerate().filter(|(_, entry)| is_scrape(entry)) {
        let scraper = scrapers.entry(entry.flow.client).or_default();
        scraper.flows.push(number);
        scraper.targets.insert((entry.flow.server.clone(), entry.flow.port));
        scraper.bytes = scraper.bytes.saturating_add(entry.amount(Saved::All).bytes);
    }
    scrapers
}

/// R8: two that fetch the same targets.
pub(super) fn duplicates(engine: &mut Engine<'_>) {
    let scrapers = scrapers(engine);
    let mut by_targets: BTreeMap<&BTreeSet<(Workload, u16)>, Vec<&Workload>> = BTreeMap::new();
    for (client, scraper) in scrapers.iter().filter(|(_, scraper)| scraper.targets.len() >= SHARED_TARGETS) {
        by_targets.entry(&scraper.targets).or_default().push(client);
    }
    for (targets, clients) in by_targets {
        // The one that costs least is removed; the others are compared with the one that is left.
        let mut clients = clients;
        clients.sort_by_key(|client| {
            let amount = engine.priced.sum(&scrapers[client].flows, Saved::All);
            (amount.cost, amount.bytes, *client)
        });
        while clients.len() > 1 {
            let duplicate = clients.remove(0);
            let other = clients.iter().find(|other| are_alike(scrapers[duplicate].bytes, scrapers[**other].bytes));
            if let Some(other) = other.copied() {
                remove(engine, duplicate, other, (&scrapers[duplicate], targets.len()));
            }
        }
    }
}

/// Whether the smaller number is at most a tenth below the larger one.
fn are_alike(a: u64, b: u64) -> bool {
    let (small, large) = (a.min(b), a.max(b));
    u128::from(small) * 10 >= u128::from(large) * 9
}

fn remove(engine: &mut Engine<'_>, duplicate: &Workload, other: &Workload, (scraper, targets): (&Scraper, usize)) {
    // Of two equal scrapers the smaller one changes from day to day; the finding stays the same.
    let mut names = [duplicate, other];
    names.sort_unstable();
    let [first, second] = names.map(display_name);
    let draft = Draft {
        subject: format!("{first} and {second}"),
        action: "Both scrape the same targets: let one scrape them, and the other read from it".to_owned(),
        evidence: vec![
            format!("the same {targets} targets, with a difference in bytes of less than a tenth"),
            format!("the saving is that of the one that costs less, {}", display_name(duplicate)),
        ],
        risk: vec!["pairs for high availability are duplicates on purpose".to_owned()],
        confidence: Confidence::Medium,
        ..Draft::default()
    };
    engine.add(Rule::Duplicate, &scraper.flows, Saved::All, draft);
}

/// R7: one that fetches from other zones.
pub(super) fn far(engine: &mut Engine<'_>) {
    for (client, scraper) in scrapers(engine) {
        let workloads: BTreeSet<&Workload> = scraper.targets.iter().map(|(target, _)| target).collect();
        let pods = |target: &&Workload| engine.pods(target).map_or(1, |pods| pods.values().sum::<u32>());
        let targets: u32 = workloads.iter().map(pods).fold(0, u32::saturating_add);
        if targets <= if is_named(client) { NAMED_TARGETS } else { TARGETS } {
            continue;
        }
        let crossing = engine.priced.sum(&scraper.flows, Saved::All).bytes;
        let draft = Draft {
            subject: display_name(client),
            action: "Scrape in the zone: one scraper for each zone, which keeps the targets of its own".to_owned(),
            evidence: vec![format!(
                "{targets} targets; {} of what it fetches crosses zones",
                percent(crossing, scraper.bytes)
            )],
            risk: vec![
                "each scraper needs memory of its own, and queries have to ask all of them".to_owned(),
                "what they write to a store elsewhere still crosses".to_owned(),
            ],
            patch: Some(Patch::configuration(
                "each zone's scraper",
                "relabel_configs:\n  - source_labels: [__meta_kubernetes_endpointslice_endpoint_zone]\n    \
                 regex: <zone>\n    action: keep",
            )),
            confidence: Confidence::Medium,
            ..Draft::default()
        };
        engine.add(Rule::ScrapeInZone, &scraper.flows, Saved::All, draft);
    }
}
