//! Sends the sums to a collector at intervals.

use super::{
    message::{Program, messages},
    points::Content,
    settings::{RESPONSE_TIMEOUT, Settings, Unusable},
    starts::Starts,
    tally::Tally,
};
use crate::{backoff::Backoff, counters::CounterSnapshot, error_chain::error_chain};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, metadata::MetadataMap, transport::Channel};

/// The first and the longest wait after a failure.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The time limit for the last export.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Exports the counters of a process.
#[derive(Debug)]
pub struct Exporter<S> {
    /// The collector.
    pub settings: Settings,
    /// The program that exports.
    pub program: Program,
    /// The sums to export.
    pub content: Content,
    /// The counters of each node, or of the cluster.
    pub counters: watch::Receiver<Arc<[S]>>,
    /// How the exports went.
    pub tally: Arc<Tally>,
    /// Ends the exporter after a last export.
    pub shutdown: CancellationToken,
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("the collector does not answer")]
    Silent,
    #[error("there is no OTLP/gRPC server for metrics: is this the collector's port for gRPC, mostly 4317?")]
    NoService,
    #[error("{}", reason(.0))]
    Refused(Box<Status>),
}

/// A status in one line of bounded length; that of an unreachable server has its cause.
fn reason(status: &Status) -> String {
    let text = format!("{:?}: {}", status.code(), error_chain(status));
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unimplemented => Self::NoService,
            _ => Self::Refused(Box::new(status)),
        }
    }
}

impl<S: AsRef<CounterSnapshot> + Send + Sync> Exporter<S> {
    /// Exports until `shutdown`.
    pub async fn run(self) {
        let (mut starts, mut channel, mut last_reason) = (BTreeMap::new(), None, String::new());
        let mut backoff = Backoff::new(WAIT.0, WAIT.1, 0.5..=1.0);
        let mut ticks = interval(self.settings.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.shutdown.cancelled() => break,
            }
            while let Err(error) = self.export(&mut starts, &mut channel).await {
                channel = None;
                self.tally.add(|tally| &tally.failed, 1);
                let reason = error_chain(&error);
                // A repeated error is logged once.
                if reason != last_reason {
                    tracing::warn!(
                        collector = self.settings.endpoint,
                        reason,
                        "the metrics are not exported: they wait"
                    );
                    last_reason = reason;
                }
                tokio::select! {
                    () = sleep(backoff.failed()) => {}
                    () = self.shutdown.cancelled() => return,
                }
            }
            if !std::mem::take(&mut last_reason).is_empty() {
                tracing::info!(collector = self.settings.endpoint, "the metrics are exported again");
            }
            backoff.succeeded();
        }
        let _ = timeout(SHUTDOWN_TIMEOUT, self.export(&mut starts, &mut channel)).await;
    }

    /// Sends the current sums. A message that the collector can't take is not the end of the others.
    async fn export(&self, starts: &mut BTreeMap<String, Starts>, channel: &mut Option<Channel>) -> Result<(), Failed> {
        let counters = Arc::clone(&self.counters.borrow());
        let (mut all, mut sums) = (Vec::new(), 0);
        for counted in counters.iter().map(AsRef::as_ref) {
            let of_this = starts.entry(counted.whose.node().unwrap_or_default().to_owned()).or_default();
            let (messages, count) = messages(&self.program, counted, self.content, of_this);
            all.extend(messages);
            sums += count;
        }
        if all.is_empty() {
            // A standby replica has no totals.
            return Ok(());
        }
        self.tally.sums.store(sums, Ordering::Relaxed);
        let headers = self.settings.headers()?;
        let channel = match channel {
            Some(channel) => channel,
            None => channel.insert(self.settings.connector()?.connect_lazy()),
        };
        for message in all {
            self.send(channel, &headers, message).await?;
        }
        starts.values_mut().for_each(Starts::arrived);
        Ok(())
    }

    async fn send(
        &self,
        channel: &Channel,
        headers: &MetadataMap,
        message: ExportMetricsServiceRequest,
    ) -> Result<(), Failed> {
        let mut request = Request::new(message);
        *request.metadata_mut() = headers.clone();
        let mut client = MetricsServiceClient::new(channel.clone());
        // The channel's own limit does not cover a handshake that stalls.
        let answer = timeout(RESPONSE_TIMEOUT * 2, client.export(request)).await.map_err(|_| Failed::Silent)??;
        self.tally.add(|tally| &tally.accepted, 1);
        let Some(partial) = answer.into_inner().partial_success else { return Ok(()) };
        if let Some(rejected) = u64::try_from(partial.rejected_data_points).ok().filter(|rejected| *rejected > 0) {
            self.tally.add(|tally| &tally.rejected, rejected);
            let reason: String = partial.error_message.chars().filter(|c| !c.is_control()).take(300).collect();
            tracing::warn!(rejected, reason, "the collector rejects sums");
        }
        Ok(())
    }
}
