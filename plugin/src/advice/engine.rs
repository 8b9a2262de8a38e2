//! Collects findings; shared by the rules.

use super::{
    finding::{Confidence, Finding, Monthly, Rule, State},
    patch::Patch,
    priced_flows::{PricedFlow, PricedFlows, Saved},
    snapshot::Snapshot,
    traffic::Traffic,
};
use crate::{
    catalogue::{Catalogue, PodsByZone, Service},
    cost::Money,
    fnv::fnv1a,
    history::Workload,
    units::human,
};
use ahash::AHashMap;
use std::{cmp::Reverse, collections::BTreeMap, hash::Hash};

/// Zone pairs and clients that evidence names.
const MAX_NAMED: usize = 5;

/// A finding before flows are assigned to it.
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
    pub(super) priced: PricedFlows<'a>,
    pub(super) catalogue: &'a Catalogue,
    pub(super) traffic: &'a Traffic,
    /// The pods of each workload, by namespace, kind and name.
    pods: AHashMap<[&'a str; 3], &'a PodsByZone>,
    findings: Vec<(String, u8, Finding)>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>) -> Self {
        let Snapshot { traffic, catalogue, .. } = *snapshot;
        let pods = catalogue.workloads.iter().map(|(workload, pods)| {
            let names = [&workload.namespace, &workload.kind, &workload.name];
            (names.map(String::as_str), pods)
        });
        Self { priced: PricedFlows::new(snapshot), catalogue, traffic, pods: pods.collect(), findings: Vec::new() }
    }

    /// Adds a finding about these flows. Nothing, if none of them is left.
    pub(super) fn add(&mut self, rule: Rule, flows: &[usize], saved: Saved, draft: Draft) {
        let pairs = self.zone_pairs(flows);
        let [saving, traffic] = self.priced.assign(flows, saved).map(|amount| self.priced.monthly(amount));
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

    /// The flows between zones without a finding, grouped.
    pub(super) fn unassigned_by<K: Ord + Hash>(
        &self,
        key: impl Fn(&PricedFlow<'a>) -> Option<K>,
    ) -> BTreeMap<K, Vec<usize>> {
        let mut groups: AHashMap<K, Vec<usize>> = AHashMap::new();
        for (number, entry) in self.priced.unassigned() {
            if let Some(key) = key(entry) {
                groups.entry(key).or_default().push(number);
            }
        }
        groups.into_iter().collect()
    }

    /// The zone pairs with the most traffic, a line each.
    fn zone_pairs(&self, flows: &[usize]) -> Vec<String> {
        let mut pairs: BTreeMap<[&str; 2], u64> = BTreeMap::new();
        for entry in flows.iter().map(|number| &self.priced.flows[*number]).filter(|entry| entry.crosses()) {
            let sum = pairs.entry(entry.zones()).or_default();
            *sum = sum.saturating_add(entry.amount(Saved::All).bytes);
        }
        self.lines(pairs, |[client, server], bytes| {
            format!("clients in {client} to servers in {server}: {bytes} a month")
        })
    }

    /// The clients of flows with the most traffic, in one line.
    pub(super) fn clients(&self, flows: &[usize]) -> String {
        let mut clients: BTreeMap<&Workload, u64> = BTreeMap::new();
        for entry in flows.iter().map(|number| &self.priced.flows[*number]).filter(|entry| entry.crosses()) {
            let sum = clients.entry(entry.flow.client).or_default();
            *sum = sum.saturating_add(entry.amount(Saved::All).bytes);
        }
        let mut named: BTreeMap<String, u64> = BTreeMap::new();
        for (client, bytes) in clients {
            let sum = named.entry(display_name(client)).or_default();
            *sum = sum.saturating_add(bytes);
        }
        format!("clients: {}", self.lines(named, |client, bytes| format!("{client} ({bytes})")).join(", "))
    }

    fn lines<K: Ord>(&self, sums: BTreeMap<K, u64>, line: impl Fn(K, String) -> String) -> Vec<String> {
        let mut sums: Vec<(K, u64)> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let more = sums.len().saturating_sub(MAX_NAMED);
        let shown =
            sums.into_iter().take(MAX_NAMED).map(|(key, bytes)| line(key, human(self.priced.bytes_per_month(bytes))));
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
    pub(super) fn pods(&self, workload: &Workload) -> Option<&'a PodsByZone> {
        self.pods.get(&[&workload.namespace, &workload.kind, &workload.name].map(String::as_str)).copied()
    }
}

/// A workload, node or external prefix, for people.
pub(super) fn display_name(workload: &Workload) -> String {
    let Workload { namespace, kind, name, .. } = workload;
    match (kind.is_empty(), namespace.is_empty()) {
        (true, _) => "others".to_owned(),
        (false, true) => format!("{kind} {name}"),
        (false, false) => format!("{kind} {namespace}/{name}"),
    }
}
