//! The cost of a packet: nanoseconds of a run of the kernel program, compared with a program that does nothing, in
//! interleaved rounds. Writes its table into docs/performance.md.
//!
//! Needs root. `cargo bench --bench packet -- --rounds 21` for more rounds.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod report;

use ipnetwork::IpNetwork;
use meridian::{
    datapath::{Datapath, Device, Devices, Hook, Options, accept_all, next, sys},
    units::grouped,
    zones::{Place, Placement, Slots, Table, Zone},
};
use meridian_abi::zone::PrefixKind;
use std::{
    env,
    net::Ipv6Addr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

const REPEAT: u32 = 1_000_000;
const PREFIXES: [u32; 3] = [10, 1_000, 131_072];

/// The device through which test runs send.
const LOOPBACK: u32 = 1;

struct Case {
    name: String,
    program: OwnedFd,
    family: Option<i32>,
    frame: Vec<u8>,
    /// Nanoseconds of a run.
    rounds: Vec<f64>,
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let rounds =
        args.iter().position(|arg| arg == "--rounds").and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(11);

    let (accept, pass) = (accept_all().unwrap(), next().unwrap());
    let case = |hook: Hook, name: &str, program: &dyn AsFd, v6: bool| Case {
        name: format!("{hook}, {name}"),
        program: program.as_fd().try_clone_to_owned().unwrap(),
        family: (hook == Hook::Netfilter).then_some(if v6 { libc::AF_INET6 } else { libc::AF_INET }),
        frame: frame(v6),
        rounds: Vec::new(),
    };
    let (mut cases, mut loads, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (hook, empty) in [(Hook::Netfilter, &accept), (Hook::Tcx, &pass)] {
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            cases.push(case(hook, &format!("{family}, empty program"), empty, v6));
            for prefixes in PREFIXES {
                let (datapath, took) = loaded(hook, prefixes, v6);
                let name = format!("{family}, {} prefixes", grouped(prefixes.into()));
                let known = format!("{family}, known flow, {} prefixes", grouped(prefixes.into()));
                cases.push(case(hook, &known, &datapath.programs()[usize::from(v6)], v6));
                if hook == Hook::Netfilter {
                    loads.push((name, took));
                }
                kept.push(datapath);
            }
        }
    }
    let grown = verified(&kept);
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for case in &mut cases {
            // The kernel's own result is cut to whole nanoseconds, a part in thirty here.
            let start = report::cpu_time();
            sys::test_run(case.program.as_fd(), &case.frame, case.family, REPEAT).unwrap();
            case.rounds.push((report::cpu_time() - start).as_secs_f64() * 1e9 / f64::from(REPEAT));
        }
    }
    let table = measured(&mut cases, &loads, rounds);
    println!("{table}");
    report::write("packet", &table);
    assert!(grown.is_empty(), "the verifier has more than a tenth more to do: {grown:?}");
}

/// The instructions that the verifier processes for each program, and the programs whose number has grown by more than
/// a tenth since the last result on a kernel like this one.
fn verified(loaded: &[Datapath]) -> Vec<String> {
    let of_hook = |hook: Hook| loaded.iter().find(|datapath| datapath.hook() == hook).unwrap();
    let [v4, v6] = of_hook(Hook::Netfilter).programs();
    let [core_v4, core_v6] = of_hook(Hook::Netfilter).cores().unwrap();
    let ([straight, _], [egress, _]) = (of_hook(Hook::Tcx).programs(), of_hook(Hook::Tcx).cores().unwrap());
    let ingress = of_hook(Hook::Tcx).arrivals();
    let programs = [
        ("straight_v4", v4),
        ("straight_v6", v6),
        ("core_v4", core_v4),
        ("core_v6", core_v6),
        ("tc_straight", straight),
        ("tc_egress", egress),
        ("tc_ingress", ingress),
    ];
    let mut text = format!("On {}:\n\n| program | instructions |\n|---|---:|\n", report::kernel());
    let before = report::read("verifier");
    let mut grown = Vec::new();
    for (name, program) in programs {
        let now = sys::verified_instructions(program).unwrap();
        text += &format!("| {name} | {} |\n", grouped(now.into()));
        let line = before.lines().find_map(|line| line.strip_prefix(&format!("| {name} | ")));
        let known = line.and_then(|rest| rest.trim_end_matches(" |").replace(',', "").parse::<u32>().ok());
        if let Some(known) = known.filter(|known| before.contains(&report::kernel()) && now > known + known / 10) {
            grown.push(format!("{name}: {known} to {now}"));
        }
    }
    if grown.is_empty() {
        report::write("verifier", &text);
    }
    println!("{text}");
    grown
}

