//! The straight path: counts a packet of TCP or UDP whose flow entry exists and has a verdict of the table in force.
//!
//! An entry's existence answers what the core would ask: its addresses concern no single link, and its packets are in
//! the sums. Nothing is counted here in another way than in the core; whatever is unusual is left to it.

use crate::{
    count::{add_cut, encapsulate},
    entries::{self, FlowTable},
    maps,
};
use meridian_abi::{
    Counter, device,
    flow::{FlowKey, PacketPath, SideAndPath, Verdict},
    matrix::Direction,
};
use meridian_ebpf::{
    packet::Route,
    ports::UDP,
    straight::{self, Linear},
    wire::Cut,
};

/// Counts the packet. Returns `false` if it must go to the core instead.
#[inline(always)]
pub fn sent<A: FlowTable + straight::Family>(packet: &impl Linear, route: &impl Route) -> bool {
    // Before the look-up, as in `entries::entry`.
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
    let (side, is_open) = headers.sides(|port| maps::is_service(headers.protocol, port));
    let (service_port, mut client_port) = headers.ports(side);
    let mut key = FlowKey {
        source: headers.source,
        destination: headers.destination,
        service_port,
        protocol: headers.protocol,
        side_and_path: SideAndPath::new(side, path),
    };
    // The verifier has come here along many paths, and would walk the search along each of them.
    let is_cut = size.cut == Cut::Segments;
    let [is_open, is_overlay, is_cut] = forgotten([is_open, role == device::OVERLAY, is_cut], client_port);
    let (mut entry, mut word) = entries::near_entry(&key);
    if entry.is_null() {
        (entry, word) = entries::far_entry(&key);
    }
    if entry.is_null() {
        if !is_open {
            return false;
        }
        key.turn(&mut client_port);
        (entry, word) = entries::far_entry(&key);
        if entry.is_null() {
            return false;
        }
    }
    let verdict = Verdict::unpack(word);
    if verdict.epoch != epoch {
        return false;
    }
    if is_overlay {
        encapsulate(&mut size);
    }
    add_cut(
        if is_cut { Cut::Segments } else { Cut::Whole },
        Counter { bytes: u64::from(packet.ip_bytes()), packets: 1 },
        size.wire,
    );
    entries::add_to_entry(entry, client_port, size.wire);
    maps::add_to_matrix::<A>(verdict, Direction::Egress, size.wire);
    true
}

/// The same facts, of which the verifier knows nothing any more.
#[inline(always)]
fn forgotten([a, b, c]: [bool; 3], unknown: u16) -> [bool; 3] {
    let bits = maps::blurred(u64::from(a) | u64::from(b) << 1 | u64::from(c) << 2, unknown);
    [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0]
}
