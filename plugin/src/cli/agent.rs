//! `meridian agent` on a static table: its configuration, and the loop that drains and reloads.

use super::{
    Failure, HookChoice, print,
    process::{Servers, Signal, signals, wait},
};
use crate::{
    agent::{Agent, Sink},
    datapath::{
        Datapath, Options,
        uplinks::{self, Uplink},
    },
    flows::{Namespaces, Node, Ring},
    hubble,
    identity::Index,
    metrics::{Listen, Sample},
    yaml,
    zones::{Place, Slots, StaticTable, Table},
};
use serde::Deserialize;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant, SystemTime},
};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

/// How often flows are drained, metrics renewed and the table's file is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Hubble's default.
const RING_CAPACITY: usize = 4095;

/// The agent's configuration. A flag or variable counts before the file.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file.
    #[arg(long, env = "MERIDIAN_CONFIG", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// This node's name; by default the host's.
    #[arg(long, env = "MERIDIAN_NODE", value_name = "NAME")]
    node: Option<String>,
    /// The static table; it is read again when it changes and on SIGHUP.
    #[arg(long, env = "MERIDIAN_ZONES_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    zones_file: Option<PathBuf>,
    /// Where packets are counted; by default auto.
    #[arg(long, env = "MERIDIAN_HOOK")]
    hook: Option<HookChoice>,
    /// Devices through which packets leave the node; by default those of the default routes.
    #[arg(long = "uplink", env = "MERIDIAN_UPLINKS", value_name = "DEVICE", value_delimiter = ',')]
    uplinks: Vec<String>,
    /// Where Hubble's clients are served, without TLS; by default 127.0.0.1:4344.
    #[arg(long, env = "MERIDIAN_HUBBLE_LISTEN", value_name = "ADDRESS")]
    hubble_listen: Option<Listen>,
    /// Where metrics and health are served over HTTP; by default :9980.
    #[arg(long, env = "MERIDIAN_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: Option<Listen>,
}

/// Questions to a configuration file.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Config {
    /// Reads an agent's configuration and its zone table; exit code 2 if there is an error.
    Check {
        /// The configuration file.
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// agent.yaml.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    node: Option<String>,
    /// Relative to the folder of this file.
    zones_file: Option<PathBuf>,
    hook: Option<HookChoice>,
    uplinks: Vec<String>,
    hubble: Server,
    http: Server,
    /// Accepted already; what the agent keeps between runs comes with the controller.
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Server {
    listen: Option<String>,
}

/// The configuration in force.
#[derive(Debug)]
struct Settings {
    node: String,
    zones_file: PathBuf,
    hook: HookChoice,
    uplinks: Vec<String>,
    hubble: Listen,
    http: Listen,
}

fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

fn read_file(path: &Path) -> Result<File, Failure> {
    let refuse = |(line, reason)| yaml::Error::Refused { path: path.to_owned(), line, reason };
    let mut file: File = yaml::read(path)
        .and_then(|text| yaml::parse(&text, "at least the key `zones_file`").map_err(refuse))
        .map_err(usage)?;
    if let (Some(zones), Some(folder)) = (&mut file.zones_file, path.parent()) {
        *zones = folder.join(&zones);
    }
    Ok(file)
}

impl Settings {
    fn new(args: Args) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let listen = |flag: Option<Listen>, server: Server, key: &str, default: &str| match (flag, server.listen) {
            (Some(flag), _) => Ok(flag),
            (None, text) => {
                let text = text.unwrap_or_else(|| default.to_owned());
                text.parse().map_err(|error| usage(format!("{key}.listen: {error}")))
            }
        };
        let no_table = || usage("there is no zone table: name it with --zones-file or the key `zones_file`");
        Ok(Self {
            node: args.node.or(file.node).unwrap_or_else(host_name),
            zones_file: args.zones_file.or(file.zones_file).ok_or_else(no_table)?,
            hook: args.hook.or(file.hook).unwrap_or(HookChoice::Auto),
            uplinks: if args.uplinks.is_empty() { file.uplinks } else { args.uplinks },
            hubble: listen(args.hubble_listen, file.hubble, "hubble", "127.0.0.1:4344")?,
            http: listen(args.http_listen, file.http, "http", ":9980")?,
        })
    }
}

fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

