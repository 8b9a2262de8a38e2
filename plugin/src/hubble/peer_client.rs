//! The client of Peer: an agent gets the addresses of flow servers from its controller.

use super::{peer::Changes, services::peer_client::PeerClient};
use crate::{link::Settings, proto::peer::NotifyRequest};
use futures_util::StreamExt;
use tonic::Status;

/// Asks a controller for the flow servers of the cluster, and for changes.
///
/// # Errors
/// The controller can't be reached, or refuses the request.
pub async fn peers_of(controller: Settings) -> Result<Changes, Status> {
    let failed = |error| Status::unavailable(format!("the controller {}: {error}", controller.server));
    let channel = controller.connect().await.map_err(failed)?;
    let request = controller.request(NotifyRequest {}).map_err(failed)?;
    Ok(PeerClient::new(channel).notify(request).await?.into_inner().boxed())
}
