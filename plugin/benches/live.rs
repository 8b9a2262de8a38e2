//! The cost of a packet when many connections, each with its own flow entry, send in turn on real devices, in the order in
//! which they were made and in a random one: the kernel measures the time of each run. Writes its table into
//! docs/performance.md.
//!
//! `cargo bench --profile dev --bench live -- --rounds 21` for more rounds.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod report;

use ipnetwork::IpNetwork;
use meridian::{
    datapath::{Datapath, Device, Devices, Hook, Options, accept_all, next, sys},
    netlab::{links::configure, namespace::Namespace},
    units::grouped,
    zones::{Slots, Table},
};
use std::{
    env,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

const DATAGRAMS: usize = 60_000;
const CONNECTIONS: [usize; 4] = [1, 100, 10_000, 60_000];
const FIRST_PORT: u16 = 10_000;
/// One source may have a part of the flow entries only.
const CONNECTIONS_OF_A_SOURCE: usize = 15_000;
const SOURCES: u8 = 4;

/// The addresses of the node and of its peer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn node(self, source: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, 2, 1 + source).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0, 0, 2, 0, 0, 0, 1 + u16::from(source)).into(),
        }
    }

    fn peer(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, 2, 99).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0, 0, 2, 0, 0, 0, 99).into(),
        }
    }
}

/// What is measured, and the nanoseconds of a run in each round: of an empty program, and of Meridian's.
struct Case {
    hook: Hook,
    family: Family,
    connections: usize,
    is_random: bool,
    times: [Vec<f64>; 2],
}

/// The datagrams that went into the matrix, and those in flow entries.
#[derive(Default)]
struct Attributed {
    counted: u64,
    known: u64,
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let rounds =
        args.iter().position(|arg| arg == "--rounds").and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(9);
    let [node, peer] = ["node", "peer"].map(|name| Namespace::new(name).unwrap());
    let uplink = configure(&node, "setting up", async |links| {
        links.veth("up0", "eth0", peer.as_raw_fd()).await?;
        links.up("up0", None).await?;
        let index = links.index("up0").await?;
        for (family, len) in [(Family::V4, 24), (Family::V6, 64)] {
            for source in 0..SOURCES {
                links.address("up0", family.node(source), len).await?;
            }
            // No host has this address, so the peer drops arriving packets at once.
            let neighbours = links.handle().neighbours();
            neighbours.add(index, family.peer()).link_layer_address(&[2, 0, 0, 0, 0, 9]).execute().await?;
        }
        Ok(index)
    })
    .unwrap();
    configure(&peer, "setting up", async |links| links.up("eth0", None).await).unwrap();

    let _timed = sys::time_runs().unwrap();
    let mut cases = cases();
    let (mut attributed, mut loads) = (Attributed::default(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for case in &mut cases {
            node.run(|| measure(case, uplink, &mut attributed)).unwrap();
        }
        loads.push(load());
    }
    let text = result(cases, &attributed, rounds, &mut loads);
    println!("{text}");
    report::write("live", &text);
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (hook, family) in
        [Hook::Netfilter, Hook::Tcx].into_iter().flat_map(|hook| [(hook, Family::V4), (hook, Family::V6)])
    {
        for connections in CONNECTIONS {
            // Few connections stay in the cache in every order.
            for is_random in [false, true].into_iter().take(if connections > 100 { 2 } else { 1 }) {
                cases.push(Case { hook, family, connections, is_random, times: Default::default() });
            }
        }
    }
    cases
}

/// Measures an empty program, then Meridian's.
fn measure(case: &mut Case, uplink: u32, attributed: &mut Attributed) {
    let order = order(case.connections, case.is_random);
    let (empty, link) = empty(case.hook, case.family, uplink);
    case.times[0].push(a_run(empty.as_fd(), case, &order));
    drop(link);

    let mut datapath = Datapath::load(Options { hook: case.hook, ..Options::default() }).unwrap();
    datapath.set_devices(Devices { devices: vec![Device::uplink(uplink)], ..Devices::default() }).unwrap();
    datapath.apply_zones(&Table::new(), std::iter::empty::<IpNetwork>(), &Slots::default()).unwrap();
    datapath.attach().unwrap();
    let program = datapath.entries()[usize::from(case.hook == Hook::Netfilter && case.family == Family::V6)];
    let time = a_run(program, case, &order);
    case.times[1].push(time);
    attributed.known += datapath.attributed().packets;
    attributed.counted += datapath.matrix().unwrap().iter().map(|cell| cell.counter.packets).sum::<u64>();
}

/// A program that does nothing, and its link.
fn empty(hook: Hook, family: Family, uplink: u32) -> (OwnedFd, OwnedFd) {
    let family = if family == Family::V6 { libc::AF_INET6 } else { libc::AF_INET };
    if hook == Hook::Netfilter {
        let program = accept_all().unwrap();
        let link = sys::attach_postrouting(program.as_fd(), family, 50).unwrap();
        (program, link)
    } else {
        let program = next().unwrap();
        let link = sys::attach_tcx(program.as_fd(), uplink, sys::Side::Egress).unwrap();
        (program, link)
    }
}

/// The numbers of the connections in the order in which they send.
fn order(connections: usize, is_random: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..connections).collect();
    if is_random {
        // Fisher and Yates, with a xorshift.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for last in (1..connections).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            order.swap(last, (state >> 11) as usize % (last + 1));
        }
    }
    order
}

