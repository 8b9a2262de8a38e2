//! The regions of zones, and the nodes without a zone.

use super::super::{
    claims::NodePlace,
    facts::{AgentExpectation, Node, ZoneLabelState},
};
use crate::zones::{Place, Table, Zone};
use meridian_abi::zone::PrefixKind;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The time after its creation for which a node may have no zone without a notice.
const GRACE: Duration = Duration::from_secs(120);

/// Regions of zones, as nodes and the static table name them.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Regions of zones, with the number of nodes that name them.
    regions: HashMap<String, BTreeMap<String, usize>>,
    /// Regions of zones in the static table.
    fixed: HashMap<String, String>,
    /// Nodes without a zone.
    zoneless: BTreeSet<Arc<str>>,
    /// Those of them that were not reported yet, with the time to report them.
    unreported: BTreeMap<Arc<str>, NoticeDue>,
    /// The number of nodes without an agent.
    agentless: usize,
}

#[derive(Clone, Copy, Debug)]
enum NoticeDue {
    Now,
    /// After the grace period since its creation, or, if that is unknown, since the first check.
    Later(Option<SystemTime>),
    /// The cloud provider has not initialized the node yet.
    Waiting,
}

impl Places {
    pub(super) fn set_fixed(&mut self, table: &Table) {
        let zones = table.placements().filter_map(|placement| match &placement.place {
            Place::Zone(zone) => Some((zone.name.clone(), zone.region.clone())),
            Place::Unknown | Place::Internet => None,
        });
        self.fixed = zones.collect();
    }

    /// Applies a node's labels.
    pub(super) fn set(&mut self, name: &Arc<str>, before: Option<&Node>, now: Option<&Node>) {
        let zone = |node: Option<&Node>| node.and_then(|node| node.zone.clone());
        let (old, new) = (zone(before), zone(now));
        let agentless =
            |node: Option<&Node>| usize::from(node.is_some_and(|node| node.agency != AgentExpectation::Agent));
        self.agentless = self.agentless + agentless(now) - agentless(before);
        if let Some(zone) = old.as_ref().filter(|zone| !zone.region.is_empty())
            && let Some(regions) = self.regions.get_mut(&zone.name)
        {
            if let Some(count) = regions.get_mut(&zone.region) {
                *count -= 1;
            }
            regions.retain(|_, count| *count > 0);
            if regions.is_empty() {
                self.regions.remove(&zone.name);
            }
        }
        if let Some(zone) = new.as_ref().filter(|zone| !zone.region.is_empty()) {
            let regions = self.regions.entry(zone.name.clone()).or_default();
            *regions.entry(zone.region.clone()).or_default() += 1;
        }
        let Some(now) = now.filter(|_| new.is_none()) else {
            self.zoneless.remove(name);
            self.unreported.remove(name);
            return;
        };
        let is_new = self.zoneless.insert(Arc::clone(name));
        if !is_new && !self.unreported.contains_key(name) {
            return;
        }
        let unreported = match now.zoneless {
            // It had a zone before, so there is nothing to wait for.
            _ if old.is_some() => NoticeDue::Now,
            ZoneLabelState::Labelled => NoticeDue::Now,
            ZoneLabelState::Unlabelled => NoticeDue::Later(now.created),
            ZoneLabelState::Uninitialized => NoticeDue::Waiting,
            ZoneLabelState::Virtual => {
                self.unreported.remove(name);
                return;
            }
        };
        self.unreported.insert(Arc::clone(name), unreported);
    }

    /// The region of a zone; empty if it is unknown or contradictory.
    pub(super) fn region(&self, zone: &str) -> String {
        let mut named = self.regions.get(zone).into_iter().flat_map(BTreeMap::keys);
        match (named.next(), named.next()) {
            (Some(only), None) => only.clone(),
            (None, _) => self.fixed.get(zone).cloned().unwrap_or_default(),
            (Some(_), Some(_)) => String::new(),
        }
    }

    /// The zone with its region, which other nodes may name.
    pub(super) fn whole(&self, zone: &Arc<Zone>) -> Arc<Zone> {
        if zone.region.is_empty() {
            Arc::new(Zone { name: zone.name.clone(), region: self.region(&zone.name) })
        } else {
            Arc::clone(zone)
        }
    }

    /// The place of a node, with its zone's region.
    pub(super) fn place(&self, node: &Node) -> NodePlace {
        let kind = match node.agency {
            AgentExpectation::None => PrefixKind::External,
            AgentExpectation::Agent | AgentExpectation::Simulated => PrefixKind::Cluster,
        };
        NodePlace { zone: node.zone.as_ref().map(|zone| self.whole(zone)), kind }
    }

    /// Other regions that are named for the zone.
    pub(super) fn other_regions(&self, zone: &Zone) -> String {
        let named = self.regions.get(&zone.name).into_iter().flat_map(BTreeMap::keys);
        let others: Vec<&str> = named.filter(|region| **region != zone.region).map(String::as_str).take(3).collect();
        others.join(", ")
    }

    /// The number of nodes without a zone.
    pub(super) fn zoneless(&self) -> usize {
        self.zoneless.len()
    }

    /// The number of nodes without an agent.
    pub(super) const fn agentless(&self) -> usize {
        self.agentless
    }

    /// Takes the nodes without a zone that are due to be reported.
    pub(super) fn take_zoneless(&mut self, now: SystemTime) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        self.unreported.retain(|name, unreported| {
            let is_due = match unreported {
                NoticeDue::Now => true,
                NoticeDue::Waiting => false,
                NoticeDue::Later(since) => {
                    let since = *since.get_or_insert(now);
                    now.duration_since(since).is_ok_and(|age| age >= GRACE)
                }
            };
            if is_due {
                due.push(Arc::clone(name));
            }
            !is_due
        });
        due
    }
}
