//! What a datagram costs more with a program at netfilter than without: ten thousand flow entries in
//! turn, on real devices, in interleaved rounds. Writes its table into docs/performance.md.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod report;

use meridian::{
    datapath::{Datapath, Device, Devices, Options, accept_all, sys},
    demo::{links::configure, namespace::Namespace},
    zones::{Slots, Table},
};
use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    time::Instant,
};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ROUNDS: usize = 15;
const DATAGRAMS: usize = 300_000;
const ENTRIES: u16 = 10_000;
const FIRST_PORT: u16 = 10_000;

fn main() {
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
    // Nobody answers that a port is closed.
    meridian::demo::links::sysctl(&peer, "ipv4/icmp_ratemask", "8").unwrap();
    meridian::demo::links::sysctl(&peer, "ipv4/icmp_ratelimit", "1000000").unwrap();

    let mut times: [Vec<f64>; 3] = Default::default();
    let mut attributed = (0, 0);
    for round in 0..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for (program, times) in times.iter_mut().enumerate() {
            let mut datapath = Datapath::load(Options::default()).unwrap();
            datapath.set_devices(Devices { devices: vec![Device::uplink(uplink)], ..Devices::default() }).unwrap();
            datapath.apply_zones(&Table::new(), Table::new().networks(), &Slots::default()).unwrap();
            let empty = accept_all().unwrap();
            let attach = || match program {
                0 => None,
                1 => Some(sys::attach_postrouting(empty.as_fd(), libc::AF_INET, 50).unwrap()),
                _ => {
                    datapath.attach().unwrap();
                    None
                }
            };
            let link = node.run(attach).unwrap();
            let took = node.run(send).unwrap();
            // The first round warms up.
            if round > 0 {
                times.push(took);
            }
            if program == 2 {
                let counted: u64 = datapath.matrix().unwrap().iter().map(|cell| cell.counter.packets).sum();
                attributed = (datapath.attributed().packets, counted);
            }
            drop(link);
        }
    }
    let [none, empty, ours] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    let text = format!(
        "Measured on {} by `make bench`: medians of {ROUNDS} interleaved rounds of {DATAGRAMS} datagrams.\n\n\
         | program at netfilter | ns a datagram | more than without |\n|---|---:|---:|\n\
         | none | {none:.0} | |\n| empty | {empty:.0} | {:.0} |\n| Meridian's | {ours:.0} | {:.0} |\n\n\
         Of {} datagrams in the matrix {} were in flow entries.\n",
        report::machine(),
        empty - none,
        ours - none,
        attributed.1,
        attributed.0,
    );
    println!("{text}");
    report::write("live", &text);
}

/// Nanoseconds a datagram.
fn send() -> f64 {
    let socket = UdpSocket::bind((NODE, 0)).unwrap();
    let start = Instant::now();
    for n in 0..DATAGRAMS {
        socket.send_to(&[0; 64], (PEER, FIRST_PORT + (n % usize::from(ENTRIES)) as u16)).unwrap();
    }
    start.elapsed().as_nanos() as f64 / DATAGRAMS as f64
}
