//! `meridian agent`: the loop that drains, tells and takes new tables.

mod followed;

use super::{
    Failure,
    config::{Args, Settings, ZoneSource},
    process::{Offer, Places, Servers, Signal, end_pair_log, signals, wait},
    usage,
    watched::{Look, Watched},
};
use crate::{
    accounting::Accounting,
    agent::{Agent, Sink},
    api::ZonesService,
    datapath::{
        Datapath, Options,
        uplinks::{self, Uplink},
    },
    export::{PairLog, Pairs},
    flows::{Namespaces, Node, Ring},
    identity::Index,
    metrics::{Process, Sample, Sources},
    zones::{Change, Place, SharedTable, Slots, StaticTable, Table},
};
use followed::Followed;
use std::{
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::{Duration, Instant, SystemTime},
};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

/// How often flows are drained, metrics renewed and new tables taken.
const TICK: Duration = Duration::from_secs(1);
/// Hubble's default.
const RING_CAPACITY: usize = 4095;

/// `meridian agent`.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let settings = Settings::new(args)?;
    let process = Arc::new(Process::default());
    let pair_log = open_pair_log(&settings, &process)?;
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let received = signals(&runtime)?;

    let uplinks = uplinks::find(&settings.uplinks).map_err(Failure::failed)?;
    let index = Arc::new(Index::default());
    let ring = Arc::new(Ring::new(RING_CAPACITY));
    let sink = Sink { ring: Arc::clone(&ring), namespaces: Arc::new(Namespaces::default()) };
    let table = SharedTable::default();
    let zones = Zones::first(&settings, &runtime, &received, &table, &index)?;
    let Some((zones, first)) = zones else { return Ok(()) };
    let agent = start(&settings, &uplinks, table, first, &index, &sink)?;

    let shutdown = CancellationToken::new();
    let samples = watch::Sender::new(Arc::from([]));
    let ready = Arc::clone(&process);
    let places = Places { grpc: settings.hubble.0, socket: settings.socket.as_deref(), http: Some(settings.http.0) };
    let offer = Offer {
        nodes: vec![settings.node.clone()],
        cluster: String::new(),
        peers: None,
        sink: sink.clone(),
        sources: Sources { samples: samples.subscribe(), ring, process, families: settings.families },
        zones: Some(ZonesService { table: agent.zones(), index: Arc::clone(&index) }),
    };
    let mut servers = Servers::start(&runtime, &places, offer, &shutdown)?;
    if !settings.hubble.0.ip().is_loopback() {
        tracing::warn!(listen = %settings.hubble.0, "flows are served without TLS to whoever reaches this address");
    }

    let mut looped = Loop { settings: &settings, agent, uplinks, sink, zones, index, samples, pair_log, ready };
    looped.zones.follow(&runtime, &looped.index);
    looped.drain()?;
    let result = looped.follow(&received, || servers.failed(&runtime));
    looped.end();
    shutdown.cancel();
    servers.end(&runtime);
    result
}

fn open_pair_log(settings: &Settings, process: &Arc<Process>) -> Result<Option<PairLog>, Failure> {
    let Some(output) = &settings.pair_log.0 else { return Ok(None) };
    let log = PairLog::start(output, settings.pair_log_interval, Arc::clone(process));
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
    /// The table to begin with, and who says what becomes of it; `None` if a signal asked to end.
    fn first(
        settings: &Settings,
        runtime: &Runtime,
        received: &Receiver<Signal>,
        table: &SharedTable,
        index: &Arc<Index>,
    ) -> Result<Option<(Self, Vec<Change>)>, Failure> {
        match &settings.zones {
            ZoneSource::File(path) => {
                let watched = Watched::new(path);
                let table = StaticTable::read(path).map_err(usage)?;
                index.replace(&table.endpoints);
                Ok(Some((Self::File(watched), Table::new().changes_to(&table.zones))))
            }
            ZoneSource::Controller(controller) => {
                let followed = Followed::start(controller, &settings.state_dir, runtime, received, table, index)?;
                Ok(followed.map(|(followed, changes)| (Self::Controller(Box::new(followed)), changes)))
            }
        }
    }

    /// Begins to follow, where there is somebody to follow.
    fn follow(&mut self, runtime: &Runtime, index: &Arc<Index>) {
        if let Self::Controller(followed) = self {
            followed.follow(runtime, index);
        }
    }
}

