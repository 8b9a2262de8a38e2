//! Collects findings; shared by the rules.

use super::{
    finding::{Confidence, Finding, Monthly, Rule, State},
    ledger::{Ledger, Saved},
    patch::Patch,
    snapshot::Snapshot,
    traffic::Traffic,
};
use crate::{
    catalogue::{Catalogue, PodsByZone, Service, WorkloadName},
    cost::Money,
    fnv::fnv1a,
    history::Party,
    units::human,
};
use std::{cmp::Reverse, collections::BTreeMap};

/// Zone pairs and clients that evidence names.
const NAMED: usize = 5;

/// A finding before its flows are taken.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Findings of one group stand together, in the order of `step`.
    pub(super) group: String,
    pub(super) step: u8,
    pub(super) subject: String,
    pub(super) action: String,
    pub(super) evidence: Vec<String>,
    pub(super) risk: Vec<String>,
    pub(super) patch: Option<Patch>,
    pub(super) confidence: Confidence,
    pub(super) state: State,
}

/// The rules' view of a snapshot.
#[derive(Debug)]
pub(super) struct Engine<'a> {
    pub(super) ledger: Ledger<'a>,
    pub(super) catalogue: &'a Catalogue,
    pub(super) traffic: &'a Traffic,
    findings: Vec<(String, u8, Finding)>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>) -> Self {
        let Snapshot { traffic, catalogue, .. } = *snapshot;
        Self { ledger: Ledger::new(snapshot), catalogue, traffic, findings: Vec::new() }
    }

    /// Adds a finding about these flows. Nothing, if none of them is left.
    pub(super) fn add(&mut self, rule: Rule, flows: &[usize], saved: Saved, draft: Draft) {
        let pairs = self.zone_pairs(flows);
        let [saving, traffic] = self.ledger.take(flows, saved).map(|amount| self.ledger.monthly(amount));
        if traffic == Monthly::default() {
            return;
        }
        let Draft { group, step, subject, action, evidence, risk, patch, confidence, state } = draft;
        let hash = fnv1a(rule.number().bytes().chain([b'|']).chain(subject.bytes()));
        let id = format!("{}-{hash:08x}", rule.number());
        let evidence = pairs.into_iter().chain(evidence).collect();
        let finding = Finding { id, rule, subject, action, saving, traffic, evidence, risk, patch, confidence, state };
        let group = if group.is_empty() { finding.id.clone() } else { group };
        self.findings.push((group, step, finding));
    }

    /// The findings: the group that saves most first, and within a group in the order in which to apply them.
    pub(super) fn finish(self) -> Vec<Finding> {
        let mut of_group: BTreeMap<String, (Money, Money)> = BTreeMap::new();
        for (group, _, finding) in &self.findings {
            let (saving, traffic) = of_group.entry(group.clone()).or_default();
            *saving += finding.saving.cost;
            *traffic += finding.traffic.cost;
        }
        let mut findings = self.findings;
        findings.sort_by_cached_key(|(group, step, finding)| {
            let bytes = (Reverse(finding.saving.bytes), Reverse(finding.traffic.bytes));
            let (saving, traffic) = of_group[group];
            (Reverse(saving), Reverse(traffic), group.clone(), *step, bytes, finding.id.clone())
        });
        findings.into_iter().map(|(_, _, finding)| finding).collect()
    }

    /// The open flows between zones, grouped.
    pub(super) fn open_by<K: Ord>(
        &self,
        key: impl Fn(&super::ledger::Entry<'a>) -> Option<K>,
    ) -> BTreeMap<K, Vec<usize>> {
        let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
        for (number, entry) in self.ledger.open() {
            if let Some(key) = key(entry) {
                groups.entry(key).or_default().push(number);
            }
        }
        groups
    }

    /// The zone pairs with the most traffic, a line each.
    fn zone_pairs(&self, flows: &[usize]) -> Vec<String> {
        let mut pairs: BTreeMap<[&str; 2], u64> = BTreeMap::new();
        for entry in flows.iter().map(|number| &self.ledger.entries[*number]).filter(|entry| entry.crosses()) {
            let sum = pairs.entry(entry.zones()).or_default();
            *sum = sum.saturating_add(entry.amount(Saved::All).bytes);
        }
        self.lines(pairs, |[client, server], bytes| {
            format!("clients in {client} to servers in {server}: {bytes} a month")
        })
    }

    /// The clients of flows with the most traffic, in one line.
    pub(super) fn clients(&self, flows: &[usize]) -> String {
        let mut clients: BTreeMap<String, u64> = BTreeMap::new();
        for entry in flows.iter().map(|number| &self.ledger.entries[*number]).filter(|entry| entry.crosses()) {
            let sum = clients.entry(party(entry.flow.client)).or_default();
            *sum = sum.saturating_add(entry.amount(Saved::All).bytes);
        }
        format!("clients: {}", self.lines(clients, |client, bytes| format!("{client} ({bytes})")).join(", "))
    }

    fn lines<K: Ord>(&self, sums: BTreeMap<K, u64>, line: impl Fn(K, String) -> String) -> Vec<String> {
        let mut sums: Vec<(K, u64)> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let more = sums.len().saturating_sub(NAMED);
        let shown =
            sums.into_iter().take(NAMED).map(|(key, bytes)| line(key, human(self.ledger.bytes_per_month(bytes))));
        let mut lines: Vec<String> = shown.collect();
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }

    /// The service of this name.
    pub(super) fn service(&self, name: &str) -> Option<&'a Service> {
        self.catalogue.services.get(name)
    }

    /// The pods of a workload, if it is in the catalogue.
    pub(super) fn pods(&self, party: &Party) -> Option<&'a PodsByZone> {
        let Party { namespace, kind, name, .. } = party;
        let name = WorkloadName { namespace: namespace.clone(), kind: kind.clone(), name: name.clone() };
        self.catalogue.workloads.get(&name)
    }
}

/// A workload, node or external prefix, for people.
pub(super) fn party(party: &Party) -> String {
    let Party { namespace, kind, name, .. } = party;
    match (kind.is_empty(), namespace.is_empty()) {
        (true, _) => "others".to_owned(),
        (false, true) => format!("{kind} {name}"),
        (false, false) => format!("{kind} {namespace}/{name}"),
    }
}
