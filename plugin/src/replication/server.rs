//! The side of the replica that has the blocks.

use super::services::history_server::History;
use crate::{
    archive,
    historian::Historian,
    history::Span,
    link::{Authenticate, check_token},
    proto::v1::{BlockSpan, GetBlockRequest, GetBlockResponse, ListBlocksRequest, ListBlocksResponse},
};
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

/// `meridian.v1.History`.
#[derive(Clone)]
pub struct HistoryService {
    /// The history of this replica.
    pub historian: Arc<Historian>,
    /// Checks the tokens of replicas.
    pub replicas: Arc<dyn Authenticate>,
}

impl HistoryService {
    /// Runs what may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Historian) -> Result<T, archive::Error> + Send + 'static,
    ) -> Result<T, Status> {
        let historian = Arc::clone(&self.historian);
        let read =
            spawn_blocking(move || read(&historian)).await.map_err(|_| Status::internal("the history failed"))?;
        read.map_err(|error| {
            tracing::warn!(%error, "a block can't be sent to another replica");
            Status::internal("the block can't be read")
        })
    }
}

#[tonic::async_trait]
impl History for HistoryService {
    async fn list_blocks(&self, request: Request<ListBlocksRequest>) -> Result<Response<ListBlocksResponse>, Status> {
        check_token(&*self.replicas, &request).await?;
        let spans = self.read(|historian| Ok(historian.sealed())).await?;
        let spans = spans.into_iter().map(|Span { start, seconds }| BlockSpan { start, seconds }).collect();
        Ok(Response::new(ListBlocksResponse { spans }))
    }

    async fn get_block(&self, request: Request<GetBlockRequest>) -> Result<Response<GetBlockResponse>, Status> {
        check_token(&*self.replicas, &request).await?;
        let asked = request.into_inner().span.unwrap_or_default();
        let span = Span { start: asked.start, seconds: asked.seconds };
        match self.read(move |historian| historian.encoded(span)).await? {
            Some(block) => Ok(Response::new(GetBlockResponse { block })),
            None => Err(Status::not_found("there is no such block")),
        }
    }
}
