//! Peer: whose flows are served where, for hubble-relay.

use crate::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, peer_server::Peer};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Servers of flows: where each serves, host and port, by the node's name; of a cluster that is not the
/// default one, `cluster/node`.
pub type Peers = BTreeMap<String, String>;

/// Announces peers, and what becomes of them.
#[derive(Debug)]
pub struct PeerService {
    peers: watch::Receiver<Arc<Peers>>,
    shutdown: CancellationToken,
}

impl PeerService {
    /// Of these peers. Streams end with `shutdown`.
    pub const fn new(peers: watch::Receiver<Arc<Peers>>, shutdown: CancellationToken) -> Self {
        Self { peers, shutdown }
    }
}

/// A stream in progress.
struct Told {
    peers: watch::Receiver<Arc<Peers>>,
    known: Arc<Peers>,
    to_tell: VecDeque<ChangeNotification>,
}

impl Told {
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
    let change = |name: &String, address: &String, kind: ChangeNotificationType| ChangeNotification {
        name: name.clone(),
        address: address.clone(),
        r#type: kind.into(),
        tls: None,
    };
    let gone = known.iter().filter(|(name, _)| !now.contains_key(*name));
    let gone = gone.map(|(name, address)| change(name, address, ChangeNotificationType::PeerDeleted));
    let new = now.iter().filter_map(|(name, address)| match known.get(name) {
        None => Some(change(name, address, ChangeNotificationType::PeerAdded)),
        Some(before) if before != address => Some(change(name, address, ChangeNotificationType::PeerUpdated)),
        Some(_) => None,
    });
    gone.chain(new).collect()
}

#[tonic::async_trait]
impl Peer for PeerService {
    type NotifyStream = BoxStream<'static, Result<ChangeNotification, Status>>;

    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let mut peers = self.peers.clone();
        let known = Arc::clone(&peers.borrow_and_update());
        let to_tell = changes(&Peers::new(), &known).into();
        let told = Told { peers, known, to_tell };
        let changes = stream::unfold(told, |mut told| async move { Some((Ok(told.next().await?), told)) });
        let end = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(changes.take_until(Box::pin(end)).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(of: &[(&str, &str)]) -> Arc<Peers> {
        Arc::new(of.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect())
    }

    #[tokio::test]
    async fn a_stream_tells_who_is_there_and_then_what_changes() {
        let sender = watch::Sender::new(peers(&[("a", "10.0.0.1:4344"), ("b", "10.0.0.2:4344")]));
        let shutdown = CancellationToken::new();
        let service = PeerService::new(sender.subscribe(), shutdown.clone());
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
