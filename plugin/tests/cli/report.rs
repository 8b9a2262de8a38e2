//! Reports of a history in a folder, and bad questions.

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
use nix::{mount, sched};
use serde_json::Value;
use std::{fs, path::Path, sync::Arc};

/// Two hours, in each of which web sends 1 GB to cart in another zone and gets 3 GB.
fn history(folder: &Path) {
    let mut archive = Archive::open(folder, Limits::default(), Arc::default()).unwrap();
    let end = |name: &str, zone: &str| (workload("Deployment", name), location(zone, "us-east-1"));
    let (web, cart) = (end("web", "us-east-1a"), end("cart", "us-east-1b"));
    for hour in 0..2 {
        let mut builder = Builder::new(Span::hour_of(1_764_000_000 + hour * 3600), 100);
        for (from, to, server, bytes) in
            [(&web, &cart, Server::Destination, 1_000_000_000), (&cart, &web, Server::Source, 3_000_000_000)]
        {
            let (counter, sites) = (Counter { bytes, packets: 1 }, [&from.1, &to.1]);
            let serving = TransferService { service: "shop/cart", port: 6379, protocol: 6, server };
            builder.add(Ends { workloads: [&from.0, &to.0], sites }, serving, counter);
            builder.add_nodes(["n1", "n2"], sites, counter);
        }
        builder.add_recorded(3600);
        archive.write(&builder.block()).unwrap();
    }
}

const RANGE: [&str; 4] = ["--from", "2025-11-24", "--to", "2025-11-25"];

