//! The facts of an object that was read.

use super::super::facts::{Fact, Key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::{
    collections::BTreeMap,
    str::FromStr,
    time::{Duration, SystemTime},
};

/// The labels that are read.
#[derive(Clone, Debug)]
pub struct LabelKeys {
    /// The node label with the zone's name.
    pub zone: String,
    /// The node label with the region's name.
    pub region: String,
    /// Labels of pods to include in their flows; a label that ends in `*` stands for all with this prefix.
    pub pod: Vec<String>,
    /// Labels of namespaces to include in their pods' flows. Without any, namespaces are not watched.
    pub namespace: Vec<String>,
    /// The nodes without an agent.
    pub agentless: Agentless,
}

impl Default for LabelKeys {
    fn default() -> Self {
        Self {
            zone: "topology.kubernetes.io/zone".into(),
            region: "topology.kubernetes.io/region".into(),
            pod: ["app", "k8s-app", "name", "app.kubernetes.io/*"].map(str::to_owned).into(),
            namespace: Vec::new(),
            agentless: Agentless::default(),
        }
    }
}

/// The nodes without an agent, by their labels.
#[derive(Clone, Debug)]
pub struct Agentless {
    /// Nodes with any of these labels have no agent.
    pub labels: Vec<NodeLabel>,
    /// Nodes that lack one of these labels have no agent.
    pub selector: Vec<NodeLabel>,
}

impl Agentless {
    /// Labels of nodes that run no DaemonSets.
    pub const LABELS: [&str; 3] = ["eks.amazonaws.com/compute-type=fargate", "type=virtual-kubelet", "type=kwok"];
}

impl Default for Agentless {
    fn default() -> Self {
        Self { labels: Self::LABELS.iter().filter_map(|label| label.parse().ok()).collect(), selector: Vec::new() }
    }
}

/// A label of a node, with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLabel {
    key: String,
    value: String,
}

/// A text that is no label.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no label like type=virtual-kubelet")]
pub struct NoLabel {
    text: String,
}

impl NodeLabel {
    /// Whether a node with these labels has it.
    pub(super) fn is_in(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key) == Some(&self.value)
    }
}

impl FromStr for NodeLabel {
    type Err = NoLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) =
            text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| NoLabel { text: text.into() })?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// An object after reading.
#[derive(Clone, Debug)]
pub struct ReadObject {
    pub(in super::super) key: Key,
    pub(in super::super) resource_version: String,
    pub(in super::super) fact: Fact,
    /// Parts that could not be read.
    pub(in super::super) problems: Vec<String>,
}

impl ReadObject {
    /// The object's name.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn new(meta: &ObjectMeta, fact: Fact, problems: Vec<String>) -> Self {
        Self { key: key(meta), resource_version: meta.resource_version.clone().unwrap_or_default(), fact, problems }
    }
}

/// Converts a time of an object.
pub(super) fn time(time: &Time) -> Option<SystemTime> {
    let seconds = u64::try_from(time.0.as_second()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn key(meta: &ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    Key { namespace: text(&meta.namespace), name: text(&meta.name) }
}
