//! Encodes the fields of a flow that belong to no other: all but its ends, its node and its time.
//!
//! They are written in the order of their numbers, as protobuf's encoders do, and without a message in between: an agent
//! makes one for each active entry every five seconds.

use super::icmp;
use crate::{
    proto::{
        flow::{self, layer4::Protocol},
        number,
        wire::{len_of_bytes, put_bytes, put_double, put_len, put_varint},
    },
    zones::{Locality, Place},
};
use meridian_abi::{
    Counter,
    flow::{PacketPath, ServiceSide},
};
use prost::Message as _;
use std::{borrow::Cow, net::IpAddr, time::SystemTime};

/// `CiliumEventType.type` of a trace.
const EVENT_TRACE: u64 = 4;
/// The type of the message in `extensions`.
const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";
/// The number of a wrapped value, as in `google.protobuf.BoolValue`.
const WRAPPED: u64 = 1;

/// The places of the two ends of an entry, and their locality.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'a> {
    pub(super) source: &'a Place,
    pub(super) destination: &'a Place,
    pub(super) locality: Locality,
}

/// The fields of an entry or a packet that go into its event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) time: SystemTime,
    pub(super) source: (IpAddr, u16),
    pub(super) destination: (IpAddr, u16),
    pub(super) protocol: u8,
    /// `None` for an entry: its packets have no flags in common.
    pub(super) tcp_flags: Option<flow::TcpFlags>,
    pub(super) side: ServiceSide,
    pub(super) path: PacketPath,
}

/// A flow, as far as its own fields are of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnFields<'a> {
    pub(super) observation: Observation,
    pub(super) ends: Ends<'a>,
    /// The addresses of source and destination as text.
    pub(super) addresses: [&'a str; 2],
    /// Their services, encoded.
    pub(super) services: [Option<&'a [u8]>; 2],
    /// The growth of an entry. A single packet has none.
    pub(super) new: Option<Counter>,
    pub(super) zones_in_summary: bool,
}

impl OwnFields<'_> {
    /// Appends the fields.
    pub(super) fn put(&self, to: &mut Vec<u8>) {
        let Self { observation, services: [source_service, destination_service], .. } = *self;
        let is_reply = match observation.side {
            ServiceSide::Destination => Some(false),
            ServiceSide::Source => Some(true),
            ServiceSide::None => None,
        };
        let l4 = transport(&observation).map(|protocol| flow::Layer4 { protocol: Some(protocol) });
        put_enum(number::flow::VERDICT, flow::Verdict::Forwarded.into(), to);
        self.put_addresses(to);
        if let Some(l4) = &l4 {
            put_len(number::flow::L4, l4.encoded_len(), to);
            l4.encode_raw(to);
        }
        put_enum(number::flow::TYPE, flow::FlowType::L3L4.into(), to);
        if is_reply == Some(true) {
            put_varint(number::flow::REPLY, 1, to);
        }
        put_event_type(to);
        if let Some(service) = source_service.filter(|_| is_reply == Some(true)) {
            put_bytes(number::flow::SOURCE_SERVICE, service, to);
        }
        if let Some(service) = destination_service.filter(|_| is_reply == Some(false)) {
            put_bytes(number::flow::DESTINATION_SERVICE, service, to);
        }
        put_enum(number::flow::TRAFFIC_DIRECTION, traffic_direction(is_reply, observation.path).into(), to);
        let point = flow::TraceObservationPoint::ToNetwork.into();
        put_enum(number::flow::TRACE_OBSERVATION_POINT, point, to);
        match is_reply {
            Some(true) => put_bytes(number::flow::IS_REPLY, &[(WRAPPED << 3) as u8, 1], to),
            Some(false) => put_bytes(number::flow::IS_REPLY, &[], to),
            None => {}
        }
        let mut uuid = uuid::Uuid::encode_buffer();
        put_bytes(number::flow::UUID, uuid::Uuid::new_v4().hyphenated().encode_lower(&mut uuid).as_bytes(), to);
        put_enum(number::flow::TRACE_REASON, trace_reason(is_reply, &observation).into(), to);
        put_bytes(number::flow::SUMMARY, self.summary(l4.and_then(|l4| l4.protocol)).as_bytes(), to);
        put_extensions(self.ends, self.new, to);
    }

    fn put_addresses(&self, to: &mut Vec<u8>) {
        let [source, destination] = self.addresses;
        let version = if self.observation.source.0.is_ipv4() { flow::IpVersion::IPv4 } else { flow::IpVersion::IPv6 };
        let texts =
            len_of_bytes(number::ip::SOURCE, source.len()) + len_of_bytes(number::ip::DESTINATION, destination.len());
        put_len(number::flow::IP, texts + 2, to);
        put_bytes(number::ip::SOURCE, source.as_bytes(), to);
        put_bytes(number::ip::DESTINATION, destination.as_bytes(), to);
        put_enum(number::ip::IPVERSION, version.into(), to);
    }

    fn summary(&self, l4: Option<Protocol>) -> Cow<'static, str> {
        let unknown = || format!("IP protocol {}", self.observation.protocol).into();
        let summary = l4.as_ref().map_or_else(unknown, summary);
        if !self.zones_in_summary {
            return summary;
        }
        format!("{summary}; {} -> {}", self.ends.source.name(), self.ends.destination.name()).into()
    }
}

