//! Filters by the headers of packets.

use super::{
    field::{FlowCheck, ip, l4, l7},
    go,
    invalid::InvalidFilter,
};
use crate::proto::{flow::TcpFlags, number, wire::Message};

/// By protocol of layer 4 or 7.
pub(super) fn protocol(names: &[String]) -> Result<FlowCheck, InvalidFilter> {
    const KNOWN: [&str; 11] =
        ["icmp", "icmpv4", "icmpv6", "tcp", "udp", "sctp", "vrrp", "igmp", "dns", "http", "kafka"];
    let mut wanted = Vec::new();
    for name in names {
        let lower = name.to_lowercase();
        let known = KNOWN.into_iter().find(|known| *known == lower);
        wanted.push(known.ok_or_else(|| InvalidFilter::Protocol(name.clone()))?);
    }
    Ok(Box::new(move |flow| {
        use number::{layer4, layer7};
        let l4 = match l4(flow).map(|(number, _)| number) {
            Some(layer4::TCP) => "tcp",
            Some(layer4::UDP) => "udp",
            Some(layer4::ICMPV4) => "icmpv4",
            Some(layer4::ICMPV6) => "icmpv6",
            Some(layer4::SCTP) => "sctp",
            Some(layer4::VRRP) => "vrrp",
            Some(layer4::IGMP) => "igmp",
            _ => "",
        };
        let l7 = match l7(flow).map(|(number, _)| number) {
            Some(layer7::DNS) => "dns",
            Some(layer7::HTTP) => "http",
            Some(layer7::KAFKA) => "kafka",
            _ => "",
        };
        let icmp = if l4.starts_with("icmp") { "icmp" } else { "" };
        wanted.iter().any(|wanted| [l4, l7, icmp].contains(wanted))
    }))
}

/// By port of TCP, UDP or SCTP; `side` takes one of source and destination.
pub(super) fn port(texts: &[String], side: fn((u64, u64)) -> u64) -> Result<FlowCheck, InvalidFilter> {
    use number::{layer4, tcp};
    let mut wanted = Vec::new();
    for text in texts {
        wanted.push(go::parse_u16(text).map_err(|source| InvalidFilter::Port { text: text.clone(), source })?);
    }
    Ok(Box::new(move |flow| match l4(flow) {
        // The three messages have the same field numbers. A port has 16 bits, even if the message has more.
        Some((layer4::TCP | layer4::UDP | layer4::SCTP, l4)) => {
            wanted.contains(&(side((l4.varint(tcp::SOURCE_PORT), l4.varint(tcp::DESTINATION_PORT))) as u16))
        }
        _ => false,
    }))
}

/// All flags that an entry sets must be set in the flow.
pub(super) fn tcp_flags(wanted: Vec<TcpFlags>) -> FlowCheck {
    use number::tcpflags::{ACK, CWR, ECE, FIN, NS, PSH, RST, SYN, URG};
    let bits = |flags: &TcpFlags| {
        let TcpFlags { fin, syn, rst, psh, ack, urg, ece, cwr, ns } = *flags;
        [fin, syn, rst, psh, ack, urg, ece, cwr, ns].into_iter().fold(0u16, |bits, flag| bits << 1 | u16::from(flag))
    };
    let bits_of = |flags: Message<'_>| {
        let flags = [FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, NS].map(|flag| flags.bool(flag));
        flags.into_iter().fold(0u16, |bits, flag| bits << 1 | u16::from(flag))
    };
    let wanted: Vec<u16> = wanted.iter().map(bits).collect();
    Box::new(move |flow| match l4(flow) {
        Some((number::layer4::TCP, tcp)) => {
            let has = tcp.message(number::tcp::FLAGS).map(bits_of);
            has.is_some_and(|has| wanted.iter().any(|wanted| wanted & !has == 0))
        }
        _ => false,
    })
}

/// By whether it was encrypted.
pub(super) fn encrypted(wanted: Vec<bool>) -> FlowCheck {
    Box::new(move |flow| wanted.contains(&ip(flow).is_some_and(|ip| ip.bool(number::ip::ENCRYPTED))))
}

/// By IP version.
pub(super) fn ip_version(versions: Vec<i32>) -> FlowCheck {
    Box::new(move |flow| versions.contains(&ip(flow).map_or(0, |ip| ip.varint(number::ip::IPVERSION) as i32)))
}
