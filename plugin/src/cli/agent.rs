//! `meridian agent` on a static table: the loop that drains, tells and reloads.

use super::{
    Failure,
    config::{Args, Settings},
    process::{Offer, Places, Servers, Signal, end_pair_log, signals, wait},
    usage,
};
use crate::{
    accounting::Accounting,
    agent::{Agent, Sink},
    datapath::{
        Datapath, Options,
        uplinks::{self, Uplink},
    },
    export::{PairLog, Pairs},
    flows::{Namespaces, Node, Ring},
    identity::Index,
    metrics::{Process, Sample, Sources},
    zones::{Place, Slots, StaticTable, Table},
};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::{Duration, Instant, SystemTime},
};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

/// How often flows are drained, metrics renewed and the table's file is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Hubble's default.
const RING_CAPACITY: usize = 4095;

/// `meridian agent`.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let settings = Settings::new(args)?;
    let watched = Watched::new(&settings.zones_file);
    let table = StaticTable::read(&settings.zones_file).map_err(usage)?;
    let process = Arc::new(Process::default());
    let pair_log = open_pair_log(&settings, &process)?;
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let received = signals(&runtime)?;

    let uplinks = uplinks::find(&settings.uplinks).map_err(Failure::failed)?;
    let index = Arc::new(Index::default());
    let ring = Arc::new(Ring::new(RING_CAPACITY));
    let sink = Sink { ring: Arc::clone(&ring), namespaces: Arc::new(Namespaces::default()) };
    let agent = start(&settings, &uplinks, &table, &index, &sink)?;

    let shutdown = CancellationToken::new();
    let samples = watch::Sender::new(Arc::from([]));
    let ready = Arc::clone(&process);
    let tables = watch::Sender::new(Arc::new(table.zones));
    let places = Places { grpc: settings.hubble.0, socket: settings.socket.as_deref(), http: Some(settings.http.0) };
    let offer = Offer {
        nodes: vec![settings.node.clone()],
        cluster: String::new(),
        peers: None,
        sink: sink.clone(),
        sources: Sources { samples: samples.subscribe(), ring, process, families: settings.families },
        tables: Some(tables.subscribe()),
    };
    let mut servers = Servers::start(&runtime, &places, offer, &shutdown)?;
    if !settings.hubble.0.ip().is_loopback() {
        tracing::warn!(listen = %settings.hubble.0, "flows are served without TLS to whoever reaches this address");
    }

    let mut looped = Loop { settings: &settings, agent, sink, watched, index, samples, tables, pair_log };
    looped.drain()?;
    ready.ready.store(true, Ordering::Relaxed);
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

/// Loads the programs, gives them the table and attaches them.
fn start(
    settings: &Settings,
    uplinks: &[Uplink],
    table: &StaticTable,
    index: &Arc<Index>,
    sink: &Sink,
) -> Result<Agent, Failure> {
    let mut slots = Slots::default();
    slots.assign(&table.zones);
    let options = Options { hook: settings.hook.resolve()?, matrix_slots: slots.matrix_slots(), ..Options::default() };
    let node = Node { name: settings.node.clone(), place: node_place(uplinks, &table.zones) };
    if node.place == Place::Unknown {
        tracing::warn!("no address of the uplinks is in a zone of the table: this node's zone is unknown");
    }
    let datapath = Datapath::load(options).map_err(Failure::failed)?;
    let accounting = Accounting::new(settings.series, settings.pair_log.0.is_some());
    let mut agent = Agent::new(node, datapath, Arc::clone(index), accounting, sink.clone());
    for uplink in uplinks {
        agent.datapath().add_uplink(uplink.ifindex).map_err(Failure::failed)?;
    }
    apply(&mut agent, table, index)?;
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

fn apply(agent: &mut Agent, table: &StaticTable, index: &Index) -> Result<(), Failure> {
    if let Some(too_many) = agent.apply_zones(&table.zones, SystemTime::now()).map_err(Failure::failed)? {
        tracing::error!(%too_many, "the table is in force without some of its zones");
    }
    index.replace(&table.endpoints);
    Ok(())
}

/// What the agent does once it is attached.
struct Loop<'a> {
    settings: &'a Settings,
    agent: Agent,
    sink: Sink,
    watched: Watched,
    index: Arc<Index>,
    samples: watch::Sender<Arc<[Sample]>>,
    tables: watch::Sender<Arc<Table>>,
    pair_log: Option<PairLog>,
}

impl Loop<'_> {
    /// Drains, reloads and renews the metrics until a signal asks to end.
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
            match self.watched.look() {
                File::Changed => self.reload()?,
                _ if reload => self.reload()?,
                // The table in force is still what the file says.
                File::Same if self.watched.is_taken => self.agent.confirm_zones(SystemTime::now()),
                File::Same | File::Gone => {}
            }
            if let Some(error) = server_failed() {
                return Err(Failure::failed(error));
            }
        }
        self.sink.take_all(self.agent.announced(), Instant::now());
        self.agent.flush(Instant::now(), SystemTime::now()).map_err(Failure::failed)
    }

    fn drain(&mut self) -> Result<(), Failure> {
        self.agent.drain(Instant::now(), SystemTime::now()).map_err(Failure::failed)?;
        self.samples.send_replace(Arc::from([self.agent.sample().map_err(Failure::failed)?]));
        let Self { agent, pair_log, settings, .. } = self;
        if let Some(log) = pair_log {
            log.tick(|| pairs(settings, agent));
        }
        Ok(())
    }

    /// Reads the table again. One with an error is refused, and the old one stays.
    fn reload(&mut self) -> Result<(), Failure> {
        let file = &self.settings.zones_file;
        let read = StaticTable::read(file).map_err(usage);
        // What was counted so far is told with the zones that it was counted with.
        self.agent.drain(Instant::now(), SystemTime::now()).map_err(Failure::failed)?;
        let taken = read.and_then(|table| apply(&mut self.agent, &table, &self.index).map(|()| table));
        self.agent.reloaded(taken.is_ok());
        self.watched.is_taken = taken.is_ok();
        match taken {
            Ok(table) => {
                self.tables.send_replace(Arc::new(table.zones));
                tracing::info!(file = %file.display(), "a new zone table is in force");
            }
            Err(reason) => tracing::error!(%reason, "the new zone table is refused; the old one stays in force"),
        }
        Ok(())
    }

    /// Writes what was not written yet.
    fn end(&mut self) {
        if let Some(log) = self.pair_log.take() {
            end_pair_log(log, pairs(self.settings, &mut self.agent));
        }
    }
}

fn pairs(settings: &Settings, agent: &mut Agent) -> Pairs {
    vec![(settings.node.clone(), agent.take_interval())]
}

/// A file that may be replaced, also by a link to another one.
struct Watched {
    path: PathBuf,
    known: Option<(u64, u64, i64, i64)>,
    /// Whether what it said the last time is in force.
    is_taken: bool,
}

enum File {
    Same,
    Changed,
    Gone,
}

impl Watched {
    fn new(path: &Path) -> Self {
        let mut watched = Self { path: path.to_owned(), known: None, is_taken: true };
        watched.look();
        watched
    }

    /// Whether it is another file than the last time, or its content was written since.
    fn look(&mut self) -> File {
        let Ok(meta) = fs::metadata(&self.path) else { return File::Gone };
        let found = Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        if found == self.known {
            return File::Same;
        }
        self.known = found;
        File::Changed
    }
}
