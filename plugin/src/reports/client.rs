//! The agent's side: reports to the current leader.

use super::{ReportBuilder, services::reports_client::ReportsClient};
use crate::{
    backoff::Backoff,
    counters::Samples,
    error_chain::error_chain,
    leader::leader_in,
    link::{ConnectError, Settings, SharedChannel, SharedUse},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

/// The first and the longest wait before another attempt.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// The time limit for the controller's acknowledgement.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the feed's connection, before one of the reports' own: less than after a controller's restart
/// would make the node silent.
const SHARED_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for the last report.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of an agent's reports.
#[derive(Debug, Default)]
pub struct ReportState {
    /// Whether the last report was accepted.
    pub is_connected: AtomicBool,
    /// Reports accepted.
    pub accepted: AtomicU64,
    /// Streams that failed to open or broke.
    pub failures: AtomicU64,
}

/// Reports an agent's counters.
pub struct Client {
    /// The controller.
    pub settings: Settings,
    /// The feed's connection to it.
    pub shared: SharedChannel,
    /// The samples to report.
    pub samples: Samples,
    /// The interval of reports.
    pub every: Duration,
    /// The builder of the reports.
    pub reporter: ReportBuilder,
    /// The state, for metrics.
    pub state: Arc<ReportState>,
    /// Ends the client after a last report.
    pub shutdown: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
enum Ended {
    /// Another replica is the leader.
    #[error("{0} is the leader")]
    Moved(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller answers {code:?}: {message}", code = .0.code(), message = .0.message())]
    Refused(Status),
    #[error("the controller does not answer")]
    Silent,
    #[error("the controller ended the stream")]
    Stream,
    /// Another connection is shared.
    #[error("the feed has another connection")]
    Connection,
    #[error("the agent ends")]
    Agent,
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        leader_in(&status).map_or(Self::Refused(status), Self::Moved)
    }
}

impl Client {
    /// Reports until `shutdown`.
    pub async fn run(mut self) {
        let (mut server, mut last_reason) = (self.settings.clone(), String::new());
        let mut backoff = Backoff::new(WAIT.0, WAIT.1, 0.5..=1.0);
        loop {
            let accepted = self.state.accepted.load(Ordering::Relaxed);
            let ended = self.stream(&server).await.unwrap_or_else(|ended| ended);
            self.state.is_connected.store(false, Ordering::Relaxed);
            if self.state.accepted.load(Ordering::Relaxed) != accepted {
                backoff.succeeded();
                last_reason = String::new();
            }
            server = match ended {
                Ended::Agent => return,
                Ended::Moved(leader) => {
                    tracing::debug!(leader, "reporting to the leader");
                    self.settings.at(leader)
                }
                Ended::Connection => self.settings.clone(),
                failed => {
                    self.state.failures.fetch_add(1, Ordering::Relaxed);
                    let reason = error_chain(&failed);
                    // A repeated error is logged once.
                    if reason == last_reason {
                        tracing::debug!(reason, "reports are still not accepted");
                    } else {
                        tracing::warn!(controller = server.server, reason, "reports are not accepted: they wait");
                        last_reason = reason;
                    }
                    self.settings.clone()
                }
            };
            tokio::select! {
                () = sleep(backoff.failed()) => {}
                () = self.shutdown.cancelled() => return,
            }
        }
    }

    async fn stream(&mut self, server: &Settings) -> Result<Ended, Ended> {
        let (channel, mut shared) = tokio::select! {
            connected = self.connect(server) => connected?,
            () = self.shutdown.cancelled() => return Ok(Ended::Agent),
        };
        let (sender, reports) = mpsc::channel(1);
        let request = server.request(ReceiverStream::new(reports))?;
        let mut client = ReportsClient::new(channel);
        let opened = timeout(RESPONSE_TIMEOUT, client.report(request)).await.map_err(|_| Ended::Silent)?;
        let mut answers = opened?.into_inner();
        self.reporter.begin();
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = ticks.tick() => false,
                () = self.shutdown.cancelled() => true,
                // No report awaits an acknowledgement, so a message is the end of the stream.
                answer = answers.message() => {
                    answer?;
                    return Ok(Ended::Stream);
                }
                () = changed(&mut shared) => return Ok(Ended::Connection),
            };
            let Some(report) = self.report() else { continue };
            let limit = if is_last { SHUTDOWN_TIMEOUT } else { RESPONSE_TIMEOUT };
            let end = Instant::now() + limit;
            if sender.send(report).await.is_err() {
                // The next message has the reason.
                answers.message().await?;
                return Ok(Ended::Stream);
            }
            match tokio::time::timeout_at(end, answers.message()).await.map_err(|_| Ended::Silent)?? {
                Some(_) => self.reporter.accepted(),
                None => return Ok(Ended::Stream),
            }
            self.state.accepted.fetch_add(1, Ordering::Relaxed);
            self.state.is_connected.store(true, Ordering::Relaxed);
            if is_last {
                return Ok(Ended::Agent);
            }
        }
    }

    /// The feed's connection, where the reports go to the same server and it is there in time, or one of their own.
    async fn connect(&self, server: &Settings) -> Result<(Channel, Option<SharedUse>), ConnectError> {
        if server.server != self.settings.server {
            return Ok((server.connect().await?, None));
        }
        let shared = self.shared.within(SHARED_TIMEOUT).await;
        let channel = match &shared.channel {
            Some(channel) => channel.clone(),
            None => server.connect().await?,
        };
        Ok((channel, Some(shared)))
    }

    fn report(&mut self) -> Option<crate::proto::v1::ReportRequest> {
        let samples = Arc::clone(&self.samples.borrow_and_update());
        samples.first().map(|sample| self.reporter.report(sample))
    }
}

/// Waits until the feed has another connection.
async fn changed(shared: &mut Option<SharedUse>) {
    match shared {
        Some(shared) => shared.changed().await,
        None => std::future::pending().await,
    }
}
