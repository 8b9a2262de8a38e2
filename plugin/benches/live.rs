//! The cost of a packet when many connections, each with its own flow entry, send in turn on real devices, in the order in
//! which they were made and in a random one, from a socket of the node and forwarded for a pod: the kernel measures the
//! time of each run. Writes its tables into docs/performance.md.
//!
//! `cargo bench --profile dev --bench live -- --rounds 21` for more rounds.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod report;
mod stand_in;

use ipnetwork::IpNetwork;
use meridian::{
    datapath::{Datapath, Device, Devices, Hook, Options, accept_all, next, sys},
    netlab::{
        links::{Links, configure, sysctl},
        namespace::Namespace,
    },
    units::grouped,
    zones::{Slots, Table},
};
use stand_in::StandIn;
use std::{
    env,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

const DATAGRAMS: usize = 60_000;
const CONNECTIONS: [usize; 4] = [1, 100, 10_000, 60_000];
const MANY: usize = 10_000;
const FIRST_PORT: u16 = 10_000;
/// One source may have a part of the flow entries only.
const CONNECTIONS_OF_A_SOURCE: usize = 15_000;
const SOURCES: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// A host of a subnet.
    fn host(self, subnet: u8, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, subnet, host).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0, 0, subnet.into(), 0, 0, 0, host.into()).into(),
        }
    }

    fn peer(self) -> IpAddr {
        self.host(UPLINK, 99)
    }

    fn prefix_len(self) -> u8 {
        if self == Self::V6 { 64 } else { 24 }
    }
}

/// The subnets of the uplink and of the pod.
const UPLINK: u8 = 2;
const POD: u8 = 3;

/// Where packets come from that leave by the uplink.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// A socket of the node.
    Node,
    /// A pod's, whose packets the node forwards in a softirq.
    Pod,
}

/// The programs that are measured, in this order.
const PROGRAMS: usize = 3;
const EMPTY: usize = 0;
const MERIDIAN: usize = 1;
const STAND_IN: usize = 2;

/// A situation, and the nanoseconds of a run in each round, by program.
struct Case {
    hook: Hook,
    family: Family,
    sender: Sender,
    connections: usize,
    is_random: bool,
    times: [Vec<f64>; PROGRAMS],
    /// The same for the first packets of the connections.
    first: [Vec<f64>; PROGRAMS],
}

impl Case {
    /// Medians of a program's nanoseconds, more than those of the empty one.
    fn more(&self, program: usize) -> Vec<f64> {
        self.times[program].iter().zip(&self.times[EMPTY]).map(|(time, empty)| time - empty).collect()
    }
}

/// The datagrams that went into the matrix, those in flow entries, and those that the stand-in had and counted.
#[derive(Default)]
struct Attributed {
    counted: u64,
    known: u64,
    stand_in: [u64; 2],
}

/// A node with an uplink, to whose other end it sends, and a pod.
struct Lab {
    node: Namespace,
    _peer: Namespace,
    pod: Namespace,
    uplink: u32,
}

impl Lab {
    fn new() -> Self {
        let [node, peer, pod] = ["node", "peer", "pod"].map(|name| Namespace::new(name).unwrap());
        for parameter in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            sysctl(&node, parameter, "1").unwrap();
        }
        let uplink = configure(&node, "setting up", async |links| {
            links.veth("up0", "eth0", peer.as_raw_fd()).await?;
            links.veth("pod0", "eth0", pod.as_raw_fd()).await?;
            addresses(links, "up0", UPLINK, 1..=SOURCES).await?;
            addresses(links, "pod0", POD, 100..=100).await?;
            let index = links.index("up0").await?;
            for family in Family::ALL {
                // No host has this address, so the peer drops arriving packets at once.
                let neighbours = links.handle().neighbours();
                neighbours.add(index, family.peer()).link_layer_address(&[2, 0, 0, 0, 0, 9]).execute().await?;
            }
            Ok(index)
        })
        .unwrap();
        configure(&peer, "setting up", async |links| links.up("eth0", None).await).unwrap();
        configure(&pod, "setting up", async |links| {
            addresses(links, "eth0", POD, 1..=SOURCES).await?;
            for family in Family::ALL {
                let to = IpNetwork::new(family.host(UPLINK, 0), family.prefix_len()).unwrap();
                links.route(to, family.host(POD, 100)).await?;
            }
            Ok(())
        })
        .unwrap();
        Self { node, _peer: peer, pod, uplink }
    }

    /// A socket for each address of the sender.
    fn sockets(&self, case: &Case) -> Vec<UdpSocket> {
        let (namespace, subnet) = if case.sender == Sender::Pod { (&self.pod, POD) } else { (&self.node, UPLINK) };
        let bind = || (1..=SOURCES).map(|host| UdpSocket::bind((case.family.host(subnet, host), 0)).unwrap()).collect();
        namespace.run(bind).unwrap()
    }
}

