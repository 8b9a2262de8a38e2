//! Makes Hubble flow events from flow entries and from single packets.
//!
//! Hubble has no fields for zones and bytes, so they are where its clients can see them: zone and locality are
//! labels of both endpoints, and `extensions` holds a `google.protobuf.Struct` with zones, locality, bytes and
//! packets. `bytes` and `packets` are the growth since the entry's last update. Events of single packets have
//! neither, so the sum over all flows equals the entries' counters.

use super::{
    encoded::{self, Encoded, Part},
    endpoint::{flow_endpoint, service, topology},
    entry::{Entry, Event},
    icmp,
    node::Node,
};
use crate::{
    identity::{Endpoint, Index},
    proto::{
        flow::{self, Flow, layer4::Protocol},
        number,
        wire::{len_of_bytes, put_bytes, put_double, put_len},
    },
    zones::{Locality, Place},
};
use ahash::AHashMap;
use meridian_abi::{
    Counter,
    flow::{PacketPath, ServiceSide},
};
use prost::Message;
use prost_types::Timestamp;
use std::{net::IpAddr, sync::Arc, time::SystemTime};

/// `CiliumEventType.type` of a trace.
const EVENT_TRACE: i32 = 4;
/// The type of the message in `extensions`.
const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";

/// The limit of encoded ends in the cache.
const ENDS: usize = 8192;

/// Makes the flow events of one node.
#[derive(Debug)]
pub struct FlowBuilder {
    node: Node,
    index: Arc<Index>,
    encoded_node: Arc<encoded::Node>,
    ends: AHashMap<(IpAddr, Locality), EncodedEnd>,
}

/// An encoded end, with the endpoint and place that it was encoded from.
#[derive(Debug)]
struct EncodedEnd {
    endpoint: Option<Arc<Endpoint>>,
    place: Place,
    encoded: Arc<Part>,
}

/// The places of the two ends of an entry, and their locality.
#[derive(Clone, Copy, Debug)]
struct Ends<'a> {
    source: &'a Place,
    destination: &'a Place,
    locality: Locality,
}

/// The fields of an entry or a packet that go into its event.
#[derive(Clone, Copy, Debug)]
struct Observation {
    time: SystemTime,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
    /// `None` for an entry: its packets have no flags in common.
    tcp_flags: Option<flow::TcpFlags>,
    side: ServiceSide,
    path: PacketPath,
}

impl FlowBuilder {
    /// Makes the events of a node; `index` resolves addresses to endpoints.
    pub fn new(node: Node, index: Arc<Index>) -> Self {
        let encoded_node = encode_node(&node);
        Self { node, index, encoded_node, ends: AHashMap::default() }
    }

    /// Sets the node's place.
    pub fn place_node(&mut self, place: &Place) {
        if self.node.place != *place {
            self.node.place = place.clone();
            self.encoded_node = encode_node(&self.node);
        }
    }

    /// The observing node.
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// The event for the growth of an entry.
    pub fn update(
        &mut self,
        entry: &Entry,
        source: &Place,
        destination: &Place,
        new: Counter,
        now: SystemTime,
    ) -> Encoded {
        let (source_port, destination_port) = entry.ports();
        let observation = Observation {
            time: now,
            source: (entry.source, source_port),
            destination: (entry.destination, destination_port),
            protocol: entry.protocol,
            tcp_flags: None,
            side: entry.side,
            path: entry.path,
        };
        self.flow(&observation, source, destination, Some(new))
    }

    /// The event of a single packet.
    pub fn packet(&mut self, event: &Event, source: &Place, destination: &Place) -> Encoded {
        let flags = flags(event.tcp_flags);
        // A client sends SYN and a service sends SYN with ACK, whatever their ports are.
        let side = match (event.protocol == TCP && flags.syn, flags.ack) {
            (true, false) => ServiceSide::Destination,
            (true, true) => ServiceSide::Source,
            (false, _) => event.side,
        };
        let observation = Observation {
            time: event.time,
            source: (event.source, event.ports.0),
            destination: (event.destination, event.ports.1),
            protocol: event.protocol,
            tcp_flags: Some(flags),
            side,
            path: event.path,
        };
        self.flow(&observation, source, destination, None)
    }

