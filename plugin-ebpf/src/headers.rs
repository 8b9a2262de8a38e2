//! Reads IPv4, IPv6 and transport headers.
//!
//! Nothing is taken for a port that is not one: a later fragment, an unknown protocol, a chain of
//! extension headers longer than [`MAX_EXTENSIONS`] and bytes that can't be read all give
//! [`TransportKind::Unread`], and the packet belongs to its address pair.

use crate::{
    packet::Packet,
    ports::{self, TCP, UDP},
};
use meridian_abi::flow::{ServiceSide, V4, V6};

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const SCTP: u8 = 132;

/// Flags of TCP.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// IPv6 extension headers that are followed; a sender may chain any number.
pub const MAX_EXTENSIONS: usize = 6;

/// The facts in a packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<A> {
    /// The source address.
    pub source: A,
    /// The destination address.
    pub destination: A,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Bytes before the transport header.
    pub network_len: u32,
    /// How many of them each fragment would repeat.
    pub unfragmentable_len: u32,
    /// The header that each fragment would have in addition: the fragment header of IPv6.
    pub fragment_header_len: u32,
    /// Whether there is a jumbo payload option, which the kernel puts into super-packets of IPv6 above
    /// 64 KiB and which no segment has.
    pub jumbo: bool,
    /// The header after the IP headers.
    pub transport: Transport,
}

/// The facts in a packet's transport header.
///
/// Not an enum with fields: the compiler may copy a variant's undefined bytes, and the
/// verifier refuses a read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The kind of header.
    pub kind: TransportKind,
    /// The source port; of ICMP type × 256 + code; otherwise 0.
    pub source: u16,
    /// The destination port, or 0.
    pub destination: u16,
    /// The flags of TCP, or 0.
    pub tcp_flags: u8,
}

/// The header after the IP headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// A protocol without ports.
    Portless,
    /// There should be a header with ports or a type, but it can't be read here.
    Unread,
    /// TCP, UDP or SCTP.
    Ports,
    /// ICMP or ICMPv6.
    Icmp,
}

impl Transport {
    const PORTLESS: Self = Self::without(TransportKind::Portless);
    /// See [`TransportKind::Unread`].
    pub const UNREAD: Self = Self::without(TransportKind::Unread);

    const fn without(kind: TransportKind) -> Self {
        Self { kind, source: 0, destination: 0, tcp_flags: 0 }
    }
}

/// An address family: how its header is read and which of its addresses stay on the link.
pub trait Family: Copy {
    /// Reads the headers. `None`: this is not a packet of the family.
    fn parse(packet: &impl Packet) -> Option<Headers<Self>>;

    /// Whether the packet concerns one link only, not the traffic between nodes.
    fn link_scoped(headers: &Headers<Self>) -> bool;
}

impl Family for V4 {
    #[inline(always)]
    fn parse(packet: &impl Packet) -> Option<Headers<Self>> {
        let (mut words, mut destination) = ([0u64; 2], [0u32; 1]);
        if !packet.load(0, &mut words) || !packet.load(16, &mut destination) {
            return None;
        }
        let ([first, second], [destination]) = (words, destination);
        let [version_and_len, _, _, _, _, _, fragment_high, fragment_low] = first.to_ne_bytes();
        let [_, protocol, _, _, source @ ..] = second.to_ne_bytes();
        let network_len = u32::from(version_and_len & 0xf) * 4;
        if version_and_len >> 4 != 4 || network_len < 20 {
            return None;
        }
        let later_fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff != 0;
        Some(Headers {
            source: V4(u32::from_ne_bytes(source)),
            destination: V4(destination),
            protocol,
            network_len,
            // Options that are not to be copied are blanked, not left out.
            unfragmentable_len: network_len,
            fragment_header_len: 0,
            jumbo: false,
            transport: transport(packet, protocol, network_len, later_fragment),
        })
    }