async fn addresses(
    links: &Links,
    device: &str,
    subnet: u8,
    hosts: std::ops::RangeInclusive<u8>,
) -> Result<(), rtnetlink::Error> {
    links.up(device, None).await?;
    for family in Family::ALL {
        for host in hosts.clone() {
            links.address(device, family.host(subnet, host), family.prefix_len()).await?;
        }
    }
    Ok(())
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let rounds =
        args.iter().position(|arg| arg == "--rounds").and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(9);
    let lab = Lab::new();
    let _timed = sys::time_runs().unwrap();
    let mut cases = cases();
    let (mut attributed, mut loads) = (Attributed::default(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for case in &mut cases {
            let sockets = lab.sockets(case);
            lab.node.run(|| measure(case, &sockets, lab.uplink, &mut attributed)).unwrap();
        }
        loads.push(load());
    }
    let text = result(&cases, &attributed, rounds, &mut loads);
    println!("{text}");
    report::write("live", &text);
    let text = cpu(&cases);
    println!("{text}");
    report::write("cpu", &text);
}

fn cases() -> Vec<Case> {
    let case = |hook, family, sender, connections, is_random| Case {
        hook,
        family,
        sender,
        connections,
        is_random,
        times: Default::default(),
        first: Default::default(),
    };
    let mut cases = Vec::new();
    for (hook, family) in
        [Hook::Netfilter, Hook::Tcx].into_iter().flat_map(|hook| Family::ALL.map(|family| (hook, family)))
    {
        for connections in CONNECTIONS {
            // Few connections stay in the cache in every order.
            for is_random in [false, true].into_iter().take(if connections > 100 { 2 } else { 1 }) {
                cases.push(case(hook, family, Sender::Node, connections, is_random));
            }
        }
        cases.extend([1, MANY].map(|connections| case(hook, family, Sender::Pod, connections, false)));
    }
    cases
}

/// Measures an empty program, then Meridian's, then the stand-in where it works.
fn measure(case: &mut Case, sockets: &[UdpSocket], uplink: u32, attributed: &mut Attributed) {
    let (empty, link) = empty(case.hook, case.family, uplink);
    case.run(EMPTY, empty.as_fd(), sockets);
    drop(link);

    let mut datapath = Datapath::load(Options { hook: case.hook, ..Options::default() }).unwrap();
    datapath.set_devices(Devices { devices: vec![Device::uplink(uplink)], ..Devices::default() }).unwrap();
    datapath.apply_zones(&Table::new(), std::iter::empty::<IpNetwork>(), &Slots::default()).unwrap();
    datapath.attach().unwrap();
    let program = datapath.entries()[usize::from(case.hook == Hook::Netfilter && case.family == Family::V6)];
    case.run(MERIDIAN, program, sockets);
    attributed.known += datapath.attributed().packets;
    attributed.counted += datapath.matrix().unwrap().iter().map(|cell| cell.counter.packets).sum::<u64>();
    drop(datapath);

    if case.hook == Hook::Netfilter && case.family == Family::V4 {
        let stand_in = StandIn::load(1 << 17);
        let _link = sys::attach_postrouting(stand_in.program.as_fd(), libc::AF_INET, 50).unwrap();
        let runs = case.run(STAND_IN, stand_in.program.as_fd(), sockets);
        attributed.stand_in[0] += runs;
        attributed.stand_in[1] += stand_in.packets();
    }
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

impl Case {
    /// Sends, and keeps the nanoseconds of the program's runs. Returns their number.
    fn run(&mut self, number: usize, program: BorrowedFd<'_>, sockets: &[UdpSocket]) -> u64 {
        let peer = self.family.peer();
        let send = |connection: usize| {
            let port = FIRST_PORT + (connection % CONNECTIONS_OF_A_SOURCE) as u16;
            sockets[connection / CONNECTIONS_OF_A_SOURCE].send_to(&[0; 64], (peer, port)).unwrap();
        };
        let order = order(self.connections, self.is_random);
        let start = sys::run_time(program).unwrap();
        // The first datagram of each connection makes its entry, and is announced as an event.
        (0..self.connections).for_each(send);
        let made = runs_after(program, start.1 + self.connections as u64);
        order.iter().copied().cycle().take(DATAGRAMS).for_each(send);
        let end = runs_after(program, made.1 + DATAGRAMS as u64);
        let mean =
            |from: (Duration, u64), to: (Duration, u64)| (to.0 - from.0).as_nanos() as f64 / (to.1 - from.1) as f64;
        self.first[number].push(mean(start, made));
        self.times[number].push(mean(made, end));
        // The kernel itself sends a few over IPv6, and a softirq may drop some.
        let runs = end.1 - made.1;
        assert!((DATAGRAMS as u64 * 9 / 10..DATAGRAMS as u64 + 100).contains(&runs), "{runs}: another program's runs");
        end.1 - start.1
    }
}

/// The time and number of a program's runs, when it has run this often, or soon.
fn runs_after(program: BorrowedFd<'_>, number: u64) -> (Duration, u64) {
    let deadline = Instant::now() + Duration::from_millis(200);
    loop {
        let run = sys::run_time(program).unwrap();
        if run.1 >= number || Instant::now() > deadline {
            return run;
        }
        thread::sleep(Duration::from_millis(1));
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

/// The processes that are running or ready to run now, this one included.
fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    load.split(' ').next().and_then(|minute| minute.parse().ok()).unwrap_or(f64::NAN)
}

fn result(cases: &[Case], attributed: &Attributed, rounds: usize, loads: &mut [f64]) -> String {
    loads.sort_by(f64::total_cmp);
    let mut text = format!(
        "Measured on {} by `make bench`: medians and quartiles of {rounds} interleaved rounds of {} datagrams each, as \
         the kernel times each run. The machine's load of a minute was {:.1} to {:.1} meanwhile, this bench included.\n\n\
         | hook | connections | order | empty program, ns | Meridian's, ns | more | the stand-in, more | Meridian's part of \
         it |\n|---|---:|---|---:|---:|---:|---:|---:|\n",
        report::machine(),
        grouped(DATAGRAMS as u64),
        loads.first().unwrap(),
        loads.last().unwrap(),
    );
    for case in cases {
        let Case { hook, family, sender, connections, is_random, times, .. } = case;
        let [empty, ours] = [EMPTY, MERIDIAN].map(|program| quartiles(times[program].clone()));
        let more = case.more(MERIDIAN);
        let (stand_in, part) = match case.more(STAND_IN) {
            none if none.is_empty() => ("–".to_owned(), "–".to_owned()),
            stand_in => {
                let part = more.iter().zip(&stand_in).map(|(ours, its)| ours / its).collect();
                (quartiles(stand_in), format!("{:.2}", median(part)))
            }
        };
        let family = if *family == Family::V6 { "IPv6" } else { "IPv4" };
        let forwarded = if *sender == Sender::Pod { ", forwarded" } else { "" };
        let order = if *is_random { "random" } else { "as made" };
        let connections = grouped(*connections as u64);
        let more = quartiles(more);
        writeln!(
            text,
            "| {hook}, {family}{forwarded} | {connections} | {order} | {empty} | {ours} | {more} | {stand_in} | {part} |"
        )
        .unwrap();
    }
    let Attributed { counted, known, stand_in: [passed, in_map] } = attributed;
    let [counted, known, passed, in_map] = [counted, known, passed, in_map].map(|number| grouped(*number));
    writeln!(text, "\nOf {counted} datagrams in the matrix {known} were in flow entries; of {passed} that passed the stand-in {in_map} were in its map.").unwrap();
    text
}

/// What the programs take of a core, at rates that people know.
fn cpu(cases: &[Case]) -> String {
    let mut text = format!(
        "Measured on {} by `make bench`, in percent of a core: the time of the programs at netfilter for IPv4 with {} \
         connections in random order; consecutive packets belong to different connections.\n\n\
         | | 1,000 packets a second | 10,000 | 100,000 | 1,000 new connections a second |\n|---|---:|---:|---:|---:|\n",
        report::machine(),
        grouped(MANY as u64),
    );
    let is_shown = |case: &&Case| {
        case.hook == Hook::Netfilter && case.family == Family::V4 && case.connections == MANY && case.is_random
    };
    let case = cases.iter().find(is_shown).unwrap();
    let names = [(EMPTY, "an empty program"), (MERIDIAN, "Meridian"), (STAND_IN, "the stand-in")];
    for (program, name) in names {
        let percent = |ns: f64, rate: f64| ns * rate / 1e9 * 100.0;
        let [known, first] = [&case.times, &case.first].map(|times| median(times[program].clone()));
        let [one, ten, hundred] = [1e3, 1e4, 1e5].map(|rate| percent(known, rate));
        let new = percent(first, 1e3);
        writeln!(text, "| {name} | {one:.3} % | {ten:.2} % | {hundred:.1} % | {new:.3} % |").unwrap();
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// The median, and the quartiles around it.
fn quartiles(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let [low, median, high] = [1, 2, 3].map(|part| values[(values.len() - 1) * part / 4]);
    format!("{median:.0} ({low:.0}–{high:.0})")
}
