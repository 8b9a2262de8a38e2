//! Peer: the addresses of flow servers, for hubble-relay.

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
/// The domain that ends the names in certificates of Hubble's servers.
const SERVICE: &str = "hubble-grpc.cilium.io";

/// Flow servers, by the node's name in its flows.
pub type Peers = BTreeMap<String, PeerAddress>;

/// The address of a flow server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Host and port.
    pub address: String,
    /// The name in its certificate, if it uses TLS.
    pub server_name: Option<String>,
}

/// A node's name in its flows: the cluster's name comes first, unless the cluster is the default one.
pub fn node_name(cluster: &str, node: &str) -> String {
    if cluster == DEFAULT_CLUSTER { node.to_owned() } else { format!("{cluster}/{node}") }
}

/// The name in the certificate of a node's flow server. Dots of the node's name are replaced, because a wildcard
/// certificate covers one level only.
pub fn server_name(cluster: &str, node: &str) -> String {
    format!("{}.{}.{SERVICE}", node.replace('.', "-"), cluster.replace('.', "-"))
}

/// Announces the peers and their changes.
#[derive(Clone, Debug)]
pub struct PeerService {
    known: PeerSource,
    shutdown: CancellationToken,
}

/// Changes of peers.
pub type Changes = BoxStream<'static, Result<ChangeNotification, Status>>;

/// Opens a stream of changes, once for each client.
pub type Ask = Arc<dyn Fn() -> BoxFuture<'static, Result<Changes, Status>> + Send + Sync>;

/// The source of the peers.
#[derive(Clone)]
pub enum PeerSource {
    /// This process.
    Local(watch::Receiver<Arc<Peers>>),
    /// Another process.
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
    /// Announces the peers of this source. Streams end with `shutdown`.
    pub const fn new(known: PeerSource, shutdown: CancellationToken) -> Self {
        Self { known, shutdown }
    }
}

/// A stream in progress.
struct PeerStream {
    peers: watch::Receiver<Arc<Peers>>,
    known: Arc<Peers>,
    unsent: VecDeque<ChangeNotification>,
}

impl PeerStream {
    /// The next change; `None` if there are no more.
    async fn next(&mut self) -> Option<ChangeNotification> {
        loop {
            if let Some(change) = self.unsent.pop_front() {
                return Some(change);
            }
            // hubble-relay asks again when a stream ends, so the stream stays open until there is a change or a
            // shutdown.
            if self.peers.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let now = Arc::clone(&self.peers.borrow_and_update());
            self.unsent = changes(&self.known, &now).into();
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
                let unsent = changes(&Peers::new(), &known).into();
                let peers = PeerStream { peers, known, unsent };
                stream::unfold(peers, |mut peers| async move { Some((Ok(peers.next().await?), peers)) }).boxed()
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
    async fn a_stream_sends_the_peers_and_then_their_changes() {
        let sender = watch::Sender::new(peers(&[("a", "10.0.0.1:4344"), ("b", "10.0.0.2:4344")]));
        let shutdown = CancellationToken::new();
        let service = PeerService::new(PeerSource::Local(sender.subscribe()), shutdown.clone());
        let mut stream = service.notify(Request::new(NotifyRequest {})).await.unwrap().into_inner();
        let mut next = async || {
            let change = stream.next().await?.unwrap();
            Some((change.r#type().as_str_name(), change.name, change.address))
        };
        let change = |kind, name: &str, address: &str| Some((kind, name.to_owned(), address.to_owned()));
        assert_eq!(next().await, change("PEER_ADDED", "a", "10.0.0.1:4344"));
        assert_eq!(next().await, change("PEER_ADDED", "b", "10.0.0.2:4344"));
        sender.send_replace(peers(&[("b", "10.0.0.9:4344"), ("c", "10.0.0.3:4344")]));
        assert_eq!(next().await, change("PEER_DELETED", "a", "10.0.0.1:4344"));
        assert_eq!(next().await, change("PEER_UPDATED", "b", "10.0.0.9:4344"));
        assert_eq!(next().await, change("PEER_ADDED", "c", "10.0.0.3:4344"));
        shutdown.cancel();
        assert_eq!(next().await, None);
    }
}
