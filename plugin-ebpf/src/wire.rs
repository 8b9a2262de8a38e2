//! A packet on the wire: bytes and packets after segmentation.
//!
//! The number of segments is computed. The kernel's own `gso_segs` is 0 for packets that came from
//! a tun device with virtio headers.

use crate::{
    headers::Headers,
    packet::{Gso, Packet, TOO_MANY},
};
use core::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use meridian_abi::{Counter, stats::Stat};

/// `SKB_GSO_TCPV4 | SKB_GSO_TCPV6`.
const GSO_TCP: u32 = 1 << 0 | 1 << 4;
/// `SKB_GSO_UDP_L4`: datagrams, unlike `SKB_GSO_UDP`, which makes IP fragments.
const GSO_UDP_DATAGRAMS: u32 = 1 << 17;
/// The flags of a packet whose segments repeat its IP and transport headers and no others.
pub const GSO_PLAIN: u32 = GSO_TCP | GSO_UDP_DATAGRAMS;
/// GRE, IP in IP, UDP tunnels, partial and remote checksum, SCTP, ESP: more headers than the outer
/// ones are repeated, or the cuts are elsewhere.
const GSO_NESTED: u32 = 0x3ff << 6;
/// `GSO_BY_FRAGS`: the cuts are in the buffer, not at a size.
const GSO_BY_FRAGS: u16 = 0xffff;
/// The hop-by-hop header with the jumbo payload option, which segments do not have.
const JUMBO_HEADER_LEN: u32 = 8;

/// A packet's size on the wire, and how it was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// On the wire.
    pub wire: Counter,
    /// How it is cut.
    pub cut: Cut,
}

impl Cut {
    /// Its caveat, and whether the caveat concerns the packet as it passed the hook; `None`: no caveat.
    #[inline(always)]
    pub const fn stat(self) -> Option<(Stat, bool)> {
        match self {
            Self::Whole => None,
            Self::Segments => Some((Stat::SuperPacket, true)),
            Self::Fragments => Some((Stat::Fragmented, false)),
            Self::FragmentsByMtu => Some((Stat::FragmentedByMtu, false)),
            Self::OddGso => Some((Stat::OddGso, false)),
            Self::OddFragments => Some((Stat::OddFragments, false)),
        }
    }
}

impl Cut {
    /// Whether each piece becomes a packet of its own right after netfilter.
    #[inline(always)]
    pub const fn makes_fragments(self) -> bool {
        matches!(self, Self::Fragments | Self::FragmentsByMtu | Self::OddFragments)
    }
}

/// How a packet is cut before the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is not.
    Whole,
    /// Into segments.
    Segments,
    /// Into as many fragments as it has pieces.
    Fragments,
    /// Into as many fragments as the MTU asks for.
    FragmentsByMtu,
    /// Into segments that can't be computed: it counts as one packet.
    OddGso,
    /// Into more fragments than are followed: it counts as one packet.
    OddFragments,
}

/// The size of `packet` on the wire of a device with this MTU.
#[inline(always)]
pub fn size<A>(packet: &impl Packet, headers: &Headers<A>, mtu: impl FnOnce() -> u32) -> Size {
    let len = packet.ip_bytes();
    let whole = Counter { bytes: u64::from(len), packets: 1 };
    if let Some(gso) = packet.gso() {
        if !is_plain(gso, headers.is_udp()) {
            return Size { wire: whole, cut: Cut::OddGso };
        }
        let jumbo = if headers.jumbo { JUMBO_HEADER_LEN } else { 0 };
        return match headers.repeated_len(packet) {
            Some(repeated) if repeated < len => {
                let wire = segments(len - jumbo, repeated - jumbo, gso.size);
                Size { wire, cut: if wire.packets > 1 { Cut::Segments } else { Cut::Whole } }
            }
            _ => Size { wire: whole, cut: Cut::OddGso },
        };
    }
    match packet.pieces() {
        0 => match by_mtu(len, headers, mtu()) {
            0 => Size { wire: whole, cut: Cut::Whole },
            n => Size { wire: fragments(len, headers, n), cut: Cut::FragmentsByMtu },
        },
        TOO_MANY => Size { wire: whole, cut: Cut::OddFragments },
        n => Size { wire: fragments(len, headers, n), cut: Cut::Fragments },
    }
}

