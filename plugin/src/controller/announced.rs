//! The servers of flows that are announced to hubble-relay. What an agent reports of its own is a claim: the name
//! is made from the node that its token is of, and the address must be of that node.

use crate::{
    hubble::{PeerAddress, node_name, server_name},
    identity::Index,
    proto::v1::FlowServer,
    reports::Reporting,
};
use std::{net::SocketAddr, time::SystemTime};

/// Why a server of flows is not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// It is no address.
    #[error("the address of its flow server is none")]
    Address,
    /// The address belongs to another node, or to no known node.
    #[error("the address of its flow server is none of the node's")]
    Elsewhere,
    /// The name is that of another node.
    #[error("the name of its flow server is not the node's")]
    Name,
}

/// A server of flows, by its name for hubble-relay.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) name: String,
    pub(super) peer: PeerAddress,
    pub(super) address: SocketAddr,
}

/// The server that a node reports, as it is announced.
///
/// # Errors
/// The claim is not about the node itself.
pub(super) fn announced(
    cluster: &str,
    Reporting { node, .. }: &Reporting,
    claim: &FlowServer,
    (index, all): (&Index, &[Reporting]),
) -> Result<Announced, Refused> {
    let address: SocketAddr = claim.address.parse().map_err(|_| Refused::Address)?;
    // The node's own address, or that of the agent's pod there.
    let endpoint = index.at(address.ip().to_canonical(), SystemTime::now());
    endpoint.filter(|endpoint| *endpoint.node == **node).ok_or(Refused::Elsewhere)?;
    // Beside cilium-agent all our servers' names end alike.
    let suffix = claim.name.strip_prefix(&node_name(cluster, node)).ok_or(Refused::Name)?;
    let full = format!("{node}{suffix}");
    let is_nearer = |other: &Reporting| other.node.len() > node.len() && full.starts_with(&other.node);
    if all.iter().any(is_nearer) {
        return Err(Refused::Name);
    }
    let server_name = (!claim.tls_server_name.is_empty()).then(|| server_name(cluster, &full));
    let peer = PeerAddress { address: address.to_string(), server_name };
    Ok(Announced { name: node_name(cluster, &full), peer, address })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Endpoint;
    use std::{sync::Arc, time::Duration};

    fn reporting(node: &str) -> Reporting {
        Reporting { node: node.into(), flow_server: None, age: Duration::ZERO }
    }

    #[test]
    fn a_node_announces_only_itself() {
        let index = Index::default();
        let pod = Endpoint { pod: "agent".into(), node: "c".into(), ..Endpoint::default() };
        let at = |address: &str, endpoint| (address.parse().unwrap(), Some(Arc::new(endpoint)));
        index.apply([at("10.0.0.2", Endpoint::node("b")), at("10.0.0.3", Endpoint::node("c")), at("10.1.0.3", pod)]);
        let all = [reporting("b"), reporting("c"), reporting("c-2")];
        let check = |node: &str, name: &str, address: &str, tls: &str| {
            let claim = FlowServer { name: name.into(), address: address.into(), tls_server_name: tls.into() };
            announced("k", &reporting(node), &claim, (&index, &all))
        };
        let good = check("c", "k/c-meridian", "10.0.0.3:4344", "b.k.hubble-grpc.cilium.io").unwrap();
        assert_eq!((&*good.name, &*good.peer.address), ("k/c-meridian", "10.0.0.3:4344"));
        assert_eq!(good.peer.server_name.as_deref(), Some("c-meridian.k.hubble-grpc.cilium.io"), "whatever it says");
        assert!(check("c", "k/c", "10.1.0.3:4344", "").is_ok(), "an agent with an address of its own");
        assert_eq!(check("c", "k/b", "10.0.0.3:4344", ""), Err(Refused::Name));
        assert_eq!(check("c", "k/c-2", "10.0.0.3:4344", ""), Err(Refused::Name), "another node's");
        assert_eq!(check("c", "other/c", "10.0.0.3:4344", ""), Err(Refused::Name));
        assert_eq!(check("c", "k/c", "10.0.0.2:4344", ""), Err(Refused::Elsewhere));
        assert_eq!(check("c", "k/c", "192.0.2.1:4344", ""), Err(Refused::Elsewhere));
        assert_eq!(check("c", "k/c", "evil.example:4344", ""), Err(Refused::Address));
    }
}