/// `meridian config check`.
pub(super) fn check(command: &Config) -> Result<(), Failure> {
    let Config::Check { file } = command;
    let args = Args {
        config: Some(file.clone()),
        node: None,
        zones_file: None,
        hook: None,
        uplinks: Vec::new(),
        hubble_listen: None,
        http_listen: None,
    };
    let settings = Settings::new(args)?;
    let table = StaticTable::read(&settings.zones_file).map_err(usage)?;
    let (prefixes, endpoints) =
        (table.zones.prefixes().count() - Table::new().prefixes().count(), table.endpoints.len());
    print(&format!(
        "{}: good\n{}: good, {prefixes} prefixes, {endpoints} endpoints\n",
        file.display(),
        settings.zones_file.display()
    ))
}

/// `meridian agent`.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let settings = Settings::new(args)?;
    let watched = Watched::new(&settings.zones_file);
    let table = StaticTable::read(&settings.zones_file).map_err(usage)?;
    let runtime = Runtime::new().map_err(Failure::failed)?;
    let received = signals(&runtime)?;

    let uplinks = uplinks::find(&settings.uplinks).map_err(Failure::failed)?;
    let index = Arc::new(Index::default());
    let sink = Sink { ring: Arc::new(Ring::new(RING_CAPACITY)), namespaces: Arc::new(Namespaces::default()) };
    let agent = start(&settings, &uplinks, &table, &index, &sink)?;

    let shutdown = CancellationToken::new();
    let samples = watch::Sender::new(Vec::new());
    let observer = hubble::Server::new(sink.clone(), vec![settings.node.clone()], shutdown.clone());
    let metrics = (settings.http.0, samples.subscribe());
    let mut servers = Servers::start(&runtime, (settings.hubble.0, observer), metrics, &shutdown)?;
    if !settings.hubble.0.ip().is_loopback() {
        tracing::warn!(listen = %settings.hubble.0, "flows are served without TLS to whoever reaches this address");
    }

    let mut looped = Loop { settings: &settings, agent, sink, watched, index, samples };
    let result = looped.follow(&received, || servers.failed(&runtime));
    shutdown.cancel();
    servers.end(&runtime);
    result
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
    let mut agent = Agent::new(node, datapath, Arc::clone(index), sink.clone());
    for uplink in uplinks {
        agent.datapath().add_uplink(uplink.ifindex).map_err(Failure::failed)?;
    }
    apply(&mut agent, table, index)?;
    let attached = agent.datapath().attach().map_err(Failure::failed)?;
    let names: Vec<&str> = uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
    tracing::info!(node = settings.node, ?attached, uplinks = ?names, "counting");
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
    samples: watch::Sender<Vec<Sample>>,
}

impl Loop<'_> {
    /// Drains, reloads and renews the metrics until a signal asks to end.
    fn follow(
        &mut self,
        received: &Receiver<Signal>,
        mut server_failed: impl FnMut() -> Option<String>,
    ) -> Result<(), Failure> {
        loop {
            self.agent.drain(Instant::now(), SystemTime::now()).map_err(Failure::failed)?;
            self.samples.send_replace(vec![self.agent.sample().map_err(Failure::failed)?]);
            let Self { agent, sink, .. } = self;
            let reload = match wait(received, TICK, || sink.take_all(agent.announced(), Instant::now()))? {
                Some(Signal::End) => break,
                Some(Signal::Reload) => true,
                None => self.watched.has_changed(),
            };
            if reload {
                self.reload();
            }
            if let Some(error) = server_failed() {
                return Err(Failure::failed(error));
            }
        }
        self.sink.take_all(self.agent.announced(), Instant::now());
        self.agent.flush(Instant::now(), SystemTime::now()).map_err(Failure::failed)
    }

    /// Reads the table again. One with an error is refused, and the old one stays.
    fn reload(&mut self) {
        let file = &self.settings.zones_file;
        let table = StaticTable::read(file).map_err(usage);
        let taken = table.and_then(|table| apply(&mut self.agent, &table, &self.index));
        self.agent.reloaded(taken.is_ok());
        match taken {
            Ok(()) => tracing::info!(file = %file.display(), "a new zone table is in force"),
            Err(reason) => tracing::error!(%reason, "the new zone table is refused; the old one stays in force"),
        }
    }
}

/// A file that may be replaced, also by a link to another one.
struct Watched {
    path: PathBuf,
    known: Option<(u64, u64, i64, i64)>,
}

impl Watched {
    fn new(path: &Path) -> Self {
        let mut watched = Self { path: path.to_owned(), known: None };
        watched.has_changed();
        watched
    }

    /// Whether it is another file than the last time, or its content was written since.
    fn has_changed(&mut self) -> bool {
        let found = fs::metadata(&self.path).ok();
        let found = found.map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()));
        let changed = found.is_some() && found != self.known;
        if changed {
            self.known = found;
        }
        changed
    }
}