/// Appends the value of an enum, if it is not the first one, which an unset field has.
fn put_enum(number: u64, value: i32, to: &mut Vec<u8>) {
    if value != 0 {
        put_varint(number, value as u64, to);
    }
}

fn put_event_type(to: &mut Vec<u8>) {
    use number::ciliumeventtype::{SUB_TYPE, TYPE};
    let mut encoded = [0; 4];
    let mut rest = &mut encoded[..];
    put_varint(TYPE, EVENT_TRACE, &mut rest);
    put_varint(SUB_TYPE, flow::TraceObservationPoint::ToNetwork as u64, &mut rest);
    put_bytes(number::flow::EVENT_TYPE, &encoded, to);
}

fn trace_reason(is_reply: Option<bool>, observation: &Observation) -> flow::TraceReason {
    let opening = observation.tcp_flags.is_some_and(|flags| flags.syn);
    match is_reply {
        Some(true) => flow::TraceReason::Reply,
        Some(false) if opening => flow::TraceReason::New,
        Some(false) => flow::TraceReason::Established,
        None => flow::TraceReason::Unknown,
    }
}

/// The direction is the connection's, as seen from the local end: a reply that leaves belongs to a connection that came
/// in.
fn traffic_direction(is_reply: Option<bool>, path: PacketPath) -> flow::TrafficDirection {
    if (is_reply == Some(true)) == (path == PacketPath::Arrived) {
        flow::TrafficDirection::Egress
    } else {
        flow::TrafficDirection::Ingress
    }
}

