//! `meridian demo`: runs the demo, shows its progress and its result.

use super::{
    Failure, HookChoice, print,
    process::{Servers, Signal, signals, wait},
};
use crate::{
    agent::Sink,
    demo::{Demo, Report, live, progress, topology::NODES},
    flows::{Namespaces, Ring},
    hubble,
    metrics::Sample,
    zones::Matrix,
};
use clap::ValueEnum;
use jiff::SignedDuration;
use std::{
    io::{self, IsTerminal, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

/// Where `--serve` listens for Hubble's clients, as their own relay does.
const OBSERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4245);
/// Where `--serve` offers metrics.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9980);
/// Hubble's default.
const RING_CAPACITY: usize = 4095;
/// How often flows are drained and the progress is shown.
const TICK: Duration = Duration::from_secs(1);

/// What to show, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long the traffic lasts, for example 10s or 1m30s.
    #[arg(long, default_value = "10s", value_name = "TIME")]
    duration: SignedDuration,
    /// Where packets are counted.
    #[arg(long, default_value = "auto")]
    hook: HookChoice,
    /// Go on until interrupted; serve flows to Hubble's clients on 127.0.0.1:4245 and metrics on 127.0.0.1:9980.
    #[arg(long)]
    serve: bool,
    /// The form of the result on stdout.
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
    let interrupted = signals(&runtime)?;
    let sink = Sink { ring: Arc::new(Ring::new(RING_CAPACITY)), namespaces: Arc::new(Namespaces::default()) };
    let shutdown = CancellationToken::new();
    let samples = watch::Sender::new(Vec::new());
    let servers = if args.serve {
        let nodes = NODES.iter().map(|node| node.name.to_owned()).collect();
        let observer = hubble::Server::new(sink.clone(), nodes, shutdown.clone());
        Some(Servers::start(&runtime, (OBSERVER, observer), (METRICS, samples.subscribe()), &shutdown)?)
    } else {
        None
    };
    let result = show(args, duration, &interrupted, &sink, &samples);
    shutdown.cancel();
    if let Some(servers) = servers {
        servers.end(&runtime);
    }
    result
}

fn show(
    args: &Args,
    duration: Duration,
    interrupted: &Receiver<Signal>,
    sink: &Sink,
    samples: &watch::Sender<Vec<Sample>>,
) -> Result<(), Failure> {
    let hook = args.hook.resolve()?;
    let mut progress = Progress::new();
    progress.say("building four nodes, attaching the programs");
    let mut demo = Demo::start(hook, sink).map_err(Failure::failed)?;
    if args.serve {
        progress.say(&format!("serving Hubble's API: hubble observe --server {OBSERVER} --follow"));
    }
    follow(&demo, Some(duration), interrupted, samples, &mut progress)?;
    progress.say("comparing with the wire");
    let report = demo.finish().map_err(Failure::failed)?;
    print(&match args.output {
        Output::Table => report.table(),
        Output::Json => report.json().map_err(Failure::failed)? + "\n",
    })?;
    if args.serve {
        demo.resume().map_err(Failure::failed)?;
        progress.say("the traffic goes on; Ctrl-C ends it");
        match follow(&demo, None, interrupted, samples, &mut progress) {
            Err(Failure::Interrupted) => {}
            end => end?,
        }
    }
    verdict(&report)
}

fn verdict(report: &Report) -> Result<(), Failure> {
    if report.is_exact() { Ok(()) } else { Err(Failure::failed("the kernel's counters are not those of the wire")) }
}

/// Drains and shows the progress until the time is up.
fn follow(
    demo: &Demo,
    duration: Option<Duration>,
    interrupted: &Receiver<Signal>,
    samples: &watch::Sender<Vec<Sample>>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let start = Instant::now();
    progress.at = Duration::ZERO;
    loop {
        let left = duration.map_or(TICK, |duration| duration.saturating_sub(start.elapsed()).min(TICK));
        match wait(interrupted, left, || demo.drain_events())? {
            Some(Signal::End) => return Err(Failure::Interrupted),
            // There is nothing to read again.
            Some(Signal::Reload) | None => {}
        }
        demo.drain().map_err(Failure::failed)?;
        samples.send_replace(demo.samples().map_err(Failure::failed)?);
        progress.show(start.elapsed(), demo.counted().map_err(Failure::failed)?);
        if duration.is_some_and(|duration| start.elapsed() >= duration) {
            return Ok(());
        }
    }
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
    fn say(&mut self, line: &str) {
        // What is on the screen stays there.
        self.lines = 0;
        // Nothing depends on whether somebody reads this.
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// What was counted so far; the next one replaces it.
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
