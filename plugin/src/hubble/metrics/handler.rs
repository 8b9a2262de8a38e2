//! Hubble's handlers: which flows each one counts.

use super::{
    config::{ContextOption, MetricError},
    flow_view::{FlowView, l4_name},
};
use crate::{
    flows::icmp,
    proto::{
        flow::{DropReason, IpVersion, Verdict},
        number::{self, layer4},
    },
};
use std::borrow::Cow;

/// A handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Handler {
    Flow,
    Drop,
    Tcp,
    Icmp,
    PortDistribution,
    FlowsToWorld {
        /// Whether all drops count, or only drops by a policy.
        any_drop: bool,
        /// Whether the port is a label.
        port: bool,
        /// For TCP, whether only the start of a connection counts.
        syn_only: bool,
    },
}

/// The names of the handlers.
const NAMES: &str = "flow, drop, tcp, icmp, port-distribution, flows-to-world";
/// Hubble's handlers for layers and events that are not observed here.
const NOT_SEEN: [&str; 6] = ["dns", "http", "httpV2", "kafka", "policy", "sctp"];
/// The labels of endpoints outside the cluster.
const WORLD: [&str; 3] = ["reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"];

impl Handler {
    /// The handler of this name; `None` for a handler that would count nothing here.
    pub(super) fn new(name: &str, options: &[&ContextOption]) -> Result<Option<Self>, MetricError> {
        let mut given: Vec<String> = options.iter().map(|option| option.name.to_lowercase()).collect();
        let mut take = |option: &str| {
            let before = given.len();
            given.retain(|name| name != option);
            given.len() < before
        };
        let handler = match name {
            "flow" => Self::Flow,
            "drop" => Self::Drop,
            "tcp" => Self::Tcp,
            "icmp" => Self::Icmp,
            "port-distribution" => Self::PortDistribution,
            "flows-to-world" => {
                Self::FlowsToWorld { any_drop: take("any-drop"), port: take("port"), syn_only: take("syn-only") }
            }
            known if NOT_SEEN.contains(&known) => return Ok(None),
            "" => return Err(MetricError::NoName),
            _ => return Err(MetricError::Unknown(NAMES)),
        };
        match given.first() {
            Some(unknown) => Err(MetricError::Option(unknown.clone())),
            None => Ok(Some(handler)),
        }
    }

    /// The family's name and help text.
    pub(super) const fn name_and_help(&self) -> (&'static str, &'static str) {
        match self {
            Self::Flow => ("hubble_flows_processed", "Number of flows."),
            Self::Drop => ("hubble_drop", "Number of dropped flows, by reason."),
            Self::Tcp => ("hubble_tcp_flags", "Number of TCP flows with a flag, by flag."),
            Self::Icmp => ("hubble_icmp", "Number of ICMP messages, by type."),
            Self::PortDistribution => ("hubble_port_distribution", "Number of flows, by destination port."),
            Self::FlowsToWorld { .. } => {
                ("hubble_flows_to_world", "Number of flows to destinations outside the cluster.")
            }
        }
    }