fn transport(observation: &Observation) -> Option<Protocol> {
    if observation.side == ServiceSide::None {
        return None;
    }
    let (source_port, destination_port) = (observation.source.1.into(), observation.destination.1.into());
    let [kind, code] = observation.source.1.to_be_bytes().map(u32::from);
    match observation.protocol {
        1 => Some(Protocol::IcmPv4(flow::IcmPv4 { r#type: kind, code })),
        TCP => Some(Protocol::Tcp(flow::Tcp { source_port, destination_port, flags: observation.tcp_flags })),
        17 => Some(Protocol::Udp(flow::Udp { source_port, destination_port })),
        58 => Some(Protocol::IcmPv6(flow::IcmPv6 { r#type: kind, code })),
        132 => Some(Protocol::Sctp(flow::Sctp { source_port, destination_port })),
        _ => None,
    }
}

/// The number of TCP.
pub(super) const TCP: u8 = 6;

/// The flags of a TCP header's byte.
pub(super) fn flags(bits: u8) -> flow::TcpFlags {
    let bit = |n: u8| bits >> n & 1 == 1;
    flow::TcpFlags {
        fin: bit(0),
        syn: bit(1),
        rst: bit(2),
        psh: bit(3),
        ack: bit(4),
        urg: bit(5),
        ece: bit(6),
        cwr: bit(7),
        ns: false,
    }
}

/// Flags in the order in which Hubble writes them.
fn flag_names(flags: &flow::TcpFlags) -> String {
    let named = [
        (flags.syn, "SYN"),
        (flags.ack, "ACK"),
        (flags.rst, "RST"),
        (flags.fin, "FIN"),
        (flags.psh, "PSH"),
        (flags.urg, "URG"),
        (flags.ece, "ECE"),
        (flags.cwr, "CWR"),
        (flags.ns, "NS"),
    ];
    named.into_iter().filter_map(|(set, name)| set.then_some(name)).collect::<Vec<_>>().join(", ")
}

fn summary(protocol: &Protocol) -> Cow<'static, str> {
    match protocol {
        Protocol::Tcp(flow::Tcp { flags: Some(flags), .. }) => format!("TCP Flags: {}", flag_names(flags)).into(),
        // An update stands for many packets: it has no flags.
        Protocol::Tcp(_) => "TCP".into(),
        Protocol::Udp(_) => "UDP".into(),
        Protocol::Sctp(_) => "SCTP".into(),
        Protocol::IcmPv4(icmp) => format!("ICMPv4 {}", icmp::v4(icmp.r#type, icmp.code)).into(),
        Protocol::IcmPv6(icmp) => format!("ICMPv6 {}", icmp::v6(icmp.r#type, icmp.code)).into(),
        Protocol::Vrrp(_) => "VRRP".into(),
        Protocol::Igmp(_) => "IGMP".into(),
    }
}

/// Appends `extensions`: an Any of a well-known type, since the stock client fails on any other type. The keys are
/// those that Retina uses, and ours. Numbers are doubles, exact up to 2^53.
fn put_extensions(ends: Ends<'_>, new: Option<Counter>, to: &mut Vec<u8>) {
    let mut fields = Vec::with_capacity(256);
    put_text("source_zone", ends.source.name(), &mut fields);
    put_text("destination_zone", ends.destination.name(), &mut fields);
    put_text("locality", ends.locality.name(), &mut fields);
    if let Some(new) = new {
        put_number("bytes", new.bytes, &mut fields);
        put_number("packets", new.packets, &mut fields);
        // In Retina: bytes observed but not yet reported. Here `bytes` reports every byte.
        put_number("previously_observed_bytes", 0, &mut fields);
        put_number("previously_observed_packets", 0, &mut fields);
    }
    let len = len_of_bytes(ANY_URL, STRUCT_URL.len()) + len_of_bytes(ANY_VALUE, fields.len());
    put_len(number::flow::EXTENSIONS, len, to);
    put_bytes(ANY_URL, STRUCT_URL.as_bytes(), to);
    put_bytes(ANY_VALUE, &fields, to);
}

/// The numbers of `google.protobuf.Any.type_url` and `.value`.
const ANY_URL: u64 = 1;
const ANY_VALUE: u64 = 2;
/// The number of `google.protobuf.Struct.fields`: a map, whose entries have a key, 1, and a value, 2.
const STRUCT_FIELDS: u64 = 1;
/// The numbers of `google.protobuf.Value.number_value` and `.string_value`.
const VALUE_NUMBER: u64 = 2;
const VALUE_TEXT: u64 = 3;

fn put_text(key: &str, text: &str, to: &mut Vec<u8>) {
    let value = len_of_bytes(VALUE_TEXT, text.len());
    put_entry(key, value, to);
    put_bytes(VALUE_TEXT, text.as_bytes(), to);
}

fn put_number(key: &str, value: u64, to: &mut Vec<u8>) {
    put_entry(key, 1 + size_of::<f64>(), to);
    put_double(VALUE_NUMBER, value as f64, to);
}

/// An entry of a Struct up to its value; `value` is the value's length.
fn put_entry(key: &str, value: usize, to: &mut Vec<u8>) {
    put_len(STRUCT_FIELDS, len_of_bytes(1, key.len()) + len_of_bytes(2, value), to);
    put_bytes(1, key.as_bytes(), to);
    put_len(2, value, to);
}
