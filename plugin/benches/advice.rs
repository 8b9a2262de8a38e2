//! Advice for a large cluster: 5,000 nodes, 150,000 pods, 10,000 services, 100,000 pairs of workloads over seven days.
//! Writes the CPU time of the sums over the history and that of the rules, and the memory above the rest, into
//! docs/performance.md. The time to read the history from the disk is not a part of it.
#![allow(clippy::unwrap_used, reason = "a bench that can't go on fails here")]

use meridian::{
    advice::{Advice, Options, Snapshot, Traffic},
    catalogue::{Catalogue, DataPlane, Endpoints, Kubernetes, Service, WorkloadName},
    cost::PriceTable,
    history::{Block, Builder, Ends, Server, Span, TransferService, Workload},
    zones::{Location, Place, Provider, Zone},
};
use meridian_abi::Counter;
use std::{fs, sync::Arc, time::Duration};

mod report;

const SERVICES: usize = 10_000;
const PAIRS: usize = 100_000;
const HOURS: u64 = 24 * 7;
const ROUNDS: usize = 5;
/// The limits of an answer.
const MAX_SECONDS: f64 = 2.0;
const MAX_MEBIBYTES: u64 = 256;
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

fn workload_of(number: usize) -> Workload {
    let (namespace, name) = (format!("team-{}", number % 200), format!("workload-{number}"));
    Workload { namespace, kind: "Deployment".into(), name, ..Workload::default() }
}

fn service(number: usize) -> String {
    format!("team-{}/workload-{number}", number % 200)
}

fn catalogue() -> Catalogue {
    let ready = ZONES.map(|zone| (zone.to_owned(), 5));
    let one = |number: usize| {
        let endpoints = Endpoints { ready: ready.clone().into(), unhinted: 15, ..Endpoints::default() };
        (service(number), Service { endpoints, ..Service::default() })
    };
    let workload = |number: usize| {
        let Workload { namespace, kind, name, .. } = workload_of(number);
        (WorkloadName { namespace, kind, name }, ready.clone().into())
    };
    Catalogue {
        services: (0..SERVICES).map(one).collect(),
        workloads: (0..SERVICES).map(workload).collect(),
        kubernetes: Kubernetes::parse("v1.34.0"),
        data_plane: DataPlane::KubeProxy,
    }
}

/// An hour in which each pair is in one pair of zones, another one each hour.
fn block(hour: u64, workloads: &[Workload]) -> Block {
    let sites = ZONES.map(|zone| Location {
        provider: Provider::new("aws"),
        place: Place::Zone(Arc::new(Zone { name: zone.into(), region: "us-east-1".into() })),
        class: None,
    });
    let mut builder = Builder::new(Span::hour_of(hour * 3600), Builder::MAX_ROOM);
    for pair in 0..PAIRS {
        let (client, server) = (pair % SERVICES, (pair * 7 + pair / SERVICES) % SERVICES);
        let sites = [&sites[pair % 3], &sites[(pair / 3 + hour as usize % 2) % 3]];
        let name = service(server);
        let serving = TransferService { service: &name, port: 8080, protocol: 6, server: Server::Destination };
        let ends = Ends { workloads: [&workloads[client], &workloads[server]], sites };
        builder.add(ends, serving, Counter { bytes: 1_000_000 + pair as u64, packets: 1000 });
    }
    builder.add_recorded(3600);
    builder.block()
}

fn memory(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The time that this thread has used a CPU: others on the machine do not count.
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// The middle one, in seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn main() {
    let workloads: Vec<Workload> = (0..SERVICES).map(workload_of).collect();
    let (catalogue, prices) = (catalogue(), PriceTable::default());
    let mut blocks = [block(0, &workloads), block(1, &workloads)];
    drop(workloads);
    let before = memory("VmRSS:");
    let (mut sums, mut rules, mut shape) = (Vec::new(), Vec::new(), (0, 0));
    for _ in 0..ROUNDS {
        let start = cpu();
        let mut traffic = Traffic::default();
        for hour in 0..HOURS {
            let block = &mut blocks[hour as usize % 2];
            block.span = Span::hour_of(hour * 3600);
            traffic.add(block);
        }
        let summed = cpu();
        let snapshot = Snapshot { traffic: &traffic, catalogue: &catalogue, prices: &prices };
        let advice = Advice::new(&snapshot, &Options::all());
        let text = advice.json().to_string();
        assert!(text.len() > 1000, "{text}");
        sums.push(summed - start);
        rules.push(cpu() - summed);
        shape = (traffic.flows().len(), advice.findings.len() + advice.above_cap + advice.below_floor);
    }
    let ((flows, findings), memory) = (shape, memory("VmHWM:").saturating_sub(before) >> 10);
    let (sums, rules) = (median(&mut sums), median(&mut rules));
    let text = format!(
        "Measured on {} by `make bench`: medians of {ROUNDS} rounds, in CPU time.\n\n| advice for 10,000 services and {PAIRS} \
         pairs, seven days by the hour | |\n|---|---:|\n| sums of {} rows | {sums:.2} s |\n| rules over {flows} flows, \
         {findings} findings, JSON | {rules:.2} s |\n| memory above the catalogue and two blocks, at most | {memory} MiB |\n",
        report::machine(),
        HOURS as usize * PAIRS,
    );
    println!("{text}");
    report::write("advice", &text);
    assert!(sums + rules <= MAX_SECONDS && memory <= MAX_MEBIBYTES, "more than {MAX_SECONDS} s or {MAX_MEBIBYTES} MiB");
}
