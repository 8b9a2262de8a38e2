//! The side of the replica that lacks blocks.

use super::services::history_client::HistoryClient;
use crate::{
    archive,
    error_chain::error_chain,
    historian::{CopyOutcome, Historian, second},
    history::{Block, Damaged, MAX_ENCODED, Span},
    leader::Role,
    link::{ConnectError, Settings},
    proto::v1::{BlockSpan, GetBlockRequest, ListBlocksRequest},
};
use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status, transport::Channel};

/// The limit of blocks that another replica may list: more than five years of days and a month of hours.
const MAX_BLOCKS: usize = 4096;
/// The size limit of a message: a block, and its envelope.
const MESSAGE_BYTES: usize = MAX_ENCODED + 1024;
/// The time limit for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(60);
/// The seconds from the end of an hour until the leader has surely sealed it.
const SEALED: u64 = 120;

/// Copies blocks from the leader while this replica stands by: at its start, and after each hour.
pub struct Copying {
    /// The settings of connections between replicas.
    pub settings: Settings,
    /// The current leader.
    pub role: watch::Receiver<Role>,
    /// The history of this replica.
    pub historian: Arc<Historian>,
}

/// Why blocks can't be copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// The leader can't be reached.
    #[error("{}", error_chain(.0))]
    Connect(#[from] ConnectError),
    /// The leader refuses.
    #[error("{:?}: {}", .0.code(), .0.message())]
    Refused(Status),
    /// The leader does not answer.
    #[error("there was no answer for {} s", ANSWER_TIMEOUT.as_secs())]
    Late,
    /// The leader lists more blocks than a history has.
    #[error("{0} blocks are more than {MAX_BLOCKS}")]
    TooMany(usize),
    /// The own folder can't be written.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The task that wrote it ended.
    #[error("a copied block could not be processed")]
    Ended,
}

/// Why a block of the leader is not kept. Others are copied nevertheless.
#[derive(Debug, thiserror::Error)]
enum RejectedBlock {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("it is a block of another time")]
    Misplaced,
}

impl Copying {
    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let (mut compared, mut last_reason) = (BTreeSet::new(), String::new());
        loop {
            let from = match self.role.wait_for(|role| leader(role).is_some()).await {
                Ok(role) => leader(&role).map(str::to_owned),
                Err(_) => return,
            };
            let Some(from) = from else { continue };
            let wait = match self.copy(&self.settings.at(from.clone()), &mut compared).await {
                Ok(()) => {
                    last_reason.clear();
                    Duration::from_secs(3600 - second() % 3600 + SEALED)
                }
                Err(error) => {
                    self.historian.tally().uncopied.fetch_add(1, Ordering::Relaxed);
                    let reason = error.to_string();
                    if reason != last_reason {
                        tracing::warn!(leader = from, reason, "hours of the history can't be copied from the leader");
                        last_reason = reason;
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                role = self.role.wait_for(|role| leader(role) != Some(from.as_str())) => {
                    if role.is_err() {
                        return;
                    }
                    // Another leader may have recorded more.
                    compared.clear();
                }
            }
        }
    }

    /// Copies the blocks that this replica lacks or has recorded less of. `compared` has those that were compared.
    pub(super) async fn copy(&self, settings: &Settings, compared: &mut BTreeSet<Span>) -> Result<(), CopyError> {
        let mut client = HistoryClient::new(settings.connect().await?).max_decoding_message_size(MESSAGE_BYTES);
        let request = settings.request(ListBlocksRequest {})?;
        let spans = newest_first(in_time(client.list_blocks(request)).await?.spans)?;
        compared.retain(|span| spans.contains(span));
        let (mut copied, mut days) = (0, BTreeSet::new());
        for span in spans {
            if compared.contains(&span) {
                continue;
            }
            if self.blocking(move |historian| historian.lacks(span)).await? {
                match self.fetch(&mut client, settings, span).await? {
                    Some(CopyOutcome::Unchanged) => {
                        copied += 1;
                        days.insert(Span::day_of(span.start));
                    }
                    Some(CopyOutcome::NoRoom) => break,
                    Some(CopyOutcome::NoBetter) | None => {}
                }
            }
            compared.insert(span);
        }
        if copied > 0 {
            self.blocking(move |historian| historian.renew_days(&days)).await??;
            tracing::info!(leader = settings.server, copied, "hours and days of the history were copied");
        }
        Ok(())
    }

    /// Fetches a block, and keeps it if it has the better coverage; `None` if there is no block to compare with.
    async fn fetch(
        &self,
        client: &mut HistoryClient<Channel>,
        settings: &Settings,
        span: Span,
    ) -> Result<Option<CopyOutcome>, CopyError> {
        let Span { start, seconds } = span;
        let request = settings.request(GetBlockRequest { span: Some(BlockSpan { start, seconds }) })?;
        let bytes = match in_time(client.get_block(request)).await {
            Ok(answer) => answer.block,
            Err(CopyError::Refused(status)) if status.code() == Code::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let adopted = self.blocking(move |historian| match decoded(&bytes, span) {
            Ok(block) => historian.adopt(&block, bytes.len() as u64).map(Some).map_err(CopyError::from),
            Err(reason) => {
                historian.tally().uncopied.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(start, %reason, "a block of the leader's history is refused");
                Ok(None)
            }
        });
        adopted.await?
    }

    /// Runs what waits for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Historian) -> T + Send + 'static,
    ) -> Result<T, CopyError> {
        let historian = Arc::clone(&self.historian);
        spawn_blocking(move || work(&historian)).await.map_err(|_| CopyError::Ended)
    }
}

/// The address of the leader, if that is another replica.
fn leader(role: &Role) -> Option<&str> {
    match role {
        Role::Standby(Some(leader)) => Some(&leader.feed),
        Role::Standby(None) | Role::Leader(_) => None,
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CopyError> {
    let answer = timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| CopyError::Late)?;
    Ok(answer.map_err(CopyError::Refused)?.into_inner())
}

fn decoded(bytes: &[u8], span: Span) -> Result<Block, RejectedBlock> {
    let block = Block::decode(bytes)?;
    if block.span == span { Ok(block) } else { Err(RejectedBlock::Misplaced) }
}

/// The listed hours and days, without those that are none.
fn newest_first(listed: Vec<BlockSpan>) -> Result<Vec<Span>, CopyError> {
    if listed.len() > MAX_BLOCKS {
        return Err(CopyError::TooMany(listed.len()));
    }
    let spans = listed.into_iter().map(|BlockSpan { start, seconds }| Span { start, seconds });
    let mut spans: Vec<Span> = spans.filter(|span| span.is_whole()).collect();
    spans.sort_unstable_by_key(|span| std::cmp::Reverse((span.end(), span.seconds)));
    spans.dedup();
    Ok(spans)
}
