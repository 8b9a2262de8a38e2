//! `meridian agent`: the loop that drains, tells and takes new tables.

mod followed;
mod following;
mod peers;
mod place;
mod start;
mod unload;

use super::{
    Failure, capabilities,
    config::{Args, Settings, ZoneSource},
    hubble::{self, Outputs},
    process::{Offer, PATIENCE, Places, Servers, Signal, end_pair_log, signals, wait},
    usage,
};
use crate::{
    agent::{Agent, HookWatch},
    api::ZonesService,
    counters::Sample,
    datapath::{
        Alone, Only, Pins, auto,
        devices::{self, Watch},
    },
    export::{PairLog, Pairs},
    flows::{Ring, Sink},
    identity::Index,
    metrics::{Process, Sources},
    proto::v1::FlowServer,
    reports,
    watched::{Look, Watched},
    zones::{Change, SharedTable, StaticTable, Table},
};
use followed::Followed;
use following::Following;
use place::change;
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::{Duration, Instant, SystemTime},
};
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// How often flows are drained, metrics renewed and new tables taken.
const TICK: Duration = Duration::from_secs(1);

/// `meridian agent`.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    if let Some(remains) = args.unload()? {
        return unload::run(&remains);
    }
    let settings = Settings::new(args)?;
    let process = Arc::new(Process::default());
    let pair_log = open_pair_log(&settings, &process)?;
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let received = signals(&runtime)?;

    if let Some(missing) = capabilities::missing().filter(|missing| !missing.is_empty()) {
        return Err(Failure::failed(format!("{}: run as root, or with it", missing.join("; "))));
    }
    let only = alone(&settings)?;
    // Before they are looked at, so that no change is missed.
    let watch = Watch::new().map_err(Failure::failed)?;
    let devices = devices::find(&settings.uplinks).map_err(Failure::failed)?;
    let pins = start::pins(&settings);
    let choice = settings.hook.resolve(&devices, &settings.cilium_state_dir, pins.as_ref().and_then(Pins::hook))?;
    let index = Arc::new(Index::default());
    let ring = Arc::new(Ring::new(settings.hubble_capacity));
    // Where a cilium-agent is, it has metrics of these names.
    let wants_metrics = !auto::has_cilium(&devices, &settings.cilium_state_dir);
    let outputs = Outputs::start(&settings.hubble_outputs, &ring, settings.node.clone(), wants_metrics)?;
    let sink = Sink { listener: outputs.listener(), ..Sink::new(Arc::clone(&ring)) };
    let table = SharedTable::default();
    let (mut zones, first) = Zones::start(&settings, &runtime, &table, &index)?;

    let shutdown = CancellationToken::new();
    let samples = watch::Sender::new(Arc::from([]));
    let ready = Arc::clone(&process);
    let flow_server = peers::flow_server(&settings, &devices);
    let tls = hubble::tls(settings.hubble_tls.clone(), settings.hubble.0);
    let places = Places {
        grpc: Some(settings.hubble.0),
        tls: tls.clone(),
        socket: settings.socket.as_deref(),
        http: Some(settings.http.0),
    };
    let offer = Offer {
        nodes: vec![settings.hubble_name.clone()],
        is_recorded: false,
        peers: Some(peers::known(&settings, flow_server.clone())),
        sink: sink.clone(),
        sources: Sources {
            samples: samples.subscribe(),
            ring,
            process,
            families: settings.families,
            tls: tls.into_iter().collect(),
            outputs: outputs.shown(),
        },
        zones: Some(ZonesService { table: table.clone(), index: Arc::clone(&index) }),
    };
    // Before there is a table: who waits for the controller is alive, and says so.
    let mut servers = Servers::start(&runtime, &places, offer, &shutdown)?;
    let first = match first {
        Some(first) => Some(first),
        None => zones.first(&received, &index, || servers.failed(&runtime))?,
    };
    let Some(first) = first else {
        shutdown.cancel();
        servers.end(&runtime);
        return Ok(());
    };
    let start = start::Start { settings: &settings, choice, devices, pins, table, index: &index, sink: &sink };
    let start::Started { agent, state, goes_on } = start.start(first)?;

    let mut looped = Loop {
        settings: &settings,
        agent,
        state,
        following: Following::new(watch),
        hook_watch: HookWatch::new(settings.hook.fixed().is_none()),
        sink,
        zones,
        index,
        samples,
        pair_log,
        outputs,
        ready,
    };
    looped.zones.follow(&runtime, &looped.index);
    looped.drain()?;
    let reports = looped.report(&runtime, flow_server, goes_on);
    let result = looped.follow(&received, || servers.failed(&runtime));
    looped.end();
    looped.outputs.finish(PATIENCE);
    if let Some(reports) = reports {
        reports.end(&runtime);
    }
    shutdown.cancel();
    servers.end(&runtime);
    drop(only);
    result
}

