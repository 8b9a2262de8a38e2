//! The node whose flows are seen.

use crate::zones::Place;

/// The node that observes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its name in flows, which may have the cluster's before it.
    pub display_name: String,
    /// The cluster that it is in.
    pub cluster: String,
    /// Where it is.
    pub place: Place,
    /// Whether the text at the end of a flow's line says its zones, too.
    pub zones_in_summary: bool,
}

impl Node {
    /// A node of a cluster without a name, told as it is named.
    pub fn new(name: &str, place: Place) -> Self {
        let cluster = "default".to_owned();
        Self { name: name.to_owned(), display_name: name.to_owned(), cluster, place, zones_in_summary: false }
    }
}
