//! Hubble's metrics and flow logs, configured by files that change, and next to a cilium-agent.

use crate::{Scratch, common::ports::free_address, meridian, run, running::Running};
use nix::sys::signal::Signal;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    thread::sleep,
    time::Duration,
};

const FLOW: &str = r#"{"flow":{"time":"2026-11-22T10:00:05Z","verdict":"VERDICT","event_type":{"type":4,"sub_type":11},"node_name":"node-a"},"node_name":"node-a","time":"2026-11-22T10:00:05Z"}
"#;

struct Replay {
    running: Running,
    http: String,
}

impl Replay {
    fn feed(&mut self, verdicts: &[&str]) {
        let lines: String = verdicts.iter().map(|verdict| FLOW.replace("VERDICT", verdict)).collect();
        self.running.stdin().write_all(lines.as_bytes()).unwrap();
    }

    fn metric(&self, series: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(&self.http).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    fn until(&self, series: &str, value: Option<u64>) {
        for _ in 0..600 {
            if self.metric(series) == value {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("{series} is {:?}, not {value:?}", self.metric(series));
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn files_of_metrics_and_flow_logs_are_read_again_when_they_change() {
    let scratch = Scratch::new("outputs");
    let log = |name: &str| scratch.as_ref().join(name);
    let logs_of =
        |name: &str, more: &str| format!("flowLogs:\n- {{name: {name}, filePath: {}{more}}}\n", log(name).display());
    let metrics = scratch.file("metrics.yaml", b"metrics: [{name: flow}]\n");
    let logs = scratch.file("logs.yaml", logs_of("first", "").as_bytes());
    let http = free_address();
    let mut command = meridian(&["replay", "-", "--listen", "127.0.0.1:0", "--http-listen", &http]);
    command.arg("--hubble-dynamic-metrics-config-path").arg(&metrics);
    command.arg("--hubble-flowlogs-config-path").arg(&logs);
    let mut replay = Replay { running: Running::spawn_fed(&mut command), http };
    let (_, _stderr) = replay.running.stderr_until("serving Hubble's clients");
    let forwarded =
        r#"hubble_flows_processed_total{protocol="Unknown L4",type="Trace",subtype="to-network",verdict="FORWARDED"}"#;
    let dropped = r#"hubble_drop_total{reason="DROP_REASON_UNKNOWN",protocol="Unknown L4"}"#;
    let reloads = |file: &str, result: &str| {
        format!(r#"meridian_hubble_config_reloads_total{{file="{file}",result="{result}"}}"#)
    };
    replay.feed(&["FORWARDED", "FORWARDED"]);
    replay.until(forwarded, Some(2));
    replay.until(r#"meridian_flow_log_lines_total{name="first"}"#, Some(2));

    // An invalid file is refused, and the configuration before it stays in force.
    fs::write(&metrics, "metrics: [{name: flwo}]\n").unwrap();
    fs::write(&logs, logs_of("first", ", fieldMask: [colour]")).unwrap();
    replay.until(&reloads("metrics", "refused"), Some(1));
    replay.until(&reloads("flow_logs", "refused"), Some(1));
    replay.feed(&["FORWARDED"]);
    replay.until(forwarded, Some(3));
    replay.until(r#"meridian_flow_log_lines_total{name="first"}"#, Some(3));

    let both = "metrics:\n- {name: flow, excludeFilters: [{verdict: [FORWARDED]}]}\n- {name: drop}\n";
    fs::write(&metrics, both).unwrap();
    fs::write(&logs, logs_of("second", ", includeFilters: [{verdict: [DROPPED]}]")).unwrap();
    replay.until(&reloads("metrics", "taken"), Some(1));
    replay.until(&reloads("flow_logs", "taken"), Some(1));
    replay.feed(&["FORWARDED", "DROPPED"]);
    replay.until(dropped, Some(1));
    replay.until(r#"meridian_flow_log_lines_total{name="second"}"#, Some(1));
    assert_eq!(replay.metric(forwarded), Some(3), "it goes on, with its filter");
    assert_eq!(replay.metric(r#"meridian_flow_log_lines_total{name="first"}"#), None);
    assert_eq!((lines(&log("first")).len(), lines(&log("second")).len()), (3, 1));

    // The last lines are written before the end.
    replay.feed(&["DROPPED", "DROPPED"]);
    replay.until(dropped, Some(3));
    replay.running.signal(Signal::SIGINT);
    assert_eq!(replay.running.output().code, Some(0));
    assert_eq!(lines(&log("second")).len(), 3);
}

#[test]
fn an_invalid_configuration_is_refused_at_the_start() {
    let scratch = Scratch::new("outputs-refused");
    let bad = scratch.file("bad.yaml", b"flowLogs: [{name: a}]\n");
    let bad = bad.to_str().unwrap();
    let flows = ["replay", "/dev/null", "--listen", "127.0.0.1:0"];
    let cases: [(&[&str], &str); 6] = [
        (&["--hubble-metrics", "flwo"], "flwo: there is no such metric; there are flow, drop, tcp, icmp"),
        (&["--hubble-flowlogs-config-path", bad], "bad.yaml:1: "),
        (&["--hubble-flowlogs-config-path", "/nowhere"], "/nowhere: No such file"),
        (&["--hubble-export-file-path", "/proc/x/y"], "the flow log flags: "),
        (
            &["--hubble-export-file-path", "x", "--hubble-export-fieldmask", "colour"],
            "invalid fieldmask: `colour` is no field of a flow",
        ),
        (&["--hubble-tls-cert-file", "a.crt"], "name both"),
    ];
    for (args, words) in cases {
        let output = run(&[&flows, args].concat());
        assert_eq!(output.code, Some(2), "{args:?}: {output:?}");
        assert!(output.stderr.contains(words), "{args:?}: {output:?}");
    }
    let config = |name: &str, text: &str| scratch.file(name, text.as_bytes());
    config("zones.yaml", "zones: []\n");
    let agent =
        config("agent.yaml", "zones_file: zones.yaml\nhubble: {metrics_file: m.yaml, flow_logs_file: l.yaml}\n");
    config("m.yaml", "metrics: [{name: flow}]\n");
    config("l.yaml", "flowLogs: [{name: a, filePath: b}, {name: c, filePath: d}]\n");
    let check = || run(&["config", "check", agent.to_str().unwrap()]);
    let output = check();
    assert!(
        output.stdout.contains("m.yaml: good, 1 metrics\n") && output.stdout.contains("l.yaml: good, 2 flow logs\n")
    );
    config("l.yaml", "flowLogs: [{name: a, filePath: b, fieldMask: [colour]}]\n");
    assert!(check().stderr.contains("l.yaml: a: invalid fieldmask: `colour` is no field of a flow"));
    let output = run(&["replay", "/dev/null", "--listen", "0.0.0.0:0"]);
    assert!(
        output.code == Some(2) && output.stderr.contains("--listen 0.0.0.0:0: clients beyond this machine need TLS")
    );
}
