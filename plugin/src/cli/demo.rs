//! `meridian demo`: runs the demo, shows its progress and its result.

use super::{
    Failure, hook::HookChoice, host::CILIUM_STATE_DIR, hubble::Cluster, otlp::OtlpArgs, prices::PriceArgs, print,
    signals::signals,
};
use crate::{
    api::ZonesService,
    counters::{Sample, Samples},
    datapath::{Devices, auto},
    demo::{Demo, Report, live, progress, topology::NODES},
    export::{Output as PairLogFile, PairLog, PairLogTally, Pairs},
    flows::{Ring, Sink},
    historian::{Historian, second},
    hubble::{NodeName, PeerAddress, PeerSource, Peers},
    identity::Index,
    metrics::{Families, MeasuredNodes, Nodes, Page, Ready},
    otlp,
    servers::{END_TIMEOUT, Measured, Offer, Places, Servers},
    zones::{Matrix, SharedTable},
};
use clap::ValueEnum;
use jiff::SignedDuration;
use std::{
    io::{self, IsTerminal, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    runtime::Runtime,
    select,
    sync::watch,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Where `--serve` listens for Hubble's clients, as their own relay does.
const OBSERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4245);
/// Its name for hubble-relay.
const PEER: &str = "demo";
/// Where `--serve` offers metrics.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9980);
/// Hubble's default.
const RING_CAPACITY: usize = 4095;
/// How often flows are drained and the progress is shown.
const TICK: Duration = Duration::from_secs(1);
/// How often announced packets are taken out of the kernel.
const EVENT_TICK: Duration = Duration::from_millis(100);
/// The interval of the pair log.
const PAIR_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Flags of `meridian demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Duration of the traffic, such as 10s or 1m30s.
    #[arg(long, default_value = "10s", value_name = "TIME")]
    duration: SignedDuration,
    /// Hook that counts packets.
    #[arg(long, default_value = "auto")]
    hook: HookChoice,
    /// Run until interrupted, and serve flows to Hubble's clients on 127.0.0.1:4245, and the page, its API and metrics on
    /// 127.0.0.1:9980.
    #[arg(long)]
    serve: bool,
    /// With --serve: send no more traffic after the duration, so that the served numbers stay equal to the result.
    #[arg(long, requires = "serve")]
    still: bool,
    /// File for the pair log: every 10 s a JSON line for each pair of pods that crossed zones.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pair_log: Option<PathBuf>,
    #[command(flatten)]
    prices: PriceArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
    /// Format of the result on stdout.
    #[arg(long, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let duration = Duration::try_from(args.duration)
        .map_err(|_| Failure::Usage(format!("--duration {}: it can't be negative", args.duration)))?;
    let runtime = Runtime::new().map_err(Failure::failed)?;
    runtime.block_on(show(args, duration))
}

async fn show(args: &Args, duration: Duration) -> Result<(), Failure> {
    let prices = Demo::prices(args.prices.table()?).map_err(Failure::failed)?;
    let interrupted = signals()?.end;
    let ring = Arc::new(Ring::new(RING_CAPACITY));
    let sink = Sink::new(Arc::clone(&ring));
    let shutdown = CancellationToken::new();
    let (samples, mut page, tally) = (watch::Sender::new(Arc::from([])), Page::default(), Arc::default());
    let pair_log = args.pair_log.as_ref().map(|path| open_pair_log(path, &tally)).transpose()?;
    if pair_log.is_some() {
        page.add(tally);
    }
    let historian = Arc::new(Historian::in_memory(prices, second()));
    let mut shown =
        DemoOutputs { sink, samples, ready: page.ready.clone(), pair_log, progress: Progress::new(), historian };
    let exporting = args.otlp.clone().settings()?.map(|settings| {
        let tally = Arc::new(otlp::Tally::default());
        page.add(Arc::clone(&tally));
        tokio::spawn(exporter(settings, shown.samples.subscribe(), tally, shutdown.clone()).run())
    });
    let servers = if args.serve { Some(shown.serve(page.with(ring), &shutdown).await?) } else { None };
    let result = shown.run(args, duration, &interrupted).await;
    shutdown.cancel();
    if let Some(exporting) = exporting {
        let _ = timeout(END_TIMEOUT, exporting).await;
    }
    if let Some(servers) = servers {
        servers.end().await;
    }
    result
}

/// The families that the demo shows.
fn families() -> Families {
    Families { pods: true, ..Families::default() }
}

fn exporter(
    settings: otlp::Settings,
    counters: Samples,
    tally: Arc<otlp::Tally>,
    shutdown: CancellationToken,
) -> otlp::Exporter<Sample> {
    let program = otlp::Program { name: "meridian-demo", cluster: Cluster::default().0 };
    otlp::Exporter { settings, program, content: families().into(), counters, tally, shutdown }
}

fn open_pair_log(path: &Path, tally: &Arc<PairLogTally>) -> Result<PairLog, Failure> {
    let log = PairLog::start(&PairLogFile::File(path.to_owned()), PAIR_LOG_INTERVAL, Arc::clone(tally));
    log.map_err(|error| Failure::failed(format!("the pair log {}: {error}", path.display())))
}

/// The outputs of the demo.
struct DemoOutputs {
    sink: Sink,
    samples: watch::Sender<Arc<[Sample]>>,
    ready: Ready,
    pair_log: Option<PairLog>,
    progress: Progress,
    historian: Arc<Historian>,
}

impl DemoOutputs {
    /// Serves the counters to Hubble's clients, `meridian top` and Prometheus.
    async fn serve(&self, mut page: Page, shutdown: &CancellationToken) -> Result<Servers, Failure> {
        let places = Places { grpc: Some(OBSERVER), tls: None, socket: None, http: Some(METRICS) };
        let (table, index) = (SharedTable::default(), Index::default());
        let fixed = Arc::new(Demo::table().map_err(Failure::failed)?);
        index.replace(&fixed.endpoints);
        *table.write() = fixed.zones.clone();
        let own = PeerAddress { address: OBSERVER.to_string(), server_name: None };
        let own = Peers::from([(PEER.to_owned(), own)]);
        page.add_history(Arc::clone(&self.historian));
        page.add_catalogue(watch::Sender::new(fixed).subscribe());
        page.add_source(MeasuredNodes { program: "demo", samples: self.samples.subscribe() });
        let offer = Offer {
            nodes: NODES
                .iter()
                .map(|node| NodeName { cluster: Cluster::default().0, node: node.name.to_owned() })
                .collect(),
            is_recorded: false,
            // One server has the flows of all four nodes.
            peers: Some(PeerSource::Local(watch::Sender::new(Arc::new(own)).subscribe())),
            sink: self.sink.clone(),
            page: page.with(Nodes { samples: self.samples.subscribe(), families: families() }),
            measured: Some(Measured {
                samples: self.samples.subscribe(),
                zones: ZonesService { table, index: Arc::new(index) },
            }),
        };
        Servers::start(&places, offer, shutdown).await.map_err(Failure::failed)
    }

    async fn run(&mut self, args: &Args, duration: Duration, interrupted: &CancellationToken) -> Result<(), Failure> {
        let choice = auto::resolve(args.hook.fixed(), &Devices::default(), CILIUM_STATE_DIR.as_ref(), None);
        let hook = choice.map_err(Failure::failed)?.hook;
        self.progress.print("building four nodes, attaching the programs");
        let mut demo = Demo::start(hook, &self.sink, Arc::clone(&self.historian)).map_err(Failure::failed)?;
        if args.serve {
            self.progress.print(&format!("flows: hubble observe --server {OBSERVER} --follow"));
            self.progress
                .print(&format!("counters: meridian top --server {OBSERVER}; metrics: http://{METRICS}/metrics"));
            self.progress.print(&format!("the page: http://{METRICS}/"));
        }
        let result = self.follow_to_the_end(args, &mut demo, duration, interrupted).await;
        if let Some(log) = self.pair_log.take() {
            log.end(pairs(&demo), END_TIMEOUT);
        }
        result
    }

    async fn follow_to_the_end(
        &mut self,
        args: &Args,
        demo: &mut Demo,
        duration: Duration,
        interrupted: &CancellationToken,
    ) -> Result<(), Failure> {
        self.follow(demo, Some(duration), interrupted).await?;
        self.progress.print("comparing with the wire");
        let report = demo.finish().map_err(Failure::failed)?;
        self.publish(demo)?;
        print(&match args.output {
            Output::Table => report.table(),
            Output::Json => report.json().map_err(Failure::failed)? + "\n",
        })?;
        if args.serve {
            if args.still {
                self.progress.print("the traffic has ended; Ctrl-C ends the demo");
            } else {
                demo.resume().map_err(Failure::failed)?;
                self.progress.print("the traffic continues; Ctrl-C ends it");
            }
            match self.follow(demo, None, interrupted).await {
                Err(Failure::Interrupted) => {}
                end => end?,
            }
        }
        verdict(&report)
    }

    /// Drains and shows the progress until the time is up.
    async fn follow(
        &mut self,
        demo: &Demo,
        duration: Option<Duration>,
        interrupted: &CancellationToken,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        self.progress.at = Duration::ZERO;
        loop {
            let left = duration.map_or(TICK, |duration| duration.saturating_sub(start.elapsed()).min(TICK));
            take_events(demo, left, interrupted).await?;
            demo.drain().map_err(Failure::failed)?;
            if demo.is_running() {
                demo.record().map_err(Failure::failed)?;
            }
            self.publish(demo)?;
            self.progress.show(start.elapsed(), demo.counted().map_err(Failure::failed)?);
            if duration.is_some_and(|duration| start.elapsed() >= duration) {
                return Ok(());
            }
        }
    }

    fn publish(&mut self, demo: &Demo) -> Result<(), Failure> {
        self.samples.send_replace(demo.samples().map_err(Failure::failed)?.into());
        self.ready.set(true);
        if let Some(log) = &mut self.pair_log {
            log.tick(|| pairs(demo));
        }
        Ok(())
    }
}

/// Takes announced packets for this time.
async fn take_events(demo: &Demo, time: Duration, interrupted: &CancellationToken) -> Result<(), Failure> {
    let (mut end, mut events) = (pin!(sleep(time)), interval(EVENT_TICK));
    loop {
        select! {
            () = interrupted.cancelled() => return Err(Failure::Interrupted),
            () = &mut end => break,
            _ = events.tick() => demo.drain_events(),
        }
    }
    demo.drain_events();
    Ok(())
}

fn pairs(demo: &Demo) -> Pairs {
    demo.take_interval().into_iter().map(|(node, lines)| (node.to_owned(), lines)).collect()
}

fn verdict(report: &Report) -> Result<(), Failure> {
    if report.is_exact() { Ok(()) } else { Err(Failure::failed("the kernel's counters are not those of the wire")) }
}

/// Progress on stderr: a table that is written over on a terminal, a line a second elsewhere.
struct Progress {
    terminal: bool,
    /// Lines of the table that is on the screen.
    lines: usize,
    before: Matrix,
    at: Duration,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), lines: 0, before: Matrix::default(), at: Duration::ZERO }
    }

    /// A line that stays.
    fn print(&mut self, line: &str) {
        // The text on the screen stays there.
        self.lines = 0;
        // Nothing depends on a reader.
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// The bytes counted so far; the next line replaces this one.
    fn show(&mut self, elapsed: Duration, counted: Matrix) {
        let mut stderr = io::stderr().lock();
        if self.terminal {
            let table = live(&counted, &self.before, elapsed.saturating_sub(self.at).as_secs_f64());
            let up = if self.lines > 0 { format!("\x1b[{}A", self.lines) } else { String::new() };
            let rows: String = table.iter().map(|row| format!("{row}\x1b[K\n")).collect();
            let _ = writeln!(stderr, "{up}{rows}{:>4} s\x1b[K", elapsed.as_secs());
            self.lines = table.len() + 1;
        } else {
            let _ = writeln!(stderr, "{:>4} s   {}", elapsed.as_secs(), progress(&counted));
        }
        (self.before, self.at) = (counted, elapsed);
    }
}
