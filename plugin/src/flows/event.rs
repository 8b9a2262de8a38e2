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
    node::Node,
    own_fields::{Ends, Observation, OwnFields, TCP, flags},
};
use crate::{
    identity::{Endpoint, Index},
    proto::flow::{self, Flow},
    zones::{Locality, Place},
};
use ahash::AHashMap;
use meridian_abi::{Counter, flow::ServiceSide};
use prost::Message;
use prost_types::Timestamp;
use std::{net::IpAddr, sync::Arc, time::SystemTime};

/// The limit of encoded ends in the cache.
const ENDS: usize = 8192;

/// Makes the flow events of one node.
#[derive(Debug)]
pub struct FlowBuilder {
    node: Node,
    index: Arc<Index>,
    encoded_node: Arc<encoded::Node>,
    ends: AHashMap<(IpAddr, Locality), Arc<EncodedEnd>>,
    /// The last flow's own fields: one allocation for all.
    buffer: Vec<u8>,
}

/// An encoded end, with the endpoint and place that it was encoded from.
#[derive(Debug)]
struct EncodedEnd {
    endpoint: Option<Arc<Endpoint>>,
    place: Place,
    encoded: Arc<Part>,
    /// The service of the endpoint, encoded.
    service: Option<Box<[u8]>>,
    address: Box<str>,
}

impl FlowBuilder {
    /// Makes the events of a node; `index` resolves addresses to endpoints.
    pub fn new(node: Node, index: Arc<Index>) -> Self {
        let encoded_node = encode_node(&node);
        Self { node, index, encoded_node, ends: AHashMap::default(), buffer: Vec::new() }
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

    fn flow(
        &mut self,
        observation: &Observation,
        source: &Place,
        destination: &Place,
        new: Option<Counter>,
    ) -> Encoded {
        let ends = Ends { source, destination, locality: Locality::between(source, destination) };
        let source = self.end((observation.source.0, observation.time), source, ends.locality);
        let destination = self.end((observation.destination.0, observation.time), destination, ends.locality);
        let own = OwnFields {
            observation: *observation,
            ends,
            addresses: [&source.address, &destination.address],
            services: [source.service.as_deref(), destination.service.as_deref()],
            new,
            zones_in_summary: self.node.zones_in_summary,
        };
        self.buffer.clear();
        own.put(&mut self.buffer);
        let [source, destination] = [source, destination].map(|end| Arc::clone(&end.encoded));
        let node = Arc::clone(&self.encoded_node);
        Encoded::of_parts(Timestamp::from(observation.time), &self.buffer, source, destination, node)
    }

    /// An end of a flow, encoded; the cached encoding is used while it is right.
    fn end(&mut self, (address, time): (IpAddr, SystemTime), place: &Place, locality: Locality) -> Arc<EncodedEnd> {
        let endpoint = self.index.at(address, time);
        if let Some(cached) = self.ends.get(&(address, locality))
            && cached.endpoint.as_ref().map(Arc::as_ptr) == endpoint.as_ref().map(Arc::as_ptr)
            && cached.place == *place
        {
            return Arc::clone(cached);
        }
        if self.ends.len() >= ENDS {
            self.ends.clear();
        }
        let encoded = flow_endpoint(&self.node, endpoint.as_deref(), place, locality).encode_to_vec();
        let end = Arc::new(EncodedEnd {
            service: endpoint.as_deref().and_then(service).map(|service| service.encode_to_vec().into()),
            endpoint,
            place: place.clone(),
            encoded: Part::new(encoded),
            address: address.to_string().into(),
        });
        self.ends.insert((address, locality), Arc::clone(&end));
        end
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

#[cfg(test)]
#[expect(deprecated, reason = "clients still read Summary")]
mod tests {
    use super::*;
    use crate::{
        proto::flow::layer4::Protocol,
        zones::{EndpointEntry, Zone},
    };
    use meridian_abi::flow::{PacketPath, Verdict};
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
        assert_eq!(extensions.type_url, "type.googleapis.com/google.protobuf.Struct");
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

    #[test]
    fn an_events_own_fields_are_as_protobuf_encodes_them() {
        let place = zone("eu-1b");
        for side in [ServiceSide::Destination, ServiceSide::Source, ServiceSide::None] {
            for protocol in [1, 6, 17, 50, 58, 132] {
                let mut builder = FlowBuilder::new(Node::new("node-a", place.clone()), Arc::new(Index::default()));
                let entry = entry(side, protocol);
                let new = Counter { bytes: u64::MAX, packets: 1 };
                let event = builder.update(&entry, &place, &place, new, SystemTime::UNIX_EPOCH);
                let own = event.own().0;
                assert_eq!(Flow::decode(own).unwrap().encode_to_vec(), own, "{side:?} {protocol}");
            }
        }
    }
}
