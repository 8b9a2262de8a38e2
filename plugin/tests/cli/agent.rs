//! `meridian agent` on a static table, in the namespace of a node.

use crate::{
    CommandOutput, Scratch,
    common::programs::program,
    machine::{self, Machine, alone},
    meridian, run,
    running::Running,
};
use meridian::{
    api::{Client, Target},
    netlab::{
        links::{configure, sysctl},
        namespace::Namespace,
    },
    proto::v1::WatchRequest,
};
use nix::sys::signal::Signal;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// A node with a default route through its only uplink, and the host at the other end.
struct Lab {
    node: Namespace,
    peer: Namespace,
}

impl Lab {
    fn new() -> Self {
        let [node, peer] = ["node", "peer"].map(|name| Namespace::new(name).unwrap());
        for namespace in [&node, &peer] {
            sysctl(namespace, "ipv6/conf/all/disable_ipv6", "1").unwrap();
            sysctl(namespace, "ipv6/conf/default/disable_ipv6", "1").unwrap();
        }
        configure(&node, "setting up", async |links| {
            links.veth("up0", "eth0", peer.as_raw_fd()).await?;
            links.up("lo", None).await?;
            links.up("up0", None).await?;
            links.address("up0", NODE.into(), 8).await?;
            links.route("0.0.0.0/0".parse().unwrap(), PEER.into()).await
        })
        .unwrap();
        configure(&peer, "setting up", async |links| {
            links.up("lo", None).await?;
            links.up("eth0", None).await?;
            links.address("eth0", PEER.into(), 8).await
        })
        .unwrap();
        Self { node, peer }
    }

    fn agent(&self, config: &Path, args: &[&str]) -> Running {
        let spawn = || {
            let mut command = meridian(&["agent", "--log-level", "info", "--config", config.to_str().unwrap()]);
            Running::spawn(command.args(args))
        };
        self.node.run(spawn).unwrap()
    }