#[test]
fn a_folder_is_reported_in_every_form_with_the_same_sums() {
    let scratch = Scratch::new("report");
    history(scratch.as_ref());
    let folder = scratch.as_ref().to_str().unwrap();
    let report = |more: &[&str]| {
        let output = run(&[&["report", "--history", folder], &RANGE[..], more].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        output.stdout
    };
    for by in ["zone-pair", "namespace", "workload", "service", "node", "region", "label:team"] {
        let json: Value = serde_json::from_str(&report(&["--by", by, "--output", "json"])).unwrap();
        // 8 GB at 0.01 for each end.
        assert_eq!(
            (&json["total"]["bytes"], &json["total"]["cost"]["usd"]),
            (&8_000_000_000_u64.into(), &"0.16".into())
        );
        let bytes: u64 = json["rows"].as_array().unwrap().iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
        assert_eq!(bytes, 8_000_000_000, "{by}");
        assert_eq!(
            (&json["from"], &json["coverage"]["recorded_seconds"]),
            (&"2025-11-24T00:00:00Z".into(), &7200.into())
        );
    }
    let client: Value =
        serde_json::from_str(&report(&["--by", "workload", "--charge", "client", "--output", "json"])).unwrap();
    let rows = client["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["key"]["workload"], &rows[0]["cost"]["usd"]), (1, &"web".into(), &"0.16".into()));
    let table = report(&["--by", "workload", "--explain"]);
    for part in [
        "SENT  RECEIVED",
        "recorded 8 % of the time, 2 nodes",
        "aws-zones: sender 0.01, receiver 0.01 USD per GB, as of ",
    ] {
        assert!(table.contains(part), "{table}");
    }
    let csv = report(&["--by", "service", "--output", "csv"]);
    assert!(csv.contains("\nshop,cart,8000000000,4,8000000000,4,0.16,0,aws-zones\n"), "{csv}");
    assert!(report(&["--output", "markdown"]).starts_with("| SOURCE ZONE | DESTINATION ZONE | LOCALITY | BYTES |"));
    // A price that is corrected corrects the past.
    let prices = scratch.file("prices.yaml", b"rules: [{id: ours, between: zones, sender: \"0.5\"}]\n");
    let json: Value =
        serde_json::from_str(&report(&["--prices", prices.to_str().unwrap(), "--output", "json"])).unwrap();
    assert_eq!(json["total"]["cost"]["usd"], "4");
}

#[test]
fn a_report_shows_the_budgets_of_the_present_month() {
    let scratch = Scratch::new("report-budgets");
    history(scratch.as_ref());
    let budgets = scratch.file("budgets.yaml", b"budgets:\n- {namespace: shop, usd_per_month: \"500\"}\n");
    let bad = scratch.file("bad.yaml", b"budgets:\n- {namespace: shop}\n");
    let folder = scratch.as_ref().to_str().unwrap();
    let report = |budgets: &str, more: &[&str]| {
        run(&[&["report", "--history", folder, "--budgets", budgets], &RANGE[..], more].concat())
    };
    let table = report(budgets.to_str().unwrap(), &[]);
    let line = "\nBudget of namespace shop: 0.00 of 500.00 USD this month, 0.00 projected.\n";
    assert!(table.stdout.contains(line), "{table:?}");
    let json: Value = serde_json::from_str(&report(budgets.to_str().unwrap(), &["--output", "json"]).stdout).unwrap();
    assert_eq!(
        (&json["budgets"][0]["scope"], &json["budgets"][0]["usd_per_month"]),
        (&"namespace shop".into(), &"500".into())
    );
    let bad = bad.to_str().unwrap();
    let refused = report(bad, &[]);
    assert!(refused.code == Some(2) && refused.stdout.is_empty() && refused.stderr.lines().count() == 1, "{refused:?}");
    assert!(refused.stderr.starts_with(&format!("meridian: {bad}:2: missing field `usd_per_month`")), "{refused:?}");
    let config = scratch.file("agent.yaml", b"zones_file: zones.yaml\nbudgets: bad.yaml\n");
    scratch.file("zones.yaml", b"zones: [{name: a, region: r, cidrs: [10.0.0.0/24]}]\n");
    let checked = run(&["config", "check", config.to_str().unwrap()]);
    assert!(checked.code == Some(2) && checked.stderr.contains("bad.yaml:2: missing field"), "{checked:?}");
    let config = scratch.file("agent.yaml", b"zones_file: zones.yaml\nbudgets: budgets.yaml\n");
    let checked = run(&["config", "check", config.to_str().unwrap()]);
    assert!(checked.code == Some(0) && checked.stdout.contains("budgets.yaml: good, 1 budgets\n"), "{checked:?}");
    let server = run(&["report", "--budgets", budgets.to_str().unwrap()]);
    assert!(server.code == Some(2) && server.stderr.contains("--budgets applies to --history only"), "{server:?}");
}

#[test]
fn an_hour_that_was_changed_is_missing_and_never_wrong() {
    let scratch = Scratch::new("report-changed");
    history(scratch.as_ref());
    let file = scratch.as_ref().join("2025-11-24T17.block");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let output =
        run(&[&["report", "--history", scratch.as_ref().to_str().unwrap(), "--output", "json"], &RANGE[..]].concat());
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        (&json["total"]["bytes"], &json["coverage"]["recorded_seconds"]),
        (&4_000_000_000_u64.into(), &3600.into())
    );
    assert!(
        output.stderr.contains("2025-11-24T17.block") && output.stderr.contains("its checksum is wrong"),
        "{output:?}"
    );
}

#[test]
fn bad_questions_and_places_are_one_line() {
    let refused = |args: &[&str], code, start: &str| {
        let output = run(&[&["report"], args].concat());
        assert!(
            output.code == Some(code) && output.stdout.is_empty() && output.stderr.lines().count() == 1,
            "{output:?}"
        );
        assert!(output.stderr.starts_with(start), "{output:?}");
    };
    refused(&["--from", "yesterday"], 2, "meridian: --from: `yesterday` is not a time: ");
    refused(&["--by", "pod"], 2, "meridian: --by: `pod` is none of zone-pair");
    refused(&["--from", "2025-02-01", "--to", "2025-01-01"], 2, "meridian: the range ends before");
    refused(&["--history", "/missing"], 1, "meridian: /missing: there is no history here: ");
    refused(&["--server", "127.0.0.1:1"], 1, "meridian: 127.0.0.1:1: Connection refused");
    let url = "http://127.0.0.1:1";
    refused(&["--prometheus", url], 1, "meridian: http://127.0.0.1:1: Connection refused (os error 111): is this");
    refused(&["--prometheus", "prometheus:9090"], 2, "meridian: --prometheus: `prometheus:9090` is not the address of");
    refused(&["--prometheus", "https://p"], 2, "meridian: --prometheus https://p: https needs the authority");
    refused(&["--prometheus", url, "--by", "node"], 2, "meridian: --by node: the metrics lack what it needs");
    refused(&["--prometheus", url, "--charge", "client"], 2, "meridian: --charge client: no metric names");
    let missing = ["--prometheus", url, "--prometheus-headers-file", "/missing"];
    refused(&missing, 2, "meridian: --prometheus-headers-file: /missing: No such file");
    refused(&["--prices", "/missing.yaml"], 2, "meridian: --prices applies to --history only");
}

#[test]
fn a_folder_is_exported_in_focus_columns_with_the_sums_of_the_report() {
    let scratch = Scratch::new("focus");
    history(scratch.as_ref());
    let folder = scratch.as_ref().to_str().unwrap();
    let focus = |more: &[&str]| run(&[&["export", "focus", "--history", folder], more].concat());
    let output = focus(&RANGE);
    let mut lines = output.stdout.lines();
    assert_eq!((output.code, lines.next().unwrap()), (Some(0), meridian::focus::COLUMNS.join(",").as_str()));
    let at = |name: &str| meridian::focus::COLUMNS.iter().position(|known| *known == name).unwrap();
    let sum = |direction: &str, column: &str| -> f64 {
        let rows = output.stdout.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
        let rows = rows.filter(|row| {
            direction.is_empty() || row[at("x_Direction") + row.len() - meridian::focus::COLUMNS.len()] == direction
        });
        rows.map(|row| row[at(column)].parse::<f64>().unwrap()).sum()
    };
    assert_eq!((lines.count(), sum("sent", "ConsumedQuantity"), sum("received", "ConsumedQuantity")), (8, 8e9, 8e9));
    assert!((sum("", "BilledCost") - 0.16).abs() < 1e-12);
    // A range without blocks has the names alone.
    assert_eq!(focus(&["--from", "2020-01-01", "--to", "2020-01-02"]).stdout.lines().count(), 1);
    for (args, code, start) in [
        (&["--from", "yesterday"][..], 2, "meridian: --from: `yesterday` is not a time"),
        (&["--locality", "near"], 2, "meridian: --locality: `near` is none of"),
    ] {
        let output = focus(args);
        assert!(output.code == Some(code) && output.stderr.starts_with(start), "{output:?}");
    }
    let output = run(&["export", "focus", "--server", "127.0.0.1:1"]);
    assert!(output.code == Some(1) && output.stdout.is_empty() && output.stderr.lines().count() == 1, "{output:?}");
}

#[test]
fn a_day_has_twenty_four_hours_wherever_the_clocks_are_changed() {
    let scratch = Scratch::new("report-zones");
    let mut archive = Archive::open(scratch.as_ref(), Limits::default(), Arc::default()).unwrap();
    // 2025-10-26, on which clocks go back in Europe.
    let day = 1_761_436_800;
    for hour in 0..24 {
        let mut builder = Builder::new(Span::hour_of(day + hour * 3600), 10);
        let (workload, sites) = (workload("Deployment", "web"), ["us-east-1a", "us-east-1b"]);
        let [from, to] = sites.map(|zone| location(zone, "us-east-1"));
        let counter = Counter { bytes: 1 << hour, packets: 1 };
        builder.add(Ends { workloads: [&workload; 2], sites: [&from, &to] }, TransferService::default(), counter);
        builder.add_recorded(3600);
        archive.write(&builder.block()).unwrap();
    }
    let report = |zone: &str| {
        let args = ["report", "--from", "2025-10-26", "--to", "2025-10-27", "--output", "json", "--history"];
        let mut command = crate::meridian(&args);
        let output = command.arg(scratch.as_ref()).env("TZ", zone).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let utc = report("UTC");
    let json: Value = serde_json::from_str(&utc).unwrap();
    assert_eq!(
        (&json["total"]["bytes"], &json["coverage"]["recorded_seconds"]),
        (&((1 << 24) - 1).into(), &86_400.into())
    );
    assert_eq!([report("Europe/Berlin"), report("America/New_York")], [utc.clone(), utc]);
}

#[test]
fn a_full_disk_leaves_whole_blocks_and_the_next_one_has_room_again() {
    let scratch = Scratch::new("full-disk");
    let folder = scratch.as_ref().to_owned();
    // A thread with mounts of its own, which end with it.
    let filled = std::thread::spawn(move || {
        sched::unshare(sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount::mount(
            None::<&str>,
            "/",
            None::<&str>,
            mount::MsFlags::MS_REC | mount::MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        mount::mount(Some("tmpfs"), &folder, Some("tmpfs"), mount::MsFlags::empty(), Some("size=64k")).unwrap();
        let tally: Arc<meridian::archive::Tally> = Arc::default();
        let mut archive = Archive::open(&folder, Limits::default(), Arc::clone(&tally)).unwrap();
        archive.write(&numbered(1)).unwrap();
        let filler = folder.join("filler");
        let error = fs::write(&filler, vec![1; 1 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOSPC));
        for number in [1, 2, 6] {
            assert!(archive.write(&numbered(number)).is_err(), "{number}");
        }
        assert_eq!((sum(&folder), tally.failed.load(std::sync::atomic::Ordering::Relaxed)), (1, 3));
        fs::remove_file(filler).unwrap();
        archive.write(&numbered(6)).unwrap();
        archive.write(&numbered(2)).unwrap();
        // 6 is of the hour of 1.
        assert_eq!(sum(&folder), 8);
    });
    filled.join().unwrap();
}

/// The bytes of all blocks, none of which is damaged.
fn sum(folder: &Path) -> u64 {
    let mut bytes = 0;
    assert!(
        meridian::archive::read_range(folder, 0, 1 << 30, |block| bytes += block.total().bytes).unwrap().is_empty()
    );
    bytes
}

const WRITTEN_HERE: &str = "MERIDIAN_TEST_WRITTEN_HERE";

/// Writes blocks whose bytes and packets are the same number until it is killed: a process of the test below.
#[test]
#[ignore = "a part of another test"]
fn blocks_are_written_until_the_end() {
    let Ok(folder) = std::env::var(WRITTEN_HERE) else { return };
    let mut archive = Archive::open(folder.as_ref(), Limits::default(), Arc::default()).unwrap();
    for number in 1.. {
        archive.write(&numbered(number)).unwrap();
        if number % 7 == 0 {
            archive.maintain(number * 3600).unwrap();
        }
    }
}

fn numbered(number: u64) -> meridian::history::Block {
    let mut builder = Builder::new(Span::hour_of(number % 5 * 3600), 100);
    let workload = workload("Deployment", &"web".repeat(50));
    let counter = Counter { bytes: number, packets: number };
    builder.add(
        Ends {
            workloads: [&workload; 2],
            sites: [&location("us-east-1a", "us-east-1"), &location("us-east-1b", "us-east-1")],
        },
        TransferService::default(),
        counter,
    );
    builder.block()
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_whole_blocks() {
    let scratch = Scratch::new("killed");
    let folder = scratch.as_ref().join("history");
    let mut blocks = 0;
    for round in 0..40 {
        let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "report::blocks_are_written_until_the_end", "--ignored"])
            .env(WRITTEN_HERE, &folder)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // From its first block on, at another moment in each round.
        while !folder.join("1970-01-01T01.block").exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        std::thread::sleep(std::time::Duration::from_micros(20_000 + round * 777));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let damaged = meridian::archive::read_range(&folder, 0, 1 << 30, |block| {
            let total = block.total();
            // A day is the sum of its hours.
            assert!(total.bytes == total.packets && total.bytes > 0, "{total:?}");
            blocks += 1;
        });
        assert!(damaged.unwrap().is_empty());
        // The next process continues.
        drop(Archive::open(&folder, Limits::default(), Arc::default()).unwrap());
        let left = fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "new"));
        assert_eq!(left.count(), 0);
    }
    assert!(blocks >= 40, "{blocks}");
}
