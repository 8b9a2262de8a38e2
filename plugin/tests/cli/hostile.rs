//! Names that a tenant chooses so that a terminal obeys them: in a history, a static table, a flow log and settings.

use crate::{
    CommandOutput, Scratch,
    common::history::{location, workload},
    meridian, run,
    running::Running,
};
use meridian::{
    archive::{Archive, Limits},
    history::{Builder, Ends, Server, Span, TransferService, Workload},
};
use meridian_abi::Counter;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};

/// Sets the title, clears the screen (twice), turns the order of letters, and forges a line.
const HOSTILE: &str = "cart\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\u{202e}\r\n10.0.0.1  forged\u{2028}\u{7f}";

/// Neither stream has a byte that a terminal obeys, nor a forged line.
#[track_caller]
fn is_harmless(what: &str, output: &CommandOutput) {
    for text in [&output.stdout, &output.stderr] {
        let is_obeyed = |character: char| {
            character.is_control() && !matches!(character, '\n' | '\t')
                || ('\u{2028}'..='\u{202e}').contains(&character)
        };
        assert!(!text.contains(is_obeyed), "{what}: {output:?}");
        assert!(!text.lines().any(|line| line.starts_with("10.0.0.1  forged")), "{what}: {output:?}");
    }
}

fn history(folder: &Path) {
    let mut archive = Archive::open(folder, Limits::default(), Arc::default()).unwrap();
    let hostile = Workload { namespace: HOSTILE.into(), ..workload(HOSTILE, HOSTILE) };
    let sites = [&location(HOSTILE, "us-east-1"), &location("us-east-1b", "us-east-1")];
    let mut builder = Builder::new(Span::hour_of(1_764_000_000), 100);
    let counter = Counter { bytes: 1_000_000_000, packets: 1 };
    let serving = TransferService { service: HOSTILE, port: 80, protocol: 6, server: Server::Destination };
    builder.add(Ends { workloads: [&hostile, &workload("Deployment", "web")], sites }, serving, counter);
    builder.add_nodes([HOSTILE, "n2"], sites, counter);
    builder.add_recorded(3600);
    archive.write(&builder.block()).unwrap();
}

#[test]
fn no_answer_from_a_history_has_a_byte_that_a_terminal_obeys_and_json_stays_json() {
    let scratch = Scratch::new("hostile-history");
    history(scratch.as_ref());
    let folder = scratch.as_ref().to_str().unwrap();
    let range = ["--history", folder, "--from", "2025-11-24", "--to", "2025-11-25"];
    let mut shown = 0;
    for by in ["zone-pair", "namespace", "workload", "service", "node"] {
        for form in ["table", "markdown", "csv", "json"] {
            let output = run(&[&["report"], &range[..], &["--by", by, "--output", form]].concat());
            assert_eq!(output.code, Some(0), "{output:?}");
            is_harmless(&format!("report by {by} as {form}"), &output);
            shown += usize::from(output.stdout.contains("owned"));
            if form == "json" {
                let answer: Value = serde_json::from_str(&output.stdout).unwrap();
                assert!(answer["rows"].as_array().is_some_and(|rows| !rows.is_empty()), "{answer}");
            }
        }
    }
    assert_eq!(shown, 20, "each answer has the hostile name");
    for form in ["table", "json", "patch", "markdown"] {
        let output = run(&[&["advise"], &range[..], &["--output", form]].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        is_harmless(&format!("advise as {form}"), &output);
    }
}

#[test]
fn no_answer_from_a_file_has_a_byte_that_a_terminal_obeys() {
    let scratch = Scratch::new("hostile-files");
    let name = json!(HOSTILE).to_string();
    let table = format!(
        "zones:\n- {{name: {name}, region: r, cidrs: [10.0.0.0/24]}}\nendpoints:\n- {{ip: 10.0.0.1, namespace: {name}, \
         pod: {name}, workload: {{kind: {name}, name: {name}}}}}\nexternal:\n- {{name: {name}, cidr: 10.9.0.0/24, \
         zone: {name}, class: database}}\n"
    );
    let file = |name: &str, text: &str| scratch.file(name, text.as_bytes()).to_str().unwrap().to_owned();
    let (zones, key) = (file("zones.yaml", &table), file("key.yaml", &format!("{name}: 1\n")));
    let value = file("value.yaml", &format!("node: n\nhook: {name}\nzones_file: {name}\n"));
    let lookup = |at| ["zones", "lookup", at, "--zones-file", &zones];
    let lines: Vec<Vec<&str>> = vec![
        lookup("10.0.0.1").to_vec(),
        lookup("10.9.0.1").to_vec(),
        vec!["zones", "list", "--zones-file", &zones],
        vec!["zones", "list", "--zones-file", &key],
        vec!["zones", "import", "aws-subnets", &key],
        vec!["config", "check", &key],
        vec!["config", "check", &value],
        vec!["prices", "list", "--prices", &key],
        vec!["agent", "--config", &key],
        vec!["agent", "--config", &value],
    ];
    for line in lines {
        is_harmless(&format!("{line:?}"), &run(&line));
    }
}

#[test]
fn a_flow_log_with_hostile_fields_writes_nothing_that_a_terminal_obeys() {
    let scratch = Scratch::new("hostile-log");
    let flow = json!({"flow": {"uuid": "u", "verdict": HOSTILE, HOSTILE: 1, "extensions": {"@type": HOSTILE}}, "node_name": HOSTILE});
    let other = json!({"level": HOSTILE, "msg": HOSTILE});
    let log = scratch.file("flows.json", format!("{flow}\n{other}\n{{{HOSTILE}\n").as_bytes());
    let at = crate::common::ports::free_address();
    let mut replay = Running::spawn(&mut meridian(&["replay", log.to_str().unwrap(), "--listen", &at]));
    let (before, rest) = replay.stderr_until("loaded");
    replay.signal(Signal::SIGTERM);
    let output = replay.output();
    drop(rest);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(before.contains("owned"), "the fields are named: {before}");
    is_harmless("replay", &CommandOutput { stderr: before, ..output });
}
