//! IP headers and the first bytes of what they carry, read byte by byte as the RFCs draw them.

use std::net::IpAddr;

/// The header after the IP headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// Source and destination port (RFC 9293, 768, 9260).
    Ports(u16, u16),
    /// Type and code (RFC 792, 4443).
    Message(u8, u8),
    /// A protocol that has neither.
    Other,
    /// It should be there, and is not: cut off, in another fragment, or beyond too many extension headers.
    Missing,
}

/// The headers of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub upper: Upper,
    /// SYN and ACK of TCP.
    pub syn: bool,
    pub ack: bool,
}

/// Extension headers that are followed; a longer chain is not read to its end.
const MOST_EXTENSIONS: usize = 6;

/// RFC 791, section 3.1. `None`: this is no IPv4 header.
pub fn read_v4(packet: &[u8]) -> Option<Read> {
    let version = packet.first()? >> 4;
    let words = usize::from(packet[0] & 15);
    if packet.len() < 20 || version != 4 || words < 5 {
        return None;
    }
    let fragment_offset = (usize::from(packet[6]) << 8 | usize::from(packet[7])) & 0b1_1111_1111_1111;
    let source: [u8; 4] = packet[12..16].try_into().unwrap();
    let destination: [u8; 4] = packet[16..20].try_into().unwrap();
    Some(read_upper(source.into(), destination.into(), packet[9], packet.get(4 * words..), fragment_offset != 0))
}

/// RFC 8200, sections 3 and 4, and RFC 4302, section 2.2. `None`: this is no IPv6 header.
pub fn read_v6(packet: &[u8]) -> Option<Read> {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return None;
    }
    let source: [u8; 16] = packet[8..24].try_into().unwrap();
    let destination: [u8; 16] = packet[24..40].try_into().unwrap();
    let (mut next, mut rest, mut is_later) = (packet[6], Some(&packet[40..]), false);
    for _ in 0..MOST_EXTENSIONS {
        // Each begins with the number of the next one and its own length; a fragment's is fixed.
        let Some(header) = rest.filter(|header| header.len() >= 4) else { break };
        let len = match next {
            // Hop-by-hop options, routing, destination options: in units of 8 bytes, without the first.
            0 | 43 | 60 => 8 + 8 * usize::from(header[1]),
            // Authentication: in units of 4 bytes, without the first two.
            51 => 8 + 4 * usize::from(header[1]),
            44 => 8,
            _ => break,
        };
        // The offset has 13 bits, then two are reserved, and one tells whether more fragments follow.
        let is_fragment = next == 44;
        is_later |= is_fragment && (usize::from(header[2]) << 8 | usize::from(header[3])) >> 3 != 0;
        (next, rest) = (header[0], header.get(len..));
        if is_later {
            break;
        }
    }
    Some(read_upper(source.into(), destination.into(), next, rest, is_later))
}

fn read_upper(source: IpAddr, destination: IpAddr, protocol: u8, rest: Option<&[u8]>, is_later: bool) -> Read {
    let (mut upper, mut flags) = (Upper::Missing, 0);
    match protocol {
        // TCP, UDP, SCTP.
        6 | 17 | 132 => {
            if let Some(&[a, b, c, d, ..]) = rest.filter(|_| !is_later) {
                upper = Upper::Ports(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                flags = rest.and_then(|rest| rest.get(13)).copied().filter(|_| protocol == 6).unwrap_or(0);
            }
        }
        // ICMP, ICMPv6: type, code and checksum.
        1 | 58 => {
            if let Some(&[kind, code, _, _, ..]) = rest.filter(|_| !is_later) {
                upper = Upper::Message(kind, code);
            }
        }
        // An extension header of IPv6: the chain was not read to its end.
        0 | 43 | 44 | 51 | 60 => {}
        _ => upper = Upper::Other,
    }
    Read { source, destination, protocol, upper, syn: flags & 2 != 0, ack: flags & 16 != 0 }
}
