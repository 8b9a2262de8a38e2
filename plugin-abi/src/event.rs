//! The ring buffer EVENTS: packets that are announced at once, with both ports.

use crate::flow::SideAndPath;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the ring buffer: about 16,000 events. A power of two, and of pages.
pub const RING_BYTES: u32 = 1 << 20;

/// The limit of events of a CPU in each [`WINDOW_NS`]; further events are withheld and counted.
pub const BUDGET: u64 = 1000;
/// See [`BUDGET`].
pub const WINDOW_NS: u64 = 100_000_000;

/// A packet that gets its own flow event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub time_ns: u64,
    /// The zones: a [`Verdict`](crate::flow::Verdict).
    pub verdict: u64,
    /// The source address in network byte order; an IPv4 address is in the first word.
    pub source: [u32; 4],
    /// The destination address, likewise.
    pub destination: [u32; 4],
    /// The source port; for ICMP type × 256 + code.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The IP protocol number.
    pub protocol: u8,
    /// The TCP flags as in the header: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    pub tcp_flags: u8,
    /// An [`IpVersion`](crate::IpVersion).
    pub version: u8,
    /// The side and the path of the packet's flow entry.
    pub side_and_path: SideAndPath,
}

/// TCP flags that make a packet an event: FIN, SYN, RST.
pub const TCP_EVENT_FLAGS: u8 = 0x07;

/// The window of a CPU: its start, and its number of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Window {
    /// The start of the window.
    pub start_ns: u64,
    /// Events since then.
    pub events: u64,
}

const _: () = assert!(size_of::<Event>() == 56);
