//! The controller's side.

use super::{
    ClusterTotals, Refused, ReportSizes, ZoneNames, plausible,
    services::reports_server::{Reports, ReportsServer},
    streams::{Stream, Streams},
};
use crate::{
    leader::{Role, until_lost},
    link::{Authenticate, Lean, LogLimit, Messages, Receiver, Sender, check_token, handoff},
    proto::v1::{Hook, MirrorRequest, MirrorResponse, ReportRequest, ReportResponse, mirror_response},
};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The path of the method that takes reports.
const REPORT: &str = "/meridian.v1.Reports/Report";
/// How long an agent may be silent.
const REPORT_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// The time limit for sending a leader's last message to the standby replicas.
const LAST_MESSAGE: Duration = Duration::from_millis(500);
/// The time limit for an agent's first report.
const FIRST_REPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves reports of at most `limit` bytes.
pub fn serve<S: Reports>(service: S, limit: usize) -> Lean<ReportsServer<S>> {
    Lean::new(ReportsServer::new(service), REPORT, limit)
}

/// Counts of accepted and refused reports.
#[derive(Debug, Default)]
pub struct Tally {
    /// Reports accepted.
    pub accepted: AtomicU64,
    /// Streams refused or ended because of their content.
    pub refused: AtomicU64,
    /// Streams of standby replicas that were ended because the replica fell behind.
    pub mirrors_behind: AtomicU64,
    /// Flow servers that are not announced, because the reported address or name is not the node's.
    pub refused_flow_servers: AtomicU64,
    /// Zones of reports that are not known here.
    pub unknown_zones: AtomicU64,
    /// Log lines about refusals.
    log: LogLimit,
}

/// The replacement of a hook that missed packets of its node. The agent's texts are untrusted input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookChange {
    /// The node's name.
    pub node: String,
    /// The new hook.
    pub hook: String,
    /// The reason for it.
    pub reason: String,
}

impl HookChange {
    /// The limit of characters of a text.
    const TEXT: usize = 200;

    /// The change in a report, if this stream has not reported it yet; `known` is the number of changes reported so
    /// far.
    fn of(report: &ReportRequest, known: &mut u64) -> Option<Self> {
        let Hook { name, reason, changes } = report.hook.as_ref()?;
        let before = std::mem::replace(known, *changes);
        let text = |text: &str| text.chars().filter(|c| !c.is_control()).take(Self::TEXT).collect();
        (*changes > before).then(|| Self { node: report.node.clone(), hook: text(name), reason: text(reason) })
    }
}

/// `meridian.v1.Reports`.
#[derive(Clone)]
pub struct ReportsService {
    /// The totals.
    pub cluster_totals: Arc<ClusterTotals>,
    /// Whether this replica is the leader.
    pub role: watch::Receiver<Role>,
    /// Checks the tokens of agents.
    pub agents: Arc<dyn Authenticate>,
    /// Checks the tokens of replicas.
    pub replicas: Arc<dyn Authenticate>,
    /// Counts of accepted and refused reports.
    pub tally: Arc<Tally>,
    /// The zones that are known here.
    pub zones: Arc<dyn ZoneNames>,
    /// The stream of each node.
    pub streams: Arc<Streams>,
    /// Called for each change of a hook.
    pub hook_changed: Arc<dyn Fn(HookChange) + Send + Sync>,
    /// Ends every stream.
    pub shutdown: CancellationToken,
}

impl ReportsService {
    fn refusal(&self) -> Option<Status> {
        self.role.borrow().refusal(|leader| &leader.feed)
    }

    fn refuse(&self, status: Status) -> Status {
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = self.tally.log.line() {
            tracing::warn!(code = ?status.code(), reason = status.message(), left_out, "a report is refused");
        }
        status
    }