    #[expect(deprecated, reason = "clients still read Summary and reply")]
    fn flow(
        &mut self,
        observation: &Observation,
        source: &Place,
        destination: &Place,
        new: Option<Counter>,
    ) -> Encoded {
        let ends = Ends { source, destination, locality: Locality::between(source, destination) };
        let is_reply = match observation.side {
            ServiceSide::Destination => Some(false),
            ServiceSide::Source => Some(true),
            ServiceSide::None => None,
        };
        let l4 = transport(observation);
        let mut summary = l4.as_ref().map_or_else(|| format!("IP protocol {}", observation.protocol), summary);
        if self.node.zones_in_summary {
            summary = format!("{summary}; {} -> {}", ends.source.name(), ends.destination.name());
        }
        let source = self.end((observation.source.0, observation.time), source, ends.locality);
        let destination = self.end((observation.destination.0, observation.time), destination, ends.locality);
        let (source_owner, source) = source;
        let (destination_owner, destination) = destination;
        let service = |endpoint: Option<Arc<Endpoint>>, is_service_side| {
            endpoint.filter(|_| is_service_side).and_then(|endpoint| service(&endpoint))
        };
        let own = Flow {
            source_service: service(source_owner, is_reply == Some(true)),
            destination_service: service(destination_owner, is_reply == Some(false)),
            uuid: uuid::Uuid::new_v4().to_string(),
            verdict: flow::Verdict::Forwarded.into(),
            ip: Some(ip(observation)),
            summary,
            l4: l4.map(|protocol| flow::Layer4 { protocol: Some(protocol) }),
            r#type: flow::FlowType::L3L4.into(),
            reply: is_reply.unwrap_or_default(),
            is_reply,
            event_type: Some(flow::CiliumEventType {
                r#type: EVENT_TRACE,
                sub_type: flow::TraceObservationPoint::ToNetwork.into(),
            }),
            traffic_direction: traffic_direction(is_reply, observation.path).into(),
            trace_observation_point: flow::TraceObservationPoint::ToNetwork.into(),
            trace_reason: trace_reason(is_reply, observation).into(),
            ..Flow::default()
        };
        let mut encoded = Vec::with_capacity(512);
        // Writing to a Vec can't fail.
        let _ = own.encode(&mut encoded);
        put_extensions(ends, new, &mut encoded);
        let node = Arc::clone(&self.encoded_node);
        Encoded::of_parts(Timestamp::from(observation.time), &encoded, source, destination, node)
    }

    /// The endpoint behind an end of a flow, and the end encoded; the cached encoding is used while it is right.
    fn end(
        &mut self,
        (address, time): (IpAddr, SystemTime),
        place: &Place,
        locality: Locality,
    ) -> (Option<Arc<Endpoint>>, Arc<Part>) {
        let endpoint = self.index.at(address, time);
        if let Some(cached) = self.ends.get(&(address, locality))
            && cached.endpoint.as_ref().map(Arc::as_ptr) == endpoint.as_ref().map(Arc::as_ptr)
            && cached.place == *place
        {
            return (endpoint, Arc::clone(&cached.encoded));
        }
        if self.ends.len() >= ENDS {
            self.ends.clear();
        }
        let encoded = Part::new(flow_endpoint(&self.node, endpoint.as_deref(), place, locality).encode_to_vec());
        let end = EncodedEnd { endpoint: endpoint.clone(), place: place.clone(), encoded: Arc::clone(&encoded) };
        self.ends.insert((address, locality), end);
        (endpoint, encoded)
    }
}

