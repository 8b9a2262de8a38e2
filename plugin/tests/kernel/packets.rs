//! Built packets, run by `BPF_PROG_TEST_RUN`. The kernel sends them through the loopback device, which these tests
//! declare an uplink.

use ipnetwork::IpNetwork;
use meridian::{
    accounting::Accounting,
    datapath::{Datapath, Device, Devices, Error, Hook, Options, sys},
    flows::{Entry, Node, Record, Ring, Sink},
    identity::Index,
    meter::Meter,
    zones::{Place, Placement, Slots, Table, Zone},
};
use meridian_abi::{
    Counter, IpVersion,
    flow::ServiceSide,
    stats::Stat,
    zone::{INTERNET, PrefixKind, UNKNOWN},
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

pub const LOOPBACK: u32 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A table of prefixes of the cluster, each with its zone.
pub fn table(prefixes: &[(&str, &str)]) -> Table {
    let mut table = Table::new();
    for (prefix, zone) in prefixes {
        let place = Place::Zone(Arc::new(Zone { name: (*zone).into(), region: "r".into() }));
        let placement = Placement { place, kind: PrefixKind::Cluster, origin: "test".into() };
        table.insert(prefix.parse::<IpNetwork>().unwrap(), placement);
    }
    table
}

/// The programs with their own table.
struct Bench {
    hook: Hook,
    datapath: Datapath,
    slots: Slots,
    table: Table,
}

impl Bench {
    fn new(options: Options, prefixes: &[(&str, &str)]) -> Self {
        let datapath = Datapath::load(options).unwrap();
        let mut bench = Self { hook: options.hook, datapath, slots: Slots::default(), table: Table::new() };
        bench.datapath.set_devices(Devices { devices: vec![Device::uplink(LOOPBACK)], ..Devices::default() }).unwrap();
        bench.apply(prefixes);
        bench
    }

    fn apply(&mut self, prefixes: &[(&str, &str)]) {
        let table = table(prefixes);
        self.slots.assign(table.placements());
        let before = std::mem::replace(&mut self.table, table);
        let changed: Vec<_> = before.networks().chain(self.table.networks()).collect();
        self.datapath.apply_zones(&self.table, changed, &self.slots).unwrap();
    }

    fn send(&self, frame: &Frame) {
        self.send_times(frame, 1);
    }

    fn send_times(&self, frame: &Frame, times: u32) {
        let [v4, v6] = self.datapath.programs();
        let (program, family) = if frame.v6 { (v6, libc::AF_INET6) } else { (v4, libc::AF_INET) };
        // NF_ACCEPT; at traffic control the next program decides.
        let (family, passes) = if self.hook == Hook::Netfilter { (Some(family), 1) } else { (None, u32::MAX) };
        let result = sys::test_run(program, &frame.bytes, family, times).unwrap();
        assert_eq!(result, passes, "a packet always passes");
    }

    /// The non-zero cells by zone names, with their counters.
    fn matrix(&self) -> BTreeMap<(String, String, IpVersion), Counter> {
        let cells = self.datapath.matrix().unwrap().into_iter();
        let name = |slot| self.slots.place(slot).to_string();
        cells.map(|cell| ((name(cell.source), name(cell.destination), cell.version), cell.counter)).collect()
    }

    fn flows(&self) -> Vec<Entry> {
        let mut flows = Vec::new();
        self.datapath.flows(|flow| flows.push(flow));
        flows
    }

    fn stat(&self, stat: Stat) -> Counter {
        self.datapath.stat(stat).unwrap()
    }
}

/// An Ethernet frame.
struct Frame {
    bytes: Vec<u8>,
    v6: bool,
}

impl Frame {
    fn new(source: &str, destination: &str, protocol: u8, transport: &[u8]) -> Self {
        let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
        let mut bytes = vec![0; 12];
        let v6 = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([0x08, 0x00, 0x45, 0]);
                bytes.extend((20 + transport.len() as u16).to_be_bytes());
                bytes.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                false
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend((transport.len() as u16).to_be_bytes());
                bytes.extend([protocol, 64]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                true
            }
            _ => panic!("one family"),
        };
        bytes.extend(transport);
        Self { bytes, v6 }
    }

    fn ports(source: &str, destination: &str, protocol: u8, ports: (u16, u16)) -> Self {
        let mut transport = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        transport.resize(40, 0);
        // The TCP data offset: 5 words.
        transport[12] = 0x50;
        Self::new(source, destination, protocol, &transport)
    }

    /// The number of IP bytes.
    fn len(&self) -> u64 {
        self.bytes.len() as u64 - 14
    }
}

