//! The asking side of Peer: an agent learns from its controller who serves flows.

use super::{peer::Changes, services::peer_client::PeerClient};
use crate::{link::Settings, proto::peer::NotifyRequest};
use futures_util::StreamExt;
use tonic::Status;

/// Asks a controller who serves flows in the cluster, and what becomes of them.
///
/// # Errors
/// The controller can't be reached, or refuses.
pub async fn peers_of(controller: Settings) -> Result<Changes, Status> {
    let failed = |error| Status::unavailable(format!("the controller {}: {error}", controller.server));
    let channel = controller.connect().await.map_err(failed)?;
    let request = controller.request(NotifyRequest {}).map_err(failed)?;
    Ok(PeerClient::new(channel).notify(request).await?.into_inner().boxed())
}
