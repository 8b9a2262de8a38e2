//! The cost of a drain: the meter reads full flow maps, resolves addresses to endpoints, sums and makes flow events.
//! Writes its table into docs/performance.md. Needs root.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod report;

use meridian::{
    accounting::Accounting,
    datapath::{Datapath, Device, Devices, Options, sys},
    flows::{Node, Ring, Sink},
    hubble::metrics::FlowMetrics,
    identity::Index,
    meter::Meter,
    units::grouped,
    zones::{Place, StaticTable},
};
use std::{
    fmt::Write,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// The number of pods on each side: each talks to each, so that the IPv4 map is full.
const PODS: u8 = 255;
const ROUNDS: usize = 11;
/// The device through which test runs send.
const LOOPBACK: u32 = 1;

const COUNTED: &str = "the same, and Hubble's metrics";

fn main() {
    let mut yaml = String::from("zones:\n");
    for zone in 0..2 {
        writeln!(yaml, "- {{name: z{zone}, region: r, cidrs: [10.{zone}.0.0/24]}}").unwrap();
    }
    yaml.push_str("endpoints:\n");
    for (zone, pod) in (0..2).flat_map(|zone| (0..PODS).map(move |pod| (zone, pod))) {
        let workload = format!("{{kind: Deployment, name: w{}}}", pod / 5);
        writeln!(
            yaml,
            "- {{ip: 10.{zone}.0.{pod}, namespace: n{zone}, pod: w{pod}-6d8f7c9b5-x7k2p, workload: {workload}}}"
        )
        .unwrap();
    }
    let table = StaticTable::parse(Path::new("bench"), yaml.as_bytes()).unwrap();
    let index = Arc::new(Index::default());
    index.replace(&table.endpoints);
    let metrics = Arc::new(FlowMetrics::default());
    let sink = Sink { listener: Some(Arc::clone(&metrics) as _), ..Sink::new(Arc::new(Ring::new(4095))) };
    let node = Node::new("node-a", Place::Unknown);
    let datapath = Datapath::load(Options::default()).unwrap();
    let mut meter = Meter::new(node, datapath, index, Accounting::new(1000, true), sink);
    meter.datapath().set_devices(Devices { devices: vec![Device::uplink(LOOPBACK)], ..Devices::default() }).unwrap();
    meter.apply_zones(&table.zones, SystemTime::now()).unwrap();

    let entries = u64::from(PODS) * u64::from(PODS);
    let mut now = Instant::now();
    let mut rows = Vec::new();
    // The first drain makes an event of each entry. Then each entry has one more packet: in a second without due
    // events, and in one with them. Then no entry has new packets.
    let cases = [
        ("new, each an event", true, 0),
        ("active, no event is due", true, 1),
        ("active, each an event", true, 5),
        (COUNTED, true, 5),
        ("idle", false, 1),
    ];
    for (name, active, seconds) in cases {
        let families = if name == COUNTED { "flow drop tcp icmp port-distribution" } else { "" };
        metrics.configure(&families.parse().unwrap()).unwrap();
        let rounds = if seconds == 0 { 1 } else { ROUNDS };
        let mut took = Vec::new();
        for _ in 0..rounds {
            if active {
                send_all(&mut meter);
            }
            if name == "active, no event is due" {
                // All entries were just reported.
                meter.flush(now, SystemTime::now()).unwrap();
                send_all(&mut meter);
            }
            now += Duration::from_secs(seconds);
            let start = report::cpu_time();
            meter.drain(now, SystemTime::now()).unwrap();
            took.push(report::cpu_time() - start);
        }
        took.sort_unstable();
        rows.push((name, took[took.len() / 2]));
    }
    let mut text = format!(
        "Measured on {} by `make bench`: {} flow entries between {} pods, medians of {ROUNDS} rounds.\n\n\
         | entries | CPU time of a drain | of 10,000 entries |\n|---|---:|---:|\n",
        report::machine(),
        grouped(entries),
        2 * u64::from(PODS),
    );
    for (name, took) in rows {
        let millis = took.as_secs_f64() * 1e3;
        writeln!(text, "| {name} | {millis:.1} ms | {:.2} ms |", millis * 1e4 / entries as f64).unwrap();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim();
    writeln!(text, "\nThe process took at most {rss} of memory, outside the kernel's maps.").unwrap();
    println!("{text}");
    report::write("drain", &text);
}

/// Sends a packet for each entry.
fn send_all(meter: &mut Meter) {
    let datapath = meter.datapath();
    for (source, destination) in (0..PODS).flat_map(|source| (0..PODS).map(move |destination| (source, destination))) {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, source, 10, 1, 0, destination, 0xc3, 0x50, 0x1f, 0x90, 0, 8, 0, 0]);
        sys::test_run(datapath.programs()[0], &frame, Some(libc::AF_INET), 1).unwrap();
    }
}
