//! The straight path counts as the core does: the same generated packets run through programs with and without it, and
//! every counter is compared.

use super::packets::{LOOPBACK, table};
use meridian::{
    datapath::{Datapath, Device, DeviceRole as Role, Devices, Hook, Options, Overlays, sys},
    zones::{Slots, Table},
};
use meridian_abi::stats::Stat;
use std::{collections::BTreeMap, net::IpAddr};

/// Packets for each hook. A run of one takes some microseconds.
const PACKETS: usize = 30_000;

/// A generator of numbers: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const NODE: [u8; 4] = [10, 0, 1, 9];
const VXLAN: u16 = 8472;
const WIREGUARD: u16 = 51_871;

/// A frame, and whether it is one of IPv6. Few addresses and ports, so that most packets belong to known flows.
fn frame(random: &mut Random, hook: Hook) -> (Vec<u8>, bool) {
    let v6 = random.one_in(2);
    let mut frame = vec![0; 12];
    if hook != Hook::Netfilter && random.one_in(30) {
        frame.extend([0x81, 0, 0, 5]);
    }
    let arp = hook != Hook::Netfilter && random.one_in(100);
    frame.extend(if arp {
        [0x08, 0x06]
    } else if v6 {
        [0x86, 0xdd]
    } else {
        [0x08, 0x00]
    });
    let protocol = random.pick(&[6, 6, 6, 6, 17, 17, 17, 1, 58, 132, 47, 4, 50, 89]);
    let transport = transport(random, protocol);
    frame.extend(if v6 { ipv6(random, protocol, &transport) } else { ipv4(random, protocol, &transport) });
    if random.one_in(40) {
        // Cut off anywhere after the link header, but the kernel takes no frame without an IP header.
        let least = 14 + if v6 { 40 } else { 20 };
        let len = least + random.below(frame.len().saturating_sub(least).max(1));
        frame.truncate(len);
    }
    (frame, v6)
}

fn transport(random: &mut Random, protocol: u8) -> Vec<u8> {
    let ports = [80, 443, 8080, VXLAN, WIREGUARD, 33_000, 40_000, 50_051, 53, 65_535, 0];
    let (source, destination): (u16, u16) = (random.pick(&ports), random.pick(&ports));
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    match protocol {
        6 => {
            let flags = random.pick(&[0x10, 0x10, 0x10, 0x10, 0x18, 0x02, 0x12, 0x11, 0x04, 0x00, 0x3f]);
            bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        }
        17 => bytes.extend([0, 8, 0, 0]),
        1 | 58 => bytes[0] = random.pick(&[0, 8, 128, 129, 133, 135, 143]),
        _ => {}
    }
    let payload = random.pick(&[0, 1, 5, 13, 40, 300, 1200, 1480, 4000]);
    bytes.resize(bytes.len() + payload, 7);
    bytes
}

fn ipv4(random: &mut Random, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let options = if random.one_in(15) { 8 } else { 0 };
    let fragment: u16 = if random.one_in(15) { random.pick(&[0x2000, 0x2010, 0x0010, 0x4000, 0x8000]) } else { 0 };
    let addresses = [[10, 0, 1, 7], [10, 0, 2, 7], [192, 0, 2, 1], [224, 0, 0, 5], [169, 254, 1, 1], NODE];
    let (source, destination): ([u8; 4], [u8; 4]) = (random.pick(&addresses), random.pick(&addresses));
    let version_and_len = if random.one_in(60) { random.pick(&[0x44, 0x4f, 0x65]) } else { 0x45 + options as u8 / 4 };
    let len = (20 + options + transport.len()) as u16;
    let mut bytes = vec![version_and_len, 0];
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(source);
    bytes.extend(destination);
    bytes.resize(20 + options, 1);
    bytes.extend(transport);
    bytes
}

fn ipv6(random: &mut Random, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let address = |net: u8, host: u8| -> [u8; 16] {
        let mut bytes = [0; 16];
        (bytes[0], bytes[7], bytes[15]) = (0xfd, net, host);
        bytes
    };
    let mut scoped = [0; 16];
    (scoped[0], scoped[1], scoped[15]) = (0xff, 2, 1);
    let mut link = scoped;
    (link[0], link[1]) = (0xfe, 0x80);
    let addresses = [address(1, 7), address(2, 7), address(3, 7), scoped, link];
    let (source, destination) = (random.pick(&addresses), random.pick(&addresses));
    let mut extensions = Vec::new();
    let mut first = protocol;
    if random.one_in(10) {
        let kind = random.pick(&[0, 43, 44, 60, 51]);
        let offset: [u8; 2] = if kind == 44 { random.pick(&[[0, 1], [0, 9], [0, 0]]) } else { [0, 0] };
        extensions.extend([protocol, 0, offset[0], offset[1], 0, 0, 0, 1]);
        first = kind;
    }
    let mut bytes = vec![if random.one_in(60) { 0x45 } else { 0x60 }, 0, 0, 0];
    bytes.extend(((extensions.len() + transport.len()) as u16).to_be_bytes());
    bytes.extend([first, 64]);
    bytes.extend(source);
    bytes.extend(destination);
    bytes.extend(extensions);
    bytes.extend(transport);
    bytes
}