/// Whether each segment repeats the packet's IP and transport headers and no others, at the cuts that `gso` names.
#[inline(always)]
pub fn is_plain(gso: Gso, is_udp: bool) -> bool {
    let plain = gso.kind & if is_udp { GSO_UDP_DATAGRAMS } else { GSO_TCP };
    plain != 0 && gso.kind & GSO_NESTED == 0 && gso.size.get() != GSO_BY_FRAGS
}

/// How many fragments a packet of `len` bytes is cut into for an MTU; 0: it fits.
#[inline(always)]
fn by_mtu<A>(len: u32, headers: &Headers<A>, mtu: u32) -> u32 {
    if len <= mtu {
        return 0;
    }
    let repeated = headers.unfragmentable_len + headers.fragment_header_len;
    let payload = len.saturating_sub(headers.unfragmentable_len);
    match NonZeroU32::new(mtu.saturating_sub(repeated) & !7) {
        Some(room) => (payload + room.get() - 1) / room,
        // The kernel drops what has no room at all.
        None => 0,
    }
}

/// A packet of `len` bytes, cut into `n` fragments.
#[inline(always)]
fn fragments<A>(len: u32, headers: &Headers<A>, n: u32) -> Counter {
    let repeated = (n - 1) * headers.unfragmentable_len + n * headers.fragment_header_len;
    Counter { bytes: u64::from(len + repeated), packets: n.into() }
}