/// Sends, and returns the nanoseconds of a run of the program.
fn a_run(program: BorrowedFd<'_>, case: &Case, order: &[usize]) -> f64 {
    let sockets: Vec<UdpSocket> =
        (0..SOURCES).map(|source| UdpSocket::bind((case.family.node(source), 0)).unwrap()).collect();
    let send = |connection: usize| {
        let port = FIRST_PORT + (connection % CONNECTIONS_OF_A_SOURCE) as u16;
        sockets[connection / CONNECTIONS_OF_A_SOURCE].send_to(&[0; 64], (case.family.peer(), port)).unwrap();
    };
    // The first datagram of each connection makes its entry, and is announced as an event.
    (0..case.connections).for_each(send);
    let before = sys::run_time(program).unwrap();
    order.iter().copied().cycle().take(DATAGRAMS).for_each(send);
    let after = sys::run_time(program).unwrap();
    // The kernel itself sends a few over IPv6.
    let runs = after.1 - before.1;
    assert!((DATAGRAMS as u64..DATAGRAMS as u64 + 100).contains(&runs), "{runs}: another program's runs");
    (after.0 - before.0).as_nanos() as f64 / runs as f64
}

/// The processes that are running or ready to run now, this one included.
fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    load.split(' ').next().and_then(|minute| minute.parse().ok()).unwrap_or(f64::NAN)
}

fn result(cases: Vec<Case>, attributed: &Attributed, rounds: usize, loads: &mut [f64]) -> String {
    loads.sort_by(f64::total_cmp);
    let mut text = format!(
        "Measured on {} by `make bench`: medians and quartiles of {rounds} interleaved rounds of {} datagrams each, as \
         the kernel times each run. The machine's load of a minute was {:.1} to {:.1} meanwhile, this bench included.\n\n\
         | hook | connections | order | empty program, ns | Meridian's, ns | more |\n|---|---:|---|---:|---:|---:|\n",
        report::machine(),
        grouped(DATAGRAMS as u64),
        loads.first().unwrap(),
        loads.last().unwrap(),
    );
    for Case { hook, family, connections, is_random, times: [empty, ours] } in cases {
        let more = ours.iter().zip(&empty).map(|(ours, empty)| ours - empty).collect();
        let [empty, ours, more] = [empty, ours, more].map(quartiles);
        let family = if family == Family::V6 { "IPv6" } else { "IPv4" };
        let order = if is_random { "random" } else { "as made" };
        let connections = grouped(connections as u64);
        writeln!(text, "| {hook}, {family} | {connections} | {order} | {empty} | {ours} | {more} |").unwrap();
    }
    let Attributed { counted, known } = attributed;
    writeln!(text, "\nOf {} datagrams in the matrix {} were in flow entries.", grouped(*counted), grouped(*known))
        .unwrap();
    text
}

/// The median, and the quartiles around it.
fn quartiles(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let [low, median, high] = [1, 2, 3].map(|part| values[(values.len() - 1) * part / 4]);
    format!("{median:.0} ({low:.0}–{high:.0})")
}
