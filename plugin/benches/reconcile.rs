//! A bill of 2 GB: a Cost and Usage Report of a month with hourly lines of 1,000 instances, read by the command beside
//! a history. Measures time and memory, and fails above a minute or 100 MiB.
#![allow(clippy::unwrap_used, reason = "a bench that can't go on fails here")]

mod report;

use meridian::{
    archive::{Archive, Limits},
    history::{Builder, Span},
    zones::{Location, Place, Provider, Zone},
};
use meridian_abi::Counter;
use nix::sys::resource::{UsageWho, getrusage};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

/// 2025-11-01.
const FIRST: u64 = 1_761_955_200;
const DAYS: u64 = 30;
const INSTANCES: u64 = 1000;
const SIZE: u64 = 2_000_000_000;
const MAX_TIME: Duration = Duration::from_secs(60);
const MAX_KIBIBYTES: i64 = 100 << 10;

fn history(folder: &Path) {
    let mut archive = Archive::open(folder, Limits::default(), Arc::default()).unwrap();
    let site = |zone: &str| Location {
        provider: Provider::new("aws"),
        place: Place::Zone(Arc::new(Zone { name: zone.into(), region: "us-east-1".into() })),
        class: None,
    };
    let (a, b) = (site("us-east-1a"), site("us-east-1b"));
    for day in 0..DAYS {
        let mut builder = Builder::new(Span { start: FIRST + day * 86_400, seconds: Span::DAY }, 1);
        for instance in 0..INSTANCES {
            let node = format!("n{instance}");
            builder.cover(&node, &format!("aws:///us-east-1a/i-{instance:017x}"), Span::DAY);
            // AWS charges both ends: together the 24 MB of the bill's hours.
            let counter = Counter { bytes: 12 * 1_000_000, packets: 1 };
            builder.add_nodes([&node, &node], [&a, &b], counter);
        }
        builder.add_recorded(Span::DAY);
        archive.write(&builder.block()).unwrap();
    }
}

/// Lines of about 1,500 bytes, as a report with tags has them. One in three is of traffic between zones.
fn bill(path: &Path) {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let more = 110;
    let names: String = (0..more).map(|at| format!(",product/column{at}")).collect();
    let fields = ",some text of it".repeat(more - 30) + &",".repeat(30);
    writeln!(file, "lineItem/LineItemType,lineItem/UsageStartDate,lineItem/UsageType,lineItem/ResourceId,lineItem/UsageAmount{names}").unwrap();
    let mut written = 0;
    for line in 0.. {
        let (hour, instance) = (line / 3 / INSTANCES, line / 3 % INSTANCES);
        let usage = ["USE1-DataTransfer-Regional-Bytes", "USE1-BoxUsage:m5.large", "USE1-EBS:VolumeUsage.gp3"]
            [(line % 3) as usize];
        if written > SIZE && hour >= DAYS * 24 && instance == 0 {
            break;
        }
        let (day, hour) = (hour / 24 % DAYS + 1, hour % 24);
        let amount = if line / 3 < DAYS * 24 * INSTANCES { "0.0010000000" } else { "0.0000000000" };
        let line = format!("Usage,2025-11-{day:02}T{hour:02}:00:00Z,{usage},i-{instance:017x},{amount}{fields}\n");
        file.write_all(line.as_bytes()).unwrap();
        written += line.len() as u64;
    }
    file.flush().unwrap();
}

fn main() {
    let folder = std::env::temp_dir().join(format!("meridian-bench-reconcile-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    history(&folder.join("history"));
    bill(&folder.join("bill.csv"));
    let size = fs::metadata(folder.join("bill.csv")).unwrap().len();
    let begin = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
    let command =
        command.args(["reconcile", "--aws-cur", "bill.csv", "--history", "history", "--by", "day", "--output", "csv"]);
    let output = command.current_dir(&folder).output().unwrap();
    let took = begin.elapsed();
    let kibibytes = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    fs::remove_dir_all(&folder).unwrap();
    let lines = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && lines.lines().skip(1).all(|line| line.contains(",100.00,")), "{output:?}");
    let text = format!(
        "Measured on {}, by `make bench`: hourly lines of {INSTANCES} instances for {DAYS} days, read by `meridian \
         reconcile --by day` beside a history that covers them to 100 %.\n\n| | |\n|---|---:|\n| size of the report, CSV \
         | {:.1} GB |\n| time | {:.1} s |\n| memory at most | {} MiB |\n",
        report::machine(),
        size as f64 / 1e9,
        took.as_secs_f64(),
        kibibytes >> 10,
    );
    println!("{text}");
    assert!(took < MAX_TIME && kibibytes < MAX_KIBIBYTES, "more than {MAX_TIME:?} or {MAX_KIBIBYTES} KiB");
    report::write("reconcile", &text);
}