/// Loads the programs, gives them the table and attaches them.
fn start(
    settings: &Settings,
    uplinks: &[Uplink],
    table: SharedTable,
    first: Vec<Change>,
    index: &Arc<Index>,
    sink: &Sink,
) -> Result<Agent, Failure> {
    let mut slots = Slots::default();
    slots.assign(first.iter().filter_map(|(_, placement)| placement.as_ref()));
    let options = Options { hook: settings.hook.resolve()?, matrix_slots: slots.matrix_slots(), ..Options::default() };
    let node = Node { name: settings.node.clone(), place: Place::Unknown };
    let datapath = Datapath::load(options).map_err(Failure::failed)?;
    let accounting = Accounting::new(settings.series, settings.pair_log.0.is_some());
    let mut agent = Agent::new(node, datapath, Arc::clone(index), accounting, sink.clone()).with_table(table);
    for uplink in uplinks {
        agent.datapath().add_uplink(uplink.ifindex).map_err(Failure::failed)?;
    }
    change(&mut agent, uplinks, first)?;
    if agent.node_place() == &Place::Unknown {
        tracing::warn!("no address of the uplinks is in a zone of the table: this node's zone is unknown");
    }
    let attached = agent.datapath().attach().map_err(Failure::failed)?;
    let names: Vec<&str> = uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
    let zone_matrix = agent.datapath().matrix_id().map_err(Failure::failed)?;
    tracing::info!(node = settings.node, ?attached, uplinks = ?names, zone_matrix, "counting");
    Ok(agent)
}

/// The zone of the first uplink address that is in one.
fn node_place(uplinks: &[Uplink], table: &Table) -> Place {
    let mut addresses = uplinks.iter().flat_map(|uplink| &uplink.addresses);
    let zone =
        addresses.find_map(|address| table.lookup(*address).filter(|(_, placement)| placement.place.zone().is_some()));
    zone.map_or(Place::Unknown, |(_, placement)| placement.place.clone())
}

/// Changes the table in force.
fn change(agent: &mut Agent, uplinks: &[Uplink], changes: Vec<Change>) -> Result<(), Failure> {
    if let Some(too_many) = agent.change_zones(changes, SystemTime::now()).map_err(Failure::failed)? {
        tracing::error!(%too_many, "the table is in force without some of its zones");
    }
    let place = node_place(uplinks, &agent.zones().read());
    agent.place_node(&place);
    Ok(())
}

/// What the agent does once it is attached.
struct Loop<'a> {
    settings: &'a Settings,
    agent: Agent,
    uplinks: Vec<Uplink>,
    sink: Sink,
    zones: Zones,
    index: Arc<Index>,
    samples: watch::Sender<Arc<[Sample]>>,
    pair_log: Option<PairLog>,
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
            let Self { agent, sink, .. } = self;
            let reload = match wait(received, TICK, || sink.take_all(agent.announced(), Instant::now()))? {
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
            if let Some(error) = server_failed() {
                return Err(Failure::failed(error));
            }
        }
        self.sink.take_all(self.agent.announced(), Instant::now());
        self.agent.flush(Instant::now(), SystemTime::now()).map_err(Failure::failed)
    }

    fn drain(&mut self) -> Result<(), Failure> {
        if let Zones::Controller(followed) = &mut self.zones {
            followed.receive(&self.index);
        }
        self.agent.drain(Instant::now(), SystemTime::now()).map_err(Failure::failed)?;
        // What was counted so far is told with the zones and owners that it was counted with.
        let has_table = match &mut self.zones {
            Zones::File(_) => true,
            Zones::Controller(followed) => followed.apply(&mut self.agent, &self.uplinks, &self.index),
        };
        self.samples.send_replace(Arc::from([self.agent.sample().map_err(Failure::failed)?]));
        if has_table {
            self.ready.ready.store(true, Ordering::Relaxed);
        }
        let Self { agent, pair_log, settings, .. } = self;
        if let Some(log) = pair_log {
            log.tick(|| pairs(settings, agent));
        }
        Ok(())
    }

    /// Reads the table again. One with an error is refused, and the old one stays.
    fn reload(&mut self) -> Result<(), Failure> {
        let Zones::File(watched) = &mut self.zones else { return Ok(()) };
        let read = StaticTable::read(&watched.path).map_err(usage);
        // What was counted so far is told with the zones that it was counted with.
        self.agent.drain(Instant::now(), SystemTime::now()).map_err(Failure::failed)?;
        let taken = read.and_then(|table| {
            let changes = self.agent.zones().read().changes_to(&table.zones);
            change(&mut self.agent, &self.uplinks, changes)?;
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
    }
}

fn pairs(settings: &Settings, agent: &mut Agent) -> Pairs {
    vec![(settings.node.clone(), agent.take_interval())]
}
