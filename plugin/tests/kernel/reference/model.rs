//! The documented rules of counting, as a plain program over maps.

use super::headers::{Read, Upper, read_v4, read_v6};
use ipnetwork::IpNetwork;
use meridian_abi::{
    IpVersion,
    flow::{PacketPath, ServiceSide},
    matrix::Direction,
    stats::Stat,
};
use std::{
    collections::BTreeMap,
    fmt::{Debug, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A port that the settings name as a service's.
pub const KNOWN_SERVICE: u16 = 443;
/// The addresses of the node.
pub const NODE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 1, 9)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 9))];
/// VXLAN (RFC 7348) as Linux and Cilium have it, and Geneve (RFC 8926).
pub const OVERLAY_PORTS: [u16; 3] = [8472, 4789, 6081];
pub const WIREGUARD: u16 = 51_871;
/// The first port that a client may get by itself.
const FIRST_EPHEMERAL: u16 = 32_768;

/// Bytes and packets.
type Sum = (u64, u64);

/// The key of a flow entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub service_port: u16,
    pub side: u8,
    pub path: u8,
}

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub stats: BTreeMap<&'static str, Sum>,
    /// By IP version, direction, and the zones' names.
    pub matrix: BTreeMap<(IpVersion, u8, String, String), Sum>,
    /// The client's last port, bytes, packets.
    pub flows: BTreeMap<Flow, (u16, u64, u64)>,
}

impl Counts {
    /// The differences between the model's counts and the programs'.
    pub fn difference(&self, programs: &Self) -> Option<String> {
        let mut text = String::new();
        differences(&mut text, &self.stats, &programs.stats);
        differences(&mut text, &self.matrix, &programs.matrix);
        differences(&mut text, &self.flows, &programs.flows);
        (!text.is_empty()).then_some(text)
    }
}

fn differences<K: Ord + Clone + Debug, V: PartialEq + Debug>(
    text: &mut String,
    model: &BTreeMap<K, V>,
    programs: &BTreeMap<K, V>,
) {
    let mut keys: Vec<&K> = model.keys().chain(programs.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (expected, found) = (model.get(key), programs.get(key));
        if expected != found {
            writeln!(text, "{key:?}: the reference has {expected:?}, the programs {found:?}").unwrap();
        }
    }
}

/// The settings and the counts of the programs, by the documented rules.
pub struct Model {
    is_netfilter: bool,
    overlay_header: u64,
    pub is_uplink: bool,
    pub is_overlay: bool,
    pub is_trunk: bool,
    pub has_marks: bool,
    pub zones: Vec<(&'static str, &'static str)>,
    /// The prefixes of the table, those of the internet among them, with the names of their zones.
    pub prefixes: Vec<(IpNetwork, String)>,
    pub counts: Counts,
}

impl Model {
    pub fn new(is_netfilter: bool, overlay_header: u64) -> Self {
        let counts = Counts::default();
        let (is_uplink, is_overlay, is_trunk, has_marks) = (true, false, false, false);
        let (zones, prefixes) = (Vec::new(), Vec::new());
        Self { is_netfilter, overlay_header, is_uplink, is_overlay, is_trunk, has_marks, zones, prefixes, counts }
    }

    /// Changes the settings.
    pub fn change(&mut self, turn: usize) {
        self.is_uplink = turn % 6 != 4;
        self.is_overlay = turn % 6 == 2;
        self.is_trunk = turn % 6 == 3;
        self.has_marks = turn % 2 == 1;
        self.zones = if turn.is_multiple_of(3) {
            vec![("10.0.1.0/24", "a"), ("10.0.2.0/24", "b"), ("fd00:0:0:1::/64", "a"), ("fd00:0:0:2::/64", "b")]
        } else {
            vec![("10.0.1.0/24", "b"), ("10.0.2.0/23", "b"), ("10.0.2.7/32", "c"), ("fd00:0:0:2::/64", "c")]
        };
    }

    /// Counts a frame.
    pub fn count(&mut self, frame: &[u8], is_v6: bool) {
        if self.is_netfilter {
            return self.count_packet(&frame[14..], is_v6);
        }
        // IEEE 802.1Q: a tag's type, its control information, then the type of what follows; two tags are followed.
        let (mut kind, mut start, mut is_tagged) = (u16::from_be_bytes([frame[12], frame[13]]), 14, false);
        for _ in 0..2 {
            let Some(following) = frame.get(start + 2..start + 4).filter(|_| matches!(kind, 0x8100 | 0x88a8)) else {
                break;
            };
            (kind, start, is_tagged) = (u16::from_be_bytes([following[0], following[1]]), start + 4, true);
        }
        let packet = &frame[start..];
        match kind {
            _ if is_tagged && self.is_trunk && self.is_uplink => self.add(Stat::Vlan, (packet.len() as u64, 1)),
            0x0800 => self.count_packet(packet, false),
            0x86dd => self.count_packet(packet, true),
            _ => self.add(Stat::LinkScoped, (packet.len() as u64, 1)),
        }
    }

    fn add(&mut self, stat: Stat, sum: Sum) {
        let known = self.counts.stats.entry(stat.name()).or_default();
        *known = (known.0 + sum.0, known.1 + sum.1);
    }

