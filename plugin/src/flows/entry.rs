//! Input from the kernel: flow entries, and the single packets that it announces.

use meridian_abi::{
    Counter,
    flow::{PacketPath, ServiceSide, Verdict},
};
use std::{net::IpAddr, time::SystemTime};

/// The slot of an entry; the slots of both flow maps are numbered through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub usize);

/// Traffic from one address to another for one service. Connections are folded: ten thousand connections to one
/// service are one entry in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The slot.
    pub slot: SlotId,
    /// Tells the entry apart from earlier entries in the same slot.
    pub generation: u16,
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// TCP, UDP, SCTP: the service's port. ICMP: type × 256 + code. Otherwise 0.
    pub service_port: u16,
    /// The ephemeral port of the last packet.
    pub client_port: u16,
    /// The end that is the service.
    pub side: ServiceSide,
    /// How the packets pass the node.
    pub path: PacketPath,
    /// The zones.
    pub verdict: Verdict,
    /// Bytes and packets since the entry was made.
    pub counter: Counter,
}

/// A packet that the kernel announced: the first one of a flow entry, or one with SYN, FIN or RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The time at which the packet passed the hook.
    pub time: SystemTime,
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// Source and destination port. ICMP: type × 256 + code, and 0.
    pub ports: (u16, u16),
    /// The IP protocol number.
    pub protocol: u8,
    /// The TCP flags as in the header, from FIN, 1, to CWR, 128.
    pub tcp_flags: u8,
    /// The end that is the service.
    pub side: ServiceSide,
    /// How the packet passes the node.
    pub path: PacketPath,
    /// The zones.
    pub verdict: Verdict,
}

impl Entry {
    /// Source and destination port. ICMP: type × 256 + code, and 0.
    pub(super) const fn ports(&self) -> (u16, u16) {
        if self.protocol == 1 || self.protocol == 58 {
            return (self.service_port, 0);
        }
        match self.side {
            ServiceSide::Source => (self.service_port, self.client_port),
            ServiceSide::Destination | ServiceSide::None => (self.client_port, self.service_port),
        }
    }
}
