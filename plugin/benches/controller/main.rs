//! The cost of a large cluster for its controller: 5,000 nodes, 150,000 pods, 100 pod changes a second, and 5,000
//! agents that follow and report from another process, over TLS. Once with a prefix for each node, once with an address
//! for each pod, as with the AWS VPC CNI; and the state of 15,000 nodes. Writes its table into docs/performance.md. Needs
//! root for the kernel's maps.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod agents;
#[path = "../../tests/certificates/mod.rs"]
mod certificates;
mod objects;
#[path = "../report/mod.rs"]
mod report;
mod served;

use meridian::units::grouped;
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use objects::PODS_OF_NODE;
use served::{CHANGES, Following, SECONDS, Shape, Shown};
use std::{
    env,
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const NODES: usize = 5_000;
const LARGE: usize = 15_000;

fn main() {
    let args: Vec<String> = env::args().collect();
    let number = |index: usize| args[index].parse().unwrap();
    match args.get(1).map(String::as_str) {
        Some("controller") => {
            served::run(Shape { addresses: args[2] == "addresses", nodes: number(3), agents: number(4) });
        }
        Some("agents") => agents::run(&args[2], number(3), &args[4]),
        _ => measure(),
    }
}

fn of(shape: &str, nodes: usize, agents: usize) -> Shown {
    let output = Command::new(env::current_exe().unwrap())
        .args(["controller", shape, &nodes.to_string(), &agents.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn measure() {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let shown = ["prefixes", "addresses"].map(|shape| of(shape, NODES, NODES));
    let large = ["prefixes", "addresses"].map(|shape| of(shape, LARGE, 0));
    let mut text = format!(
        "Measured on {} by `make bench` (the machine had a load of {} before): {} nodes, {} pods, {} pod changes a second \
         for {SECONDS} s, and as many agents as nodes in another process on the same CPUs. They connect over TLS within 5 \
         s, and each reports 20 pairs of pods every 10 s, of which the controller keeps a history.\n\n\
         | | a prefix for each node | an address for each pod |\n|---|---:|---:|\n",
        report::machine(),
        load.split(' ').next().unwrap(),
        grouped(NODES as u64),
        grouped((NODES * PODS_OF_NODE) as u64),
        2 * CHANGES,
    );
    before_agents(&mut text, &shown);
    with_agents(&mut text, &shown);
    write!(
        text,
        "\n{} nodes with {} pods, and what their agents take if each takes as much as one of {}:\n\n\
         | | a prefix for each node | an address for each pod |\n|---|---:|---:|\n",
        grouped(LARGE as u64),
        grouped((LARGE * PODS_OF_NODE) as u64),
        grouped(NODES as u64),
    )
    .unwrap();
    before_agents(&mut text, &large);
    let expected = [0, 1].map(|n| {
        let agents = agent_kib(&shown[n]) * LARGE as f64;
        format!("{:.0} MiB", (large[n].loaded_kib as f64 + agents) / 1024.0)
    });
    writeln!(text, "| memory with all agents, expected | {} | {} |", expected[0], expected[1]).unwrap();
    println!("{text}");
    report::write("controller", &text);
}

/// Memory of an agent: what the controller takes more with all agents than without any.
fn agent_kib(shown: &Shown) -> f64 {
    let most = following(shown).most_kib;
    most.saturating_sub(shown.loaded_kib) as f64 / NODES as f64
}

fn following(shown: &Shown) -> &Following {
    shown.following.as_ref().unwrap()
}

fn row(text: &mut String, shown: &[Shown; 2], name: &str, value: impl Fn(&Shown) -> String) {
    writeln!(text, "| {name} | {} | {} |", value(&shown[0]), value(&shown[1])).unwrap();
}

fn before_agents(text: &mut String, shown: &[Shown; 2]) {
    row(text, shown, "prefixes in the agents' table", |s| grouped(s.prefixes as u64));
    row(text, shown, "addresses with an owner", |s| grouped(s.addresses as u64));
    row(text, shown, "reading all objects", |s| format!("{:.1} s", s.load_seconds));
    row(text, shown, "memory of the controller then", |s| format!("{} MiB", s.loaded_kib >> 10));
}

fn with_agents(text: &mut String, shown: &[Shown; 2]) {
    let mut row = |name: &str, value: &dyn Fn(&Following) -> String| {
        self::row(text, shown, name, |shown| value(following(shown)));
    };
    row("the whole state to all agents, at once", &|s| format!("{:.1} s", s.connect_seconds));
    row("sent to each", &|s| format!("{:.1} MiB", s.agent_bytes / f64::from(1 << 20)));
    row("CPU of the controller for it", &|s| format!("{:.1} s", s.flood_cpu));
    row("CPU of all agents together for it", &|s| format!("{:.1} s", s.flood_agents_cpu));
    row("memory of the controller then", &|s| format!("{} MiB", s.followed_kib >> 10));
    row("with the reports of all", &|s| format!("{} MiB", s.reported_kib >> 10));
    row("at most", &|s| format!("{} MiB", s.most_kib >> 10));
    self::row(text, shown, "memory of an agent", |s| format!("{:.0} KiB", agent_kib(s)));
    let mut row = |name: &str, value: &dyn Fn(&Following) -> String| {
        self::row(text, shown, name, |shown| value(following(shown)));
    };
    row("CPU of the controller under changes and reports", &|s| format!("{:.0} % of a core", 100.0 * s.cpu));
    row("CPU of all agents together", &|s| format!("{:.0} % of a core", 100.0 * s.agents_cpu));
    row("sent to an agent", &|s| format!("{:.1} KiB/s", s.bytes_a_second / 1024.0));
    row("a node's zone at half of the agents", &|s| format!("{:.0} ms", s.zone_ms[0]));
    row("at 99 of 100", &|s| format!("{:.0} ms", s.zone_ms[1]));
    row("at all", &|s| format!("{:.0} ms", s.zone_ms[2]));
    let kernel = |s: &Following, value: fn((f64, f64)) -> f64| {
        s.kernel.map_or_else(|| "–".to_owned(), |times| format!("{:.0} ms", value(times)))
    };
    row("the table written into an agent's kernel", &|s| kernel(s, |times| times.0));
    row("a change of one prefix", &|s| kernel(s, |times| times.1));
}

/// Milliseconds since 1970, comparable between processes.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e3
}

fn memory(of: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(of)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

fn many_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}