    fn count_packet(&mut self, packet: &[u8], is_v6: bool) {
        let mut sum = (packet.len() as u64, 1);
        let Some(read) = (if is_v6 { read_v6(packet) } else { read_v4(packet) }) else {
            return self.add(Stat::Malformed, sum);
        };
        if let Some(reason) = self.outside(&read) {
            return self.add(reason, sum);
        }
        if self.is_overlay {
            self.add(Stat::Encapsulated, sum);
            sum.0 += self.overlay_header;
        }
        if read.upper == Upper::Missing {
            self.add(Stat::NoPorts, sum);
        }
        let version = if is_v6 { IpVersion::V6 } else { IpVersion::V4 };
        let key = (version, Direction::Egress as u8, self.zone(read.source), self.zone(read.destination));
        let cell = self.counts.matrix.entry(key).or_default();
        *cell = (cell.0 + sum.0, cell.1 + sum.1);
        let (flow, client_port) = self.flow(&read);
        let entry = self.counts.flows.entry(flow).or_default();
        *entry = (client_port, entry.1 + sum.0, entry.2 + sum.1);
    }

    /// The reason why a packet is outside the sums.
    fn outside(&self, read: &Read) -> Option<Stat> {
        if !self.is_uplink && self.is_netfilter {
            return Some(Stat::Loopback);
        }
        if is_link_scoped(read) {
            return Some(Stat::LinkScoped);
        }
        if !self.is_uplink {
            return Some(Stat::SameNode);
        }
        // Only the node itself puts packets around others.
        let is_outer = NODE.contains(&read.source)
            && match (read.protocol, read.upper) {
                // At netfilter the packet inside has passed before.
                (50, _) => self.is_netfilter,
                (4 | 41 | 47, _) => self.has_marks,
                (17, Upper::Ports(source, destination)) => {
                    self.has_marks && (OVERLAY_PORTS.contains(&destination) || source == WIREGUARD)
                }
                _ => false,
            };
        is_outer.then_some(Stat::Overlay)
    }

    /// The zone of the longest prefix.
    fn zone(&self, address: IpAddr) -> String {
        let matching = self.prefixes.iter().filter(|(prefix, _)| prefix.contains(address));
        let longest = matching.max_by_key(|(prefix, _)| prefix.prefix());
        longest.map_or_else(|| "unknown".to_owned(), |(_, zone)| zone.clone())
    }

    /// The flow entry of a packet, and the client's port.
    fn flow(&self, read: &Read) -> (Flow, u16) {
        let path = if self.is_overlay { PacketPath::Tunnelled } else { PacketPath::Sent } as u8;
        let flow = |side: ServiceSide, service_port| Flow {
            source: read.source,
            destination: read.destination,
            protocol: read.protocol,
            service_port,
            side: side as u8,
            path,
        };
        let (source, destination) = match read.upper {
            Upper::Ports(source, destination) => (source, destination),
            Upper::Message(kind, code) => {
                // An echo reply comes from the end that was asked.
                let is_reply = matches!((read.protocol, kind), (1, 0) | (58, 129));
                let side = if is_reply { ServiceSide::Source } else { ServiceSide::Destination };
                return (flow(side, u16::from_be_bytes([kind, code])), 0);
            }
            Upper::Other | Upper::Missing => return (flow(ServiceSide::None, 0), 0),
        };
        let at_source = (flow(ServiceSide::Source, source), destination);
        let at_destination = (flow(ServiceSide::Destination, destination), source);
        // The sender of a SYN connects to the service.
        if read.syn {
            return if read.ack { at_source } else { at_destination };
        }
        let lower = if source < destination { at_source.clone() } else { at_destination.clone() };
        if (source < FIRST_EPHEMERAL) != (destination < FIRST_EPHEMERAL) {
            return lower;
        }
        let likelier = match (source == KNOWN_SERVICE, destination == KNOWN_SERVICE) {
            (true, false) => return at_source,
            (false, true) => return at_destination,
            _ => lower,
        };
        let other = if likelier == at_source { at_destination } else { at_source };
        // A port that served an earlier flow between the two.
        let (is_known, is_other_known) =
            (self.counts.flows.contains_key(&likelier.0), self.counts.flows.contains_key(&other.0));
        if !is_known && is_other_known { other } else { likelier }
    }

    /// The settings and the last frames, for a failure.
    pub fn described(&self, frames: &[Vec<u8>]) -> String {
        let mut text = format!(
            "uplink {} overlay {} trunk {} marks {}; the last frames:\n",
            self.is_uplink, self.is_overlay, self.is_trunk, self.has_marks
        );
        for frame in frames.iter().rev().take(40).rev() {
            let start: String = frame.iter().take(80).map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{start} ({} bytes)", frame.len()).unwrap();
        }
        text
    }
}

/// Link-local addresses, multicast and broadcast (RFC 3927, 1112, 4291), neighbour discovery and MLD (RFC 4861, 2710,
/// 3810).
fn is_link_scoped(read: &Read) -> bool {
    let is_link_local = |address: IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let is_broadcast = read.destination == IpAddr::V4(Ipv4Addr::BROADCAST);
    // Queries, reports, done, solicitations, advertisements, redirects, and the reports of MLDv2.
    let is_housekeeping = matches!((read.protocol, read.upper), (58, Upper::Message(130..=137 | 143, _)))
        && matches!(read.source, IpAddr::V6(_));
    read.destination.is_multicast()
        || is_broadcast
        || is_link_local(read.source)
        || is_link_local(read.destination)
        || is_housekeeping
}
