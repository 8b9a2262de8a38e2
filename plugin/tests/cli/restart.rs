//! An agent that ends in any way leaves its counters to the next one; `--unload` removes everything.

use crate::{
    Scratch,
    confined::{CAPABILITIES, confine},
    machine::{Machine, alone},
    meridian,
    network::{BpfFs, Mtus, Network, PEER, POD, traffic::sink},
    running::Running,
};
use meridian::datapath::{Hook, Options};
use meridian_abi::IpVersion;
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const PORT: u16 = 9000;
const ZONES: &str = "zones:
- {name: a, region: r, cidrs: [10.0.1.0/24, 10.0.2.1/32, fd00:1::/64, fd00:2::1/128]}
- {name: b, region: r, cidrs: [10.0.2.2/32, fd00:2::2/128]}
endpoints:
- {ip: 10.0.1.2, namespace: shop, pod: cart-0, workload: {kind: StatefulSet, name: cart}}
- {ip: 10.0.2.2, namespace: shop, pod: db-0, workload: {kind: StatefulSet, name: db}}
";

/// The pins of the file system.
fn pinned(bpf: &BpfFs) -> Vec<PathBuf> {
    let entries = fs::read_dir(bpf.0.join("meridian")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Stops the traffic when it is dropped.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The agent's answer on its HTTP port; empty if there is none.
pub(crate) fn page(network: &Network, path: &str) -> String {
    let get = || {
        let mut stream = TcpStream::connect("127.0.0.1:9980").ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    };
    network.node.run(get).unwrap().unwrap_or_default()
}

/// The traffic series on the agent's page, with their values.
pub(crate) fn traffic(network: &Network) -> BTreeMap<String, u64> {
    let page = page(network, "/metrics");
    let families = ["meridian_zone_", "meridian_pod_", "meridian_workload_", "pod_cross_zone_", "kubecost_"];
    let series = page.lines().filter(|line| families.iter().any(|family| line.starts_with(family)));
    series
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse::<f64>().unwrap() as u64))
        .collect()
}

pub(crate) fn sum(series: &BTreeMap<String, u64>, family: &str) -> u64 {
    series.iter().filter(|(name, _)| name.starts_with(family)).map(|(_, value)| value).sum()
}

