//! Bills beside a history, in a folder and of a server; bills that are none.

use crate::{Scratch, common::history::location, meridian, run, running};
use flate2::{Compression, write::GzEncoder};
use meridian::{
    archive::{Archive, Limits},
    cost::PriceTable,
    historian::Historian,
    history::{Builder, Span},
    metrics::{self, Page},
};
use meridian_abi::Counter;
use serde_json::Value;
use std::{io::Write, path::Path, sync::Arc};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// 2025-11-24.
const FIRST: u64 = 1_763_942_400;

/// Two days of hours, in each of which one node sends 1 GB to another one; a third one has no agent.
fn history(folder: &Path) {
    let mut archive = Archive::open(folder, Limits::default(), Arc::default()).unwrap();
    let (a, b) = (location("us-east-1a", "us-east-1"), location("us-east-1b", "us-east-1"));
    for hour in 0..48 {
        let mut builder = Builder::new(Span::hour_of(FIRST + hour * 3600), 100);
        for (node, seconds) in [("n1", 3600), ("n2", 3600), ("n3", 0)] {
            builder.cover(node, &format!("aws:///us-east-1a/i-{node}"), seconds);
        }
        builder.add_nodes(["n1", "n2"], [&a, &b], Counter { bytes: 1_000_000_000, packets: 1 });
        builder.add_recorded(3600);
        archive.write(&builder.block()).unwrap();
    }
}

const NAMES: &str = "line_item_usage_start_date,line_item_usage_type,line_item_resource_id,line_item_usage_amount\n";

/// The lines of two days: `more` are the amounts of the node without an agent and of a balancer.
fn bill(more: &str) -> String {
    let line = |day: u32, resource: &str, amount: &str| {
        format!("2025-11-{day} 00:00:00,USE1-DataTransfer-Regional-Bytes,{resource},{amount}\n")
    };
    let mut text = NAMES.to_owned();
    for day in [24, 25] {
        text += &line(day, "i-n1", "24.0000000000");
        text += &line(day, "i-n2", "24.0000000000");
        if !more.is_empty() {
            text += &line(day, "i-n3", more);
            text += &line(day, "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/net/web/1", more);
        }
    }
    text
}

fn reconciled(args: &[&str]) -> String {
    let output = run(&[&["reconcile"], args].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&reconciled(&[args, &["--output", "json"]].concat())).unwrap()
}

#[test]
fn a_bill_is_covered_as_far_as_the_history_has_its_bytes() {
    let scratch = Scratch::new("reconcile");
    let folder = scratch.as_ref().join("history");
    history(&folder);
    let folder = folder.to_str().unwrap();
    let whole = scratch.file("whole.csv", bill("").as_bytes());
    let value = json(&["--aws-cur", whole.to_str().unwrap(), "--history", folder]);
    assert_eq!(
        (&value["total"]["billed_bytes"], &value["total"]["coverage_percent"]),
        (&96_000_000_000_u64.into(), &"100.00".into())
    );
    assert_eq!((value["rows"].as_array().unwrap().len(), &value["rows"][0]["node"]), (4, &"n1".into()));
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bill("1.5").as_bytes()).unwrap();
    let partial = scratch.file("partial.csv.gz", &packed.finish().unwrap());
    let args = ["--aws-cur", partial.to_str().unwrap(), "--history", folder];
    let value = json(&args);
    assert_eq!(value["total"]["coverage_percent"], "94.12");
    let table = reconciled(&args);
    for part in [
        "2025-11-24  n3     i-n3            no agent                    1.5 GB       0 B    0.00 %      1.5 GB\n",
        "load balancers: 3.0 GB. no agent: 3.0 GB.",
    ] {
        assert!(table.contains(part), "{table}");
    }
    assert!(
        reconciled(&[&args[..], &["--by", "node", "--output", "csv"]].concat())
            .contains("\n,n3,i-n3,3000000000,0,0.00,no agent: 3000000000\n")
    );
    let day = reconciled(&[&args[..], &["--by", "day", "--from", "2025-11-25", "--output", "markdown"]].concat());
    assert!(
        day.lines()
            .nth(2)
            .unwrap()
            .starts_with("| 2025-11-25 | - | - | load balancers, no agent | 51.0 GB | 48.0 GB | 94.12 % |"),
        "{day}"
    );
    let invoice = ["--invoice-gb", "100", "--history", folder, "--from", "2025-11-24", "--to", "2025-11-26"];
    assert_eq!(json(&invoice)["total"]["coverage_percent"], "96.00");
}

