//! Peer: whose flows are served where, for hubble-relay.

use super::services::peer_server::Peer;
use crate::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, Tls};
use futures_util::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Hubble's name for a cluster that has none.
pub const DEFAULT_CLUSTER: &str = "default";
/// What the names in the certificates of Hubble's servers end with.
const SERVICE: &str = "hubble-grpc.cilium.io";

/// Servers of flows, by the node's name in its flows.
pub type Peers = BTreeMap<String, PeerAddress>;

/// Where a server of flows is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Host and port.
    pub address: String,
    /// The name in its certificate, where it has TLS.
    pub server_name: Option<String>,
}

/// A node's name in its flows: with the cluster's before it, unless that is the default one.
pub fn node_name(cluster: &str, node: &str) -> String {
    if cluster == DEFAULT_CLUSTER { node.to_owned() } else { format!("{cluster}/{node}") }
}

/// The name that a node's server of flows has in its certificate: dots would be further levels, which one
/// certificate for all of them does not cover.
pub fn server_name(cluster: &str, node: &str) -> String {
    format!("{}.{}.{SERVICE}", node.replace('.', "-"), cluster.replace('.', "-"))
}

/// Announces peers, and what becomes of them.
#[derive(Clone, Debug)]
pub struct PeerService {
    known: PeerSource,
    shutdown: CancellationToken,
}

/// Changes of peers.
pub type Changes = BoxStream<'static, Result<ChangeNotification, Status>>;

/// Asks for the changes, once for each of our clients.
pub type Ask = Arc<dyn Fn() -> BoxFuture<'static, Result<Changes, Status>> + Send + Sync>;

/// Who knows the peers.
#[derive(Clone)]
pub enum PeerSource {
    /// This process.
    Local(watch::Receiver<Arc<Peers>>),
    /// Another one.
    Remote(Ask),
}

impl fmt::Debug for PeerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(peers) => f.debug_tuple("Local").field(peers).finish(),
            Self::Remote(_) => f.write_str("Remote"),
        }
    }
}

impl PeerService {
    /// Of the peers that are known there. Streams end with `shutdown`.
    pub const fn new(known: PeerSource, shutdown: CancellationToken) -> Self {
        Self { known, shutdown }
    }
}

/// A stream in progress.
struct PeerStream {
    peers: watch::Receiver<Arc<Peers>>,
    known: Arc<Peers>,
    to_tell: VecDeque<ChangeNotification>,
}

impl PeerStream {
    /// The next change; `None` if there will be none.
    async fn next(&mut self) -> Option<ChangeNotification> {
        loop {
            if let Some(change) = self.to_tell.pop_front() {
                return Some(change);
            }
            // A stream that ends makes the relay ask again: it stays until there is a change or an end.
            if self.peers.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let now = Arc::clone(&self.peers.borrow_and_update());
            self.to_tell = changes(&self.known, &now).into();
            self.known = now;
        }
    }
}

fn changes(known: &Peers, now: &Peers) -> Vec<ChangeNotification> {
    let change = |name: &String, peer: &PeerAddress, kind: ChangeNotificationType| ChangeNotification {
        name: name.clone(),
        address: peer.address.clone(),
        r#type: kind.into(),
        tls: peer.server_name.clone().map(|server_name| Tls { server_name }),
    };
    let gone = known.iter().filter(|(name, _)| !now.contains_key(*name));
    let gone = gone.map(|(name, peer)| change(name, peer, ChangeNotificationType::PeerDeleted));
    let new = now.iter().filter_map(|(name, peer)| match known.get(name) {
        None => Some(change(name, peer, ChangeNotificationType::PeerAdded)),
        Some(before) if before != peer => Some(change(name, peer, ChangeNotificationType::PeerUpdated)),
        Some(_) => None,
    });
    gone.chain(new).collect()
}

#[tonic::async_trait]
impl Peer for PeerService {
    type NotifyStream = Changes;

    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let changes = match &self.known {
            PeerSource::Remote(ask) => ask().await?,
            PeerSource::Local(peers) => {
                let mut peers = peers.clone();
                let known = Arc::clone(&peers.borrow_and_update());
                let to_tell = changes(&Peers::new(), &known).into();
                let told = PeerStream { peers, known, to_tell };
                stream::unfold(told, |mut told| async move { Some((Ok(told.next().await?), told)) }).boxed()
            }
        };
        let end = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(changes.take_until(Box::pin(end)).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(of: &[(&str, &str)]) -> Arc<Peers> {
        let peer = |address: &str| PeerAddress { address: address.to_owned(), server_name: None };
        Arc::new(of.iter().map(|(name, address)| ((*name).to_owned(), peer(address))).collect())
    }

    #[test]
    fn names_are_hubbles() {
        assert_eq!((node_name("default", "n.x"), node_name("c", "n.x")), ("n.x".into(), "c/n.x".into()));
        assert_eq!(server_name("my.c", "n.x"), "n-x.my-c.hubble-grpc.cilium.io");
    }

    #[tokio::test]
    async fn a_stream_tells_who_is_there_and_then_what_changes() {
        let sender = watch::Sender::new(peers(&[("a", "10.0.0.1:4344"), ("b", "10.0.0.2:4344")]));
        let shutdown = CancellationToken::new();
        let service = PeerService::new(PeerSource::Local(sender.subscribe()), shutdown.clone());
        let mut stream = service.notify(Request::new(NotifyRequest {})).await.unwrap().into_inner();
        let mut next = async || {
            let change = stream.next().await?.unwrap();
            Some((change.r#type().as_str_name(), change.name, change.address))
        };
        let told = |kind, name: &str, address: &str| Some((kind, name.to_owned(), address.to_owned()));
        assert_eq!(next().await, told("PEER_ADDED", "a", "10.0.0.1:4344"));
        assert_eq!(next().await, told("PEER_ADDED", "b", "10.0.0.2:4344"));
        sender.send_replace(peers(&[("b", "10.0.0.9:4344"), ("c", "10.0.0.3:4344")]));
        assert_eq!(next().await, told("PEER_DELETED", "a", "10.0.0.1:4344"));
        assert_eq!(next().await, told("PEER_UPDATED", "b", "10.0.0.9:4344"));
        assert_eq!(next().await, told("PEER_ADDED", "c", "10.0.0.3:4344"));
        shutdown.cancel();
        assert_eq!(next().await, None);
    }
}
