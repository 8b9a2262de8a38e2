//! The straight path's reading of a packet: TCP and UDP whose headers lie in the linear part of the buffer,
//! without options, extension headers or fragments, and without the flags that open or close a connection.
//!
//! Nearly every packet is of this kind. All others have `None` here, and the core reads them.

use crate::{
    packet::{Gso, Word},
    ports::{self, TCP, UDP},
    wire::{self, Cut, Size},
};
use meridian_abi::{
    Counter,
    event::TCP_EVENT_FLAGS,
    flow::{ServiceSide, V4, V6},
};

/// A packet whose bytes are read where they lie.
pub trait Linear {
    /// Whether the linear part has `bytes` bytes from the IP header on.
    fn has(&self, bytes: u32) -> bool;

    /// The word at `offset` after the start of the IP header, its bytes as they are in the packet. The caller
    /// has asked [`has`](Self::has) for it.
    fn word<W: Word>(&self, offset: u32) -> W;

    /// IP bytes in the buffer.
    fn ip_bytes(&self) -> u32;

    /// The segmentation that the buffer asks for.
    fn gso(&self) -> Option<Gso>;

    /// Whether a packet without segmentation leaves as it is: it fits the device, and its buffer is no chain.
    fn is_whole(&self) -> bool;
}

/// The headers of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Straight<A> {
    /// The source address.
    pub source: A,
    /// The destination address.
    pub destination: A,
    /// TCP or UDP.
    pub protocol: u8,
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// Bytes of the headers of IP and transport.
    pub headers_len: u32,
}

/// An address family's headers on the straight path.
pub trait Family: Copy {
    /// Bytes of the IP header.
    const LEN: u32;

    /// Protocol, source and destination, after [`Linear::has`] of the header and four bytes; `None`: the core
    /// reads the packet.
    fn addresses(packet: &impl Linear) -> Option<(u8, Self, Self)>;
}

impl Family for V4 {
    const LEN: u32 = 20;

    #[inline(always)]
    fn addresses(packet: &impl Linear) -> Option<(u8, Self, Self)> {
        let first: u64 = packet.word(0);
        let second: u64 = packet.word(8);
        let [version_and_len, _, _, _, _, _, fragment_high, fragment_low] = first.to_ne_bytes();
        let [_, protocol, _, _, source @ ..] = second.to_ne_bytes();
        // More fragments, or an offset.
        let is_fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff != 0;
        if version_and_len != 0x45 || is_fragment {
            return None;
        }
        Some((protocol, V4(u32::from_ne_bytes(source)), V4(packet.word(16))))
    }
}

impl Family for V6 {
    const LEN: u32 = 40;

    #[inline(always)]
    fn addresses(packet: &impl Linear) -> Option<(u8, Self, Self)> {
        let first: u64 = packet.word(0);
        let [version, _, _, _, _, _, next, _] = first.to_ne_bytes();
        if version >> 4 != 6 {
            return None;
        }
        let half = |offset| {
            // As two words lie in memory, on a processor of either byte order.
            let [a, b, c, d, e, f, g, h] = packet.word::<u64>(offset).to_ne_bytes();
            [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes)
        };
        let address = |offset| {
            let ([a, b], [c, d]) = (half(offset), half(offset + 8));
            V6([a, b, c, d])
        };
        Some((next, address(8), address(24)))
    }
}

/// Reads the headers. `None`: the core reads the packet.
#[inline(always)]
pub fn read<A: Family>(packet: &impl Linear) -> Option<Straight<A>> {
    // Both ports; a header of UDP is no longer.
    if !packet.has(A::LEN + 8) {
        return None;
    }
    let (protocol, source, destination) = A::addresses(packet)?;
    let transport_len = match protocol {
        TCP if packet.has(A::LEN + 14) => {
            let [data_offset, flags] = packet.word::<u16>(A::LEN + 12).to_ne_bytes();
            if flags & TCP_EVENT_FLAGS != 0 {
                return None;
            }
            u32::from(data_offset >> 4) * 4
        }
        UDP => 8,
        _ => return None,
    };
    let ports = u32::from_be(packet.word(A::LEN));
    let (source_port, destination_port) = ((ports >> 16) as u16, ports as u16);
    let headers_len = A::LEN + transport_len;
    Some(Straight { source, destination, protocol, source_port, destination_port, headers_len })
}

impl<A> Straight<A> {
    /// The packet's size on the wire. `None`: the core computes it.
    #[inline(always)]
    pub fn size(&self, packet: &impl Linear) -> Option<Size> {
        let len = packet.ip_bytes();
        let Some(gso) = packet.gso() else {
            let whole = Counter { bytes: u64::from(len), packets: 1 };
            return packet.is_whole().then_some(Size { wire: whole, cut: Cut::Whole });
        };
        if !wire::is_plain(gso, self.protocol == UDP) || self.headers_len >= len {
            return None;
        }
        let wire = wire::segments(len, self.headers_len, gso.size);
        Some(Size { wire, cut: if wire.packets > 1 { Cut::Segments } else { Cut::Whole } })
    }

    /// Which end is the service, and whether it may be the other end as well.
    #[inline(always)]
    pub fn sides(&self, known: impl Fn(u16) -> bool) -> (ServiceSide, bool) {
        ports::sides(self.source_port, self.destination_port, known)
    }

    /// The service's port and the client's, if `side` is the service.
    #[inline(always)]
    pub const fn ports(&self, side: ServiceSide) -> (u16, u16) {
        match side {
            ServiceSide::Destination => (self.destination_port, self.source_port),
            _ => (self.source_port, self.destination_port),
        }
    }
}