    #[inline(always)]
    fn link_scoped(headers: &Headers<Self>) -> bool {
        let link_local = |address: V4| u32::from_be(address.0) >> 16 == 0xa9fe;
        let multicast = u32::from_be(headers.destination.0) >> 28 == 0xe;
        let broadcast = headers.destination.0 == u32::MAX;
        multicast || broadcast || link_local(headers.destination) || link_local(headers.source)
    }
}

impl Family for V6 {
    #[inline(always)]
    fn parse(packet: &impl Packet) -> Option<Headers<Self>> {
        let mut words = [0u64; 5];
        if !packet.load(0, &mut words) {
            return None;
        }
        let [first, source_high, source_low, destination_high, destination_low] = words;
        let [version, _, _, _, _, _, next, _] = first.to_ne_bytes();
        if version >> 4 != 6 {
            return None;
        }
        let chain = follow(packet, next);
        let Chain { protocol, len: network_len, unfragmentable_len, jumbo, later_fragment } = chain;
        Some(Headers {
            source: v6(source_high, source_low),
            destination: v6(destination_high, destination_low),
            protocol,
            network_len,
            unfragmentable_len,
            fragment_header_len: 8,
            jumbo,
            transport: transport(packet, protocol, network_len, later_fragment),
        })
    }

    #[inline(always)]
    fn link_scoped(headers: &Headers<Self>) -> bool {
        let link_local = |address: V6| u32::from_be(address.0[0]) >> 22 == 0xfe80 >> 6;
        let multicast = u32::from_be(headers.destination.0[0]) >> 24 == 0xff;
        // Neighbour discovery between global addresses is no less a matter of the link. The types
        // are those of router and neighbour solicitation, advertisement and redirect (RFC 4861)
        // and of MLD (RFC 2710, 3810).
        let housekeeping = headers.protocol == ICMPV6
            && headers.transport.kind == TransportKind::Icmp
            && matches!(headers.transport.source >> 8, 130..=137 | 143);
        multicast || housekeeping || link_local(headers.destination) || link_local(headers.source)
    }
}

