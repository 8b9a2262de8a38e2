//! How many bytes a second one TCP stream and 64 carry out of a node with the programs and without, in interleaved
//! rounds, between namespaces. Writes its table into docs/performance.md.
//!
//! `cargo bench --profile dev --bench throughput -- --rounds 21` for more rounds.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod report;

use ipnetwork::IpNetwork;
use meridian::{
    datapath::{Datapath, Device, Devices, Hook, Options},
    netlab::{links::configure, namespace::Namespace},
    zones::{Slots, Table},
};
use std::{
    env,
    fmt::Write as _,
    io::{Read, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const STREAMS: [usize; 2] = [1, 64];
const HOOKS: [Option<Hook>; 3] = [None, Some(Hook::Netfilter), Some(Hook::Tcx)];
const TIME: Duration = Duration::from_millis(1500);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

fn main() {
    let args: Vec<String> = env::args().collect();
    let rounds =
        args.iter().position(|arg| arg == "--rounds").and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(9);
    let [node, peer] = ["node", "peer"].map(|name| Namespace::new(name).unwrap());
    let uplink = configure(&node, "setting up", async |links| {
        links.veth("up0", "eth0", peer.as_raw_fd()).await?;
        links.up("up0", None).await?;
        links.address("up0", NODE.into(), 24).await?;
        links.index("up0").await
    })
    .unwrap();
    configure(&peer, "setting up", async |links| {
        links.up("eth0", None).await?;
        links.address("eth0", PEER.into(), 24).await
    })
    .unwrap();
    // Gigabits a second in each round, by streams and hook.
    let mut rates = STREAMS.map(|_| HOOKS.map(|_| Vec::new()));
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for (streams, rates) in STREAMS.into_iter().zip(&mut rates) {
            for (hook, rates) in HOOKS.into_iter().zip(rates) {
                let attached = hook.map(|hook| node.run(|| attached(hook, uplink)).unwrap());
                rates.push(rate(&node, &peer, streams));
                if let Some(datapath) = &attached {
                    let counted: u64 = datapath.matrix().unwrap().iter().map(|cell| cell.counter.bytes).sum();
                    assert!(counted > 0, "the programs are on the way");
                }
                node.run(|| drop(attached)).unwrap();
            }
        }
    }
    let text = result(&rates, rounds);
    println!("{text}");
    report::write("throughput", &text);
}

fn attached(hook: Hook, uplink: u32) -> Datapath {
    let mut datapath = Datapath::load(Options { hook, ..Options::default() }).unwrap();
    datapath.set_devices(Devices { devices: vec![Device::uplink(uplink)], ..Devices::default() }).unwrap();
    datapath.apply_zones(&Table::new(), std::iter::empty::<IpNetwork>(), &Slots::default()).unwrap();
    datapath.attach().unwrap();
    datapath
}

/// The gigabits a second that arrive at the peer.
fn rate(node: &Namespace, peer: &Namespace, streams: usize) -> f64 {
    let listener = peer.run(|| TcpListener::bind((PEER, 0)).unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let senders = node.run(|| (0..streams).map(|_| TcpStream::connect(to).unwrap()).collect::<Vec<_>>()).unwrap();
    let receivers: Vec<TcpStream> = (0..streams).map(|_| listener.accept().unwrap().0).collect();
    let received = AtomicU64::new(0);
    let took = thread::scope(|scope| {
        for receiver in receivers {
            scope.spawn(|| receive(receiver, &received));
        }
        let start = Instant::now();
        for sender in senders {
            scope.spawn(move || send(sender, start + TIME));
        }
        start
    })
    .elapsed();
    received.into_inner() as f64 * 8.0 / 1e9 / took.as_secs_f64()
}

fn send(mut to: TcpStream, until: Instant) {
    let buffer = vec![0; 128 << 10];
    while Instant::now() < until {
        to.write_all(&buffer).unwrap();
    }
}

fn receive(mut from: TcpStream, received: &AtomicU64) {
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return,
            bytes => received.fetch_add(bytes as u64, Ordering::Relaxed),
        };
    }
}

fn result(rates: &[[Vec<f64>; HOOKS.len()]; STREAMS.len()], rounds: usize) -> String {
    let mut text = format!(
        "Measured on {} by `make bench`: gigabits a second between two namespaces, both ends on these CPUs, medians of \
         {rounds} interleaved rounds of {:.1} s, and in brackets the median of each round's part of the rate without a \
         program.\n\n| TCP streams | without | at netfilter | at tcx |\n|---:|---:|---:|---:|\n",
        report::machine(),
        TIME.as_secs_f64(),
    );
    for (streams, [without, hooks @ ..]) in STREAMS.into_iter().zip(rates) {
        write!(text, "| {streams} | {:.1} |", median(without.clone())).unwrap();
        for with in hooks {
            let part = with.iter().zip(without).map(|(with, without)| with / without).collect();
            write!(text, " {:.1} ({:.3}) |", median(with.clone()), median(part)).unwrap();
        }
        text.push('\n');
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
