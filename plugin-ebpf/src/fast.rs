//! The straight path: counts a packet of TCP or UDP whose flow entry exists and has a verdict of the table in force.
//!
//! An entry's existence answers what the core would ask: its addresses concern no single link, and its packets are in
//! the sums. Nothing is counted here in another way than in the core; whatever is unusual is left to it.

use crate::{
    count::{add_cut, encapsulate},
    maps::{self, FlowTable},
};
use meridian_abi::{
    Counter, device,
    flow::{FlowKey, PacketPath, ServiceSide, SideAndPath},
    matrix::Direction,
};
use meridian_ebpf::{
    headers::UDP,
    packet::Route,
    straight::{self, Linear},
};

/// Counts the packet, and says whether it did: it must go to the core if not.
#[inline(always)]
pub fn sent<A: FlowTable + straight::Family>(packet: &impl Linear, route: &impl Route) -> bool {
    // Before the look-up, as in `maps::entry`.
    let epoch = maps::epoch();
    let Some(headers) = straight::read::<A>(packet) else { return false };
    let arrived_on = route.arrived_on();
    // It may be the outer packet of an overlay.
    if headers.protocol == UDP && arrived_on == 0 && maps::has_overlay_ports() {
        return false;
    }
    let role = maps::quick_role(route.out());
    if role == 0 {
        return false;
    }
    let Some(mut size) = headers.size(packet) else { return false };
    let is_forwarded = arrived_on != 0 && maps::quick_role(arrived_on) != 0;
    let path = match role {
        _ if is_forwarded => PacketPath::Forwarded,
        device::OVERLAY => PacketPath::Tunnelled,
        _ => PacketPath::Sent,
    };
    let keyed = |side| {
        let (service_port, client_port) = headers.ports(side);
        let key = FlowKey {
            source: headers.source,
            destination: headers.destination,
            service_port,
            protocol: headers.protocol,
            side_and_path: SideAndPath::new(side, path),
        };
        (key, client_port)
    };
    let (side, is_open) = headers.sides(|port| maps::is_service(headers.protocol, port));
    let (key, mut client_port) = keyed(side);
    let (mut entry, mut verdict) = maps::near_entry(&key);
    if entry.is_null() {
        // The core prefers an entry of this key, wherever it is.
        if !is_open || maps::has_entry(&key) != 0 {
            return false;
        }
        let other = if matches!(side, ServiceSide::Source) { ServiceSide::Destination } else { ServiceSide::Source };
        let (key, other_port) = keyed(other);
        (entry, verdict) = maps::near_entry(&key);
        client_port = other_port;
        if entry.is_null() {
            return false;
        }
    }
    if verdict.epoch != epoch {
        return false;
    }
    if role == device::OVERLAY {
        encapsulate(&mut size);
    }
    add_cut(size.cut, Counter { bytes: u64::from(packet.ip_bytes()), packets: 1 }, size.wire);
    maps::add_to_entry(entry, client_port, size.wire);
    maps::add_to_matrix::<A>(verdict, Direction::Egress, size.wire);
    true
}