/// Netfilter's program and that of traffic control: two readers under one core.
const HOOKS: [Hook; 2] = [Hook::Netfilter, Hook::Tcx];

const TABLE: [(&str, &str); 4] =
    [("10.0.1.0/24", "a"), ("10.0.2.0/24", "b"), ("fd00:1::/64", "a"), ("fd00:2::/64", "b")];

fn key(source: &str, destination: &str, version: IpVersion) -> (String, String, IpVersion) {
    (source.into(), destination.into(), version)
}

#[test]
fn a_packet_is_counted_in_the_cell_of_its_zones_and_in_its_flow() {
    for hook in HOOKS {
        let bench = Bench::new(Options { hook, ..Options::default() }, &TABLE);
        let request = Frame::ports("10.0.1.1", "10.0.2.2", TCP, (50_000, 80));
        bench.send_times(&request, 3);
        let reply = Frame::ports("fd00:2::2", "fd00:1::1", UDP, (53, 40_000));
        bench.send(&reply);

        let expected = BTreeMap::from([
            (key("a", "b", IpVersion::V4), Counter { bytes: 3 * request.len(), packets: 3 }),
            (key("b", "a", IpVersion::V6), Counter { bytes: reply.len(), packets: 1 }),
        ]);
        assert_eq!(bench.matrix(), expected);
        let flows = bench.flows();
        let tcp = flows.iter().find(|flow| flow.protocol == TCP).unwrap();
        assert_eq!((tcp.service_port, tcp.client_port, tcp.side), (80, 50_000, ServiceSide::Destination));
        assert_eq!((tcp.source.to_string(), tcp.destination.to_string()), ("10.0.1.1".into(), "10.0.2.2".into()));
        assert_eq!(tcp.counter, Counter { bytes: 3 * request.len(), packets: 3 });
        let udp = flows.iter().find(|flow| flow.protocol == UDP).unwrap();
        assert_eq!((udp.service_port, udp.client_port, udp.side), (53, 40_000, ServiceSide::Source));
        assert_eq!(udp.source.to_string(), "fd00:2::2");
    }
}

#[test]
fn connections_on_one_service_are_one_flow() {
    let bench = Bench::new(Options::default(), &TABLE);
    for port in 0..500 {
        bench.send(&Frame::ports("10.0.1.1", "10.0.2.2", TCP, (32_768 + port, 80)));
    }
    assert_eq!(bench.flows().len(), 1);
    assert_eq!(bench.flows()[0].counter.packets, 500);
}

#[test]
fn traffic_that_leaves_through_no_uplink_is_outside_the_sums() {
    let datapath = Datapath::load(Options::default()).unwrap();
    let mut bench = Bench { hook: Hook::Netfilter, datapath, slots: Slots::default(), table: Table::new() };
    bench.apply(&TABLE);
    let frame = Frame::ports("10.0.1.1", "10.0.2.2", TCP, (50_000, 80));
    bench.send(&frame);
    assert!(bench.matrix().is_empty() && bench.flows().is_empty());
    assert_eq!(bench.stat(Stat::Loopback), Counter { bytes: frame.len(), packets: 1 });
}