/// What no other agent may be meanwhile.
fn alone(settings: &Settings) -> Result<Vec<Only>, Failure> {
    let pinned = settings.pin_dir.as_ref().map(|_| Alone::Pinned);
    let roles = [Some(Alone::Node(&settings.node)), pinned].into_iter().flatten();
    roles.map(|role| Only::claim(role).map_err(Failure::failed)).collect()
}

fn open_pair_log(settings: &Settings, process: &Arc<Process>) -> Result<Option<PairLog>, Failure> {
    let Some(output) = &settings.pair_log.0 else { return Ok(None) };
    let log = PairLog::start(output, settings.pair_log_interval, Arc::clone(&process.pair_log));
    log.map(Some).map_err(|error| Failure::failed(format!("the pair log {output}: {error}")))
}

/// Who says which zone an address is in.
enum Zones {
    /// A static table.
    File(Watched),
    /// A controller.
    Controller(Box<Followed>),
}

impl Zones {
    /// Who says it, and the table to begin with, if it is here: the file's, or the one that was saved.
    fn start(
        settings: &Settings,
        runtime: &Runtime,
        table: &SharedTable,
        index: &Arc<Index>,
    ) -> Result<(Self, Option<Vec<Change>>), Failure> {
        Ok(match &settings.zones {
            ZoneSource::File(path) => {
                let watched = Watched::new(path);
                let table = StaticTable::read(path).map_err(usage)?;
                index.replace(&table.endpoints);
                (Self::File(watched), Some(Table::new().changes_to(&table.zones)))
            }
            ZoneSource::Controller(controller) => {
                let (followed, first) = Followed::start(controller, &settings.state_dir, runtime, table, index);
                (Self::Controller(Box::new(followed)), first)
            }
        })
    }

    /// Waits for the first table; `None` if a signal asked to end.
    fn first(
        &mut self,
        received: &Receiver<Signal>,
        index: &Index,
        server_failed: impl FnMut() -> Option<String>,
    ) -> Result<Option<Vec<Change>>, Failure> {
        match self {
            Self::File(_) => Ok(Some(Vec::new())),
            Self::Controller(followed) => followed.first(received, index, server_failed),
        }
    }

    /// Begins to follow, where there is somebody to follow.
    fn follow(&mut self, runtime: &Runtime, index: &Arc<Index>) {
        if let Self::Controller(followed) = self {
            followed.first_is_in_force();
            followed.follow(runtime, index);
        }
    }
}

/// What the agent does once it is attached.
struct Loop<'a> {
    settings: &'a Settings,
    agent: Agent,
    /// Where the sums are kept, if they are to outlast this process.
    state: Option<PathBuf>,
    following: Following,
    hook_watch: HookWatch,
    sink: Sink,
    zones: Zones,
    index: Arc<Index>,
    samples: watch::Sender<Arc<[Sample]>>,
    pair_log: Option<PairLog>,
    outputs: Outputs,
    ready: Arc<Process>,
}