    /// A page of the agent, once its contents are wanted.
    fn page(&self, path: &str, wanted: impl Fn(&str) -> bool + Send + Sync) -> String {
        let mut last = String::new();
        for _ in 0..300 {
            if let Ok(page) = self.node.run(|| get(path)).unwrap() {
                if wanted(&page) {
                    return page;
                }
                last = page;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{path} is still\n{last}");
    }

    /// Sends datagrams of 100 bytes of payload: 128 bytes of IP each.
    fn send(&self, datagrams: usize) {
        let sink = self.peer.run(|| UdpSocket::bind((PEER, 9))).unwrap().unwrap();
        let send = |count| {
            self.node
                .run(|| {
                    let socket = UdpSocket::bind((NODE, 0)).unwrap();
                    for _ in 0..count {
                        socket.send_to(&[0; 100], (PEER, 9)).unwrap();
                    }
                })
                .unwrap();
        };
        // The first datagram waits for the neighbour's address.
        send(1);
        sink.recv(&mut [0; 100]).unwrap();
        send(datagrams - 1);
    }
}

pub fn get(path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9980")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The bytes of traffic to a zone on the metrics page.
fn bytes_to(page: &str, zone: &str) -> u64 {
    let zone = format!("destination_zone=\"{zone}\"");
    let lines = page.lines().filter(|line| line.starts_with("meridian_zone_bytes_total{") && line.contains(&zone));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn is_liked_by_promtool(page: &str) {
    let mut promtool = Command::new(program("MERIDIAN_PROMTOOL"));
    let mut check = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (_, body) = page.split_once("\r\n\r\n").unwrap();
    check.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = CommandOutput::from(check.wait_with_output().unwrap());
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
}

/// Bytes and packets of the non-zero cells of ZONE_MATRIX, read as docs/maps.md describes.
fn matrix_by_bpftool(id: u32) -> Vec<(u64, u64)> {
    let mut bpftool = Command::new(program("MERIDIAN_BPFTOOL"));
    let output = bpftool.args(["-j", "map", "dump", "id", &id.to_string()]).output().unwrap();
    let cells: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let word = |value: &serde_json::Value, at: usize| {
        let bytes = value.as_array().unwrap()[at..at + 8].iter();
        let bytes = bytes.map(|byte| u8::from_str_radix(byte.as_str().unwrap().trim_start_matches("0x"), 16).unwrap());
        u64::from_ne_bytes(bytes.collect::<Vec<_>>().try_into().unwrap())
    };
    let sum = |cell: &serde_json::Value| {
        let cpus =
            cell["values"].as_array().unwrap().iter().map(|cpu| (word(&cpu["value"], 0), word(&cpu["value"], 8)));
        cpus.fold((0, 0), |sum, cpu| (sum.0 + cpu.0, sum.1 + cpu.1))
    };
    cells.as_array().unwrap().iter().map(sum).filter(|sum| *sum != (0, 0)).collect()
}

/// The id of the ZONE_MATRIX of a process: other processes on the machine may have one, too.
fn matrix_of(pid: u32) -> u32 {
    let held = machine::ids(pid, "map_id");
    let mut matrices = aya::maps::loaded_maps().flatten().filter(|map| map.name_as_str() == Some("ZONE_MATRIX"));
    matrices.find(|map| held.contains(&map.id())).unwrap().id()
}

fn table(peer_zone: &str) -> String {
    format!(
        "zones:\n- {{name: a, region: r, cidrs: [10.0.1.0/24]}}\n- {{name: {peer_zone}, region: r, cidrs: [10.0.2.0/24]}}\n"
    )
}

const CONFIG: &str = "node: node-a\nzones_file: zones.yaml\nhook: auto\nhubble: {listen: \"127.0.0.1:4344\"}\nhttp: {listen: \":9980\"}\npair_log: {interval: 1s}\nstate_dir: /var/lib/meridian\n";

#[test]
fn the_agent_counts_reloads_and_ends() {
    let _alone = alone();
    let before = Machine::now();
    let lab = Lab::new();
    let scratch = Scratch::new("agent");
    let config = scratch.file("agent.yaml", CONFIG.as_bytes());
    scratch.file("zones.yaml", table("b").as_bytes());
    let socket = scratch.as_ref().join("run/hubble.sock");
    let server = format!("unix:{}", socket.display());
    let child = lab.agent(&config, &["--hubble-socket", socket.to_str().unwrap()]);

    lab.page("/readyz", |page| page.starts_with("HTTP/1.1 200"));
    lab.send(1000);
    let page = lab.page("/metrics", |page| bytes_to(page, "b") == 128_000);
    for line in [
        "source_zone=\"a\",source_region=\"r\",destination_zone=\"b\",destination_region=\"r\",locality=\"cross-zone\"",
        "meridian_flow_entries{node=\"node-a\"} 1",
        "meridian_zone_table_reloads_total{result=\"taken\",node=\"node-a\"} 0",
    ] {
        assert!(page.contains(line), "{line}\nis not in\n{page}");
    }

    is_liked_by_promtool(&page);
    // The test's own requests may have left through the loopback device, but never through the uplink.
    assert_eq!(matrix_by_bpftool(matrix_of(child.id())), [(128_000, 1000)]);

    let lookup = || run(&["zones", "lookup", "10.0.2.2", "--server", &server]).stdout;
    assert_eq!(lookup(), "10.0.2.2  10.0.2.0/24              b            r          cluster  zone b\n");
    let top = run(&["top", "--count", "1", "--server", &server]);
    assert_eq!(top.code, Some(0), "{top:?}");
    let shown = |line: &str| top.stdout.lines().any(|has| has.split_whitespace().eq(line.split(' ')));
    assert!(top.stdout.starts_with("node-a: ") && shown("a b cross-zone 128.0 kB -"), "{top:?}");
    assert!(shown("? a ? b cross-zone 128.0 kB -"), "nobody is known to have the addresses: {top:?}");

    // A new table is applied without a signal.
    scratch.file("zones.yaml", table("c").as_bytes());
    lab.page("/metrics", |page| page.contains("reloads_total{result=\"taken\",node=\"node-a\"} 1"));
    lab.send(10);
    let page = lab.page("/metrics", |page| bytes_to(page, "c") == 1280);
    assert_eq!(bytes_to(&page, "b"), 128_000);
    assert!(lookup().contains(" c "));
    let other_agent = |namespace: &Namespace, uplink: &str| {
        let listen = ["--hubble-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--uplink", uplink];
        let config = ["agent", "--config", config.to_str().unwrap(), "--hubble-socket", socket.to_str().unwrap()];
        let output: CommandOutput = namespace.run(|| meridian(&config).args(listen).output().unwrap()).unwrap().into();
        assert_eq!(output.code, Some(1));
        output.stderr
    };
    // A second agent in the same network namespace would count every packet again.
    let stderr = other_agent(&lab.node, "up0");
    let expected = format!("meridian: another agent counts here already (process {})\n", child.id());
    assert_eq!(stderr, expected);
    let stderr = other_agent(&lab.peer, "eth0");
    let expected = format!("meridian: the socket {}: another process serves it\n", socket.display());
    assert!(stderr.ends_with(&expected), "{stderr}");

    // An invalid table is refused, and the old one stays; SIGHUP reads the file again.
    scratch.file("zones.yaml", b"zones: [\n");
    let refused = |n: u32| move |page: &str| page.contains(&format!("{{result=\"refused\",node=\"node-a\"}} {n}"));
    lab.page("/metrics", refused(1));
    child.signal(Signal::SIGHUP);
    lab.page("/metrics", refused(2));
    lab.send(10);
    lab.page("/metrics", |page| bytes_to(page, "c") == 2560);

    child.signal(Signal::SIGTERM);
    let output = child.output();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("the new zone table is refused; the old one stays in force"), "{output:?}");
    assert!(output.stderr.contains("zones.yaml:1: unclosed bracket"), "the reason names file and line: {output:?}");
    // The pair log is on stdout: every interval, and the rest at the end.
    let pairs: Vec<serde_json::Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let logged = |zone: &str| -> u64 {
        let to_zone = pairs.iter().filter(|pair| pair["destination"]["zone"] == zone);
        to_zone.map(|pair| pair["bytes"].as_u64().unwrap()).sum()
    };
    assert_eq!((logged("b"), logged("c")), (128_000, 2560));
    assert!(pairs.iter().all(|pair| pair["destination"]["ip"] == "10.0.2.2" && pair["node"] == "node-a"));
    assert!(!socket.exists());
    drop(lab);
    before.is_restored();
}

/// A folder that is in no bpf file system: as on a node where it is not mounted.
#[test]
fn an_agent_without_a_bpf_file_system_counts_each_byte_and_warns_that_nothing_is_pinned() {
    let _alone = alone();
    let before = Machine::now();
    let lab = Lab::new();
    let scratch = Scratch::new("no-pins");
    let config = scratch.file("agent.yaml", CONFIG.as_bytes());
    scratch.file("zones.yaml", table("b").as_bytes());
    let mut child = lab.agent(&config, &["--pin-dir", scratch.as_ref().join("pins").to_str().unwrap()]);
    let (_, rest) = child.stderr_until("nothing is pinned: the counters end with this agent");
    lab.page("/readyz", |page| page.starts_with("HTTP/1.1 200"));
    lab.send(1000);
    lab.page("/metrics", |page| bytes_to(page, "b") == 128_000);
    child.signal(Signal::SIGTERM);
    thread::spawn(move || std::io::copy(&mut { rest }, &mut std::io::sink()));
    assert_eq!(child.output().code, Some(0));
    drop(lab);
    before.is_restored();
}

/// Slow or stuck clients and a full disk disturb neither counting nor other clients.
#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "this runtime has one thread and this one task")]
async fn stuck_clients_and_a_full_disk_disturb_nobody() {
    let _alone = alone();
    let before = Machine::now();
    let lab = Lab::new();
    let scratch = Scratch::new("stuck");
    let config = scratch.file("agent.yaml", CONFIG.as_bytes());
    scratch.file("zones.yaml", table("b").as_bytes());
    let socket = scratch.as_ref().join("hubble.sock");
    let args = ["--hubble-socket", socket.to_str().unwrap(), "--pair-log", "/dev/full", "--pair-log-interval", "1s"];
    let child = lab.agent(&config, &args);
    lab.page("/readyz", |page| page.starts_with("HTTP/1.1 200"));

    // Scrapers that send a request and never read, and scrapers that never send one.
    let stuck_scraper = |n: usize| {
        lab.node.run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9980").unwrap();
            for _ in 0..n {
                let _ = write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
            }
            stream
        })
    };
    let mut scrapers: Vec<TcpStream> = (0..40).map(|n| stuck_scraper(100 * (n % 2)).unwrap()).collect();
    // One client of the counters and one of the flows that never read.
    let client = Client::connect(Target::Unix(socket.clone())).await.unwrap();
    let counters = client.watch(WatchRequest { interval: None, pairs: 100 }).await.unwrap();

    lab.send(1000);
    let page = lab.page("/metrics", |page| bytes_to(page, "b") == 128_000 && !value_is(page, "pair_log_lost_lines", 0));
    assert!(value_is(&page, "pair_log_lines", 0) && value_is(&page, "pair_log_lost_bytes", 128_000), "{page}");
    let answer = client.watch(WatchRequest::default()).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(answer.zones[0].counter.unwrap().bytes, 128_000);

    // There is a bound: older ones give way, which is counted, and new ones are answered.
    scrapers.extend((0..40).map(|_| stuck_scraper(0).unwrap()));
    lab.page("/metrics", |page| !value_is(page, "http_refused_connections", 0));
    drop(scrapers);

    child.signal(Signal::SIGTERM);
    let output = child.output();
    assert_eq!(output.code, Some(0), "{output:?}");
    let complaints = output.stderr.matches("the pair log can't be written; lines are lost").count();
    assert!((1..3).contains(&complaints), "not a line for each line: {output:?}");
    drop((lab, counters));
    before.is_restored();
}

fn value_is(page: &str, name: &str, value: u64) -> bool {
    let line = format!("meridian_{name}_total {value}");
    assert!(page.contains(&format!("\nmeridian_{name}_total ")), "{name} is not there");
    page.lines().any(|has| has == line)
}

#[test]
fn a_node_is_checked() {
    let _alone = alone();
    let before = Machine::now();
    let lab = Lab::new();
    let check = |args: &[&str]| -> CommandOutput {
        let args: Vec<&str> = [&["check"], args].concat();
        lab.node.run(|| meridian(&args).output().unwrap()).unwrap().into()
    };
    let output = check(&[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    for line in [
        "ok capabilities BPF, NET_ADMIN, PERFMON",
        "ok netfilter the kernel",
        "ok tcx the kernel",
        "ok clsact the kernel",
        "ok uplinks up0 (10.0.1.1",
        "ok hook netfilter: no data path on this node bypasses netfilter",
        "an agent can run here",
    ] {
        let has = |has: &str| has.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(line);
        assert!(output.stdout.lines().any(has), "{line}\nis not in\n{}", output.stdout);
    }
    let output = check(&["--uplink", "eth7"]);
    assert_eq!(output.code, Some(1));
    assert_eq!(
        output.stderr,
        "meridian: an agent can't run here: uplinks: there is no network device eth7: name the uplinks as `ip link` does\n"
    );
    assert!(output.stdout.contains("BAD      uplinks"), "{output:?}");
    drop(lab);
    before.is_restored();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    for command in [&["top"][..], &["zones", "list"], &["zones", "lookup", "10.0.0.1"]] {
        let output = run(&[command, &["--server", "unix:/nowhere/hubble.sock"]].concat());
        assert_eq!(output.code, Some(1), "{output:?}");
        let expected = "meridian: unix:/nowhere/hubble.sock: no server answers (No such file or directory (os error 2)): is it running? --server names another one\n";
        assert_eq!(output.stderr, expected);
    }
    let output = run(&["top", "--server", "nowhere"]);
    assert_eq!(output.code, Some(2));
}

#[test]
fn a_bad_configuration_is_named_with_its_line() {
    let scratch = Scratch::new("config");
    scratch.file("zones.yaml", table("b").as_bytes());
    let check = |name: &str, content: &str| {
        let file = scratch.file(name, content.as_bytes());
        let file = file.to_str().unwrap().to_owned();
        (run(&["config", "check", &file]), file)
    };
    let (output, file) = check("good.yaml", CONFIG);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output.stdout.starts_with(&format!("{file}: good\n")) && output.stdout.contains("2 prefixes, 0 endpoints"),
        "{output:?}"
    );
    let cases = [
        ("node: a\nzones_fiel: z\n", ":2: unknown key `zones_fiel`: there are node, cluster_name, "),
        ("zones_file: z\nhubble:\n  lisen: a\n", ":3: unknown key `hubble.lisen`: there are listen, "),
        ("hook: xdp\nzones_file: zones.yaml\n", ":1: hook: `xdp` is not one of auto, netfilter, tcx, clsact\n"),
        ("node: a\nhttp: {listen: here}\n", ":2: http.listen: `here` is not an address like 127.0.0.1:9980 or :9980\n"),
        ("service_ports:\n- 80\n- 70000\n", ":3: service_ports: "),
        ("controller: {address: c}\n", ":1: controller.address: `c` is not a server like "),
        ("hubble: {export: {fields: [colour]}}\n", ":1: hubble.export.fields: invalid fieldmask: `colour` is no "),
        ("hubble: {metrics: flow, metrics_file: m}\n", ": the argument '--hubble-metrics <METRICS>' cannot be used "),
        ("", ":1: the file is empty"),
    ];
    for (content, expected) in cases {
        let (output, file) = check("bad.yaml", content);
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.starts_with(&format!("meridian: {file}{expected}")), "{output:?}");
    }
    let file = scratch.file("controller.yaml", b"feed: {listen: \"127.0.0.1:0\"}\nzones_file: zones.yaml\n");
    let output = run(&["config", "check", "--program", "controller", file.to_str().unwrap()]);
    assert!(output.code == Some(0) && output.stdout.contains("zones.yaml: good, 2 prefixes"), "{output:?}");
    let file = scratch.file("controller.yaml", b"feed:\n  agent_accounts: [\"a:b\", c]\n");
    let output = run(&["controller", "--config", file.to_str().unwrap()]);
    let expected = format!("meridian: {}:2: feed.agent_accounts: `c` is not an account, ", file.display());
    assert!(output.code == Some(2) && output.stderr.starts_with(&expected), "{output:?}");
    let (output, _) = check("none.yaml", "node: a\n");
    assert!(output.stderr.contains("there is no zone table: name a file with --zones-file"), "{output:?}");
}

#[test]
fn a_node_without_a_default_route_gets_a_named_error() {
    let _alone = alone();
    let node = Namespace::new("node").unwrap();
    let scratch = Scratch::new("uplink");
    scratch.file("zones.yaml", table("b").as_bytes());
    let config = scratch.file("agent.yaml", CONFIG.as_bytes());
    let with = |args: &[&str]| -> CommandOutput {
        let args: Vec<&str> = [&["agent", "--config", config.to_str().unwrap()], args].concat();
        node.run(|| meridian(&args).output().unwrap()).unwrap().into()
    };
    let output = with(&[]);
    let expected = "meridian: no network device has a default route: name the uplinks with --uplink\n";
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), expected));
    let output = with(&["--uplink", "eth7"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (Some(1), "meridian: there is no network device eth7: name the uplinks as `ip link` does\n")
    );
}

