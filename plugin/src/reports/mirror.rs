//! A standby replica mirrors the leader's state, so that it can take over.

use super::{ClusterTotals, services::reports_client::ReportsClient};
use crate::{
    error_chain::error_chain,
    leader::Role,
    link::Settings,
    proto::v1::{MirrorRequest, mirror_response::Response},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tonic::Status;

/// The size limit of a message with a part of the leader's state.
const MESSAGE_BYTES: usize = 64 << 20;
/// The wait before the next attempt to connect.
const WAIT: Duration = Duration::from_secs(1);
/// How long mirrored state stays valid: a new leader takes over in less.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// Mirrors the leader while another replica is the leader.
pub struct Mirror {
    /// The settings of connections between replicas.
    pub settings: Settings,
    /// The totals.
    pub cluster_totals: Arc<ClusterTotals>,
    /// The current leader.
    pub role: watch::Receiver<Role>,
    /// Notified of the leader's last message: it is about to release the Lease.
    pub ended: Arc<Notify>,
}

impl Mirror {
    /// Runs for as long as the process.
    pub async fn run(mut self) {
        let (mut mirrored_at, mut last_reason, mut was_holder) = (None, String::new(), false);
        loop {
            let role = self.role.borrow_and_update().clone();
            if matches!(role, Role::Leader(_)) {
                if mirrored_at.take().is_some_and(|mirrored_at: Instant| mirrored_at.elapsed() > GOOD_FOR) {
                    self.cluster_totals.lose_track();
                }
                was_holder = true;
            } else if std::mem::take(&mut was_holder) {
                // Until now this replica was the leader and has the whole state.
                mirrored_at = Some(Instant::now());
            }
            let Role::Standby(Some(leader)) = role else {
                if self.role.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let settings = self.settings.at(leader.feed.clone());
            let mirroring = Mirroring { cluster_totals: &self.cluster_totals, ended: &self.ended };
            tokio::select! {
                ended = mirroring.listen(&settings, &mut mirrored_at) => {
                    if ended != last_reason {
                        tracing::warn!(leader = leader.feed, reason = ended, "the leader's state can't be mirrored");
                        last_reason = ended;
                    }
                }
                changed = self.role.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    last_reason.clear();
                }
            }
            self.cluster_totals.mirror_ended();
            tokio::select! {
                () = sleep(WAIT) => {}
                _ = self.role.changed() => {}
            }
        }
    }
}

/// The destination of a leader's messages.
struct Mirroring<'a> {
    cluster_totals: &'a ClusterTotals,
    ended: &'a Notify,
}

impl Mirroring<'_> {
    /// Mirrors a leader until the stream ends. Returns the reason.
    async fn listen(&self, settings: &Settings, mirrored_at: &mut Option<Instant>) -> String {
        let stream = async {
            let channel = settings.connect().await.map_err(|error| error_chain(&error))?;
            let mut client = ReportsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
            let request = settings.request(MirrorRequest {}).map_err(|error| error_chain(&error))?;
            let describe = |status: Status| format!("{:?}: {}", status.code(), status.message());
            let mut stream = client.mirror(request).await.map_err(describe)?.into_inner();
            tracing::info!(leader = settings.server, "standing by");
            while let Some(message) = stream.message().await.map_err(describe)? {
                let (now, is_part) =
                    (Instant::now(), matches!(message.response, Some(Response::Sums(_) | Response::Node(_))));
                let is_last = matches!(message.response, Some(Response::Last(_)));
                self.cluster_totals.apply_mirrored(message, now).map_err(|refused| refused.to_string())?;
                if is_last {
                    self.ended.notify_one();
                }
                // Partial state does not count.
                if !is_part {
                    *mirrored_at = Some(now);
                }
            }
            Ok("it ended the stream".to_owned())
        };
        stream.await.unwrap_or_else(|reason: String| reason)
    }
}