/// Programs with a table of this many prefixes of a family, and the time that writing the table took.
fn loaded(hook: Hook, prefixes: u32, v6: bool) -> (Datapath, Duration) {
    let mut table = Table::new();
    let zones: Vec<Arc<Zone>> =
        ["a", "b", "c"].map(|name| Arc::new(Zone { name: name.into(), region: "r".into() })).into();
    for n in 0..prefixes {
        let place = Place::Zone(Arc::clone(&zones[n as usize % zones.len()]));
        let placement = Placement { place, kind: PrefixKind::Cluster, origin: "bench".into() };
        // fd00::/64, fd00:0:0:1::/64 … or 10.0.0.0/27, 10.0.0.32/27 …
        let prefix = if v6 {
            IpNetwork::new(Ipv6Addr::from((0xfd00 << 112) + (u128::from(n) << 64)).into(), 64)
        } else {
            IpNetwork::new(((10 << 24) + (n << 5)).to_be_bytes().into(), 27)
        };
        table.insert(prefix.unwrap(), placement);
    }
    let mut slots = Slots::default();
    slots.assign(table.placements());
    let mut datapath = Datapath::load(Options { hook, ..Options::default() }).unwrap();
    datapath.set_devices(Devices { devices: vec![Device::uplink(LOOPBACK)], ..Devices::default() }).unwrap();
    let start = Instant::now();
    datapath.apply_zones(&table, table.networks(), &slots).unwrap();
    (datapath, start.elapsed())
}

/// A TCP segment of 64 bytes of payload, from the second prefix to the sixth.
fn frame(v6: bool) -> Vec<u8> {
    let mut frame = vec![0; 12];
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 84, 6, 64]);
        for net in [1u128, 5] {
            frame.extend(((0xfd00 << 112) + (net << 64) + 7).to_be_bytes());
        }
    } else {
        frame.extend([0x08, 0x00, 0x45, 0, 0, 104, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend([10, 0, 0, 33, 10, 0, 0, 161]);
    }
    frame.extend([0xc3, 0x50, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.resize(frame.len() + 64, b'x');
    frame
}

fn measured(cases: &mut [Case], loads: &[(String, Duration)], rounds: usize) -> String {
    let mut medians: Vec<(String, f64, f64, f64)> = Vec::new();
    for case in cases.iter_mut() {
        case.rounds.sort_by(f64::total_cmp);
        let at = |part: usize| case.rounds[(case.rounds.len() - 1) * part / 4];
        medians.push((case.name.clone(), at(2), at(1), at(3)));
    }
    // The empty program is the first one of its hook and family.
    let empty = |name: &str| {
        let of = |name: &str| name.split(", ").take(2).map(str::to_owned).collect::<Vec<_>>();
        medians.iter().find(|(other, ..)| of(other) == of(name)).map_or(f64::NAN, |(_, median, ..)| *median)
    };
    let mut text = format!(
        "Measured on {} by `make bench`: medians of {rounds} interleaved rounds of {} runs each, by `BPF_PROG_TEST_RUN`, in CPU time.\n\n",
        report::machine(),
        grouped(REPEAT.into()),
    );
    text += "| program | ns a packet | quartiles | × empty |\n|---|---:|---:|---:|\n";
    for (name, median, low, high) in &medians {
        let ratio = median / empty(name);
        text += &format!("| {name} | {median:.1} | {low:.1}–{high:.1} | {ratio:.2} |\n");
    }
    text += "\n| table | written into the kernel in |\n|---|---:|\n";
    for (name, took) in loads {
        text += &format!("| {name} | {:.1} ms |\n", took.as_secs_f64() * 1e3);
    }
    text
}
