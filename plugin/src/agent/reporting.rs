//! The task that reports to the controller.

use super::{settings::Settings, zone_source::Zones};
use crate::{
    counters::Samples,
    link,
    proto::v1::FlowServer,
    reports::{Client, ReportBuilder},
    servers::END_TIMEOUT,
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// The task that reports to the controller.
pub(super) struct Reporting {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Reporting {
    /// Starts reporting, if there is a controller. `is_continued`: the counters continue those of an earlier agent.
    pub(super) fn start(
        settings: &Settings,
        zones: &Zones,
        samples: Samples,
        flow_server: Option<FlowServer>,
        is_continued: bool,
    ) -> Option<Self> {
        let (controller, state, shared) = zones.reports()?;
        let controller: &link::Settings = controller;
        let shutdown = CancellationToken::new();
        let client = Client {
            settings: controller.clone(),
            shared,
            samples,
            every: settings.report_interval,
            reporter: ReportBuilder::new(flow_server, is_continued),
            state,
            shutdown: shutdown.clone(),
        };
        Some(Self { task: tokio::spawn(client.run()), shutdown })
    }

    /// Waits a short time for the last report. The next agent reports the rest.
    pub(super) async fn end(self) {
        self.shutdown.cancel();
        let _ = timeout(END_TIMEOUT * 2, self.task).await;
    }
}
