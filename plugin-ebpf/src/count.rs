//! The core that every hook shares: which packets count, and where.

use crate::{
    entries::{self, FlowTable, Origin},
    events,
    maps::{self, setting},
};
use core::ptr;
use meridian_abi::{
    Counter,
    control::Control,
    event::{Event, TCP_EVENT_FLAGS},
    flow::{FlowKey, PacketPath, SideAndPath, Verdict},
    matrix::Direction,
    settings,
    stats::Stat,
    zone::{self, PrefixKind, Slot},
};
use meridian_ebpf::{
    headers::{Headers, Transport, TransportKind},
    packet::{Packet, Route},
    ports::is_among,
    wire::{self, Cut, Size},
};

/// Counts a packet on its way out.
#[inline(always)]
pub fn sent<A: FlowTable>(packet: &impl Packet, route: &impl Route) {
    let whole = Counter { bytes: u64::from(packet.ip_bytes()), packets: 1 };
    let Some(headers) = A::parse(packet) else { return maps::add_stat(Stat::Malformed, whole) };
    let mut size = wire::size(packet, &headers, || route.out_mtu());
    if let Some(reason) = outside(&headers, route) {
        return maps::add_stat(reason, size.wire);
    }
    if setting!(handover) == settings::NOTE && size.cut.makes_fragments() {
        // Its fragments are other packets, of which traffic control counts each.
        return;
    }
    let is_overlay = maps::is_overlay(route.out());
    if is_overlay {
        encapsulate(&mut size);
    }
    let arrived_on = route.arrived_on();
    let path = if arrived_on != 0 && maps::is_uplink(arrived_on) {
        PacketPath::Forwarded
    } else if is_overlay {
        PacketPath::Tunnelled
    } else {
        PacketPath::Sent
    };
    count(&headers, Course { path, is_overlay, tunnel_end: |epoch| route.tunnel_end(epoch) }, whole, size);
}

/// Which way a packet goes, and in which zone the tunnel ends that it goes through, by the table's version.
struct Course<F> {
    path: PacketPath,
    is_overlay: bool,
    tunnel_end: F,
}

/// The facts of a packet by which its count differs.
struct Facts {
    side_and_path: SideAndPath,
    protocol: u8,
    tcp_flags: u8,
    is_open: bool,
    is_overlay: bool,
    /// The service's and the client's.
    ports: (u16, u16),
}

impl Facts {
    /// The same facts, of which the verifier knows nothing any more: it has come here along thousands of paths, and would
    /// walk the rest of the program along each of them.
    #[inline(always)]
    fn forgotten(self) -> Self {
        let Self { side_and_path, protocol, tcp_flags, is_open, is_overlay, ports } = self;
        let bits = is_open as u8 | (is_overlay as u8) << 1;
        let bytes = u32::from_ne_bytes([side_and_path.byte(), protocol, tcp_flags, bits]);
        let [bytes, ports] = maps::forget([bytes, u32::from(ports.0) | u32::from(ports.1) << 16]);
        let [side_and_path, protocol, tcp_flags, bits] = bytes.to_ne_bytes();
        Self {
            side_and_path: SideAndPath::from_byte(side_and_path),
            protocol,
            tcp_flags,
            is_open: bits & 1 != 0,
            is_overlay: bits & 2 != 0,
            ports: (ports as u16, (ports >> 16) as u16),
        }
    }
}

#[inline(always)]
fn add_overlay_headers(size: &mut Size) {
    size.wire.bytes += size.wire.packets * u64::from(setting!(overlay_header_len));
}

/// Counts a packet that goes out through an overlay's device: its headers around the packet count where the
/// user wants them to.
#[inline(always)]
pub fn encapsulate(size: &mut Size) {
    maps::add_stat(Stat::Encapsulated, size.wire);
    add_overlay_headers(size);
}

/// Counts a packet on its way in, if it is from an external prefix.
#[inline(always)]
pub fn arrived<A: FlowTable>(packet: &impl Packet, device: u32) {
    let control = maps::control();
    // SAFETY: a map value; userspace stores the aligned half word whole.
    if unsafe { ptr::read_volatile(&raw const (*control).externals) } == 0 {
        return;
    }
    let Some(headers) = A::parse(packet) else { return };
    if A::link_scoped(&headers) || maps::lookup(headers.source, maps::epoch()).kind != PrefixKind::External as u8 {
        return;
    }
    let whole = Counter { bytes: u64::from(packet.ip_bytes()), packets: 1 };
    let mut size = wire::size(packet, &headers, || u32::MAX);
    if maps::is_overlay(device) {
        add_overlay_headers(&mut size);
    } else if maps::is_node(headers.destination) && is_outer(&headers, headers.transport.destination) {
        // The inner packet arrives once more, on the overlay's device.
        return maps::add_stat(Stat::Overlay, size.wire);
    }
    let course = Course { path: PacketPath::Arrived, is_overlay: false, tunnel_end: |_| zone::UNKNOWN };
    count(&headers, course, whole, size);
}

/// Why a packet is outside the sums: it stays on its link or on its node, or was counted already.
#[inline(always)]
fn outside<A: FlowTable>(headers: &Headers<A>, route: &impl Route) -> Option<Stat> {
    if !maps::is_uplink(route.out()) {
        return Some(if route.out_is_loopback() {
            Stat::Loopback
        } else if A::link_scoped(headers) {
            Stat::LinkScoped
        } else if route.arrived_on() != 0 && maps::is_uplink(route.arrived_on()) {
            Stat::Delivered
        } else {
            Stat::SameNode
        });
    }
    if A::link_scoped(headers) {
        return Some(Stat::LinkScoped);
    }
    carries_counted(headers, route).then_some(Stat::Overlay)
}

