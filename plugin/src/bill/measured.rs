//! The bytes that a history has between zones of one region, by day and node.

use super::day::Day;
use crate::{
    history::{Block, NodeCoverage},
    zones::{Locality, NodeSigns, Provider},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The days of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    days: BTreeMap<Day, MeasuredDay>,
}

/// A day of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeasuredDay {
    /// Seconds in which somebody recorded.
    pub recorded_seconds: u64,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, MeasuredNode>,
    /// Bytes between zones that a node sent or received of which no more is known.
    pub no_node: MeasuredNode,
}

/// A machine under a name. Another machine may have had the name before.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId {
    /// The node's name.
    pub node: String,
    /// Its `spec.providerID`, or nothing.
    pub provider_id: String,
}

/// A node on a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredNode {
    /// The provider, or nothing.
    pub provider: String,
    /// Seconds that its reports cover.
    pub reported_seconds: u64,
    /// Bytes that it sent to another zone of its region.
    pub sent_bytes: u64,
    /// Bytes that it received from another zone of its region.
    pub received_bytes: u64,
}

/// An answer that has no days.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    /// It is not of the form.
    #[error("the answer has no days with nodes: {0}")]
    OutputFormat(#[from] serde_json::Error),
    /// A day is none.
    #[error("the answer has a day that is none: {0}")]
    Day(#[from] super::InvalidDay),
}

#[derive(Serialize, Deserialize)]
struct Answer {
    days: Vec<DayAnswer>,
}

#[derive(Serialize, Deserialize)]
struct DayAnswer {
    day: String,
    recorded_seconds: u64,
    nodes: Vec<NodeAnswer>,
    sent_bytes_of_no_node: u64,
    received_bytes_of_no_node: u64,
    #[serde(default)]
    provider_of_no_node: String,
}

#[derive(Serialize, Deserialize)]
struct NodeAnswer {
    #[serde(flatten)]
    id: NodeId,
    #[serde(flatten)]
    measured: MeasuredNode,
}

impl Measured {
    /// Adds a block of an hour or a day.
    pub fn add(&mut self, block: &Block) {
        let day = self.days.entry(Day::of(block.span.start)).or_default();
        add(&mut day.recorded_seconds, block.coverage.recorded_seconds.into());
        for seen in block.coverage.nodes.iter().filter(|seen| !seen.name.is_empty()) {
            let node = day.node(seen);
            add(&mut node.reported_seconds, seen.reported_seconds.into());
            if node.provider.is_empty() {
                node.provider = provider(&seen.provider_id);
            }
        }
        for row in &block.nodes {
            let [source, destination] = row.sites.map(|site| &block.sites[site as usize]);
            let own = if row.is_receiver { destination } else { source };
            let seen = &block.coverage.nodes[row.node as usize];
            let is_external = seen.name.is_empty() && own.class.is_some();
            if is_external || Locality::between(&source.place, &destination.place) != Locality::CrossZone {
                continue;
            }
            let node = if seen.name.is_empty() { &mut day.no_node } else { day.node(seen) };
            add(if row.is_receiver { &mut node.received_bytes } else { &mut node.sent_bytes }, row.counter.bytes);
            if let (true, Some(provider)) = (node.provider.is_empty(), &own.provider) {
                provider.name().clone_into(&mut node.provider);
            }
        }
    }

    /// A single day.
    pub fn of(day: Day, measured: MeasuredDay) -> Self {
        Self { days: [(day, measured)].into() }
    }

    /// The days.
    pub fn days(&self) -> impl Iterator<Item = (Day, &MeasuredDay)> {
        self.days.iter().map(|(day, measured)| (*day, measured))
    }

    /// A day, if there is any block of it.
    pub fn day(&self, day: Day) -> Option<&MeasuredDay> {
        self.days.get(&day)
    }

    /// Adds the days of another part of the history.
    pub fn extend(&mut self, other: Self) {
        self.days.extend(other.days);
    }

    /// The days as JSON.
    pub fn json(&self) -> serde_json::Value {
        let answer = Answer { days: self.days.iter().map(|(day, measured)| DayAnswer::new(*day, measured)).collect() };
        serde_json::to_value(answer).unwrap_or_default()
    }

    /// The days of JSON.
    ///
    /// # Errors
    /// It has no days.
    pub fn parse(json: &str) -> Result<Self, BadAnswer> {
        let answer: Answer = serde_json::from_str(json)?;
        let days = answer.days.into_iter().map(DayAnswer::measured).collect::<Result<_, BadAnswer>>()?;
        Ok(Self { days })
    }
}

impl DayAnswer {
    fn new(day: Day, measured: &MeasuredDay) -> Self {
        let node = |(id, measured): (&NodeId, &MeasuredNode)| NodeAnswer { id: id.clone(), measured: measured.clone() };
        Self {
            day: day.to_string(),
            recorded_seconds: measured.recorded_seconds,
            nodes: measured.nodes.iter().map(node).collect(),
            sent_bytes_of_no_node: measured.no_node.sent_bytes,
            received_bytes_of_no_node: measured.no_node.received_bytes,
            provider_of_no_node: measured.no_node.provider.clone(),
        }
    }

    fn measured(self) -> Result<(Day, MeasuredDay), BadAnswer> {
        let day = Day::of(Day::second(&self.day)?);
        let nodes = self.nodes.into_iter().map(|NodeAnswer { id, measured }| (id, measured)).collect();
        let no_node = MeasuredNode {
            sent_bytes: self.sent_bytes_of_no_node,
            received_bytes: self.received_bytes_of_no_node,
            provider: self.provider_of_no_node,
            ..MeasuredNode::default()
        };
        Ok((day, MeasuredDay { recorded_seconds: self.recorded_seconds, nodes, no_node }))
    }
}

impl MeasuredDay {
    fn node(&mut self, seen: &NodeCoverage) -> &mut MeasuredNode {
        let id = NodeId { node: seen.name.clone(), provider_id: seen.provider_id.clone() };
        self.nodes.entry(id).or_default()
    }
}

fn provider(provider_id: &str) -> String {
    let signs = NodeSigns { provider_id, labels: &BTreeMap::new(), kubelet_version: "" };
    Provider::of_node(&signs).map(|provider| provider.name().to_owned()).unwrap_or_default()
}

const fn add(sum: &mut u64, value: u64) {
    *sum = sum.saturating_add(value);
}
