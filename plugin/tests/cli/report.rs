//! Reports of a history in a folder, and bad questions.

use crate::{
    Scratch,
    common::history::{location, party},
    run,
};
use meridian::{
    archive::{Archive, Limits},
    history::{Builder, Ends, Server, Serving, Span},
};
use meridian_abi::Counter;
use serde_json::Value;
use std::{fs, path::Path, sync::Arc};

/// Two hours, in each of which web sends 1 GB to cart in another zone and gets 3 GB.
fn history(folder: &Path) {
    let mut archive = Archive::open(folder, Limits::default(), Arc::default()).unwrap();
    let end = |name: &str, zone: &str| (party("Deployment", name), location(zone, "us-east-1"));
    let (web, cart) = (end("web", "us-east-1a"), end("cart", "us-east-1b"));
    for hour in 0..2 {
        let mut builder = Builder::new(Span::hour_of(1_764_000_000 + hour * 3600), 100);
        for (from, to, server, bytes) in
            [(&web, &cart, Server::Destination, 1_000_000_000), (&cart, &web, Server::Source, 3_000_000_000)]
        {
            let (counter, sites) = (Counter { bytes, packets: 1 }, [&from.1, &to.1]);
            let serving = Serving { service: "shop/cart", port: 6379, protocol: 6, server };
            builder.add(Ends { parties: [&from.0, &to.0], sites }, serving, counter);
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
    refused(&["--prices", "/missing.yaml"], 2, "meridian: --prices applies to --history only");
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
    let party = party("Deployment", &"web".repeat(50));
    let counter = Counter { bytes: number, packets: number };
    builder.add(
        Ends {
            parties: [&party; 2],
            sites: [&location("us-east-1a", "us-east-1"), &location("us-east-1b", "us-east-1")],
        },
        Serving::default(),
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
