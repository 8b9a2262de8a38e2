//! Flags of every server of flows beside its address: TLS, names, peers, and the outputs for its flows.

mod outputs;
mod tls;

pub(super) use outputs::OutputArgs;
pub(super) use tls::TlsArgs;

use super::invalid::Invalid;
use crate::hubble::{self, DEFAULT_CLUSTER, PeerAddress};

/// A server of flows: the node's name and where it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: String,
    address: String,
}

impl std::str::FromStr for Peer {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, address) = text.split_once('=').unwrap_or_default();
        let is_socket = address.strip_prefix("unix:").is_some_and(|path| !path.trim_start_matches('/').is_empty());
        let has_port = |address: &str| address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if name.is_empty() || !(is_socket || has_port(address)) {
            return Err(Invalid::Peer(text.to_owned()));
        }
        Ok(Self { name: name.to_owned(), address: address.to_owned() })
    }
}

impl Peer {
    /// As it is announced; servers of one relay have all TLS, or none.
    pub(super) fn announced(&self, with_tls: bool) -> (String, PeerAddress) {
        let (cluster, node) = self.name.split_once('/').unwrap_or((DEFAULT_CLUSTER, &self.name));
        let server_name = with_tls.then(|| hubble::server_name(cluster, node));
        (self.name.clone(), PeerAddress { address: self.address.clone(), server_name })
    }
}

/// A cluster's name, which is a part of DNS names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster(pub(super) String);

impl std::str::FromStr for Cluster {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_good = !text.is_empty() && !text.contains(['/', ' ', ',']);
        is_good.then(|| Self(text.to_owned())).ok_or_else(|| Invalid::Cluster(text.to_owned()))
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self(DEFAULT_CLUSTER.to_owned())
    }
}

impl std::fmt::Display for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Records of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity(pub(super) usize);

impl std::str::FromStr for Capacity {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let capacity = text.parse().ok().filter(|n: &usize| (1..1 << 26).contains(n) && (n + 1).is_power_of_two());
        capacity.map(Self).ok_or_else(|| Invalid::Capacity(text.to_owned()))
    }
}

impl std::fmt::Display for Capacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