    /// The next report; `None` at the end of the agent's stream.
    ///
    /// # Errors
    /// The reason to end the stream.
    async fn next_report(
        &mut self,
        reports: &mut Messages<ReportRequest, ReportSizes>,
        own: Option<&Stream>,
        limit: Duration,
    ) -> Result<Option<ReportRequest>, Status> {
        let replaced = async {
            match own {
                Some(own) => own.replaced().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(replaced);
        let report = loop {
            tokio::select! {
                report = timeout(limit, reports.message()) => break report,
                // The role was checked when the stream began.
                Ok(()) = self.role.changed() => if let Some(status) = self.refusal() {
                    return Err(status);
                },
                () = &mut replaced => return Err(Status::aborted("a newer stream of this node has begun")),
                () = self.shutdown.cancelled() => return Err(Status::unavailable("the controller ends")),
            }
        };
        match report {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(status)) if matches!(status.code(), tonic::Code::Cancelled | tonic::Code::Unknown) => Ok(None),
            Ok(Err(status)) => Err(self.refuse(Status::invalid_argument(status.message()))),
            Err(_) => Err(Status::deadline_exceeded("no report came in time")),
        }
    }

    /// Adds a report to the cluster's totals. The lock is held only for one report.
    ///
    /// # Errors
    /// The reason to end the stream.
    fn add(&self, mut report: ReportRequest) -> Result<(), Status> {
        let unknown = plausible::check(&mut report, &*self.zones)
            .map_err(|reason| self.refuse(Status::invalid_argument(reason.to_string())))?;
        self.tally.unknown_zones.fetch_add(unknown as u64, Ordering::Relaxed);
        self.cluster_totals.take(report, Instant::now()).map_err(|refused| match refused {
            Refused::Malformed(reason) => self.refuse(Status::invalid_argument(reason.to_string())),
            full @ Refused::Full(_) => self.refuse(Status::resource_exhausted(full.to_string())),
            closed @ Refused::Closed => Status::unavailable(closed.to_string()),
        })
    }

    /// Accepts an agent's reports until either side ends the stream.
    async fn handle_reports(
        mut self,
        node: Option<String>,
        mut reports: Messages<ReportRequest, ReportSizes>,
        answers: Sender<Result<ReportResponse, Status>>,
    ) {
        let (mut accepted, mut hook_changes) = (0, 0);
        let mut own = node.as_deref().map(|node| self.streams.begin(node));
        let end = loop {
            let limit = if accepted == 0 { FIRST_REPORT_TIMEOUT } else { REPORT_TIMEOUT };
            let report = match self.next_report(&mut reports, own.as_ref(), limit).await {
                Ok(Some(report)) => report,
                Ok(None) => break None,
                Err(status) => break Some(status),
            };
            if let Some(node) = node.as_ref().filter(|node| **node != report.node) {
                let text = format!("the token belongs to an agent on {node}, not on {}", report.node);
                break Some(self.refuse(Status::permission_denied(text)));
            }
            // This replica may have been frozen for a while.
            if let Some(status) = self.refusal() {
                break Some(status);
            }
            // Where everybody is let in, the first report names the node.
            let own = own.get_or_insert_with(|| self.streams.begin(&report.node));
            if own.node() != report.node {
                break Some(self.refuse(Status::invalid_argument("a stream is about one node")));
            }
            let hook_change = HookChange::of(&report, &mut hook_changes);
            if let Err(status) = self.add(report) {
                break Some(status);
            }
            if let Some(change) = hook_change {
                (self.hook_changed)(change);
            }
            accepted += 1;
            self.tally.accepted.fetch_add(1, Ordering::Relaxed);
            if answers.send(Ok(ReportResponse { taken: accepted })).await.is_err() {
                break None;
            }
        };
        if let Some(status) = end {
            let _ = answers.send(Err(status)).await;
        }
    }
}

#[tonic::async_trait]
impl Reports for ReportsService {
    type ReportStream = Receiver<Result<ReportResponse, Status>>;
    type MirrorStream = BoxStream<'static, Result<MirrorResponse, Status>>;

    async fn report(&self, request: Request<Streaming<ReportRequest>>) -> Result<Response<Self::ReportStream>, Status> {
        // Before the token is checked, because that takes a request to the API server.
        if let Some(status) = self.refusal() {
            return Err(status);
        }
        if !self.zones.is_whole() {
            return Err(Status::unavailable("the zones of the cluster are not known yet"));
        }
        let node = check_token(&*self.agents, &request).await.map_err(|status| self.refuse(status))?;
        let (sender, receiver) = handoff();
        let mut service = self.clone();
        service.role.mark_unchanged();
        if let Some(status) = service.refusal() {
            return Err(status);
        }
        tokio::spawn(service.handle_reports(node, Messages::of(request)?, sender));
        Ok(Response::new(receiver))
    }

    async fn mirror(&self, request: Request<MirrorRequest>) -> Result<Response<Self::MirrorStream>, Status> {
        if let Some(status) = self.refusal() {
            return Err(status);
        }
        check_token(&*self.replicas, &request).await.map_err(|status| self.refuse(status))?;
        let (known, changes) = self.cluster_totals.mirror(Instant::now());
        let tally = Arc::clone(&self.tally);
        let changes = stream::unfold(Some(changes), move |changes| {
            let tally = Arc::clone(&tally);
            async move {
                let mut changes = changes?;
                match changes.recv().await {
                    Ok(message) if matches!(message.response, Some(mirror_response::Response::Last(_))) => {
                        Some((Ok(message), None))
                    }
                    Ok(message) => Some((Ok(message), Some(changes))),
                    Err(RecvError::Closed) => None,
                    Err(RecvError::Lagged(_)) => {
                        tally.mirrors_behind.fetch_add(1, Ordering::Relaxed);
                        Some((Err(Status::data_loss("the replica fell behind: start over")), None))
                    }
                }
            }
        });
        let (role, shutdown) = (self.role.clone(), self.shutdown.clone());
        let end = async move {
            tokio::select! {
                () = until_lost(role) => {}
                () = shutdown.cancelled() => {}
            }
            // The last message may be on its way.
            sleep(LAST_MESSAGE).await;
        };
        Ok(Response::new(stream::iter(known.into_iter().map(Ok)).chain(changes).take_until(Box::pin(end)).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_hook_is_reported_once_a_stream_and_in_bounds() {
        let report = |changes, reason: &str| ReportRequest {
            node: "a".into(),
            hook: Some(Hook { name: "tcx".into(), reason: reason.into(), changes }),
            ..ReportRequest::default()
        };
        let mut known = 0;
        assert_eq!(HookChange::of(&report(0, "as configured"), &mut known), None);
        assert_eq!(HookChange::of(&ReportRequest::default(), &mut known), None, "an older agent");
        let long = format!("\u{1b}[2J{}", "x".repeat(5000));
        let change = HookChange::of(&report(1, &long), &mut known).unwrap();
        assert_eq!((change.node.as_str(), change.hook.as_str()), ("a", "tcx"));
        assert!(change.reason.len() == 200 && change.reason.starts_with("[2Jxx"), "{}", change.reason);
        assert_eq!(HookChange::of(&report(1, &long), &mut known), None, "said");
        assert!(HookChange::of(&report(2, ""), &mut known).is_some());
    }
}
