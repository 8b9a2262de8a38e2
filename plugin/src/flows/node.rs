//! The node that observes flows.

use crate::zones::Place;

/// The observing node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its name in flows, with the cluster's name before it unless the cluster is the default one.
    pub display_name: String,
    /// The cluster's name.
    pub cluster: String,
    /// The node's place.
    pub place: Place,
    /// Whether the summary at the end of a flow's line includes the zones.
    pub zones_in_summary: bool,
}

impl Node {
    /// A node of the default cluster, with the same name in flows.
    pub fn new(name: &str, place: Place) -> Self {
        let cluster = "default".to_owned();
        Self { name: name.to_owned(), display_name: name.to_owned(), cluster, place, zones_in_summary: false }
    }
}