#[test]
fn link_scoped_packets_are_outside_the_sums() {
    for hook in HOOKS {
        let bench = Bench::new(Options { hook, ..Options::default() }, &TABLE);
        let solicitation = [135, 0, 0, 0, 0, 0, 0, 0];
        let frames = [
            Frame::new("fd00:1::1", "fd00:2::2", 58, &solicitation),
            Frame::new("fd00:1::1", "ff02::1:ff00:2", 58, &solicitation),
            Frame::ports("fe80::1", "fd00:2::2", UDP, (546, 547)),
            Frame::ports("10.0.1.1", "224.0.0.251", UDP, (5353, 5353)),
            Frame::ports("10.0.1.1", "255.255.255.255", UDP, (68, 67)),
            Frame::ports("169.254.1.1", "10.0.2.2", UDP, (50_000, 80)),
        ];
        frames.iter().for_each(|frame| bench.send(frame));
        assert!(bench.matrix().is_empty() && bench.flows().is_empty());
        let bytes = frames.iter().map(Frame::len).sum();
        assert_eq!(bench.stat(Stat::LinkScoped), Counter { bytes, packets: frames.len() as u64 });
    }
}

#[test]
fn private_addresses_in_no_prefix_are_unknown_and_public_ones_the_internet() {
    for hook in HOOKS {
        let bench = Bench::new(Options { hook, ..Options::default() }, &TABLE);
        bench.send(&Frame::ports("10.0.1.1", "10.99.0.9", TCP, (50_000, 80)));
        bench.send(&Frame::ports("10.0.1.1", "93.184.216.34", TCP, (50_000, 443)));
        bench.send(&Frame::ports("fd00:1::1", "2606:4700::1111", TCP, (50_000, 443)));
        // A rule for every IPv6 address must not hold for IPv4.
        let cells: Vec<_> = bench.matrix().into_keys().collect();
        let expected = [
            key("a", "internet", IpVersion::V4),
            key("a", "internet", IpVersion::V6),
            key("a", "unknown", IpVersion::V4),
        ];
        assert_eq!(cells, expected);
        let slots: Vec<_> = bench.flows().iter().map(|flow| flow.verdict.destination).collect();
        assert_eq!(slots.iter().filter(|slot| **slot == UNKNOWN).count(), 1);
        assert_eq!(slots.iter().filter(|slot| **slot == INTERNET).count(), 2);
    }
}

#[test]
fn a_new_table_holds_for_the_next_packet_of_a_known_flow() {
    let mut bench = Bench::new(Options::default(), &TABLE);
    let frame = Frame::ports("10.0.1.1", "10.0.2.2", TCP, (50_000, 80));
    bench.send(&frame);
    bench.apply(&[("10.0.1.0/24", "a"), ("10.0.2.0/25", "c")]);
    bench.send(&frame);
    bench.apply(&[("10.0.1.0/24", "a")]);
    bench.send(&frame);
    bench.apply(&TABLE);
    bench.send(&frame);
    let packets: Vec<_> = bench.matrix().into_iter().map(|((_, to, _), counter)| (to, counter.packets)).collect();
    assert_eq!(packets, [("b".to_owned(), 2), ("c".to_owned(), 1), ("unknown".to_owned(), 1)]);
    assert_eq!(bench.flows().len(), 1);
}

/// The table, and addresses of zone `c` from 10.64.0.0 on.
fn table_with_addresses(count: u32) -> Table {
    let mut table = table(&TABLE);
    let place = Place::Zone(Arc::new(Zone { name: "c".into(), region: "r".into() }));
    for n in 0..count {
        let placement = Placement { place: place.clone(), kind: PrefixKind::Cluster, origin: "test".into() };
        table.insert(IpNetwork::new(address_of_c(n), 32).unwrap(), placement);
    }
    table
}

fn address_of_c(n: u32) -> IpAddr {
    IpAddr::from((0x0a40_0000 + n).to_be_bytes())
}

