//! The cost of a packet at netfilter when ten thousand connections, each with its own flow entry, send in turn on real
//! devices: the kernel measures the time of each run. Writes its table into docs/performance.md.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod report;

use meridian::{
    datapath::{Datapath, Device, Devices, Options, accept_all, sys},
    netlab::{links::configure, namespace::Namespace},
    units::grouped,
    zones::{Slots, Table},
};
use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ROUNDS: usize = 41;
const DATAGRAMS: usize = 50_000;
const CONNECTIONS: [u16; 3] = [1, 100, 10_000];
const FIRST_PORT: u16 = 10_000;

fn main() {
    let [node, peer] = ["node", "peer"].map(|name| Namespace::new(name).unwrap());
    let uplink = configure(&node, "setting up", async |links| {
        links.veth("up0", "eth0", peer.as_raw_fd()).await?;
        links.up("up0", None).await?;
        links.address("up0", NODE.into(), 24).await?;
        let index = links.index("up0").await?;
        // No host has this address, so the peer drops arriving packets at once.
        links.handle().neighbours().add(index, PEER.into()).link_layer_address(&[2, 0, 0, 0, 0, 9]).execute().await?;
        Ok(index)
    })
    .unwrap();
    configure(&peer, "setting up", async |links| links.up("eth0", None).await).unwrap();

    let _timed = sys::time_runs().unwrap();
    let mut times: [[Vec<f64>; 2]; CONNECTIONS.len()] = Default::default();
    let mut attributed = (0, 0);
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for (connections, [empty_times, times]) in CONNECTIONS.into_iter().zip(&mut times) {
            let empty = accept_all().unwrap();
            let link = node.run(|| sys::attach_postrouting(empty.as_fd(), libc::AF_INET, 50).unwrap()).unwrap();
            empty_times.push(node.run(|| a_run(empty.as_fd(), connections)).unwrap());
            drop(link);

            let mut datapath = Datapath::load(Options::default()).unwrap();
            datapath.set_devices(Devices { devices: vec![Device::uplink(uplink)], ..Devices::default() }).unwrap();
            datapath.apply_zones(&Table::new(), Table::new().networks(), &Slots::default()).unwrap();
            let mut attach = || datapath.attach().unwrap();
            node.run(&mut attach).unwrap();
            let entry = datapath.entries()[0];
            times.push(node.run(|| a_run(entry, connections)).unwrap());
            let counted: u64 = datapath.matrix().unwrap().iter().map(|cell| cell.counter.packets).sum();
            attributed.0 += datapath.attributed().packets;
            attributed.1 += counted;
        }
    }

    let mut text = format!(
        "Measured on {} by `make bench`: medians and quartiles of {ROUNDS} interleaved rounds of {} datagrams each, as \
         the kernel times each run.\n\n\
         | connections | empty program, ns | Meridian's, ns | more |\n|---:|---:|---:|---:|\n",
        report::machine(),
        grouped(DATAGRAMS as u64),
    );
    for (connections, [empty, ours]) in CONNECTIONS.into_iter().zip(times) {
        let more = ours.iter().zip(&empty).map(|(ours, empty)| ours - empty).collect();
        let [empty, ours, more] = [empty, ours, more].map(quartiles);
        text += &format!("| {} | {empty} | {ours} | {more} |\n", grouped(connections.into()));
    }
    let (known, counted) = attributed;
    text += &format!("\nOf {} datagrams in the matrix {} were in flow entries.\n", grouped(counted), grouped(known));
    println!("{text}");
    report::write("live", &text);
}

/// The median, and the quartiles around it.
fn quartiles(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let [low, median, high] = [1, 2, 3].map(|part| values[(values.len() - 1) * part / 4]);
    format!("{median:.0} ({low:.0}–{high:.0})")
}

/// Sends, and returns the nanoseconds of a run of the program.
fn a_run(program: BorrowedFd<'_>, connections: u16) -> f64 {
    let socket = UdpSocket::bind((NODE, 0)).unwrap();
    let send = |datagrams: usize| {
        for n in 0..datagrams {
            socket.send_to(&[0; 64], (PEER, FIRST_PORT + (n % usize::from(connections)) as u16)).unwrap();
        }
    };
    // The first datagram of each connection makes its entry, and is announced as an event.
    send(connections.into());
    let before = sys::run_time(program).unwrap();
    send(DATAGRAMS);
    let after = sys::run_time(program).unwrap();
    assert_eq!(after.1 - before.1, DATAGRAMS as u64, "another program's runs");
    (after.0 - before.0).as_nanos() as f64 / DATAGRAMS as f64
}