#[test]
fn hubbles_metrics_are_there_unless_a_cilium_agent_has_them() {
    let _alone = alone();
    let before = Machine::now();
    let lab = Lab::new();
    let scratch = Scratch::new("cilium");
    let config = scratch.file("agent.yaml", CONFIG.as_bytes());
    scratch.file("zones.yaml", table("b").as_bytes());
    let socket = scratch.as_ref().join("hubble.sock");
    let state = scratch.as_ref().join("cilium");
    let args = ["--hubble-socket", socket.to_str().unwrap(), "--cilium-state-dir", state.to_str().unwrap()];
    let end = |agent: Running| {
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.output().code, Some(0));
    };
    let agent = lab.agent(&config, &args);
    lab.page("/readyz", |page| page.starts_with("HTTP/1.1 200"));
    lab.send(10);
    let page = lab.page("/metrics", |page| page.contains("hubble_flows_processed_total{"));
    let flow = r#"protocol="UDP",type="Trace",subtype="to-network",verdict="FORWARDED""#;
    assert!(
        page.contains(flow) && page.contains(r#"hubble_port_distribution_total{protocol="UDP",port="9"}"#),
        "{page}"
    );
    is_liked_by_promtool(&page);
    end(agent);
    std::fs::create_dir(&state).unwrap();
    let agent = lab.agent(&config, &args);
    lab.page("/readyz", |page| page.starts_with("HTTP/1.1 200"));
    lab.send(10);
    let page = lab.page("/metrics", |page| bytes_to(page, "b") == 1280);
    assert!(!page.contains("hubble_flows") && !page.contains("\nhubble_"), "{page}");
    end(agent);
    drop(lab);
    before.is_restored();
}