impl Loop<'_> {
    /// Drains, takes new tables and renews the metrics until a signal asks to end.
    fn follow(
        &mut self,
        received: &Receiver<Signal>,
        mut server_failed: impl FnMut() -> Option<String>,
    ) -> Result<(), Failure> {
        loop {
            self.drain()?;
            let Self { agent, sink, following, settings, .. } = self;
            let meanwhile = || {
                sink.take_all(agent.announced(), Instant::now());
                following.follow(agent, &settings.uplinks);
            };
            let reload = match wait(received, TICK, meanwhile)? {
                Some(Signal::End) => break,
                Some(Signal::Reload) => true,
                None => false,
            };
            if let Zones::File(watched) = &mut self.zones {
                match watched.look() {
                    Look::Changed => self.reload()?,
                    _ if reload => self.reload()?,
                    // The table in force is still what the file says.
                    Look::Same if watched.is_taken => self.agent.confirm_zones(SystemTime::now()),
                    Look::Same | Look::Gone => {}
                }
            }
            self.outputs.look();
            self.outputs.forget_pods(&self.index, Instant::now());
            if let Some(error) = server_failed() {
                return Err(Failure::failed(error));
            }
        }
        self.sink.take_all(self.agent.announced(), Instant::now());
        self.agent.flush(Instant::now(), SystemTime::now()).map_err(Failure::failed)?;
        self.samples.send_replace(Arc::from([self.agent.sample().map_err(Failure::failed)?]));
        Ok(())
    }

    /// Begins to report, where there is a controller.
    fn report(&mut self, runtime: &Runtime, flow_server: Option<FlowServer>, goes_on: bool) -> Option<Reports> {
        let reporter = reports::Reporter::new(flow_server, goes_on);
        let (ZoneSource::Controller(controller), Zones::Controller(followed)) = (&self.settings.zones, &self.zones)
        else {
            return None;
        };
        let shutdown = CancellationToken::new();
        let client = reports::Client {
            settings: controller.clone(),
            samples: self.samples.subscribe(),
            every: self.settings.report_interval,
            reporter,
            state: followed.reports(),
            shutdown: shutdown.clone(),
        };
        Some(Reports { task: runtime.spawn(client.run()), shutdown })
    }

    fn drain(&mut self) -> Result<(), Failure> {
        if let Zones::Controller(followed) = &mut self.zones {
            followed.receive(&self.index);
        }
        self.agent.drain(Instant::now(), SystemTime::now()).map_err(Failure::failed)?;
        self.keep(false);
        self.hook_watch.look(&mut self.agent, Instant::now());
        // What was counted so far is told with the zones and owners that it was counted with.
        let has_table = match &mut self.zones {
            Zones::File(_) => true,
            Zones::Controller(followed) => followed.apply(&mut self.agent, &self.index),
        };
        self.samples.send_replace(Arc::from([self.agent.sample().map_err(Failure::failed)?]));
        if has_table {
            self.ready.ready.store(true, Ordering::Relaxed);
        }
        let Self { agent, pair_log, settings, .. } = self;
        let mut is_taken = false;
        if let Some(log) = pair_log {
            log.tick(|| {
                is_taken = true;
                pairs(settings, agent)
            });
        }
        // An interval that was handed to the log is not another agent's to log again.
        if is_taken {
            self.keep(true);
        }
        Ok(())
    }

    /// Keeps the sums for the next agent, if there is to be one that goes on with these counters.
    fn keep(&mut self, now: bool) {
        let Some(state) = &self.state else { return self.agent.empty_idle() };
        if let Err(error) = self.agent.keep(state, Instant::now(), now) {
            tracing::warn!(%error, "the sums can't be kept: an agent that comes after this one would begin anew");
        }
    }

    /// Reads the table again. One with an error is refused, and the old one stays.
    fn reload(&mut self) -> Result<(), Failure> {
        let Zones::File(watched) = &mut self.zones else { return Ok(()) };
        let read = StaticTable::read(&watched.path).map_err(usage);
        // What was counted so far is told with the zones that it was counted with.
        self.agent.drain(Instant::now(), SystemTime::now()).map_err(Failure::failed)?;
        let taken = read.and_then(|table| {
            let changes = self.agent.zones().read().changes_to(&table.zones);
            change(&mut self.agent, changes)?;
            self.index.replace(&table.endpoints);
            Ok(())
        });
        self.agent.reloaded(taken.is_ok());
        watched.is_taken = taken.is_ok();
        match taken {
            Ok(()) => tracing::info!(file = %watched.path.display(), "a new zone table is in force"),
            Err(reason) => tracing::error!(%reason, "the new zone table is refused; the old one stays in force"),
        }
        Ok(())
    }

    /// Writes what was not written yet.
    fn end(&mut self) {
        if let Zones::Controller(followed) = &mut self.zones {
            followed.end(&self.index);
        }
        if let Some(log) = self.pair_log.take() {
            end_pair_log(log, pairs(self.settings, &mut self.agent));
        }
        self.keep(true);
    }
}

/// The reports to the controller.
struct Reports {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Reports {
    /// Waits for the last one, not for long: what is not told now is told by the next agent, or was told before.
    fn end(self, runtime: &Runtime) {
        self.shutdown.cancel();
        let _ = runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, self.task).await });
    }
}

fn pairs(settings: &Settings, agent: &mut Agent) -> Pairs {
    vec![(settings.node.clone(), agent.take_interval())]
}
