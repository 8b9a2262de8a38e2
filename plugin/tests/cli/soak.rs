//! An agent for a long time, with traffic, churn and faults: exact at the end, and flat in memory, descriptors and
//! threads. `make soak` runs it, as it takes too long for `make test`.

use crate::{
    Scratch,
    machine::{Machine, alone},
    meridian,
    network::{BpfFs, Mtus, Network, PEER, POD, traffic::sink},
    pair_log_once::{Disk, logged},
    restart::{StopOnDrop, page, sum, traffic},
    running::Running,
};
use meridian::{
    datapath::{Hook, Options},
    hubble::services::observer_client::ObserverClient,
    proto::observer::GetFlowsRequest,
};
use meridian_abi::IpVersion;
use nix::sys::signal::Signal;
use std::{
    env, fs,
    io::Read,
    net::{TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use tonic::transport::Endpoint;

/// Where the peer listens, and the first of the ports that come and go.
const PORT: u16 = 9000;
/// Ports that come and go: as many flows.
const PORTS: u16 = 500;
/// The time between two faults. A fault takes up to half of it.
const CYCLE: Duration = Duration::from_secs(6);
/// The limit of the growth of memory over the measured part of a run, by its slope.
const GROWTH_BYTES: f64 = (6 << 20) as f64;
/// The same of descriptors and threads.
const GROWTH_OTHERS: f64 = 3.0;

/// The resources of an agent at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    bytes: f64,
    descriptors: f64,
    threads: f64,
}

impl Sample {
    fn of(agent: &Running, since: Instant) -> Self {
        let entries = |folder: &str| fs::read_dir(format!("/proc/{}/{folder}", agent.id())).unwrap().count() as f64;
        Self {
            seconds: since.elapsed().as_secs_f64(),
            bytes: agent.resident() as f64,
            descriptors: entries("fd"),
            threads: entries("task"),
        }
    }
}

/// The growth of a value from the first to the last sample, by the line of least squares.
fn growth(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (at, height) = (mean(&|sample| sample.seconds), mean(&|sample| value(sample)));
    let (mut covariance, mut variance) = (0.0, 0.0);
    for sample in samples {
        covariance += (sample.seconds - at) * (value(sample) - height);
        variance += (sample.seconds - at).powi(2);
    }
    covariance / variance * (samples[samples.len() - 1].seconds - samples[0].seconds)
}

#[test]
fn the_growth_of_a_line_is_its_rise() {
    let sample = |n: u32, noise: f64| {
        let bytes = 3.0 * f64::from(n) + noise;
        Sample { seconds: f64::from(n), bytes, descriptors: noise, threads: 7.0 }
    };
    let samples: Vec<_> = (0..100).map(|n| sample(n, if n % 2 == 0 { 1.0 } else { -1.0 })).collect();
    let rise = growth(&samples, |sample| sample.bytes);
    assert!((rise - 297.0).abs() < 1.0, "{rise}");
    assert!(growth(&samples, |sample| sample.descriptors).abs() < 0.1);
    assert!(growth(&samples, |sample| sample.threads).abs() < 1e-9);
}

/// The zone file: the peer is another pod each time.
fn zones(turn: usize) -> String {
    format!(
        "zones:\n- {{name: a, region: r, cidrs: [10.0.1.0/24, 10.0.2.1/32]}}\n\
         - {{name: b, region: r, cidrs: [10.0.2.2/32, 10.9.{}.0/24]}}\nendpoints:\n\
         - {{ip: 10.0.1.2, namespace: shop, pod: cart-0, workload: {{kind: StatefulSet, name: cart}}}}\n\
         - {{ip: 10.0.2.2, namespace: shop, pod: db-{turn}, workload: {{kind: StatefulSet, name: db}}}}\n",
        turn % 256
    )
}

/// Replaces a file at once.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// Followers that read nothing, and requests to the HTTP port that are never whole, for a while.
fn crowd(network: &Network, socket: &Path, time: Duration) {
    let address = format!("unix://{}", socket.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let idle: Vec<_> =
        network.node.run(|| (0..40).filter_map(|_| TcpStream::connect("127.0.0.1:9980").ok()).collect()).unwrap();
    runtime.block_on(async {
        let mut stuck = Vec::new();
        let Ok(channel) = Endpoint::from_shared(address).unwrap().connect().await else { return };
        for _ in 0..100 {
            let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
            stuck.extend(ObserverClient::new(channel.clone()).get_flows(follow).await);
        }
        tokio::time::sleep(time).await;
    });
    drop::<Vec<TcpStream>>(idle);
}

struct Place<'n> {
    network: &'n Network,
    config: PathBuf,
    pins: PathBuf,
    log: PathBuf,
}

impl Place<'_> {
    fn agent(&self, args: &[&str]) -> Running {
        let (config, pins) = (&self.config, &self.pins);
        let spawn = || {
            let mut command = meridian(&["agent", "--config", config.to_str().unwrap()]);
            Running::spawn(command.args(args).env("MERIDIAN_PIN_DIR", pins))
        };
        self.network.node.run(spawn).unwrap()
    }

    /// Another agent, after this one has ended by a signal.
    fn restart(&self, agent: Option<Running>, signal: Signal) -> Running {
        let agent = agent.unwrap();
        agent.signal(signal);
        drop(agent.output());
        self.start()
    }

    fn start(&self) -> Running {
        let mut agent = self.agent(&[]);
        let (_, mut rest) = agent.stderr_until("is_pinned=true");
        thread::spawn(move || rest.read_to_end(&mut Vec::new()));
        agent
    }
}

