//! What the kernel tells: flow entries as it keeps them, and single packets that it announces.

use meridian_abi::{
    Counter,
    flow::{PacketPath, ServiceSide, Verdict},
};
use std::{net::IpAddr, time::SystemTime};

/// The slot of an entry in the flow maps, both of them counted through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub usize);

/// What went from one address to another, for one service. Connections are folded: ten thousand of
/// them on one service are one entry in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub slot: SlotId,
    /// Tells it from entries that were there before.
    pub generation: u16,
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// TCP, UDP, SCTP: the service's port. ICMP: type × 256 + code. Otherwise 0.
    pub service_port: u16,
    /// The ephemeral port that was seen last.
    pub client_port: u16,
    /// Which end is the service.
    pub side: ServiceSide,
    /// Which way the packets go.
    pub path: PacketPath,
    /// The zones.
    pub verdict: Verdict,
    /// What was counted since the entry was made.
    pub counter: Counter,
}

/// A packet that the kernel announced: the first one of a flow entry, or one with SYN, FIN or RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it passed the hook.
    pub time: SystemTime,
    /// Who sends.
    pub source: IpAddr,
    /// Who receives.
    pub destination: IpAddr,
    /// Source and destination port; of ICMP type × 256 + code and 0.
    pub ports: (u16, u16),
    /// The IP protocol number.
    pub protocol: u8,
    /// The TCP flags as in the header, from FIN, 1, to CWR, 128.
    pub tcp_flags: u8,
    /// Which end is the service.
    pub side: ServiceSide,
    /// Which way the packets go.
    pub path: PacketPath,
    /// The zones.
    pub verdict: Verdict,
}

impl Entry {
    /// Source and destination port; of ICMP type × 256 + code and 0.
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