    /// The labels whose values [`Self::each`] gives.
    pub(super) fn labels(&self) -> Vec<&'static str> {
        match self {
            Self::Flow => vec!["protocol", "type", "subtype", "verdict"],
            Self::Drop => vec!["reason", "protocol"],
            Self::Tcp => vec!["flag", "family"],
            Self::Icmp => vec!["family", "type"],
            Self::PortDistribution => vec!["protocol", "port"],
            Self::FlowsToWorld { port: false, .. } => vec!["protocol", "verdict"],
            Self::FlowsToWorld { .. } => vec!["protocol", "verdict", "port"],
        }
    }

    /// Whether the handler may count the flow.
    pub(super) fn wants(&self, view: &FlowView<'_>) -> bool {
        let is_dropped = view.verdict == Verdict::Dropped as i32;
        let is_reply = view.is_reply == Some(true);
        match self {
            Self::Flow => true,
            Self::Drop => is_dropped,
            Self::Tcp => view.is_forwarded() && view.ip.is_some() && view.protocol(layer4::TCP).is_some(),
            Self::Icmp => view.protocol(layer4::ICMPV4).or_else(|| view.protocol(layer4::ICMPV6)).is_some(),
            // The destination port of a possible reply may be a client's.
            Self::PortDistribution => view.is_forwarded() && view.has_l4 && view.is_reply == Some(false),
            Self::FlowsToWorld { any_drop, syn_only, .. } => {
                let labels = || view.destination.strings(number::endpoint::LABELS);
                let by_policy = view.drop_reason == DropReason::PolicyDenied as i32;
                let is_syn = || {
                    let flags = view.protocol(layer4::TCP).and_then(|tcp| tcp.message(number::tcp::FLAGS));
                    flags.is_some_and(|flags| flags.bool(number::tcpflags::SYN))
                };
                view.has_destination
                    && view.event_type.is_some()
                    && view.has_l4
                    && labels().any(|label| WORLD.contains(&label))
                    && (!is_dropped || *any_drop || by_policy)
                    && (is_dropped || !is_reply)
                    && (!syn_only || is_syn() && !is_reply)
            }
        }
    }

    /// Calls `emit` with the label values, once for each count of the flow.
    pub(super) fn each(&self, view: &FlowView<'_>, emit: &mut impl FnMut(&[&str])) {
        match self {
            Self::Flow => each_event(view, emit),
            Self::Drop => {
                let reason = DropReason::try_from(view.drop_reason).map(|reason| reason.as_str_name());
                emit(&[&named(reason, view.drop_reason), view.protocol_name()]);
            }
            Self::Tcp => each_tcp_flag(view, emit),
            Self::Icmp => {
                let numbers = |of: crate::proto::wire::Message<'_>| {
                    (of.varint(number::icmpv4::TYPE) as u32, of.varint(number::icmpv4::CODE) as u32)
                };
                if let Some((kind, code)) = view.protocol(layer4::ICMPV4).map(numbers) {
                    emit(&["IPv4", &icmp::v4(kind, code)]);
                }
                if let Some((kind, code)) = view.protocol(layer4::ICMPV6).map(numbers) {
                    emit(&["IPv6", &icmp::v6(kind, code)]);
                }
            }
            Self::PortDistribution => {
                let Some((chosen, _)) = view.l4 else { return };
                if let Some(name) = l4_name(chosen) {
                    emit(&[name, &port(view).unwrap_or(0).to_string()]);
                }
            }
            Self::FlowsToWorld { port: by_port, .. } => {
                let (verdict, port) = (verdict(view.verdict), port(view).map(|port| port.to_string()));
                let values = [view.protocol_name(), &*verdict, port.as_deref().unwrap_or_default()];
                emit(if *by_port { &values } else { &values[..2] });
            }
        }
    }
}

fn each_event(view: &FlowView<'_>, emit: &mut impl FnMut(&[&str])) {
    let (kind, sub_type) = view.event_type.unwrap_or_default();
    let number;
    let (kind, sub_type) = match kind {
        129 => ("L7", view.l7().unwrap_or_default()),
        1 => ("Drop", ""),
        3 => ("Capture", ""),
        4 => ("Trace", observation_point(sub_type)),
        5 => ("PolicyVerdict", ""),
        _ => {
            number = kind.to_string();
            ("Unknown", &*number)
        }
    };
    emit(&[view.protocol_name(), kind, sub_type, &verdict(view.verdict)]);
}

fn each_tcp_flag(view: &FlowView<'_>, emit: &mut impl FnMut(&[&str])) {
    let flags = view.protocol(layer4::TCP).and_then(|tcp| tcp.message(number::tcp::FLAGS));
    let (Some(flags), Some(ip)) = (flags, view.ip) else { return };
    let version = ip.varint(number::ip::IPVERSION) as i32;
    let family = named(IpVersion::try_from(version).map(|version| version.as_str_name()), version);
    let has = |number| flags.bool(number);
    if has(number::tcpflags::FIN) {
        emit(&["FIN", &family]);
    }
    if has(number::tcpflags::SYN) {
        emit(&[if has(number::tcpflags::ACK) { "SYN-ACK" } else { "SYN" }, &family]);
    }
    if has(number::tcpflags::RST) {
        emit(&["RST", &family]);
    }
}

/// The destination port, where the protocol has ports.
fn port(view: &FlowView<'_>) -> Option<u32> {
    let (chosen, message) = view.l4?;
    let number = match chosen {
        layer4::TCP => number::tcp::DESTINATION_PORT,
        layer4::UDP => number::udp::DESTINATION_PORT,
        layer4::SCTP => number::sctp::DESTINATION_PORT,
        _ => return None,
    };
    Some(message.varint(number) as u32)
}

fn verdict(number: i32) -> Cow<'static, str> {
    named(Verdict::try_from(number).map(|verdict| verdict.as_str_name()), number)
}

/// The name of an enum's value; the number of an unknown value.
fn named<E>(name: Result<&'static str, E>, number: i32) -> Cow<'static, str> {
    name.map_or_else(|_| number.to_string().into(), Cow::Borrowed)
}

/// The name of a trace's observation point, from its sub type.
const fn observation_point(sub_type: i32) -> &'static str {
    match sub_type as u8 {
        0 => "to-endpoint",
        1 => "to-proxy",
        2 => "to-host",
        3 => "to-stack",
        4 => "to-overlay",
        5 => "from-endpoint",
        6 => "from-proxy",
        7 => "from-host",
        8 => "from-stack",
        9 => "from-overlay",
        10 => "from-network",
        11 => "to-network",
        12 => "from-crypto",
        13 => "to-crypto",
        _ => "",
    }
}