/// An address of two 64-bit halves, as they were loaded.
#[inline(always)]
fn v6(high: u64, low: u64) -> V6 {
    let [a, b, c, d, e, f, g, h] = high.to_ne_bytes();
    let [i, j, k, l, m, n, o, p] = low.to_ne_bytes();
    V6([[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes))
}

/// A chain of extension headers.
struct Chain {
    /// The protocol where it ends.
    protocol: u8,
    /// Bytes before that, the IPv6 header's among them.
    len: u32,
    /// See [`Headers::unfragmentable_len`].
    unfragmentable_len: u32,
    /// See [`Headers::jumbo`].
    jumbo: bool,
    /// Whether it belongs to a fragment other than the first.
    later_fragment: bool,
}

/// The jumbo payload option alone in a hop-by-hop header: its length in units of 8 beyond the first,
/// its type, its length.
const JUMBO: [u8; 3] = [0, 0xc2, 4];

/// The state while a chain is followed, in bits.
const IS_JUMBO: u32 = 1;
const IS_LATER_FRAGMENT: u32 = 2;
const IS_ROUTED: u32 = 4;
/// The headers so far are not repeated in each fragment (RFC 8200, section 4.5).
const IS_FRAGMENTABLE: u32 = 8;

/// Follows the chain from `next`.
#[inline(always)]
fn follow(packet: &impl Packet, next: u8) -> Chain {
    // Words of one array, because each header has many kinds, and six of them in a row would be
    // millions of paths through the program.
    let mut state = [u32::from(next), 40, 40, 0];
    for _ in 0..MAX_EXTENSIONS {
        let [protocol, len, mut unfragmentable_len, mut known] = state;
        let protocol = protocol as u8;
        let mut header = [0u8; 4];
        if !is_extension(protocol) || known & IS_LATER_FRAGMENT != 0 || !packet.load(len, &mut header) {
            break;
        }
        let [following, units, third, fourth] = header;
        let bytes = match protocol {
            FRAGMENT => {
                if u16::from_be_bytes([third, fourth]) & 0xfff8 != 0 {
                    known |= IS_LATER_FRAGMENT;
                }
                8
            }
            AUTHENTICATION => (u32::from(units) + 2) * 4,
            _ => (u32::from(units) + 1) * 8,
        };
        match protocol {
            HOP_BY_HOP if [units, third, fourth] == JUMBO => known |= IS_JUMBO,
            HOP_BY_HOP => {}
            ROUTING => known |= IS_ROUTED,
            DESTINATION_OPTIONS if known & IS_ROUTED == 0 => {}
            _ => known |= IS_FRAGMENTABLE,
        }
        if known & IS_FRAGMENTABLE == 0 {
            unfragmentable_len = len + bytes;
        }
        state = packet.forget([following.into(), len + bytes, unfragmentable_len, known]);
    }
    let [protocol, len, unfragmentable_len, known] = state;
    Chain {
        protocol: protocol as u8,
        len,
        unfragmentable_len,
        jumbo: known & IS_JUMBO != 0,
        later_fragment: known & IS_LATER_FRAGMENT != 0,
    }
}

const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

#[inline(always)]
fn transport(packet: &impl Packet, protocol: u8, offset: u32, later_fragment: bool) -> Transport {
    let has_ports = matches!(protocol, TCP | UDP | SCTP);
    let has_type = matches!(protocol, ICMP | ICMPV6);
    // The chain of extension headers went on, or broke off.
    let no_end = is_extension(protocol);
    if !has_ports && !has_type {
        return if no_end { Transport::UNREAD } else { Transport::PORTLESS };
    }
    // Every transport header has these: two ports, or type, code and checksum.
    let mut head = [0u32; 1];
    if later_fragment || !packet.load(offset, &mut head) {
        return Transport::UNREAD;
    }
    let head = u32::from_be(head[0]);
    let source = (head >> 16) as u16;
    if has_type {
        return Transport { kind: TransportKind::Icmp, source, destination: 0, tcp_flags: 0 };
    }
    let mut tcp_flags = [0u8; 1];
    if protocol == TCP {
        // A header that is cut off has none.
        packet.load(offset + 13, &mut tcp_flags);
    }
    Transport { kind: TransportKind::Ports, source, destination: head as u16, tcp_flags: tcp_flags[0] }
}

impl<A> Headers<A> {
    /// Bytes of IP and transport headers that each segment of a GSO packet repeats; `None` where
    /// the packet is neither TCP nor UDP, or can't be read.
    #[inline(always)]
    pub fn repeated_len(&self, packet: &impl Packet) -> Option<u32> {
        if self.transport.kind != TransportKind::Ports {
            return None;
        }
        match self.protocol {
            TCP => {
                let mut data_offset = [0u8; 1];
                packet
                    .load(self.network_len + 12, &mut data_offset)
                    .then_some(self.network_len + u32::from(data_offset[0] >> 4) * 4)
            }
            UDP => Some(self.network_len + 8),
            _ => None,
        }
    }

    /// Whether the transport is UDP.
    #[inline(always)]
    pub const fn is_udp(&self) -> bool {
        self.protocol == UDP
    }

    /// Which end is the service, and whether it may be the other end as well.
    ///
    /// The sender of a SYN connects to the service. Otherwise the ports tell (see [`ports::sides`]), and where they
    /// leave both ends possible, a port that `known` names as a service's. An echo reply comes from the end that was
    /// asked.
    #[inline(always)]
    pub fn sides(&self, known: impl Fn(u16) -> bool) -> (ServiceSide, bool) {
        let Transport { kind, source, destination, tcp_flags } = self.transport;
        match kind {
            TransportKind::Ports => match tcp_flags & (SYN | ACK) {
                SYN => (ServiceSide::Destination, false),
                flags if flags == SYN | ACK => (ServiceSide::Source, false),
                _ => ports::sides(source, destination, known),
            },
            TransportKind::Icmp => {
                let is_reply = matches!((self.protocol, source >> 8), (ICMP, 0) | (ICMPV6, 129));
                (if is_reply { ServiceSide::Source } else { ServiceSide::Destination }, false)
            }
            TransportKind::Portless | TransportKind::Unread => (ServiceSide::None, false),
        }
    }

    /// The service's port and the client's, if `side` is the service. ICMP has its type and code for the first.
    #[inline(always)]
    pub const fn ports(&self, side: ServiceSide) -> (u16, u16) {
        let Transport { kind, source, destination, .. } = self.transport;
        match (kind, side) {
            (TransportKind::Ports, ServiceSide::Destination) => (destination, source),
            // ICMP's destination is 0, and so are both where there are no ports.
            _ => (source, destination),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::packet::{Gso, Word};
    use std::{vec, vec::Vec};
    use zerocopy::FromBytes;

    /// The service's port, the client's, and the service's side, with no port known.
    fn filed<A>(headers: &Headers<A>) -> (u16, u16, ServiceSide) {
        let (side, _) = headers.sides(|_| false);
        let (service, client) = headers.ports(side);
        (service, client, side)
    }

    struct Bytes(Vec<u8>);

    impl Packet for Bytes {
        fn ip_bytes(&self) -> u32 {
            self.0.len() as u32
        }
        fn gso(&self) -> Option<Gso> {
            None
        }
        fn pieces(&self) -> u32 {
            0
        }
        fn forget<const N: usize>(&self, words: [u32; N]) -> [u32; N] {
            words
        }
        fn load<W: Word, const N: usize>(&self, offset: u32, words: &mut [W; N]) -> bool {
            let bytes = self.0.get(offset as usize..).and_then(|rest| rest.get(..N * size_of::<W>()));
            let Some(bytes) = bytes else { return false };
            *words = <[W; N]>::read_from_bytes(bytes).unwrap();
            true
        }
    }

    fn v4(protocol: u8, options: &[u8], fragment: u16, rest: &[u8]) -> Bytes {
        let mut bytes = vec![0; 20];
        bytes[0] = 0x45 + (options.len() / 4) as u8;
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        bytes[9] = protocol;
        bytes[12..16].copy_from_slice(&[10, 0, 1, 2]);
        bytes[16..20].copy_from_slice(&[10, 0, 2, 3]);
        bytes.extend(options);
        bytes.extend(rest);
        Bytes(bytes)
    }

    fn v6(next: u8, rest: &[u8]) -> Bytes {
        let mut bytes = vec![0; 40];
        bytes[0] = 0x60;
        bytes[6] = next;
        bytes[8..24].copy_from_slice(&[0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        bytes[24..40].copy_from_slice(&[0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        bytes.extend(rest);
        Bytes(bytes)
    }

    const WEB_REQUEST: [u8; 20] = [0xc3, 0x50, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 2, 0, 0, 0, 0, 0, 0];

    #[test]
    fn ports_are_read_after_options() {
        let packet = v4(TCP, &[1; 8], 0, &WEB_REQUEST);
        let headers = V4::parse(&packet).unwrap();
        assert_eq!(headers.network_len, 28);
        assert_eq!(
            headers.transport,
            Transport { kind: TransportKind::Ports, source: 50_000, destination: 80, tcp_flags: 2 }
        );
        assert_eq!(filed(&headers), (80, 50_000, ServiceSide::Destination));
        assert_eq!(headers.repeated_len(&packet), Some(28 + 32));
        assert_eq!(headers.source.0.to_ne_bytes(), [10, 0, 1, 2]);
        assert_eq!(headers.destination.0.to_ne_bytes(), [10, 0, 2, 3]);
    }

    #[test]
    fn the_reply_of_a_service_is_filed_under_the_same_port() {
        let headers = V4::parse(&v4(UDP, &[], 0, &[0, 53, 0xc3, 0x50, 0, 8, 0, 0])).unwrap();
        assert_eq!(filed(&headers), (53, 50_000, ServiceSide::Source));
    }

    #[test]
    fn the_payload_of_a_later_fragment_is_not_taken_for_ports() {
        for offset in [1, 0x1fff, 0x2001] {
            let headers = V4::parse(&v4(UDP, &[], offset, &WEB_REQUEST)).unwrap();
            assert_eq!(headers.transport, Transport::UNREAD);
            assert_eq!(filed(&headers), (0, 0, ServiceSide::None));
        }
        let first = V4::parse(&v4(UDP, &[], 0x2000, &WEB_REQUEST)).unwrap();
        assert_eq!(first.transport.kind, TransportKind::Ports);
        let mut fragment = vec![UDP, 0, 0, 9, 0, 0, 0, 1];
        fragment.extend(WEB_REQUEST);
        assert_eq!(V6::parse(&v6(FRAGMENT, &fragment)).unwrap().transport, Transport::UNREAD);
    }

    #[test]
    fn extension_headers_are_followed() {
        let mut rest = vec![ROUTING, 1];
        rest.extend([0; 14]);
        rest.extend([TCP, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend(WEB_REQUEST);
        let packet = v6(HOP_BY_HOP, &rest);
        let headers = V6::parse(&packet).unwrap();
        assert_eq!((headers.protocol, headers.network_len), (TCP, 64));
        assert_eq!(filed(&headers), (80, 50_000, ServiceSide::Destination));
        assert_eq!(headers.repeated_len(&packet), Some(96));
        assert_eq!(headers.source.0.map(u32::from_be), [0xfd00_0001, 0, 0, 2]);
        assert_eq!(headers.destination.0.map(u32::from_be), [0xfd00_0002, 0, 0, 3]);
    }

    #[test]
    fn what_fragments_repeat_ends_where_the_kernel_puts_their_header() {
        let header = |next: u8| [next, 0, 0, 0, 0, 0, 0, 0];
        let len = |chain: &[u8]| {
            let mut rest: Vec<u8> = chain[1..].iter().flat_map(|next| header(*next)).collect();
            rest.extend(header(TCP));
            rest.extend(WEB_REQUEST);
            V6::parse(&v6(chain[0], &rest)).unwrap().unfragmentable_len - 40
        };
        assert_eq!(len(&[HOP_BY_HOP]), 8);
        assert_eq!(len(&[HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, DESTINATION_OPTIONS]), 24);
        assert_eq!(len(&[ROUTING, AUTHENTICATION, ROUTING]), 8);
    }

    #[test]
    fn the_jumbo_option_of_the_kernel_is_told_from_others() {
        let jumbo = |option: [u8; 3]| {
            let [len, kind, size] = option;
            let mut rest = vec![TCP, len, kind, size, 0, 1, 0, 0];
            rest.extend(WEB_REQUEST);
            rest.extend([0; 16]);
            V6::parse(&v6(HOP_BY_HOP, &rest)).unwrap().jumbo
        };
        assert!(jumbo(JUMBO));
        assert!(!jumbo([1, 0xc2, 4]) && !jumbo([0, 5, 2]));
    }

    #[test]
    fn a_syn_tells_the_service_then_the_ports_then_the_known_ports() {
        let sides = |source: u16, destination: u16, flags: u8, known: &[u16]| {
            let mut segment = WEB_REQUEST;
            segment[..2].copy_from_slice(&source.to_be_bytes());
            segment[2..4].copy_from_slice(&destination.to_be_bytes());
            segment[13] = flags;
            V4::parse(&v4(TCP, &[], 0, &segment)).unwrap().sides(|port| known.contains(&port))
        };
        let (at_source, at_destination) = (ServiceSide::Source, ServiceSide::Destination);
        assert_eq!(sides(40_000, 50_051, SYN, &[40_000]), (at_destination, false));
        assert_eq!(sides(50_051, 40_000, SYN | ACK, &[]), (at_source, false));
        assert_eq!(sides(40_000, 50_051, ACK, &[50_051]), (at_destination, false));
        assert_eq!(sides(50_051, 40_000, ACK, &[50_051]), (at_source, false));
        assert_eq!(sides(50_051, 40_000, ACK, &[]), (at_destination, true));
        assert_eq!(sides(50_051, 40_000, ACK, &[40_000, 50_051]), (at_destination, true));
        assert_eq!(sides(800, 2049, ACK, &[2049]), (at_destination, false));
        // An ephemeral port is no service's beside one that is not ephemeral, whatever is configured.
        assert_eq!(sides(40_000, 8080, ACK, &[40_000]), (at_destination, false));
        assert_eq!(sides(8080, 40_000, ACK, &[]), (at_source, false));
    }

    #[test]
    fn an_endless_chain_of_extension_headers_gives_the_address_pair() {
        let rest: Vec<u8> = [DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(40);
        let headers = V6::parse(&v6(DESTINATION_OPTIONS, &rest)).unwrap();
        assert_eq!(headers.transport, Transport::UNREAD);
        assert_eq!(headers.network_len, 40 + 8 * MAX_EXTENSIONS as u32);
    }

    #[test]
    fn bytes_that_cannot_be_read_give_the_address_pair() {
        assert_eq!(V4::parse(&v4(TCP, &[], 0, &[0, 80])).unwrap().transport, Transport::UNREAD);
        assert_eq!(V6::parse(&v6(HOP_BY_HOP, &[TCP])).unwrap().transport, Transport::UNREAD);
    }

    #[test]
    fn what_is_not_ip_is_refused() {
        assert!(V4::parse(&v6(TCP, &WEB_REQUEST)).is_none());
        assert!(V6::parse(&v4(TCP, &[], 0, &WEB_REQUEST)).is_none());
        assert!(V4::parse(&Bytes(vec![0x45; 19])).is_none());
        let mut short = v4(TCP, &[], 0, &WEB_REQUEST);
        short.0[0] = 0x44;
        assert!(V4::parse(&short).is_none());
    }

    #[test]
    fn neighbour_discovery_between_global_addresses_is_link_scoped() {
        for (kind, expected) in [(135, true), (136, true), (143, true), (128, false), (1, false)] {
            let headers = V6::parse(&v6(ICMPV6, &[kind, 0, 0, 0])).unwrap();
            assert_eq!(V6::link_scoped(&headers), expected, "type {kind}");
        }
        // 135 is no ICMPv4 type of the link.
        let headers = V6::parse(&v6(ICMP, &[135, 0, 0, 0])).unwrap();
        assert!(!V6::link_scoped(&headers));
    }

    #[test]
    fn multicast_broadcast_and_link_local_addresses_are_link_scoped() {
        let scoped = |destination: [u8; 4]| {
            let mut packet = v4(UDP, &[], 0, &WEB_REQUEST);
            packet.0[16..20].copy_from_slice(&destination);
            V4::link_scoped(&V4::parse(&packet).unwrap())
        };
        assert!(scoped([224, 0, 0, 1]) && scoped([239, 1, 1, 1]) && scoped([255; 4]) && scoped([169, 254, 1, 1]));
        assert!(!scoped([240, 0, 0, 1]) && !scoped([10, 0, 1, 255]) && !scoped([169, 253, 1, 1]));
    }

    #[test]
    fn an_echo_reply_comes_from_the_service_side() {
        let side = |protocol, kind| V4::parse(&v4(protocol, &[], 0, &[kind, 0, 0, 0])).unwrap().sides(|_| false).0;
        assert_eq!(side(ICMP, 0), ServiceSide::Source);
        assert_eq!(side(ICMP, 8), ServiceSide::Destination);
        assert_eq!(filed(&V6::parse(&v6(ICMPV6, &[129, 0, 0, 0])).unwrap()), (129 << 8, 0, ServiceSide::Source));
    }
}
