//! The history of a month: 1,000 workloads with ten peers each in six pairs of zones, 744 hours. Measures the size of
//! the folder, and the time and memory of the command that reports over all of it. Fails above the targets.
#![allow(clippy::unwrap_used, reason = "a bench that can't go on fails here")]

mod report;

use meridian::{
    archive::{Archive, Limits, Tally},
    history::{Block, Builder, Ends, Server, Span, TransferService, Workload},
    zones::{Location, Place, Provider, Zone},
};
use meridian_abi::Counter;
use nix::sys::resource::{UsageWho, getrusage};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    fmt::Write,
    fs,
    path::Path,
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// 2025-11-01.
const FIRST: u64 = 1_761_955_200;
const HOURS: u64 = 31 * 24;
const HOUR: u64 = Span::HOUR as u64;
const WORKLOADS: usize = 1000;
const PEERS: usize = 10;
const NODES: usize = 100;
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
const ROUNDS: usize = 5;
const MAX_TIME: Duration = Duration::from_secs(1);
const MAX_KIBIBYTES: i64 = 128 << 10;

fn workload_of(number: usize) -> Workload {
    let (namespace, name) = (format!("team-{}", number % 40), format!("workload-{number}"));
    Workload { namespace, kind: "Deployment".into(), name, ..Workload::default() }
}

fn site(zone: &str) -> Location {
    let zone = Arc::new(Zone { name: zone.into(), region: "us-east-1".into() });
    Location { provider: Provider::new("aws"), place: Place::Zone(zone), class: None }
}

/// An hour with random bytes, which compress worst.
fn block(hour: u64, workloads: &[Workload], sites: &[Location]) -> Block {
    let mut random = StdRng::seed_from_u64(hour);
    let mut builder = Builder::new(Span::hour_of(FIRST + hour * HOUR), Builder::MAX_ROOM);
    for node in 0..NODES {
        builder.cover(&format!("node-{node}"), &format!("aws:///us-east-1a/i-{node:017x}"), Span::HOUR);
    }
    for source in 0..WORKLOADS {
        for peer in 1..=PEERS {
            let destination = (source * 7 + peer * 131) % WORKLOADS;
            let service = format!("team-{}/workload-{destination}", destination % 40);
            for pair in 0..6 {
                let size = random.random_range(10..34);
                let bytes = random.random_range(0..1_u64 << size);
                let sites = [&sites[pair % 3], &sites[(pair + 1 + pair / 3) % 3]];
                let serving =
                    TransferService { service: &service, port: 8080, protocol: 6, server: Server::Destination };
                let ends = Ends { workloads: [&workloads[source], &workloads[destination]], sites };
                let counter = Counter { bytes, packets: bytes / 900 + 1 };
                builder.add(ends, serving, counter);
                let nodes = [source % NODES, destination % NODES].map(|node| format!("node-{node}"));
                builder.add_nodes([&nodes[0], &nodes[1]], sites, counter);
            }
        }
    }
    builder.add_recorded(Span::HOUR);
    builder.block()
}

/// The folder as a controller leaves it after the month.
struct Written {
    rows: usize,
    /// Bytes of all files, and of the files of hours.
    bytes: u64,
    hourly: u64,
    total: u64,
    /// The time to write one hour.
    write: Duration,
}

fn write(folder: &Path) -> Written {
    let tally = Arc::new(Tally::default());
    let mut archive = Archive::open(folder, Limits::default(), Arc::clone(&tally)).unwrap();
    let workloads: Vec<Workload> = (0..WORKLOADS).map(workload_of).collect();
    let sites = ZONES.map(site);
    let (mut rows, mut total, mut times) = (0, 0, Vec::new());
    for hour in 0..HOURS {
        let block = block(hour, &workloads, &sites);
        (rows, total) = (block.transfers.len(), total + block.total().bytes);
        let begin = Instant::now();
        archive.write(&block).unwrap();
        times.push(begin.elapsed());
    }
    let hourly = archive.bytes();
    archive.maintain(FIRST + (HOURS + 2) * HOUR).unwrap();
    // The first two hours are older than 31 days by then.
    assert_eq!(archive.len() as u64, HOURS + HOURS / 24 - 2);
    assert_eq!(tally.removed.load(Ordering::Relaxed), 2);
    times.sort();
    Written { rows, bytes: archive.bytes(), hourly, total, write: times[times.len() / 2] }
}

/// The CPU time of all commands so far.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros((micros(usage.user_time()) + micros(usage.system_time())) as u64)
}

/// The median CPU time of a report by a key from one time to another, and the bytes of its total.
fn reported(folder: &Path, key: &str, [from, to]: [&str; 2]) -> (Duration, u64) {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
        command.args(["report", "--by", key, "--from", from, "--to", to, "--top", "20", "--output", "json"]);
        let begin = cpu_time();
        let output = command.arg("--history").arg(folder).output().unwrap();
        times.push(cpu_time() - begin);
        assert!(output.status.success(), "{output:?}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        bytes = answer["total"]["bytes"].as_u64().unwrap();
    }
    times.sort();
    (times[ROUNDS / 2], bytes)
}

fn main() {
    let folder = std::env::temp_dir().join(format!("meridian-bench-history-{}", std::process::id()));
    let written = write(&folder);
    let month = ["2025-11-01", "2025-12-02"];
    let reports = ["zone-pair", "namespace", "workload", "workload-pair", "service", "node"].map(|key| {
        let (time, bytes) = reported(&folder, key, month);
        assert_eq!(bytes, written.total, "{key}");
        (key, time)
    });
    // The days at both ends are not whole: 45 of the hours are read.
    let ragged = reported(&folder, "workload", ["2025-11-01T02:00:00Z", "2025-12-01T23:00:00Z"]).0;
    let kibibytes = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    fs::remove_dir_all(&folder).unwrap();
    let Written { rows, bytes, hourly, write, .. } = written;
    let mut text = format!(
        "Measured on {}, by `make bench`: {HOURS} hours of {rows} rows ({WORKLOADS} workloads, {PEERS} peers each, six \
         pairs of zones, random bytes), medians of the CPU time of {ROUNDS} runs of `meridian report --history`, which \
         has one thread.\n\n| | |\n|---|---:|\n",
        report::machine(),
    );
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(text, "| files of the hours | {:.0} MiB |", megabytes(hourly)).unwrap();
    writeln!(text, "| all files, with those of the days | {:.0} MiB |", megabytes(bytes)).unwrap();
    writeln!(text, "| bytes of a row | {:.1} |", hourly as f64 / (HOURS as usize * rows) as f64).unwrap();
    writeln!(text, "| one hour encoded, written and synced | {} ms |", write.as_millis()).unwrap();
    for (key, time) in reports {
        writeln!(text, "| 31 days by `{key}` | {:.2} s |", time.as_secs_f64()).unwrap();
    }
    writeln!(text, "| 29 days and 45 hours by `workload` | {:.2} s |", ragged.as_secs_f64()).unwrap();
    writeln!(text, "| memory of a report, at most | {} MiB |", kibibytes >> 10).unwrap();
    println!("{text}");
    assert!(bytes <= Limits::default().bytes, "{bytes} bytes");
    let slowest = reports.iter().map(|(_, time)| *time).max().unwrap();
    assert!(slowest <= MAX_TIME && kibibytes <= MAX_KIBIBYTES, "more than {MAX_TIME:?} or {MAX_KIBIBYTES} KiB");
    report::write("history", &text);
}
