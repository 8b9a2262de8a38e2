//! Runs an agent: claims its resources, starts, counts, and ends.

use super::{
    Error,
    announcements::Announcements,
    counting::{Counting, LoopControl},
    device_follower::DeviceFollower,
    history::HistoryRecorder,
    peers,
    reporting::Reporting,
    settings::Settings,
    start::{self, Start, Started},
    zone_source::Zones,
};
use crate::{
    api::ZonesService,
    atomic_file::Saves,
    counters::{Sample, Samples},
    datapath::{
        Devices, NotAlone, Only, Pins,
        auto::{self, Choice},
        capabilities,
        devices::{self, Watch},
    },
    export::{PairLog, PairLogTally},
    flows::{Ring, Sink},
    historian::Historian,
    identity::Index,
    meter::HookWatch,
    metrics::{MeasuredNodes, Nodes, Page},
    otlp,
    outputs::Outputs,
    proto::v1::FlowServer,
    servers::{self, END_TIMEOUT, Measured, Offer, Places, Servers},
    zones::{Change, SharedTable},
};
use std::{path::Path, sync::Arc};
use tokio::{
    select,
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Counts this node's traffic until `shutdown`; reads the static table again on `reload`. Counts in the network
/// namespace of the calling thread, and on that thread: it must run the future itself, as
/// [`Runtime::block_on`](tokio::runtime::Runtime::block_on) of a multi-threaded runtime does.
///
/// # Errors
/// A resource is missing, or a part of the agent has failed.
pub async fn run(settings: &Settings, reload: &Notify, shutdown: &CancellationToken) -> Result<(), Error> {
    let (mut page, tally) = (Page::default(), Arc::default());
    let pair_log = open_pair_log(settings, &tally)?;
    if pair_log.is_some() {
        page.add(Arc::clone(&tally));
    }
    let historian = settings.history.open();
    if let Some(historian) = &historian {
        page.add_history(Arc::clone(historian));
    }
    let exports = Arc::new(otlp::Tally::default());
    if settings.otlp.is_some() {
        page.add(Arc::clone(&exports));
    }
    if let Some(missing) = capabilities::missing().filter(|missing| !missing.is_empty()) {
        return Err(Error::Capabilities { missing });
    }
    // Held until the programs are detached.
    let _only = claim(settings)?;
    let found = NodeSetup::look(settings)?;
    let _only_of_pins = claim_pins(found.pins.as_ref())?;
    let ring = Arc::new(Ring::new(settings.hubble_capacity));
    let outputs = found.outputs(settings, &ring)?;
    let (table, index) = (SharedTable::default(), Arc::new(Index::default()));
    let (mut zones, first) = Zones::start(settings, &table, &index)?;
    let saves = Arc::default();
    page.add(
        [("counters", Some(Arc::clone(&saves))), ("table", zones.saves())]
            .into_iter()
            .filter_map(|(file, saves)| Some((file, saves?)))
            .collect::<Vec<_>>(),
    );
    let sink = Sink { listener: outputs.listener(), ..Sink::new(Arc::clone(&ring)) };
    let samples = watch::Sender::new(Arc::from([]));
    let exporting = exporting(settings, samples.subscribe(), exports);
    let agent =
        Agent { settings, found, outputs, sink, samples, page, saves, historian, table, index: Arc::clone(&index) };

    let servers_end = CancellationToken::new();
    // Started before there is a table, so that an agent that waits for the controller answers health checks.
    let mut servers = agent.serve(ring, &servers_end).await?;
    let first = match first {
        Some(first) => Some(first),
        None => select! {
            first = zones.first(&index) => Some(first),
            () = shutdown.cancelled() => None,
            error = servers.ended() => return Err(error.into()),
        },
    };
    let result = match first {
        Some(first) => {
            agent.count(first, zones, pair_log, LoopControl { reload, end: shutdown, servers: &mut servers }).await
        }
        None => Ok(()),
    };
    if let Some((task, end)) = exporting {
        end.cancel();
        let _ = timeout(END_TIMEOUT, task).await;
    }
    servers_end.cancel();
    servers.end().await;
    result
}

/// The task that exports to a collector, if there is one, and its end.
fn exporting(
    settings: &Settings,
    counters: Samples,
    tally: Arc<otlp::Tally>,
) -> Option<(JoinHandle<()>, CancellationToken)> {
    let shutdown = CancellationToken::new();
    let exporter = otlp::Exporter {
        settings: settings.otlp.clone()?,
        program: otlp::Program { name: "meridian-agent", cluster: settings.cluster.clone() },
        content: settings.families.into(),
        counters,
        tally,
        shutdown: shutdown.clone(),
    };
    Some((tokio::spawn(exporter.run()), shutdown))
}

fn open_pair_log(settings: &Settings, tally: &Arc<PairLogTally>) -> Result<Option<PairLog>, Error> {
    let Some(output) = &settings.pair_log else { return Ok(None) };
    let log = PairLog::start(output, settings.pair_log_interval, Arc::clone(tally));
    log.map(Some).map_err(|source| Error::PairLog { output: output.clone(), source })
}

/// Claims that this is the node's one agent, in the folder of the socket, or else in that of the state. Where neither
/// can be used, that can't be known.
fn claim(settings: &Settings) -> Result<Option<Only>, Error> {
    let of_socket = settings.socket.as_deref().and_then(Path::parent);
    let of_state = settings.pin_dir.as_ref().map(|_| settings.state_dir.as_path());
    let Some(folder) = of_socket.or(of_state) else { return Ok(None) };
    known(Only::of_node(folder, &settings.node))
}

/// Claims the pinned counters.
fn claim_pins(pins: Option<&Pins>) -> Result<Option<Only>, Error> {
    pins.map_or(Ok(None), |pins| known(Only::of_pins(pins)))
}

/// A claim, or a warning where claims are impossible: counting matters more.
fn known(claim: Result<Only, NotAlone>) -> Result<Option<Only>, Error> {
    match claim {
        Ok(only) => Ok(Some(only)),
        Err(NotAlone::Unknown(error)) => {
            tracing::warn!(%error, "it is unknown whether another agent counts here");
            Ok(None)
        }
        Err(another) => Err(another.into()),
    }
}

/// The node's devices, pins and hook, as found.
struct NodeSetup {
    watch: Watch,
    devices: Devices,
    pins: Option<Pins>,
    choice: Choice,
    has_cilium: bool,
}

impl NodeSetup {
    fn look(settings: &Settings) -> Result<Self, Error> {
        // Opened before the scan, so that no change is missed.
        let watch = Watch::new()?;
        let devices = devices::find(&settings.uplinks)?;
        let pins = start::pins(settings);
        let cilium_state = &settings.cilium_state_dir;
        let choice = auto::resolve(settings.hook, &devices, cilium_state, pins.as_ref().and_then(Pins::hook))?;
        let has_cilium = auto::has_cilium(&devices, cilium_state);
        Ok(Self { watch, devices, pins, choice, has_cilium })
    }

    fn outputs(&self, settings: &Settings, ring: &Arc<Ring>) -> Result<Outputs, Error> {
        // A cilium-agent has metrics with these names.
        Ok(Outputs::start(&settings.outputs, ring, settings.node.clone(), !self.has_cilium)?)
    }
}

/// An agent that does not count yet.
struct Agent<'a> {
    settings: &'a Settings,
    found: NodeSetup,
    outputs: Outputs,
    sink: Sink,
    samples: watch::Sender<Arc<[Sample]>>,
    /// The metrics, but for those of the servers.
    page: Page,
    /// How often the sums were saved.
    saves: Arc<Saves>,
    historian: Option<Arc<Historian>>,
    table: SharedTable,
    index: Arc<Index>,
}