fn restart(hook: Hook, signal: Signal) {
    let _alone = alone();
    let before = Machine::now();
    let scratch = Scratch::new(&format!("goes-on-{hook}-{signal}"));
    let bpf = BpfFs::new(scratch.as_ref().join("bpf"));
    scratch.file("zones.yaml", ZONES.as_bytes());
    let config = format!(
        "node: node-a\nzones_file: zones.yaml\nhook: {hook}\nhubble: {{socket: off}}\npair_log: {{output: off}}\n\
         metrics: {{pods: true}}\nstate_dir: {}\n",
        scratch.as_ref().join("state").display()
    );
    let config = scratch.file("agent.yaml", config.as_bytes());
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let pins = bpf.0.join("meridian");
    // With the capabilities of a pod.
    let agent_with = |capabilities: &[u32], args: &[&str]| {
        let spawn = || {
            let mut command = meridian(&["agent", "--config", config.to_str().unwrap()]);
            command.args(args).env("MERIDIAN_PIN_DIR", &pins);
            confine(&mut command, capabilities, &[scratch.as_ref()]);
            Running::spawn(&mut command)
        };
        network.node.run(spawn).unwrap()
    };
    let all = CAPABILITIES.map(|(_, number)| number);
    let agent = |args: &[&str]| agent_with(&all, args);
    for (name, number) in CAPABILITIES {
        let others: Vec<u32> = all.into_iter().filter(|other| *other != number).collect();
        let output = agent_with(&others, &[]).output();
        let expected = format!("meridian: the capability {name} is missing, to ");
        assert!(output.code == Some(1) && output.stderr.starts_with(&expected), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
    let start = || {
        let mut agent = agent(&[]);
        let (output, rest) = agent.stderr_until("is_pinned=true");
        // Reads to the end, so that the agent never blocks on its output.
        thread::spawn(move || {
            let mut rest = rest;
            let _ = rest.read_to_end(&mut Vec::new());
        });
        (agent, output)
    };
    let (first, output) = start();
    assert!(!output.contains("go on"), "{output}");
    let wire = network.wire();
    let _sink = sink(&network.peer, PEER.of(IpVersion::V4), PORT);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let send = || {
            let socket = UdpSocket::bind((POD.of(IpVersion::V4), 0)).unwrap();
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    socket.send_to(&[0; 100], (PEER.of(IpVersion::V4), PORT)).unwrap();
                }
                thread::sleep(Duration::from_millis(2));
            }
        };
        // Also when the test fails.
        let _stop = StopOnDrop(&stop);
        let pod = &network.pod;
        scope.spawn(move || pod.run(send).unwrap());
        let reported = |at_least: u64| {
            for _ in 0..400 {
                let series = traffic(&network);
                if sum(&series, "meridian_pod_packets_total") > at_least {
                    return series;
                }
                thread::sleep(Duration::from_millis(50));
            }
            panic!("nothing is reported: {:?}", traffic(&network));
        };
        let before = reported(2000);
        first.signal(signal);
        drop(first.output());
        // The kernel continues to count without an agent.
        thread::sleep(Duration::from_secs(3));
        let (second, output) = start();
        let kept = signal == Signal::SIGTERM;
        assert!(!kept || output.contains("the counters of the earlier agent continue"), "{output}");
        let after = reported(sum(&before, "meridian_pod_packets_total"));
        for (series, value) in &before {
            assert!(after.get(series).is_some_and(|after| after >= value), "{series} was {value}: {after:?}");
        }
        stop.store(true, Ordering::Relaxed);
        // Waits until everything is reported.
        for _ in 0..100 {
            let sent = network.wire().bytes - wire.bytes;
            let series = traffic(&network);
            if sum(&series, "meridian_zone_bytes_total") == sent && sum(&series, "meridian_pod_bytes_total") == sent {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let (sent, series) = (network.wire(), traffic(&network));
        let families = [
            "meridian_zone_bytes_total",
            "meridian_pod_bytes_total",
            "meridian_workload_bytes_total",
            "pod_cross_zone_network_traffic_bytes_total",
        ];
        for family in families {
            assert_eq!(sum(&series, family), sent.bytes - wire.bytes, "{hook} {family}");
        }
        assert_eq!(sum(&series, "meridian_zone_packets_total"), sent.packets - wire.packets);

        // While an agent runs, nothing is removed.
        let refused = agent(&["--unload"]).output();
        assert_eq!(refused.code, Some(1));
        assert!(
            refused.stderr.contains("another agent counts here already") && refused.stderr.ends_with("end it first\n"),
            "{refused:?}"
        );
        second.signal(Signal::SIGTERM);
        assert_eq!(second.output().code, Some(0));
    });
    assert_eq!(pinned(&bpf).len(), 1);
    // With `--stay` the process reports on its health port that it is done.
    let unload = agent(&["--unload", "--stay"]);
    for _ in 0..200 {
        if page(&network, "/readyz").ends_with("ok\n") {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert!(page(&network, "/readyz").ends_with("ok\n") && pinned(&bpf).is_empty());
    unload.signal(Signal::SIGTERM);
    let output = unload.output();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    assert!(pinned(&bpf).is_empty() && !scratch.as_ref().join("state").exists(), "{:?}", pinned(&bpf));
    drop((network, bpf));
    before.is_restored();
}

#[test]
fn a_killed_agent_loses_nothing_at_netfilter() {
    restart(Hook::Netfilter, Signal::SIGKILL);
}

#[test]
fn a_killed_agent_loses_nothing_at_tcx() {
    restart(Hook::Tcx, Signal::SIGKILL);
}

#[test]
fn a_killed_agent_loses_nothing_at_clsact() {
    restart(Hook::Clsact, Signal::SIGKILL);
}

#[test]
fn an_agent_that_is_replaced_hands_its_sums_on() {
    restart(Hook::Netfilter, Signal::SIGTERM);
}
