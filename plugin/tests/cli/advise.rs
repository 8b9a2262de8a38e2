//! Advice from a history in a folder, and bad questions.

use crate::{
    Scratch,
    common::history::{location, workload},
    run,
};
use meridian::{
    archive::{Archive, Limits},
    history::{Builder, Ends, Server, Span, TransferService},
};
use meridian_abi::Counter;
use serde_json::Value;
use std::{path::Path, sync::Arc};

const ZONES: &str = r#"
zones:
  - {name: us-east-1a, region: us-east-1, provider: aws, cidrs: [10.0.1.0/24]}
  - {name: us-east-1b, region: us-east-1, provider: aws, cidrs: [10.0.2.0/24]}
endpoints:
  - {ip: 10.0.1.1, namespace: shop, pod: report-1, workload: {kind: Deployment, name: report}}
  - {ip: 10.0.2.1, namespace: shop, pod: store-0, workload: {kind: StatefulSet, name: store}}
"#;

/// 25 hours, in each of which a report reads 1 GB from a database, and 1 GB from a store, in another zone.
fn history(folder: &Path) {
    let mut archive = Archive::open(folder, Limits::default(), Arc::default()).unwrap();
    let at = |zone: &str| location(zone, "us-east-1");
    let (report, here, there) = (workload("Deployment", "report"), at("us-east-1a"), at("us-east-1b"));
    for hour in 0..25 {
        let mut builder = Builder::new(Span::hour_of(1_763_956_800 + hour * 3600), 100);
        for (server, port) in [(workload("StatefulSet", "orders-db"), 5432), (workload("StatefulSet", "store"), 7000)] {
            let serving = TransferService { service: "", port, protocol: 6, server: Server::Source };
            let ends = Ends { workloads: [&server, &report], sites: [&there, &here] };
            builder.add(ends, serving, Counter { bytes: 1_000_000_000, packets: 1 });
        }
        builder.add_recorded(3600);
        archive.write(&builder.block()).unwrap();
    }
}

const RANGE: [&str; 4] = ["--from", "2025-11-24", "--to", "2025-11-26"];

#[test]
fn a_folder_s_advice_is_the_same_in_every_form() {
    let scratch = Scratch::new("advise");
    let (folder, zones) = (scratch.as_ref().join("history"), scratch.file("zones.yaml", ZONES.as_bytes()));
    history(&folder);
    let (folder, zones) = (folder.to_str().unwrap(), zones.to_str().unwrap());
    let advise =
        |more: &[&str]| run(&[&["advise", "--history", folder, "--zones-file", zones], &RANGE[..], more].concat());
    let output = |more: &[&str]| {
        let output = advise(more);
        assert_eq!(output.code, Some(0), "{output:?}");
        output.stdout
    };
    let json: Value = serde_json::from_str(&output(&["--output", "json"])).unwrap();
    let findings = json["findings"].as_array().unwrap();
    // A gigabyte an hour at 0.02, of 730 hours.
    let shown: Vec<_> =
        findings.iter().map(|one| [&one["rule"], &one["saving_usd_per_month"]].map(Value::as_str)).collect();
    assert_eq!(shown, [[Some("R13"), Some("14.6")], [Some("R4"), Some("14.6")]]);
    assert_eq!((&json["saving_usd_per_month"], &json["recorded_seconds"]), (&"29.2".into(), &90_000.into()));
    let table = output(&[]);
    assert!(table.contains("StatefulSet shop/orders-db") && table.contains("\n29.20 of 29.20 USD a month"), "{table}");
    let patch = output(&["--output", "patch"]);
    let command = "kubectl -n shop patch deployment report --type=strategic -p '{\"spec\":";
    assert!(patch.contains(&format!("\n{command}")) && patch.contains("\n# in the configuration of"), "{patch}");
    assert!(
        patch.lines().all(|line| line.is_empty() || line.starts_with('#') || line.starts_with("kubectl ")),
        "{patch}"
    );
    assert!(output(&["--output", "markdown"]).starts_with("| id | USD a month | subject |"));
    let id = findings[1]["id"].as_str().unwrap();
    let full = output(&["--explain", id]);
    assert!(full.starts_with(&format!("finding     {id} (rule R4, proposed)\n")) && full.contains(command), "{full}");

    assert_eq!(output(&["--cap", "1", "--output", "json"]).matches("\"rule\"").count(), 1);
    assert!(output(&["--floor", "15"]).contains("Not shown: 2 below the floor"));
    assert!(output(&["--min-data", "26h"]).starts_with("Too early: 25.0 h of this range are recorded"));
    let wrong = advise(&["--explain", "R4-x"]);
    assert_eq!((wrong.code, wrong.stderr.contains("there is no finding `R4-x`")), (Some(2), true), "{wrong:?}");
}

#[test]
fn bad_questions_are_one_line_that_names_the_flag() {
    for (args, part) in [
        (&["--floor", "much"][..], "--floor: `much` is no amount of dollars"),
        (&["--cap", "0"], "--cap: `0` is no number from 1 to 1000"),
        (&["--min-data", "day"], "--min-data: `day` is no time"),
        (&["--output", "csv"], "--output: `csv` is none of"),
        (&["--from", "yesterday"], "--from: `yesterday` is not a time"),
        (&["--from", "1h", "--to", "2h"], "the range ends before it begins"),
    ] {
        let output = run(&[&["advise"], args].concat());
        assert_eq!((output.code, output.stderr.lines().count()), (Some(2), 1), "{output:?}");
        assert!(output.stderr.contains(part), "{output:?}");
    }
    for (args, part) in [
        (&["shop/cart"][..], "`shop/cart` is not NAMESPACE/NAME=PreferSameZone"),
        (&["shop/cart=none", "--endpoints", "a=x"], "endpoints: `a=x` is not ZONE=NUMBER"),
        (&["shop/cart=none", "--output", "patch"], "--output: it is neither table nor json"),
        (&["shop/cart=none", "--from", "soon"], "--from: `soon` is not a time"),
    ] {
        let output = run(&[&["whatif"], args].concat());
        assert_eq!((output.code, output.stderr.lines().count()), (Some(2), 1), "{output:?}");
        assert!(output.stderr.contains(part), "{output:?}");
    }
    let output = run(&["advise", "--server", "127.0.0.1:1"]);
    assert_eq!((output.code, output.stderr.lines().count()), (Some(1), 1), "{output:?}");
}
