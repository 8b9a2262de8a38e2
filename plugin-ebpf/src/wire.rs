//! What a packet is on the wire: bytes and packets after segmentation.
//!
//! The number of segments is computed. The kernel's own `gso_segs` is 0 for packets that came from
//! a tun device with virtio headers.

use crate::{headers::Headers, packet::Packet};
use core::num::NonZeroU16;
use meridian_abi::Counter;

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

/// What `packet` is on the wire, or `Err` with its length as one packet where its segments can't be
/// computed.
#[inline(always)]
pub fn size<A>(packet: &impl Packet, headers: &Headers<A>) -> Result<Counter, Counter> {
    let whole = Counter { bytes: u64::from(packet.ip_bytes()), packets: 1 };
    let Some(gso) = packet.gso() else { return Ok(whole) };
    let plain = if headers.is_udp() { gso.kind & GSO_UDP_DATAGRAMS } else { gso.kind & GSO_TCP };
    if plain == 0 || gso.kind & GSO_NESTED != 0 || gso.size.get() == GSO_BY_FRAGS {
        return Err(whole);
    }
    match headers.repeated_len(packet) {
        Some(repeated) if repeated < packet.ip_bytes() => Ok(segments(packet.ip_bytes(), repeated, gso.size)),
        _ => Err(whole),
    }
}

/// A super-packet of `len` bytes, cut so that each segment has the `repeated` header bytes and at
/// most `gso_size` bytes of payload. `repeated` is below `len`.
#[inline(always)]
pub fn segments(len: u32, repeated: u32, gso_size: NonZeroU16) -> Counter {
    let gso_size = u64::from(gso_size.get());
    let segments = u64::from(len - repeated).div_ceil(gso_size);
    Counter { bytes: u64::from(len) + (segments - 1) * u64::from(repeated), packets: segments }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        headers::{Headers, Transport, TransportKind},
        packet::{Gso, Word},
    };
    use zerocopy::FromBytes;

    struct Buffer {
        len: u32,
        gso: Option<Gso>,
    }

    impl Packet for Buffer {
        fn ip_bytes(&self) -> u32 {
            self.len
        }
        fn gso(&self) -> Option<Gso> {
            self.gso
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
        Headers { source: [0; 4], destination: [0; 4], protocol, network_len: 20, transport }
    }

    #[test]
    fn a_plain_packet_is_itself() {
        assert_eq!(size(&Buffer { len: 1500, gso: None }, &headers(6)), Ok(Counter { bytes: 1500, packets: 1 }));
    }

    #[test]
    fn each_segment_repeats_the_headers() {
        // 10,000 bytes of payload in segments of 1,448: six full ones and one of 1,312.
        let buffer = Buffer { len: 52 + 10_000, gso: gso(1448, 1) };
        assert_eq!(size(&buffer, &headers(6)), Ok(Counter { bytes: 10_000 + 7 * 52, packets: 7 }));
        let buffer = Buffer { len: 28 + 2_000, gso: gso(1000, GSO_UDP_DATAGRAMS) };
        assert_eq!(size(&buffer, &headers(17)), Ok(Counter { bytes: 2_000 + 2 * 28, packets: 2 }));
    }

    #[test]
    fn a_payload_of_whole_segments_has_no_empty_last_one() {
        assert_eq!(segments(52 + 2896, 52, NonZeroU16::new(1448).unwrap()), Counter { bytes: 2896 + 104, packets: 2 });
        assert_eq!(segments(53, 52, NonZeroU16::new(1448).unwrap()), Counter { bytes: 53, packets: 1 });
    }

    #[test]
    fn what_cannot_be_computed_is_said() {
        let odd =
            |len, size: u16, kind, protocol| super::size(&Buffer { len, gso: gso(size, kind) }, &headers(protocol));
        let whole = |len| Err(Counter { bytes: len, packets: 1 });
        assert_eq!(odd(9000, GSO_BY_FRAGS, 1, 6), whole(9000));
        assert_eq!(odd(9000, 1400, 1 << 14, 132), whole(9000));
        assert_eq!(odd(9000, 1400, 1 | 1 << 10, 6), whole(9000));
        // UDP fragmentation offload is not segmentation.
        assert_eq!(odd(9000, 1400, 1 << 16, 17), whole(9000));
        assert_eq!(odd(52, 1400, 1, 6), whole(52));
    }
}
