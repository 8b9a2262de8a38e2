//! The stock hubble command on live flows of `meridian demo --serve`. Needs root.

use crate::cli::{Server, command, serve};
use crate::programs::program;
use crate::relay::Lab;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The demo's address.
const AT: &str = "127.0.0.1:4245";

struct Hubble {
    program: PathBuf,
    demo: Server,
}

impl Hubble {
    fn home() -> &'static Path {
        Path::new("/nonexistent")
    }

    fn prints(&self, line: &str) -> String {
        let output = command(&self.program, &self.demo.at, Self::home(), line).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The first lines of a following command.
    fn follows(&self, line: &str, count: usize) -> Vec<String> {
        Self::first_lines(command(&self.program, &self.demo.at, Self::home(), line), count)
    }

    fn first_lines(mut command: Command, count: usize) -> Vec<String> {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(count).map(Result::unwrap).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        lines
    }
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn the_stock_command_observes_the_demo() {
    let program = program("MERIDIAN_HUBBLE_CLI");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_meridian"));
    demo.args(["demo", "--duration", "1s", "--serve"]);
    let hubble = Hubble { program, demo: serve(demo, AT.into(), "the traffic continues") };

    let status = hubble.prints("status");
    assert!(status.starts_with(&format!("Healthcheck (via {AT}): Ok\nCurrent/Max Flows: ")), "{status}");
    assert!(status.contains("/4,095 (") && status.contains("\nConnected Nodes: 4/4\n"), "{status}");
    let nodes = hubble.prints("list nodes");
    let nodes: Vec<Vec<&str>> = nodes.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<_> = nodes.iter().map(|node| (node[0], node[1])).collect();
    assert_eq!(names, [1, 2, 3, 4].map(|n| (["node-1", "node-2", "node-3", "node-4"][n - 1], "Connected")));
    assert_eq!(hubble.prints("list namespaces"), "NAMESPACE\nbilling\nmonitoring\nshop\n");

    // A line for people: source, destination, verdict, observation point.
    let compact = regex::Regex::new(
        r"^\w{3} [ \d]\d [\d:.]{12}: \S+ \(\S+\) (->|<-) \S+ \(\S+\) to-network FORWARDED \((TCP.*|UDP|ICMP.*)\)$",
    )
    .unwrap();
    for line in hubble.follows("observe --follow", 50) {
        assert!(compact.is_match(&line), "{line}");
    }
    for line in hubble.follows("observe --follow --last 5 -o jsonpb", 50) {
        let event: Value = serde_json::from_str(&line).unwrap();
        let flow = &event["flow"];
        for field in ["source", "destination", "l4", "is_reply", "event_type", "uuid", "IP", "extensions"] {
            assert!(!flow[field].is_null(), "{field}: {line}");
        }
        assert_eq!((&flow["verdict"], &flow["Type"]), (&"FORWARDED".into(), &"L3_L4".into()));
        assert_eq!((&flow["time"], &flow["node_name"]), (&event["time"], &event["node_name"]));
    }

    // Zone and locality, which only our flows have, can be selected with existing flags.
    let localities = |line: &str| -> Vec<String> {
        let of_line = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["flow"]["extensions"]["value"]["locality"].as_str().unwrap().to_owned()
        };
        hubble.prints(line).lines().map(of_line).collect()
    };
    for asked in [
        "--label meridian.io/locality=cross-zone",
        // The request that hubble-ui sends for this text.
        "--label k8s:meridian.io/locality=cross-zone",
        "--cel-expression _flow.extensions.locality=='cross-zone'",
    ] {
        let found = localities(&format!("observe --last 20 -o jsonpb {asked}"));
        assert!(found.len() == 20 && found.iter().all(|locality| locality == "cross-zone"), "{asked}: {found:?}");
    }
    // A label that a person clicks on selects flows of which one end has it.
    let clicked = "k8s:topology.kubernetes.io/zone=eu-1b";
    let found = hubble.prints(&format!("observe --last 20 -o jsonpb --label {clicked}"));
    assert_eq!(found.lines().count(), 20);
    for line in found.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let has = |end: &str| event["flow"][end]["labels"].as_array().unwrap().contains(&clicked.into());
        assert!(has("source") || has("destination"), "{line}");
    }
    let same = localities("observe --last 20 -o jsonpb --label k8s:meridian.io/locality=same-zone");
    assert!(same.len() == 20 && same.iter().all(|locality| locality == "same-zone"), "{same:?}");
    let all = localities("observe --all -o jsonpb");
    assert!(all.iter().any(|locality| locality == "same-zone") && all.iter().any(|locality| locality == "unknown"));

    // A relay that asks the demo for its peers finds it, and has its flows.
    let lab = Lab::new("demo");
    let relay = lab.relay_of(AT, &["--disable-client-tls"]);
    lab.until(&relay, "status", |output| output.contains("Connected Nodes: 1/1"));
    let through = lab.until(&relay, "observe --last 20 -o jsonpb", |output| output.lines().count() > 20);
    assert!(through.starts_with("exit Some(0)") && through.contains("meridian.io/locality="), "{through}");
    drop(relay);

    // The key of older versions, as hubble-ui sends it, is no label that Cilium knows.
    let old = "observe --last 1 --label k8s:meridian:locality=cross-zone";
    let refused = command(&hubble.program, &hubble.demo.at, Hubble::home(), old).output().unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");

    the_page_of_zones_is_true(&hubble);
    assert_eq!(hubble.demo.interrupt(), Some(0));
}

/// Every command of docs/zones-in-hubble.md returns flows, exactly as it is on the page.
fn the_page_of_zones_is_true(hubble: &Hubble) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/zones-in-hubble.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands: Vec<&str> = blocks.flat_map(str::lines).collect();
    for line in &commands {
        // The rest of a pipeline belongs to other tools.
        let line = line.split(" | ").next().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("exec {line}")]).env_clear();
        // A folder with the names `hubble` and `meridian` for PATH.
        let folder = std::env::temp_dir().join(format!("meridian-page-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let programs = [("hubble", hubble.program.as_path()), ("meridian", Path::new(env!("CARGO_BIN_EXE_meridian")))];
        for (name, program) in programs {
            let _ = std::os::unix::fs::symlink(program, folder.join(name));
        }
        command.env("PATH", &folder).env("HOME", Hubble::home());
        let found = if line.contains("--follow") {
            Hubble::first_lines(command, 1)
        } else {
            let output = command.output().unwrap();
            assert!(output.status.success(), "{line}: {output:?}");
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        };
        std::fs::remove_dir_all(folder).unwrap();
        assert!(!found.is_empty(), "{line} finds nothing");
    }
    assert!(commands.len() > 10, "{commands:?}");
}