/// The counts of a run of the programs: STATS, the matrix, the flow entries.
#[derive(Debug, PartialEq)]
struct CounterSnapshot {
    stats: BTreeMap<&'static str, (u64, u64)>,
    matrix: Vec<String>,
    flows: Vec<String>,
}

fn counted(datapath: &Datapath) -> CounterSnapshot {
    // Events are limited by the time that a window lasts.
    let stats = Stat::ALL.into_iter().filter(|stat| !matches!(stat, Stat::EventLost | Stat::EventWithheld));
    let stats = stats.map(|stat| {
        let counter = datapath.stat(stat).unwrap();
        (stat.name(), (counter.bytes, counter.packets))
    });
    let matrix = datapath.matrix().unwrap().into_iter().map(|cell| format!("{cell:?}"));
    let mut flows = Vec::new();
    // Which slot an entry is in depends on the seed.
    datapath.flows(|flow| {
        let meridian::flows::Entry { path, source, destination, protocol, service_port, client_port, .. } = flow;
        let (side, verdict, counter) = (flow.side, flow.verdict, flow.counter);
        flows.push(format!(
            "{path:?} {source} {destination} {protocol} {service_port} {client_port} {side:?} {verdict:?} {counter:?}"
        ));
    });
    let mut matrix: Vec<String> = matrix.collect();
    matrix.sort();
    flows.sort();
    CounterSnapshot { stats: stats.collect(), matrix, flows }
}

/// The devices, tables and overlays that change while packets run.
fn set(datapath: &mut Datapath, step: usize, before: &mut Table, slots: &mut Slots) {
    let role = [Role::Uplink, Role::Uplink, Role::Overlay, Role::Uplink, Role::Uplink][step % 5];
    let mut device = Device::uplink(LOOPBACK);
    device.role = role;
    device.trunk = step % 5 == 3;
    let mut marks = Overlays::default();
    if step % 2 == 1 {
        marks.destination_ports.insert(VXLAN);
        marks.source_ports.insert(WIREGUARD);
    }
    let devices = if step % 5 == 4 { Vec::new() } else { vec![device] };
    let addresses = [IpAddr::from(NODE)].into();
    datapath.set_devices(Devices { devices, addresses, marks, ..Devices::default() }).unwrap();
    let zones: &[(&str, &str)] = if step.is_multiple_of(3) {
        &[("10.0.1.0/24", "a"), ("10.0.2.0/24", "b"), ("fd00:0:0:1::/64", "a"), ("fd00:0:0:2::/64", "b")]
    } else {
        &[("10.0.1.0/24", "b"), ("10.0.2.0/24", "b"), ("fd00:0:0:2::/64", "c")]
    };
    let table = table(zones);
    slots.assign(table.placements());
    let changed: Vec<_> = before.networks().chain(table.networks()).collect();
    datapath.apply_zones(&table, changed, slots).unwrap();
    *before = table;
}

fn compare(hook: Hook, seed: u64) {
    let load = |core_alone| {
        Datapath::load(Options { hook, core_alone, overlay_header_len: 50, ..Options::default() }).unwrap()
    };
    let mut both = [load(false), load(true)];
    let mut tables = [(Table::new(), Slots::default()), (Table::new(), Slots::default())];
    both.iter_mut().for_each(|datapath| datapath.know_service(443).unwrap());
    let mut random = Random(seed);
    for n in 0..PACKETS {
        if n % (PACKETS / 15) == 0 {
            let step = n / (PACKETS / 15);
            for (datapath, (table, slots)) in both.iter_mut().zip(&mut tables) {
                set(datapath, step, table, slots);
            }
        }
        let (bytes, v6) = frame(&mut random, hook);
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let runs = both.each_ref().map(|datapath| {
            let program = datapath.programs()[usize::from(v6)];
            sys::test_run(program, &bytes, (hook == Hook::Netfilter).then_some(family), 1).ok()
        });
        assert_eq!(runs[0], runs[1], "packet {n} of seed {seed}: {bytes:02x?}");
        if n % 1000 == 999 {
            let [straight, core] = both.each_ref().map(counted);
            assert_eq!(straight, core, "before packet {n} of seed {seed}");
        }
    }
    let [straight, core] = both.each_ref().map(counted);
    assert_eq!(straight, core, "seed {seed}");
    let packets: u64 = straight.stats.values().map(|(_, packets)| packets).sum();
    assert!(packets > 0 && straight.flows.len() > 100, "{} flows", straight.flows.len());
}

#[test]
fn the_straight_path_counts_as_the_core_at_netfilter() {
    compare(Hook::Netfilter, 0x1234_5678_9abc_def1);
}

#[test]
fn the_straight_path_counts_as_the_core_at_traffic_control() {
    compare(Hook::Tcx, 0xfedc_ba98_7654_3211);
}