#[test]
fn each_prefix_of_a_large_table_is_written() {
    let mut bench = Bench::new(Options::default(), &TABLE);
    let table = table_with_addresses(10_000);
    bench.slots.assign(table.placements());
    // Both maps.
    for sent in 1..3 {
        bench.datapath.apply_zones(&table, table.networks(), &bench.slots).unwrap();
        for n in 0..10_000 {
            bench.send(&Frame::ports("10.0.1.1", &address_of_c(n).to_string(), TCP, (50_000, 80)));
        }
        let packets: Vec<_> = bench.matrix().into_iter().map(|((_, to, _), counter)| (to, counter.packets)).collect();
        assert_eq!(packets, [("c".to_owned(), sent * 10_000)]);
    }
}

#[test]
fn a_table_larger_than_the_map_is_refused_and_the_old_one_stays() {
    let mut bench = Bench::new(Options::default(), &TABLE);
    let table = table_with_addresses(262_144 + 1);
    bench.slots.assign(table.placements());
    let error = bench.datapath.apply_zones(&table, table.networks(), &bench.slots).unwrap_err();
    assert!(matches!(error, Error::Prefix { .. }), "{error}");
    let frame = Frame::ports("10.0.1.1", "10.0.2.2", TCP, (50_000, 80));
    bench.send(&frame);
    // What was written of the large table goes.
    bench.apply(&[("10.0.1.0/24", "a"), ("10.0.2.0/24", "c")]);
    bench.send(&frame);
    bench.send(&Frame::ports("10.0.1.1", "10.64.0.0", TCP, (50_000, 80)));
    let packets: Vec<_> = bench.matrix().into_iter().map(|((_, to, _), counter)| (to, counter.packets)).collect();
    assert_eq!(packets, [("b".to_owned(), 1), ("c".to_owned(), 1), ("unknown".to_owned(), 1)]);
}

#[test]
fn a_full_flow_map_loses_no_byte() {
    let bench = Bench::new(Options { flow_slots: 64, ..Options::default() }, &TABLE);
    let mut sent = Counter::default();
    for host in 1..=250 {
        let frame = Frame::ports(&format!("10.0.1.{host}"), "10.0.2.1", TCP, (50_000, 80));
        bench.send_times(&frame, 2);
        sent = Counter { bytes: sent.bytes + 2 * frame.len(), packets: sent.packets + 2 };
    }
    assert_eq!(bench.matrix(), BTreeMap::from([(key("a", "b", IpVersion::V4), sent)]));
    let flows = bench.flows();
    assert_eq!(flows.len(), 64);
    let attributed: u64 = flows.iter().map(|flow| flow.counter.bytes).sum();
    let unattributed = bench.stat(Stat::Unattributed);
    assert_eq!(attributed + unattributed.bytes, sent.bytes);
    assert_eq!(unattributed.packets, 2 * (250 - 64));
}

#[test]
fn more_zones_than_slots_count_as_unknown() {
    let zones: Vec<(String, String)> = (0..40).map(|n| (format!("10.0.{n}.0/24"), format!("z{n:02}"))).collect();
    let prefixes: Vec<(&str, &str)> = zones.iter().map(|(prefix, zone)| (prefix.as_str(), zone.as_str())).collect();
    let bench = Bench::new(Options::default(), &prefixes);
    bench.send(&Frame::ports("10.0.0.1", "10.0.29.1", TCP, (50_000, 80)));
    bench.send(&Frame::ports("10.0.0.1", "10.0.30.1", TCP, (50_000, 80)));
    let cells: Vec<_> = bench.matrix().into_keys().map(|(from, to, _)| (from, to)).collect();
    assert_eq!(cells, [("z00".to_owned(), "unknown".to_owned()), ("z00".to_owned(), "z29".to_owned())]);
}

#[test]
fn a_later_fragment_belongs_to_its_address_pair() {
    for hook in HOOKS {
        let bench = Bench::new(Options { hook, ..Options::default() }, &TABLE);
        let mut frame = Frame::ports("10.0.1.1", "10.0.2.2", UDP, (50_000, 80));
        // Fragment offset 185 × 8 bytes.
        frame.bytes[14 + 7] = 185;
        bench.send(&frame);
        let flows = bench.flows();
        assert_eq!((flows[0].service_port, flows[0].client_port, flows[0].side), (0, 0, ServiceSide::None));
        assert_eq!(bench.stat(Stat::NoPorts).packets, 1);
    }
}