fn ip(observation: &Observation) -> flow::Ip {
    let version = if observation.source.0.is_ipv4() { flow::IpVersion::IPv4 } else { flow::IpVersion::IPv6 };
    flow::Ip {
        source: observation.source.0.to_string(),
        destination: observation.destination.0.to_string(),
        ip_version: version.into(),
        ..flow::Ip::default()
    }
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

fn encode_node(node: &Node) -> Arc<encoded::Node> {
    let mut common = Flow {
        node_name: node.display_name.clone(),
        node_labels: topology(&node.place).map(|(key, value)| format!("{key}={value}")).collect(),
        emitter: Some(flow::Emitter { name: "Meridian".into(), version: env!("CARGO_PKG_VERSION").into() }),
        ..Flow::default()
    };
    encoded::Node::new(Part::new(encoded::node(&mut common)))
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

const TCP: u8 = 6;

fn flags(bits: u8) -> flow::TcpFlags {
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

fn summary(protocol: &Protocol) -> String {
    match protocol {
        Protocol::Tcp(flow::Tcp { flags: Some(flags), .. }) => format!("TCP Flags: {}", flag_names(flags)),
        // An update stands for many packets: it has no flags.
        Protocol::Tcp(_) => "TCP".into(),
        Protocol::Udp(_) => "UDP".into(),
        Protocol::Sctp(_) => "SCTP".into(),
        Protocol::IcmPv4(icmp) => format!("ICMPv4 {}", icmp::v4(icmp.r#type, icmp.code)),
        Protocol::IcmPv6(icmp) => format!("ICMPv6 {}", icmp::v6(icmp.r#type, icmp.code)),
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

#[cfg(test)]
#[expect(deprecated, reason = "clients still read Summary")]
mod tests {
    use super::*;
    use crate::zones::{EndpointEntry, Zone};
    use meridian_abi::flow::Verdict;
    use prost_types::{Struct, value::Kind};
    use std::collections::BTreeMap;

    fn zone(name: &str) -> Place {
        Place::Zone(Arc::new(Zone { name: name.into(), region: "eu-1".into() }))
    }

    fn entry(side: ServiceSide, protocol: u8) -> Entry {
        Entry {
            slot: crate::flows::SlotId(0),
            generation: 1,
            path: PacketPath::Sent,
            source: "10.0.1.7".parse().unwrap(),
            destination: "10.0.2.7".parse().unwrap(),
            protocol,
            service_port: if protocol == 1 { 0x0800 } else { 8080 },
            client_port: 40_000,
            side,
            verdict: Verdict { epoch: 1, source: 2, destination: 3 },
            counter: Counter { bytes: 5000, packets: 7 },
        }
    }

    fn flow(entry: &Entry, destination: &Place) -> Flow {
        let index = Index::default();
        let labels = BTreeMap::from([("app".to_owned(), "cart".to_owned())]);
        let workload = serde_json::from_str(r#"{"kind": "StatefulSet", "name": "cart"}"#).unwrap();
        let (namespace, pod) = ("shop".to_owned(), "cart-0".to_owned());
        index.replace(&[EndpointEntry { ip: entry.source, namespace, pod, workload: Some(workload), labels }]);
        let node = Node::new("node-a", zone("eu-1a"));
        let mut observer = FlowBuilder::new(node, Arc::new(index));
        let new = Counter { bytes: 300, packets: 2 };
        observer.update(entry, &zone("eu-1a"), destination, new, SystemTime::UNIX_EPOCH).decode()
    }

    #[test]
    fn an_event_has_all_that_hubbles_clients_need() {
        let flow = flow(&entry(ServiceSide::Destination, 6), &zone("eu-1b"));
        let source = flow.source.unwrap();
        assert_eq!((source.namespace.as_str(), source.pod_name.as_str()), ("shop", "cart-0"));
        assert_eq!(source.workloads[0].name, "cart");
        assert_eq!(
            source.labels,
            [
                "k8s:app=cart",
                "k8s:io.kubernetes.pod.namespace=shop",
                "k8s:meridian.io/locality=cross-zone",
                "k8s:topology.kubernetes.io/region=eu-1",
                "k8s:topology.kubernetes.io/zone=eu-1a",
            ]
        );
        let destination = flow.destination.unwrap();
        assert_eq!((destination.identity, destination.namespace.as_str()), (2, ""));
        assert!(destination.labels.contains(&"k8s:topology.kubernetes.io/zone=eu-1b".to_owned()));
        assert_eq!(flow.verdict, flow::Verdict::Forwarded as i32);
        assert_eq!((flow.is_reply, flow.summary.as_str()), (Some(false), "TCP"));
        let tcp = flow::Tcp { source_port: 40_000, destination_port: 8080, flags: None };
        assert_eq!(flow.l4.unwrap().protocol, Some(Protocol::Tcp(tcp)));
        assert_eq!(flow.node_labels, ["topology.kubernetes.io/region=eu-1", "topology.kubernetes.io/zone=eu-1a"]);
        assert_eq!(flow.event_type.unwrap().sub_type, 11);
        let extensions = flow.extensions.unwrap();
        assert_eq!(extensions.type_url, STRUCT_URL);
        let extensions = Struct::decode(extensions.value.as_slice()).unwrap();
        let kind = |key: &str| extensions.fields[key].kind.clone().unwrap();
        assert_eq!(kind("bytes"), Kind::NumberValue(300.0));
        assert_eq!(kind("destination_zone"), Kind::StringValue("eu-1b".into()));
        assert_eq!(kind("locality"), Kind::StringValue("cross-zone".into()));
    }

    #[test]
    fn only_the_locality_differs_between_flows_of_a_pod() {
        // In hubble-ui they are one card, which shows one of the localities.
        let source = |destination: &str| flow(&entry(ServiceSide::Destination, 6), &zone(destination)).source.unwrap();
        let (near, far) = (source("eu-1a"), source("eu-1b"));
        assert_eq!((near.identity, &near.pod_name), (far.identity, &far.pod_name));
        let differs: Vec<_> = near.labels.iter().zip(&far.labels).filter(|(near, far)| near != far).collect();
        assert_eq!(near.labels.len(), far.labels.len());
        assert_eq!(
            differs,
            [(&"k8s:meridian.io/locality=same-zone".to_owned(), &"k8s:meridian.io/locality=cross-zone".to_owned())]
        );
        assert_eq!(source("eu-1a").labels, near.labels, "another flow in the zone has the same labels");
    }

    #[test]
    fn a_single_packet_has_flags_and_no_bytes() {
        let packet = |tcp_flags, side| {
            let event = Event {
                time: SystemTime::UNIX_EPOCH,
                source: "10.0.1.7".parse().unwrap(),
                destination: "10.0.2.7".parse().unwrap(),
                ports: (50_051, 40_000),
                protocol: 6,
                tcp_flags,
                side,
                path: PacketPath::Sent,
                verdict: Verdict { epoch: 1, source: 2, destination: 3 },
            };
            let node = Node::new("node-a", zone("eu-1a"));
            FlowBuilder::new(node, Arc::default()).packet(&event, &zone("eu-1a"), &zone("eu-1b")).decode()
        };
        let syn = packet(0x02, ServiceSide::Source);
        assert_eq!(
            (syn.summary.as_str(), syn.is_reply),
            ("TCP Flags: SYN", Some(false)),
            "whoever opens is the client"
        );
        assert_eq!(syn.trace_reason, flow::TraceReason::New as i32);
        let extensions = Struct::decode(syn.extensions.unwrap().value.as_slice()).unwrap();
        assert!(!extensions.fields.contains_key("bytes") && extensions.fields.contains_key("locality"));
        let answer = packet(0x12, ServiceSide::Destination);
        assert_eq!((answer.summary.as_str(), answer.is_reply), ("TCP Flags: SYN, ACK", Some(true)));
        let end = packet(0x15, ServiceSide::Destination);
        assert_eq!((end.summary.as_str(), end.is_reply), ("TCP Flags: ACK, RST, FIN", Some(false)));
        let Some(Protocol::Tcp(tcp)) = end.l4.unwrap().protocol else { panic!("TCP") };
        assert_eq!((tcp.source_port, tcp.destination_port), (50_051, 40_000));
    }

    #[test]
    fn zones_stand_in_the_line_if_they_are_to() {
        let node = Node { zones_in_summary: true, ..Node::new("node-a", zone("eu-1a")) };
        let entry = entry(ServiceSide::Destination, 17);
        let mut observer = FlowBuilder::new(node, Arc::default());
        let (source, destination) = (zone("eu-1a"), Place::Internet);
        let flow = observer.update(&entry, &source, &destination, Counter::default(), SystemTime::UNIX_EPOCH);
        assert_eq!(flow.decode().summary, "UDP; eu-1a -> internet");
    }

    #[test]
    fn the_services_answer_is_a_reply() {
        let flow = flow(&entry(ServiceSide::Source, 17), &zone("eu-1a"));
        assert_eq!(flow.is_reply, Some(true));
        assert_eq!(flow.traffic_direction, flow::TrafficDirection::Ingress as i32);
        let udp = flow::Udp { source_port: 8080, destination_port: 40_000 };
        assert_eq!(flow.l4.unwrap().protocol, Some(Protocol::Udp(udp)));
    }

    #[test]
    fn an_address_of_no_pod_is_the_world_and_has_a_locality() {
        for (place, locality) in [(Place::Internet, "internet"), (Place::Unknown, "unknown")] {
            let world = flow(&entry(ServiceSide::Destination, 6), &place).destination.unwrap();
            let labels = [format!("k8s:meridian.io/locality={locality}"), "reserved:world".into()];
            assert_eq!((world.identity, world.labels.as_slice()), (2, &labels[..]));
        }
        // For example a database in the static table.
        let database = flow(&entry(ServiceSide::Destination, 6), &zone("eu-1b")).destination.unwrap();
        assert!(database.identity == 2 && database.labels.contains(&"reserved:world".into()), "{database:?}");
        assert!(database.labels.contains(&"k8s:topology.kubernetes.io/zone=eu-1b".into()), "{database:?}");
    }

    #[test]
    fn unknown_fields_of_a_packet_are_not_set() {
        let flow = flow(&entry(ServiceSide::None, 6), &zone("eu-1b"));
        assert_eq!((flow.l4, flow.is_reply), (None, None));
        assert_eq!(flow.summary, "IP protocol 6");
    }

    #[test]
    fn icmp_has_type_and_code() {
        let flow = flow(&entry(ServiceSide::Destination, 1), &zone("eu-1b"));
        assert_eq!(flow.summary, "ICMPv4 EchoRequest");
        let icmp = flow::IcmPv4 { r#type: 8, code: 0 };
        assert_eq!(flow.l4.unwrap().protocol, Some(Protocol::IcmPv4(icmp)));
    }

    #[test]
    fn a_node_is_itself_or_another_and_a_service_is_named_if_it_is_the_only_one() {
        let entry = entry(ServiceSide::Destination, 6);
        let services = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let cart = |names: &[&str]| Endpoint {
            namespace: "shop".into(),
            pod: "cart-0".into(),
            services: services(names),
            ..Endpoint::default()
        };
        let flow = |source: Endpoint, destination: Endpoint| {
            let index = Arc::new(Index::default());
            index.apply([(entry.source, Some(Arc::new(source))), (entry.destination, Some(Arc::new(destination)))]);
            let mut observer = FlowBuilder::new(Node::new("node-a", Place::Unknown), index);
            let places = (zone("eu-1a"), zone("eu-1b"));
            let flow = observer.update(&entry, &places.0, &places.1, Counter::default(), SystemTime::now());
            let mut bytes = Vec::new();
            flow.write(&mut bytes);
            Flow::decode(bytes.as_slice()).unwrap()
        };
        let event = flow(Endpoint::node("node-a"), cart(&["cart"]));
        let source = event.source.unwrap();
        assert_eq!((source.identity, source.pod_name.as_str(), &*source.workloads[0].kind), (1, "", "Node"));
        assert!(source.labels.contains(&"reserved:host".to_owned()), "{:?}", source.labels);
        let service = event.destination_service.unwrap();
        assert_eq!((&*service.namespace, &*service.name, event.source_service), ("shop", "cart", None));
        let event = flow(Endpoint::node("node-b"), cart(&["cart", "cart-canary"]));
        assert_eq!((event.source.unwrap().identity, event.destination_service), (6, None));
    }
}
