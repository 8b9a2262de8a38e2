//! A slow reader of packets, written from the RFCs, and a plain model of the counts, compared with the programs in the
//! kernel on the same generated frames.
//!
//! The model knows the documented rules (docs/datapath.md, the documentation of [`Stat`]) and shares no code with the
//! programs. A run in the kernel has one device and no arrival, so that forwarded and arriving packets, segments and
//! fragments by the MTU are left to other tests.

mod frames;
mod headers;
mod model;

use super::packets::{LOOPBACK, table};
use frames::Frames;
use meridian::{
    datapath::{Datapath, Device, DeviceRole as Role, Devices, Hook, Options, Overlays, sys},
    zones::{Slots, Table},
};
use meridian_abi::{control::Control, stats::Stat};
use model::{Counts, Model};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Frames between two comparisons.
const STEP: usize = 500;
/// The time of a run, unless MERIDIAN_FUZZ_SECONDS sets another one.
const SECONDS: u64 = 4;
/// What the user adds to each packet in an overlay.
const OVERLAY_HEADER: u64 = 50;

/// The programs, and their table.
struct Programs {
    hook: Hook,
    datapath: Datapath,
    table: Table,
    slots: Slots,
}

impl Programs {
    fn load(hook: Hook) -> Self {
        let options = Options { hook, overlay_header_len: OVERLAY_HEADER as u32, ..Options::default() };
        let mut datapath = Datapath::load(options).unwrap();
        datapath.know_service(model::KNOWN_SERVICE).unwrap();
        Self { hook, datapath, table: Table::new(), slots: Slots::default() }
    }

    /// Gives the programs the settings of the model.
    fn set(&mut self, model: &mut Model) {
        let mut device = Device::uplink(LOOPBACK);
        device.role = if model.is_overlay { Role::Overlay } else { Role::Uplink };
        device.trunk = model.is_trunk;
        let devices = if model.is_uplink { vec![device] } else { Vec::new() };
        let mut marks = Overlays::default();
        if model.has_marks {
            marks.destination_ports.extend(model::OVERLAY_PORTS);
            marks.source_ports.insert(model::WIREGUARD);
            marks.protocols = Control::IPIP | Control::IPV6 | Control::GRE;
        }
        let addresses = model::NODE.into_iter().collect();
        self.datapath.set_devices(Devices { devices, addresses, marks, ..Devices::default() }).unwrap();
        let table = table(&model.zones);
        model.prefixes = table.prefixes().map(|(prefix, to)| (*prefix, to.place.to_string())).collect();
        self.slots.assign(table.placements());
        let changed: Vec<_> = self.table.networks().chain(table.networks()).collect();
        self.datapath.apply_zones(&table, changed, &self.slots).unwrap();
        self.table = table;
    }

    /// Runs the programs on a frame. False: the kernel refuses to.
    fn run(&self, frame: &[u8], is_v6: bool) -> bool {
        let family = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
        let program = self.datapath.programs()[usize::from(is_v6)];
        sys::test_run(program, frame, (self.hook == Hook::Netfilter).then_some(family), 1).is_ok()
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for stat in Stat::ALL {
            let counter = self.datapath.stat(stat).unwrap();
            // Events are limited by the time that a window lasts.
            if counter.packets > 0 && !matches!(stat, Stat::EventLost | Stat::EventWithheld) {
                counts.stats.insert(stat.name(), (counter.bytes, counter.packets));
            }
        }
        for cell in self.datapath.matrix().unwrap() {
            let zone = |slot| self.slots.place(slot).to_string();
            let key = (cell.version, cell.direction as u8, zone(cell.source), zone(cell.destination));
            let sum = counts.matrix.entry(key).or_default();
            *sum = (sum.0 + cell.counter.bytes, sum.1 + cell.counter.packets);
        }
        self.datapath.flows(|flow| {
            let key = model::Flow {
                source: flow.source,
                destination: flow.destination,
                protocol: flow.protocol,
                service_port: flow.service_port,
                side: flow.side as u8,
                path: flow.path as u8,
            };
            let known = counts.flows.insert(key, (flow.client_port, flow.counter.bytes, flow.counter.packets));
            assert_eq!(known, None, "two entries with one key");
        });
        counts
    }
}

fn compare(hook: Hook) {
    let seconds = std::env::var("MERIDIAN_FUZZ_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    let seed = std::env::var("MERIDIAN_FUZZ_SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
    let (until, mut frames) =
        (Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS)), Frames::new(seed, hook == Hook::Netfilter));
    let (mut programs, mut model) = (Programs::load(hook), Model::new(hook == Hook::Netfilter, OVERLAY_HEADER));
    let (mut ran, mut step) = (0, 0);
    let mut stats = BTreeSet::new();
    while step < 12 || Instant::now() < until {
        if step % 2 == 0 {
            // A full map is another test's: new programs.
            if model.counts.flows.len() > 5000 {
                (programs, model) = (Programs::load(hook), Model::new(hook == Hook::Netfilter, OVERLAY_HEADER));
            }
            model.change(step / 2);
            programs.set(&mut model);
        }
        let mut run = Vec::new();
        for _ in 0..STEP {
            let (frame, is_v6) = frames.next();
            if programs.run(&frame, is_v6) {
                model.count(&frame, is_v6);
                run.push(frame);
            }
        }
        ran += run.len();
        if let Some(difference) = model.counts.difference(&programs.counts()) {
            panic!("MERIDIAN_FUZZ_SEED={seed} {hook:?}, step {step}: {difference}\n{}", model.described(&run));
        }
        stats.extend(model.counts.stats.keys().copied());
        step += 1;
    }
    assert!(ran > step * STEP / 2, "the kernel refuses most frames: {ran}");
    let mut all = BTreeSet::from(["encapsulated", "link_scoped", "malformed", "no_ports", "overlay"]);
    all.extend(if hook == Hook::Netfilter { &["loopback"][..] } else { &["same_node", "vlan"] });
    assert_eq!(stats, all, "each reason occurs");
    println!("{hook:?}: {ran} frames with the seed {seed}");
}

#[test]
fn the_programs_read_packets_as_the_rfcs_at_netfilter() {
    compare(Hook::Netfilter);
}

#[test]
fn the_programs_read_packets_as_the_rfcs_at_traffic_control() {
    compare(Hook::Tcx);
}

#[test]
fn the_reference_reads_what_the_rfcs_draw() {
    // The header of RFC 791's example 1, and headers of RFC 8200, 4302, 9293, each with what they hold.
    let v4 = [0x45, 0, 0, 21, 0, 111, 0, 0, 123, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 8];
    let read = headers::read_v4(&v4).unwrap();
    assert_eq!((read.source, read.protocol), (IpAddr::from([10, 0, 0, 1]), 1));
    assert_eq!(read.upper, headers::Upper::Missing, "one byte of ICMP");
    let mut v6 = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
    v6.extend([0xfd; 32]);
    // Hop-by-hop of 8 bytes, authentication of 24, a first fragment, then ports.
    v6.extend([51, 0, 1, 4, 0, 0, 0, 0]);
    v6.extend([44, 4]);
    v6.extend([0; 22]);
    v6.extend([17, 0, 0, 1, 0, 0, 0, 9]);
    v6.extend([0, 53, 200, 0]);
    let read = headers::read_v6(&v6).unwrap();
    assert_eq!((read.protocol, read.upper), (17, headers::Upper::Ports(53, 51_200)));
    // The same as a later fragment.
    v6[40 + 8 + 24 + 3] = 8;
    assert_eq!(headers::read_v6(&v6).unwrap().upper, headers::Upper::Missing);
}