#[test]
fn a_packet_with_contradictory_headers_is_malformed() {
    for hook in HOOKS {
        let bench = Bench::new(Options { hook, ..Options::default() }, &TABLE);
        let mut frame = Frame::ports("10.0.1.1", "10.0.2.2", TCP, (50_000, 80));
        // A header of four words.
        frame.bytes[14] = 0x44;
        bench.send(&frame);
        assert!(bench.matrix().is_empty());
        assert_eq!(bench.stat(Stat::Malformed), Counter { bytes: frame.len(), packets: 1 });
    }
}

#[test]
fn a_port_scan_does_not_change_the_attribution_of_others() {
    let bench = Bench::new(Options::default(), &[("10.0.1.0/24", "a"), ("10.0.2.0/24", "b")]);
    let (client, server, attacker) = ("10.0.1.5", "10.0.2.5", "10.0.1.66");
    let segment = |source, destination, ports, flags: u8| {
        let mut frame = Frame::ports(source, destination, TCP, ports);
        frame.bytes[14 + 20 + 13] = flags;
        frame
    };
    // Every port that a client's connections can come from, at both ends of them.
    for port in 40_000..40_400 {
        bench.send(&segment(attacker, client, (1, port), 0x02));
        bench.send(&segment(attacker, server, (1, port), 0x02));
    }
    for port in 40_000..40_400 {
        bench.send(&segment(client, server, (port, 50_051), 0x02));
        bench.send(&segment(client, server, (port, 50_051), 0x10));
        bench.send(&segment(server, client, (50_051, port), 0x12));
        bench.send(&segment(server, client, (50_051, port), 0x10));
    }
    let attacker: IpAddr = attacker.parse().unwrap();
    let others = bench.flows().into_iter().filter(|flow| flow.source != attacker);
    let mut others: Vec<_> = others.map(|flow| (flow.service_port, flow.side, flow.counter.packets)).collect();
    others.sort_by_key(|(_, side, _)| *side as u8);
    assert_eq!(others, [(50_051, ServiceSide::Destination, 800), (50_051, ServiceSide::Source, 800)]);
}

#[test]
fn icmp_is_filed_by_type() {
    for hook in HOOKS {
        let bench = Bench::new(Options { hook, ..Options::default() }, &TABLE);
        bench.send(&Frame::new("10.0.1.1", "10.0.2.2", 1, &[8, 0, 0, 0, 0, 1, 0, 1]));
        bench.send(&Frame::new("fd00:2::2", "fd00:1::1", 58, &[129, 0, 0, 0, 0, 1, 0, 1]));
        let mut flows: Vec<_> = bench.flows().iter().map(|flow| (flow.service_port >> 8, flow.side)).collect();
        flows.sort_by_key(|(kind, _)| *kind);
        assert_eq!(flows, [(8, ServiceSide::Destination), (129, ServiceSide::Source)]);
    }
}