#[test]
fn completions_are_printed() {
    let output = run(&["completions", "bash"]);
    assert_eq!(output.code, Some(0));
    assert!(output.stdout.contains("--zones-file") && output.stdout.contains("_meridian"));
}

#[test]
fn an_agent_without_a_controller_keeps_a_history_in_which_a_database_is_charged_once() {
    let _alone = alone();
    let (lab, scratch) = (Lab::new(), Scratch::new("agent-history"));
    scratch.file(
        "zones.yaml",
        b"zones:\n- {name: a, region: r, provider: aws, cidrs: [10.0.1.0/24]}\n- {name: b, region: r, provider: aws}\n\
          external:\n- {name: orders, cidr: 10.0.2.0/24, zone: b, class: database}\n",
    );
    let text =
        "node: n1\nzones_file: zones.yaml\nhubble: {socket: off}\npair_log: {output: off}\nhistory_dir: HISTORY\n";
    let folder = scratch.as_ref().join("history");
    let config = scratch.file("agent.yaml", text.replace("HISTORY", folder.to_str().unwrap()).as_bytes());
    let child = lab.agent(&config, &[]);
    lab.page("/readyz", |page| page.starts_with("HTTP/1.1 200"));
    lab.send(1000);
    let page = lab.page("/metrics", |page| bytes_to(page, "b") >= 128_000);
    assert_eq!(bytes_to(&page, "b"), 128_000);
    // The server answers with what it has recorded so far.
    let answer = lab.page("/api/v1/report?by=workload&from=1h", |page| page.contains("\"rows\""));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let refused = lab.page("/api/v1/report?by=pod", |page| page.contains("none of"));
    assert!(
        refused.starts_with("HTTP/1.1 400 ")
            && refused.ends_with(
                "by: `pod` is none of zone-pair, namespace-pair, workload-pair, namespace, workload, service, node, region and label:KEY\n"
            ),
        "{refused}"
    );
    child.signal(Signal::SIGTERM);
    let output = child.output();
    assert_eq!(output.code, Some(0), "{output:?}");
    let report = |by: &str| {
        let output =
            run(&["report", "--history", folder.to_str().unwrap(), "--from", "2h", "--by", by, "--output", "json"]);
        serde_json::from_str::<serde_json::Value>(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    for by in ["zone-pair", "workload", "node", "service"] {
        let total = &report(by)["total"];
        // 128,000 bytes at 0.01 for 10⁹: the database's own end is not charged.
        assert_eq!((&total["bytes"], &total["cost"]["usd"]), (&128_000.into(), &"0.00000128".into()), "{by}");
    }
    let rows = report("workload");
    let named = rows["rows"]
        .as_array()
        .unwrap()
        .iter()
        .any(|row| row["key"]["kind"] == "database" && row["key"]["workload"] == "orders");
    assert!(named, "{rows}");
}