#[test]
fn a_server_gives_the_same_comparison_as_its_folder() {
    let scratch = Scratch::new("reconcile-server");
    let folder = scratch.as_ref().join("history");
    history(&folder);
    let bill = scratch.file("bill.csv", bill("1.5").as_bytes());
    let bill = bill.to_str().unwrap();
    let of_folder = reconciled(&["--aws-cur", bill, "--history", folder.to_str().unwrap()]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap().to_string(), CancellationToken::new());
    let historian = Historian::open(&folder, Limits::default(), PriceTable::default(), FIRST + 60 * 3600).unwrap();
    let mut page = Page::default();
    page.add_history(Arc::new(historian));
    runtime.spawn(metrics::serve(page, listener, shutdown.clone()));
    assert_eq!(reconciled(&["--aws-cur", bill, "--server", &address]), of_folder);
    shutdown.cancel();
}

#[track_caller]
fn refused(args: &[&str], code: i32, start: &str) {
    let output = run(&[&["reconcile"], args].concat());
    assert!(output.code == Some(code) && output.stdout.is_empty() && output.stderr.lines().count() == 1, "{output:?}");
    assert!(output.stderr.starts_with(start), "{output:?}");
}

#[test]
fn a_bad_bill_is_one_line_with_file_and_line() {
    let scratch = Scratch::new("reconcile-bad");
    let folder = scratch.as_ref().join("history");
    history(&folder);
    let folder = folder.to_str().unwrap();
    let of = |name: &str, bytes: &[u8]| scratch.file(name, bytes).to_str().unwrap().to_owned();
    let empty = of("empty.csv", b"");
    refused(&["--aws-cur", &empty], 2, &format!("meridian: {empty}:1: the file is empty"));
    let parquet = of("bill.parquet", b"PAR1....");
    refused(
        &["--aws-cur", &parquet],
        2,
        &format!("meridian: {parquet}:1: Parquet is not read: export the report as CSV"),
    );
    let cut = of("cut.csv", &bill("").as_bytes()[..200]);
    refused(&["--aws-cur", &cut], 2, &format!("meridian: {cut}:3: the file ends within this line"));
    let other = of("other.csv", NAMES.as_bytes());
    refused(
        &["--aws-cur", &other, "--history", folder],
        1,
        &format!("meridian: {other}: no line is of traffic between zones"),
    );
    let good = of("good.csv", bill("").as_bytes());
    refused(&["--aws-cur", &good, &good], 2, &format!("meridian: {good}: the file is named twice"));
    refused(&["--aws-cur", &good, "--history", "/missing"], 1, "meridian: /missing: there is no history here: ");
    refused(&["--aws-cur", &good, "--server", "127.0.0.1:1"], 1, "meridian: 127.0.0.1:1: Connection refused");
    refused(&["--aws-cur", "/missing.csv"], 2, "meridian: /missing.csv: No such file");
    refused(&["--aws-cur", folder], 2, &format!("meridian: {folder}:1: it can't be read: Is a directory"));
    refused(&["--gcp-billing", &good], 2, &format!("meridian: {good}:1: there is no column usage_amount"));
    refused(&["--invoice-gb", "much"], 2, "meridian: --invoice-gb: `much` is not an amount");
    refused(&["--aws-cur", &good, "--by", "pod"], 2, "meridian: --by: `pod` is none of day-node");
    refused(
        &["--aws-cur", &good, "--to", "2025-01-01", "--from", "2024-01-01"],
        2,
        "meridian: the bill has no day between",
    );
    let ages = format!("{NAMES}1970-01-01,DataTransfer-Regional-Bytes,,1\n2025-01-01,DataTransfer-Regional-Bytes,,1\n");
    refused(
        &["--aws-cur", &of("ages.csv", ages.as_bytes())],
        2,
        "meridian: the bill has more than 800 days, 1970-01-01 to",
    );
}

#[test]
fn memory_does_not_grow_with_a_bill() {
    let scratch = Scratch::new("reconcile-large");
    let folder = scratch.as_ref().join("history");
    history(&folder);
    let args = ["reconcile", "--aws-cur", "/dev/stdin", "--history", folder.to_str().unwrap(), "--output", "csv"];
    let mut child = running::Running::spawn_fed(&mut meridian(&args));
    child.stdin().write_all(NAMES.as_bytes()).unwrap();
    let line = format!("2025-11-24,BoxUsage,{},1\n", "x".repeat(100_000));
    // A pipe holds 64 KiB: what was written before was read.
    let mut write = |lines: usize| {
        (0..lines).for_each(|_| child.stdin().write_all(line.as_bytes()).unwrap());
        child.resident()
    };
    let (first, last) = (write(20), write(300));
    assert!(last < first + (8 << 20), "{first} {last}");
    child.stdin().write_all(b"2025-11-24,DataTransfer-Regional-Bytes,i-n1,24\n").unwrap();
    child.close_stdin();
    let output = child.output();
    assert!(output.stdout.contains("2025-11-24,n1,i-n1,24000000000,24000000000,100.00,\n"), "{output:?}");
}