#[test]
fn the_first_packet_and_the_ends_of_a_connection_are_announced() {
    for hook in HOOKS {
        let mut bench = Bench::new(Options { hook, ..Options::default() }, &TABLE);
        let with = |flags: u8, port| {
            let mut frame = Frame::ports("10.0.1.1", "10.0.2.2", TCP, (port, 80));
            frame.bytes[14 + 20 + 13] = flags;
            frame
        };
        // SYN, ACK, data, FIN of one connection; SYN and RST of another.
        for (flags, port) in
            [(0x02, 50_000), (0x10, 50_000), (0x18, 50_000), (0x11, 50_000), (0x02, 50_001), (0x04, 50_001)]
        {
            bench.send(&with(flags, port));
        }
        bench.send(&Frame::ports("fd00:2::2", "fd00:1::1", UDP, (53, 40_000)));
        bench.send(&Frame::ports("fd00:2::2", "fd00:1::1", UDP, (53, 40_001)));
        let mut events = Vec::new();
        bench.datapath.events(|event| events.push(event));
        let seen: Vec<_> = events.iter().map(|event| (event.tcp_flags, event.ports)).collect();
        let expected =
            [(0x02, (50_000, 80)), (0x11, (50_000, 80)), (0x02, (50_001, 80)), (0x04, (50_001, 80)), (0, (53, 40_000))];
        assert_eq!(seen, expected, "{hook}");
        assert_eq!(events[0].source.to_string(), "10.0.1.1");
        assert_eq!((events[4].destination.to_string().as_str(), events[4].side), ("fd00:1::1", ServiceSide::Source));
        let place = |slot| bench.slots.place(slot).to_string();
        assert_eq!((place(events[4].verdict.source), place(events[4].verdict.destination)), ("b".into(), "a".into()));
        assert!(events.is_sorted_by_key(|event| event.time));
    }
}

#[test]
fn events_that_are_withheld_or_lost_are_counted() {
    let mut bench = Bench::new(Options::default(), &TABLE);
    let mut syn = Frame::ports("10.0.1.1", "10.0.2.2", TCP, (50_000, 80));
    syn.bytes[14 + 20 + 13] = 0x02;
    let sent = 200_000;
    bench.send_times(&syn, sent);
    let mut reported = 0;
    bench.datapath.events(|_| reported += 1);
    let (withheld, lost) = (bench.stat(Stat::EventWithheld).packets, bench.stat(Stat::EventLost).packets);
    assert!(withheld > 0, "one CPU can't announce {sent} packets in a moment");
    assert_eq!(reported + withheld + lost, u64::from(sent));
    assert_eq!(bench.flows()[0].counter.packets, u64::from(sent));
}

#[test]
fn a_flood_of_one_sources_events_leaves_room_for_those_of_others() {
    let bench = Bench::new(Options::default(), &TABLE);
    let syn = |source| {
        let mut frame = Frame::ports(source, "10.0.2.2", TCP, (50_000, 80));
        frame.bytes[14 + 20 + 13] = 0x02;
        frame
    };
    for _ in 0..20 {
        bench.send_times(&syn("10.0.1.1"), 2_000);
        let withheld = bench.stat(Stat::EventWithheld).packets;
        bench.send_times(&syn("10.0.1.2"), 5);
        assert_eq!(bench.stat(Stat::EventWithheld).packets, withheld);
    }
    assert!(bench.stat(Stat::EventWithheld).packets > 0, "one source can't announce 2,000 packets in a moment");
}

#[test]
fn losses_of_the_ring_buffer_appear_among_the_flows() {
    let bench = Bench::new(Options::default(), &TABLE);
    let mut syn = Frame::ports("10.0.1.1", "10.0.2.2", TCP, (50_000, 80));
    syn.bytes[14 + 20 + 13] = 0x02;
    // The ring fills up without a reader; each window allows some more events for a CPU.
    while bench.stat(Stat::EventLost).packets == 0 {
        bench.send_times(&syn, 2000);
        thread::sleep(Duration::from_millis(20));
    }
    let lost = bench.stat(Stat::EventLost).packets;
    let ring = Arc::new(Ring::new(63));
    let sink = Sink::new(Arc::clone(&ring));
    let node = Node::new("node-a", Place::Unknown);
    let accounting = Accounting::new(10, false);
    let mut meter = Meter::new(node, bench.datapath, Arc::new(Index::default()), accounting, sink);
    for _ in 0..2 {
        meter.drain(Instant::now(), SystemTime::now()).unwrap();
        let batches: Vec<_> = ring.batches().collect();
        let records: Vec<&Record> = batches.iter().flat_map(|batch| batch.records()).collect();
        let reported: Vec<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::Lost(lost) => Some((lost.node.as_str(), lost.count)),
                Record::Flow(_) => None,
            })
            .collect();
        assert_eq!(reported, [("node-a", lost)], "once");
    }
}
