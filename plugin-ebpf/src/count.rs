//! The core that every hook shares: which packets count, and where.

use crate::maps::{self, FlowTable};
use meridian_abi::{
    Counter,
    event::{Event, TCP_EVENT_FLAGS},
    flow::FlowKey,
    stats::Stat,
};
use meridian_ebpf::{
    headers::{Headers, Transport, TransportKind},
    packet::{Packet, Route},
    wire,
};

/// A packet outside the sums: the reason and its size.
pub struct Outside(pub Stat, pub Counter);

/// Counts a packet. `Err`: it is outside the sums.
#[inline(always)]
pub fn count<A: FlowTable>(packet: &impl Packet, route: &impl Route) -> Result<(), Outside> {
    let whole = Counter { bytes: u64::from(packet.ip_bytes()), packets: 1 };
    let headers = A::parse(packet).ok_or(Outside(Stat::Malformed, whole))?;
    let size = wire::size(packet, &headers).unwrap_or_else(|whole| {
        maps::add_stat(Stat::OddGso, whole);
        whole
    });
    if let Some(reason) = outside(&headers, route) {
        return Err(Outside(reason, size));
    }
    if size.packets > 1 {
        maps::add_stat(Stat::SuperPacket, whole);
    } else if packet.gso().is_none() && packet.ip_bytes() > route.out_mtu() {
        maps::add_stat(Stat::Fragmented, size);
    }
    attribute(&headers, size);
    Ok(())
}

/// Why a packet is outside the sums: it stays on its link or on its node.
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
    A::link_scoped(headers).then_some(Stat::LinkScoped)
}

/// Adds to the matrix, and to the flow entry if there is room for one.
#[inline(always)]
fn attribute<A: FlowTable>(headers: &Headers<A>, size: Counter) {
    let (service_port, client_port, side) = headers.service();
    let key = FlowKey {
        source: headers.source,
        destination: headers.destination,
        service_port,
        protocol: headers.protocol,
        side: side as u8,
    };
    if headers.transport.kind == TransportKind::Unread {
        maps::add_stat(Stat::NoPorts, size);
    }
    let (flow, first) = maps::flow(&key);
    let verdict = if flow.is_null() {
        maps::add_stat(Stat::Unattributed, size);
        maps::classify(headers, maps::epoch())
    } else {
        maps::count_flow(flow, headers, client_port, size)
    };
    maps::add_to_matrix::<A>(verdict, size);
    let Transport { source, destination, tcp_flags, .. } = headers.transport;
    if first || tcp_flags & TCP_EVENT_FLAGS != 0 {
        let event = Event {
            time_ns: 0,
            verdict: verdict.pack(),
            source: headers.source.words(),
            destination: headers.destination.words(),
            source_port: source,
            destination_port: destination,
            protocol: headers.protocol,
            tcp_flags,
            version: A::VERSION as u8,
            side: key.side,
        };
        maps::announce(event, size);
    }
}