impl Agent<'_> {
    /// Starts the servers for flows, metrics and the zone table.
    async fn serve(&self, ring: Arc<Ring>, shutdown: &CancellationToken) -> Result<Servers, Error> {
        let settings = self.settings;
        let tls = settings.hubble.and_then(|listen| servers::tls(settings.hubble_tls.clone(), listen));
        let places =
            Places { grpc: settings.hubble, tls, socket: settings.socket.as_deref(), http: Some(settings.http) };
        let mut page = self.page.clone();
        page.access = settings.access.clone();
        page.add_source(MeasuredNodes { program: "agent", samples: self.samples.subscribe() });
        let offer = Offer {
            nodes: vec![settings.hubble_name.clone()],
            is_recorded: false,
            peers: Some(peers::known(settings, self.flow_server())),
            sink: self.sink.clone(),
            page: page
                .with(Nodes { samples: self.samples.subscribe(), families: settings.families })
                .with(ring)
                .with(self.outputs.shown()),
            measured: Some(Measured {
                samples: self.samples.subscribe(),
                zones: ZonesService { table: self.table.clone(), index: Arc::clone(&self.index) },
            }),
        };
        Ok(Servers::start(&places, offer, shutdown).await?)
    }

    fn flow_server(&self) -> Option<FlowServer> {
        peers::flow_server(self.settings, &self.found.devices)
    }

    /// Counts with this table, and with later ones.
    async fn count(
        self,
        first: Vec<Change>,
        zones: Zones,
        pair_log: Option<PairLog>,
        asked: LoopControl<'_>,
    ) -> Result<(), Error> {
        let flow_server = self.flow_server();
        let Self { settings, found, outputs, sink, samples, page, saves, historian, table, index } = self;
        let NodeSetup { watch, devices, pins, choice, .. } = found;
        let history = historian.map(|historian| HistoryRecorder::new(historian, settings.node.clone()));
        let start = Start { settings, choice: &choice, devices, pins, table, index: &index, sink: &sink };
        let Started { meter, state, is_continued, is_restored } = start.start(first)?;
        let mut counting = Counting {
            settings,
            announcements: Announcements::new(meter.announcements()?),
            meter,
            state,
            saves,
            devices: DeviceFollower::new(watch)?,
            hook_watch: HookWatch::new(settings.hook.is_none(), &choice.why),
            sink,
            zones,
            index,
            samples,
            pair_log,
            history,
            outputs,
            ready: page.ready,
        };
        counting.begin(is_continued && !is_restored)?;
        let samples = counting.samples.subscribe();
        let reporting = Reporting::start(settings, &counting.zones, samples, flow_server, is_continued);
        let result = counting.run(asked).await;
        counting.end();
        if let Some(reporting) = reporting {
            reporting.end().await;
        }
        result
    }
}
