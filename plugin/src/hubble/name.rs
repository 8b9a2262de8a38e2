//! The names of a node in Hubble: in flows, for hubble-relay, in its certificate.

use super::{DEFAULT_CLUSTER, node_name, server_name};

/// A node's names for Hubble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// The cluster.
    pub cluster: String,
    /// The node, without the cluster.
    pub node: String,
}

impl NodeName {
    /// The name in flows and for hubble-relay.
    pub fn display_name(&self) -> String {
        node_name(&self.cluster, &self.node)
    }

    /// The name in the node's certificate.
    pub fn server_name(&self) -> String {
        server_name(&self.cluster, &self.node)
    }

    /// The cluster's name as shown beside namespaces; empty for the default cluster.
    pub fn reported_cluster(&self) -> String {
        if self.cluster == DEFAULT_CLUSTER { String::new() } else { self.cluster.clone() }
    }
}