fn signal(agent: Option<&Running>, signal: Signal) {
    agent.unwrap().signal(signal);
}

/// Packets to ports that come and go, until `stop`.
fn send(stop: &AtomicBool) {
    let socket = UdpSocket::bind((POD.of(IpVersion::V4), 0)).unwrap();
    let mut turn = 0u16;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..10 {
            // A third of them to the port of the sink.
            turn = turn.wrapping_add(1);
            let port = if turn.is_multiple_of(3) { PORT } else { PORT + 1 + turn % PORTS };
            // The answer to an earlier packet may be that nothing listens.
            let _ = socket.send_to(&[0; 100], (PEER.of(IpVersion::V4), port));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
#[ignore = "takes minutes: make soak"]
fn an_agent_is_exact_and_flat_after_traffic_churn_and_faults() {
    let minutes: f64 = env::var("MERIDIAN_SOAK_MINUTES").map_or(30.0, |text| text.parse().unwrap());
    let total = Duration::from_secs_f64(60.0 * minutes);
    let _alone = alone();
    let machine = Machine::now();
    let scratch = Scratch::new("soak");
    let (bpf, disk) = (BpfFs::new(scratch.as_ref().join("bpf")), Disk::with_size(scratch.as_ref().join("state"), "2m"));
    let (log, socket) = (scratch.as_ref().join("pairs.json"), scratch.as_ref().join("hubble.sock"));
    let file = scratch.file("zones.yaml", zones(0).as_bytes());
    let config = format!(
        "node: node-a\nzones_file: zones.yaml\nhook: {}\nhubble: {{listen: off, socket: {}}}\nstate_dir: {}\n\
         pair_log: {{output: {}, interval: 1s}}\n",
        Hook::Netfilter,
        socket.display(),
        disk.0.display(),
        log.display()
    );
    let config = scratch.file("agent.yaml", config.as_bytes());
    let network = Network::unattached(Options { flow_slots: 64, ..Options::default() }, Mtus(1500, 1500));
    let place = Place { network: &network, config, pins: bpf.0.join("meridian"), log };
    let mut agent = Some(place.start());
    let before = network.wire();
    let _sink = sink(&network.peer, PEER.of(IpVersion::V4), PORT);
    let stop = AtomicBool::new(false);
    let (mut samples, mut faults) = (Vec::new(), 0);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let (pod, stop) = (&network.pod, &stop);
        scope.spawn(move || pod.run(|| send(stop)).unwrap());
        let began = Instant::now();
        // Kills for the first quarter. After that, one agent lives through everything else.
        while began.elapsed() < total {
            let cycle = Instant::now();
            let is_killing = began.elapsed() < total / 4;
            replace(&file, &zones(faults));
            match faults % 4 {
                0 if is_killing => {
                    agent = Some(place.restart(agent.take(), Signal::SIGKILL));
                }
                1 if is_killing => {
                    agent = Some(place.restart(agent.take(), Signal::SIGTERM));
                }
                0 | 2 => crowd(&network, &socket, CYCLE / 3),
                1 => {
                    signal(agent.as_ref(), Signal::SIGSTOP);
                    thread::sleep(CYCLE / 3);
                    signal(agent.as_ref(), Signal::SIGCONT);
                }
                _ => {
                    disk.fill();
                    thread::sleep(CYCLE / 3);
                    let _ = fs::remove_file(disk.0.join("full"));
                }
            }
            faults += 1;
            thread::sleep(CYCLE.saturating_sub(cycle.elapsed()));
            if !is_killing {
                samples.extend(agent.as_ref().map(|agent| Sample::of(agent, began)));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Until all of it is read.
    let sent = || network.wire().bytes - before.bytes;
    for _ in 0..200 {
        if sum(&traffic(&network), "meridian_zone_bytes_total") == sent() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let series = traffic(&network);
    assert!(page(&network, "/healthz").starts_with("HTTP/1.1 200"));
    signal(agent.as_ref(), Signal::SIGTERM);
    assert_eq!(agent.unwrap().output().code, Some(0));
    let (packets, logged) = (network.wire().packets - before.packets, logged(&place.log));
    assert_eq!(sum(&series, "meridian_zone_bytes_total"), sent());
    assert_eq!(sum(&series, "meridian_zone_packets_total"), packets);
    assert!(logged <= sent(), "{logged} bytes were logged of {}", sent());
    println!("{minutes} minutes, {faults} faults, {packets} packets, {} bytes exact, {logged} logged", sent());
    assert_flat(&samples);
    assert_eq!(place.agent(&["--unload"]).output().code, Some(0));
    drop((network, bpf, disk));
    machine.is_restored();
}

/// Memory, descriptors and threads do not grow. The first fifth of the samples is the warm-up of buffers.
fn assert_flat(samples: &[Sample]) {
    let samples = &samples[samples.len() / 5..];
    let rise = |value: fn(&Sample) -> f64| growth(samples, value);
    let (bytes, descriptors, threads) =
        (rise(|sample| sample.bytes), rise(|sample| sample.descriptors), rise(|sample| sample.threads));
    let last = samples[samples.len() - 1];
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    println!(
        "{} samples: memory {:.1} MiB, growth {:.2} MiB; descriptors {}, growth {descriptors:.2}; threads {}, growth \
         {threads:.2}",
        samples.len(),
        mib(last.bytes),
        mib(bytes),
        last.descriptors,
        last.threads
    );
    assert!(bytes < GROWTH_BYTES, "memory grows: {samples:?}");
    assert!(descriptors < GROWTH_OTHERS && threads < GROWTH_OTHERS, "descriptors or threads grow: {samples:?}");
}