/// A super-packet of `len` bytes, cut so that each segment has the `repeated` header bytes and at
/// most `gso_size` bytes of payload. `repeated` is below `len`.
#[inline(always)]
pub fn segments(len: u32, repeated: u32, gso_size: NonZeroU16) -> Counter {
    // Divided by a type that is not zero: a check that panics would be no program any more.
    let gso_size = NonZeroU64::from(gso_size);
    let segments = (u64::from(len - repeated) + gso_size.get() - 1) / gso_size;
    Counter { bytes: u64::from(len) + (segments - 1) * u64::from(repeated), packets: segments }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        headers::{Headers, Transport, TransportKind},
        packet::Word,
    };
    use zerocopy::FromBytes;

    struct Buffer {
        len: u32,
        gso: Option<Gso>,
        pieces: u32,
    }

    impl Packet for Buffer {
        fn ip_bytes(&self) -> u32 {
            self.len
        }
        fn gso(&self) -> Option<Gso> {
            self.gso
        }
        fn pieces(&self) -> u32 {
            self.pieces
        }
        fn forget<const N: usize>(&self, words: [u32; N]) -> [u32; N] {
            words
        }
        fn load<W: Word, const N: usize>(&self, _: u32, words: &mut [W; N]) -> bool {
            // A TCP data offset of 8 words.
            *words = <[W; N]>::read_from_prefix(&[0x80; 64]).unwrap().0;
            true
        }
    }

    fn gso(size: u16, kind: u32) -> Option<Gso> {
        Some(Gso { size: NonZeroU16::new(size)?, kind })
    }

    fn headers(protocol: u8) -> Headers<[u8; 4]> {
        let transport = Transport { kind: TransportKind::Ports, source: 1, destination: 2, tcp_flags: 0 };
        Headers {
            source: [0; 4],
            destination: [0; 4],
            protocol,
            network_len: 20,
            unfragmentable_len: 20,
            fragment_header_len: 0,
            jumbo: false,
            transport,
        }
    }

    fn v6(extensions: u32) -> Headers<[u8; 4]> {
        let len = 40 + extensions;
        Headers { network_len: len, unfragmentable_len: len, fragment_header_len: 8, ..headers(17) }
    }

    fn of(len: u32, gso: Option<Gso>, headers: &Headers<[u8; 4]>) -> (u64, u64, Cut) {
        let Size { wire, cut } = size(&Buffer { len, gso, pieces: 0 }, headers, || 1500);
        (wire.bytes, wire.packets, cut)
    }

    #[test]
    fn a_plain_packet_is_itself() {
        assert_eq!(of(1500, None, &headers(6)), (1500, 1, Cut::Whole));
    }

    #[test]
    fn each_segment_repeats_the_headers() {
        // 10,000 bytes of payload in segments of 1,448: six full ones and one of 1,312.
        assert_eq!(of(52 + 10_000, gso(1448, 1), &headers(6)), (10_000 + 7 * 52, 7, Cut::Segments));
        let datagrams = gso(1000, GSO_UDP_DATAGRAMS);
        assert_eq!(of(28 + 2_000, datagrams, &headers(17)), (2_000 + 2 * 28, 2, Cut::Segments));
    }

    #[test]
    fn the_jumbo_header_is_on_no_segment() {
        let big = Headers { jumbo: true, ..Headers { protocol: 6, ..v6(8) } };
        let payload = 100_000;
        assert_eq!(of(48 + 32 + payload, gso(1428, 1 << 4), &big), (100_000 + 71 * 72, 71, Cut::Segments));
    }

    #[test]
    fn a_payload_of_whole_segments_has_no_empty_last_one() {
        assert_eq!(segments(52 + 2896, 52, NonZeroU16::new(1448).unwrap()), Counter { bytes: 2896 + 104, packets: 2 });
        assert_eq!(segments(53, 52, NonZeroU16::new(1448).unwrap()), Counter { bytes: 53, packets: 1 });
    }

    #[test]
    fn what_cannot_be_computed_is_said() {
        let odd = |len, size: u16, kind, protocol| of(len, gso(size, kind), &headers(protocol));
        assert_eq!(odd(9000, GSO_BY_FRAGS, 1, 6), (9000, 1, Cut::OddGso));
        assert_eq!(odd(9000, 1400, 1 << 14, 132), (9000, 1, Cut::OddGso));
        assert_eq!(odd(9000, 1400, 1 | 1 << 10, 6), (9000, 1, Cut::OddGso));
        // UDP fragmentation offload is not segmentation.
        assert_eq!(odd(9000, 1400, 1 << 16, 17), (9000, 1, Cut::OddGso));
        assert_eq!(odd(52, 1400, 1, 6), (52, 1, Cut::OddGso));
    }

    #[test]
    fn fragments_repeat_the_headers_as_the_kernel_cuts_them() {
        // Datagrams of 4,000 bytes, as 200 of them were measured: 813,600 and 830,400 bytes.
        assert_eq!(of(4028, None, &headers(17)), (813_600 / 200, 3, Cut::FragmentsByMtu));
        assert_eq!(of(4048, None, &v6(0)), (830_400 / 200, 3, Cut::FragmentsByMtu));
        let in_pieces = |len, pieces, headers: &Headers<[u8; 4]>| {
            let Size { wire, cut } = size(&Buffer { len, gso: None, pieces }, headers, || 1500);
            (wire.bytes, wire.packets, cut)
        };
        assert_eq!(in_pieces(4028, 3, &headers(17)), (4028 + 2 * 20, 3, Cut::Fragments));
        assert_eq!(in_pieces(1400, 2, &v6(16)), (1400 + 2 * 8 + 56, 2, Cut::Fragments));
        assert_eq!(in_pieces(60_000, TOO_MANY, &v6(0)), (60_000, 1, Cut::OddFragments));
        // No fragment has room for eight bytes: the kernel drops it.
        assert_eq!(by_mtu(100, &headers(17), 24), 0);
    }
}
