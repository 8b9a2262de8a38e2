//! The reports to the controller.

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

/// The reports to the controller.
pub(super) struct Reporting {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Reporting {
    /// Begins to report, where there is a controller. `goes_on`: the counters are those of an agent before.
    pub(super) fn start(
        settings: &Settings,
        zones: &Zones,
        samples: Samples,
        flow_server: Option<FlowServer>,
        goes_on: bool,
    ) -> Option<Self> {
        let (controller, state) = zones.reports()?;
        let controller: &link::Settings = controller;
        let shutdown = CancellationToken::new();
        let client = Client {
            settings: controller.clone(),
            samples,
            every: settings.report_interval,
            reporter: ReportBuilder::new(flow_server, goes_on),
            state,
            shutdown: shutdown.clone(),
        };
        Some(Self { task: tokio::spawn(client.run()), shutdown })
    }

    /// Waits for the last one, not for long: what is not told now is told by the next agent, or was told before.
    pub(super) async fn end(self) {
        self.shutdown.cancel();
        let _ = timeout(END_TIMEOUT * 2, self.task).await;
    }
}