const IPIP: u8 = 4;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const GRE: u8 = 47;
const ESP: u8 = 50;

/// Whether a packet was made by this node around another one, which was counted.
///
/// The evidence must be out of a pod's reach: an overlay's port or protocol is not, the source
/// address and the device on which the packet arrived are.
#[inline(always)]
fn carries_counted<A: FlowTable>(headers: &Headers<A>, route: &impl Route) -> bool {
    if headers.protocol == ESP {
        // The packet that was encrypted passed this hook before. It may have arrived from a pod.
        return setting!(sees_ipsec_twice) != 0 && maps::is_node(headers.source);
    }
    route.arrived_on() == 0 && is_outer(headers, headers.transport.source) && maps::is_node(headers.source)
}

/// Whether a packet has an overlay's protocol or port; `own` is the port of this node's end.
#[inline(always)]
fn is_outer<A: FlowTable>(headers: &Headers<A>, own: u16) -> bool {
    if !matches!(headers.protocol, UDP | IPIP | IPV6 | GRE) {
        return false;
    }
    if headers.protocol == UDP {
        let Transport { kind, destination, .. } = headers.transport;
        let [destinations, sources] = maps::overlay_ports();
        // An unused place has port 0, which no overlay has.
        return kind == TransportKind::Ports
            && (destination != 0 && is_among(destinations, destination) || own != 0 && is_among(sources, own));
    }
    let bit = match headers.protocol {
        IPIP => Control::IPIP,
        IPV6 => Control::IPV6,
        _ => Control::GRE,
    };
    // SAFETY: a map value; userspace stores the aligned word whole.
    unsafe { ptr::read_volatile(&raw const (*maps::control()).protocols) & bit != 0 }
}

/// Adds to the matrix, and to the flow entry if there is room for one.
#[inline(always)]
fn count<A: FlowTable>(headers: &Headers<A>, course: Course<impl Fn(u32) -> Slot>, whole: Counter, size: Size) {
    let Size { wire: size, cut } = size;
    add_cut(cut, whole, size);
    if headers.transport.kind == TransportKind::Unread {
        maps::add_stat(Stat::NoPorts, size);
    }
    let (side, is_open) = headers.sides(|port| maps::is_service(headers.protocol, port));
    let ports = headers.ports(side);
    let Facts { side_and_path, protocol, tcp_flags, is_open, is_overlay, ports } = Facts {
        side_and_path: SideAndPath::new(side, course.path),
        protocol: headers.protocol,
        tcp_flags: headers.transport.tcp_flags,
        is_open,
        is_overlay: course.is_overlay,
        ports,
    }
    .forgotten();
    let (service_port, mut client_port) = ports;
    let (source, destination) = (headers.source, headers.destination);
    let mut key = FlowKey { source, destination, service_port, protocol, side_and_path };
    // Where the ports leave it open which end is the service, an entry that exists for one of the two keys tells: the
    // SYN of some connection between these addresses has made it. Nothing that other addresses send can change that.
    // One key that changes, because two of IPv6 take too much of the stack.
    let turn = |key: &mut FlowKey<A>| key.turn(&mut client_port);
    let tunnel_end = |epoch| if is_overlay { (course.tunnel_end)(epoch) } else { zone::UNKNOWN };
    let zones = |key: &FlowKey<A>, epoch| classify(key, tunnel_end, epoch);
    let (entry, verdict, origin) = entries::entry(&mut key, is_open, turn, zones);
    if entry.is_null() {
        maps::add_stat(Stat::Unattributed, size);
        if matches!(origin, Origin::OverShare) {
            maps::add_stat(Stat::OverShare, size);
        }
    } else {
        entries::add_to_entry(entry, client_port, size);
    }
    let is_arrived = matches!(key.side_and_path.path(), PacketPath::Arrived);
    maps::add_to_matrix::<A>(verdict, if is_arrived { Direction::Ingress } else { Direction::Egress }, size);
    if matches!(origin, Origin::Made) || tcp_flags & TCP_EVENT_FLAGS != 0 {
        let event = Event {
            time_ns: 0,
            verdict: verdict.pack(),
            source: source.words(),
            destination: destination.words(),
            source_port: headers.transport.source,
            destination_port: headers.transport.destination,
            protocol,
            tcp_flags,
            version: A::VERSION as u8,
            side_and_path: key.side_and_path,
        };
        events::announce(event, size);
    }
}

/// Counts how a packet was cut, if that is worth a counter.
#[inline(always)]
pub fn add_cut(cut: Cut, whole: Counter, size: Counter) {
    if let Some((stat, as_it_passed)) = cut.stat() {
        maps::add_stat(stat, if as_it_passed { whole } else { size });
    }
}

/// The zones between which a packet goes.
#[inline(always)]
fn classify<A: FlowTable>(key: &FlowKey<A>, tunnel_end: impl Fn(u32) -> Slot, epoch: u32) -> Verdict {
    let path = key.side_and_path.path();
    let source = match path {
        PacketPath::Forwarded => maps::node(),
        PacketPath::Sent | PacketPath::Tunnelled | PacketPath::Arrived => maps::lookup(key.source, epoch).slot,
    };
    let to = maps::lookup(key.destination, epoch);
    let mut destination = to.slot;
    if matches!(path, PacketPath::Arrived) {
        // It is here, whatever its address: a load balancer's is in no prefix.
        if destination < zone::FIRST_ZONE {
            destination = maps::node();
        }
    } else if to.kind != PrefixKind::Cluster as u8 {
        // Traffic that leaves the cluster through a tunnel passes a gateway first.
        let end = tunnel_end(epoch);
        if end >= zone::FIRST_ZONE {
            destination = end;
        }
    }
    Verdict { epoch, source, destination }
}
