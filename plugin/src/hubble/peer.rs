//! Peer: whose flows are served where, for hubble-relay.

use crate::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, peer_server::Peer};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// A server of flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The node's name; of a cluster that is not the default one, `cluster/node`.
    pub name: String,
    /// Where it serves: host and port.
    pub address: String,
}

/// Announces peers that are known from the start.
#[derive(Debug)]
pub struct PeerService {
    peers: Vec<Announced>,
    shutdown: CancellationToken,
}

impl PeerService {
    /// Of these peers. Streams end with `shutdown`.
    pub const fn new(peers: Vec<Announced>, shutdown: CancellationToken) -> Self {
        Self { peers, shutdown }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type NotifyStream = BoxStream<'static, Result<ChangeNotification, Status>>;

    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let added = |peer: Announced| {
            let r#type = ChangeNotificationType::PeerAdded.into();
            Ok(ChangeNotification { name: peer.name, address: peer.address, r#type, tls: None })
        };
        // A stream that ends makes the relay ask again: it stays until there is a change or an end.
        let end = self.shutdown.clone().cancelled_owned();
        let stays = stream::once(end).filter_map(|()| std::future::ready(None));
        Ok(Response::new(stream::iter(self.peers.clone()).map(added).chain(stays).boxed()))
    }
}
