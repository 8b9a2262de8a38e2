//! Flow filters: select the flows of a request, as Hubble does.
//!
//! A filter matches if each of its fields matches, a field if one of its values matches; an empty filter matches
//! everything. A flow passes if no filter of the blacklist matches, and a filter of the whitelist matches or the
//! whitelist is empty. Errors have Hubble's exact texts, which its command line shows.

mod address;
mod cel;
mod field;
mod go;
mod http;
mod label;
mod pattern;

use crate::{
    flows::{Encoded, Part},
    proto::{
        flow::{EventTypeFilter, FlowFilter, NetworkInterface, TcpFlags, Verdict, Workload},
        number::{self, endpoint, flow},
        wire::Message,
    },
};
use ahash::AHashMap;
use field::{EndCheck, FlowCheck, ip, l4, l7, record, verdict_of};
use go::quote;

/// The limit of values in all filters of a request. Each may be compared with each flow of the ring.
const VALUES: usize = 1000;
/// The limit of regular expressions: each may take [`go::REGEXP_BYTES`] of memory.
const REGEXPS: usize = 64;
/// The limit of CEL expressions.
const EXPRESSIONS: usize = 16;

/// The limit of cached results of a check; all are dropped at the limit.
const REMEMBERED: usize = 16_384;

/// A condition on a flow.
enum Check {
    /// A condition on the whole flow.
    Flow(FlowCheck),
    /// A condition on one end. Many flows share an end, so the result is cached.
    End { side: Side, check: EndCheck, known: AHashMap<u64, bool> },
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl Check {
    fn matches(&mut self, flow: &Encoded) -> bool {
        match self {
            Self::Flow(check) => check(flow),
            Self::End { side, check, known } => {
                let end = match side {
                    Side::Source => flow.source(),
                    Side::Destination => flow.destination(),
                };
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                // No end has the id 0.
                let id = end.map_or(0, Part::id);
                *known.entry(id).or_insert_with(|| check(end.map(Part::message)))
            }
        }
    }
}

/// The filters of a request.
#[derive(Default)]
pub struct Filters {
    whitelist: Vec<Vec<Check>>,
    blacklist: Vec<Vec<Check>>,
}

impl std::fmt::Debug for Filters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filters")
            .field("whitelist", &self.whitelist.len())
            .field("blacklist", &self.blacklist.len())
            .finish()
    }
}

impl Filters {
    /// Compiles the filters of a request.
    ///
    /// # Errors
    /// A filter is invalid; the text is Hubble's.
    pub fn new(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, String> {
        bounded(whitelist.iter().chain(blacklist))?;
        let list = |filters: &[FlowFilter]| filters.iter().map(checks).collect::<Result<Vec<_>, _>>();
        Ok(Self { whitelist: list(whitelist)?, blacklist: list(blacklist)? })
    }

    /// Whether the flow passes.
    pub fn match_flow(&mut self, flow: &Encoded) -> bool {
        let one = |filters: &mut [Vec<Check>]| {
            filters.iter_mut().any(|checks| checks.iter_mut().all(|check| check.matches(flow)))
        };
        (self.whitelist.is_empty() || one(&mut self.whitelist)) && !one(&mut self.blacklist)
    }
}

/// A limit that Hubble does not have: a request of a few megabytes could keep a CPU busy for minutes.
fn bounded<'f>(filters: impl Iterator<Item = &'f FlowFilter>) -> Result<(), String> {
    let (mut values, mut regexps, mut expressions) = (0, 0, 0);
    for filter in filters {
        values += 1 + self::values(filter);
        regexps += filter.dns_query.len() + filter.http_path.len() + filter.http_url.len();
        expressions += filter.experimental.as_ref().map_or(0, |experimental| experimental.cel_expression.len());
    }
    if values > VALUES {
        return Err(format!("too many filters: {values} values (at most {VALUES})"));
    }
    if regexps > REGEXPS {
        return Err(format!("too many regular expressions: {regexps} (at most {REGEXPS})"));
    }
    if expressions > EXPRESSIONS {
        return Err(format!("too many CEL expressions: {expressions} (at most {EXPRESSIONS})"));
    }
    Ok(())
}

/// The number of values in the fields of a filter.
fn values(filter: &FlowFilter) -> usize {
    macro_rules! sum {
        ($($field:ident),* $(,)?) => {{
            // The pattern names every field, so a new field does not compile until it is handled.
            let FlowFilter { experimental, $($field),* } = filter;
            let expressions = experimental.as_ref().map_or(0, |experimental| experimental.cel_expression.len());
            expressions $(+ $field.len())*
        }};
    }
    sum!(
        uuid,
        source_ip,
        source_ip_xlated,
        source_pod,
        source_fqdn,
        source_label,
        source_service,
        source_workload,
        source_cluster_name,
        source_port,
        source_identity,
        destination_ip,
        destination_pod,
        destination_fqdn,
        destination_label,
        destination_service,
        destination_workload,
        destination_cluster_name,
        destination_port,
        destination_identity,
        traffic_direction,
        verdict,
        drop_reason_desc,
        interface,
        event_type,
        protocol,
        reply,
        tcp_flags,
        ip_version,
        encrypted,
        node_name,
        node_labels,
        trace_id,
        ip_trace_id,
        dns_query,
        http_status_code,
        http_method,
        http_path,
        http_url,
        http_header,
    )
}

/// Collects the checks of a filter; a field without values adds none.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add<T: Clone>(&mut self, values: &[T], check: impl FnOnce(Vec<T>) -> FlowCheck) {
        if !values.is_empty() {
            self.0.push(Check::Flow(check(values.to_vec())));
        }
    }

    fn try_add<T>(
        &mut self,
        values: &[T],
        check: impl FnOnce(&[T]) -> Result<FlowCheck, String>,
    ) -> Result<(), String> {
        if !values.is_empty() {
            self.0.push(Check::Flow(check(values)?));
        }
        Ok(())
    }

    fn try_add_end<T>(
        &mut self,
        side: Side,
        values: &[T],
        check: impl FnOnce(&[T]) -> Result<EndCheck, String>,
    ) -> Result<(), String> {
        if !values.is_empty() {
            self.0.push(Check::End { side, check: check(values)?, known: AHashMap::default() });
        }
        Ok(())
    }
}

/// In Hubble's order, because only the first error is returned.
fn checks(filter: &FlowFilter) -> Result<Vec<Check>, String> {
    // The pattern names every field, so a new field does not compile until it is handled.
    let FlowFilter {
        uuid,
        source_ip,
        source_ip_xlated,
        source_pod,
        source_fqdn,
        source_label,
        source_service,
        source_workload,
        source_cluster_name,
        source_port,
        source_identity,
        destination_ip,
        destination_pod,
        destination_fqdn,
        destination_label,
        destination_service,
        destination_workload,
        destination_cluster_name,
        destination_port,
        destination_identity,
        traffic_direction,
        verdict,
        drop_reason_desc,
        interface,
        event_type,
        protocol,
        reply,
        tcp_flags,
        ip_version,
        encrypted,
        node_name,
        node_labels,
        trace_id,
        ip_trace_id,
        dns_query,
        http_status_code,
        http_method,
        http_path,
        http_url,
        http_header,
        experimental,
    } = filter;
    let mut checks = Checks::default();
    checks.add(uuid, |uuids| {
        Box::new(move |flow| {
            let has = flow.own().string(flow::UUID);
            uuids.iter().any(|uuid| uuid == has)
        })
    });
    checks.add(event_type, self::event_type);
    checks.add(verdict, |verdicts| Box::new(move |flow| verdicts.contains(&verdict_of(flow))));
    checks.add(drop_reason_desc, |reasons| {
        Box::new(move |flow| {
            verdict_of(flow) == Verdict::Dropped as i32
                && reasons.contains(&(flow.own().varint(flow::DROP_REASON_DESC) as i32))
        })
    });
    checks.add(reply, self::reply);
    checks.add(encrypted, |wanted| {
        Box::new(move |flow| wanted.contains(&ip(flow).is_some_and(|ip| ip.bool(number::ip::ENCRYPTED))))
    });
    checks.try_add_end(Side::Source, source_identity, identity)?;
    checks.try_add_end(Side::Destination, destination_identity, identity)?;
    checks.try_add(protocol, self::protocol)?;
    checks.try_add(source_ip, |ips| address::check(ips, number::ip::SOURCE))?;
    checks.try_add(destination_ip, |ips| address::check(ips, number::ip::DESTINATION))?;
    checks.try_add(source_ip_xlated, |ips| address::check(ips, number::ip::SOURCE_XLATED))?;
    checks.try_add_end(Side::Source, source_pod, pod)?;
    checks.try_add_end(Side::Destination, destination_pod, pod)?;
    checks.try_add_end(Side::Source, source_workload, workload)?;
    checks.try_add_end(Side::Destination, destination_workload, workload)?;
    checks
        .try_add(source_service, |names| service(names, flow::SOURCE_SERVICE))
        .map_err(|error| format!("invalid source service filter: {error}"))?;
    checks
        .try_add(destination_service, |names| service(names, flow::DESTINATION_SERVICE))
        .map_err(|error| format!("invalid destination service filter: {error}"))?;
    checks.try_add(source_fqdn, |patterns| pattern::fqdn(patterns, flow::SOURCE_NAMES))?;
    checks.try_add(destination_fqdn, |patterns| pattern::fqdn(patterns, flow::DESTINATION_NAMES))?;
    checks
        .try_add(dns_query, |patterns| {
            let patterns = go::regexps(patterns).map_err(|(_, error)| format!("failed to compile regexp: {error}"))?;
            Ok(Box::new(move |flow| {
                let query = record(flow, number::layer7::DNS).map(|dns| dns.string(number::dns::QUERY));
                query.is_some_and(|query| patterns.iter().any(|pattern| pattern.is_match(query)))
            }))
        })
        .map_err(|error| format!("invalid DNS query filter: {error}"))?;
    checks
        .try_add_end(Side::Source, source_label, label::of_end)
        .map_err(|error| format!("invalid source label filter: {error}"))?;
    checks
        .try_add_end(Side::Destination, destination_label, label::of_end)
        .map_err(|error| format!("invalid destination label filter: {error}"))?;
    checks.try_add(node_labels, label::of_node).map_err(|error| format!("invalid node label filter: {error}"))?;
    checks
        .try_add(source_port, |ports| port(ports, |(source, _)| source))
        .map_err(|error| format!("invalid source port filter: {error}"))?;
    checks
        .try_add(destination_port, |ports| port(ports, |(_, destination)| destination))
        .map_err(|error| format!("invalid destination port filter: {error}"))?;
    let l7_only = |what: &str| {
        let asked = event_type.is_empty() || event_type.iter().any(|wanted| wanted.r#type == EVENT_L7);
        let refused = format!("filtering by http {what} requires the event type filter to only match 'l7' events");
        if asked { Ok(()) } else { Err(refused) }
    };
    checks.try_add(http_status_code, |codes| {
        l7_only("status code")?;
        http::status_code(codes).map_err(|error| format!("invalid http status code filter: {error}"))
    })?;
    checks.try_add(http_method, |methods| l7_only("method").map(|()| http::method(methods)))?;
    checks.try_add(http_path, |paths| {
        l7_only("path")?;
        http::path(paths).map_err(|error| format!("invalid http path filter: {error}"))
    })?;
    checks.try_add(http_url, |urls| {
        l7_only("url")?;
        http::url(urls).map_err(|error| format!("invalid http url filter: {error}"))
    })?;
    checks.try_add(http_header, |headers| l7_only("headers").map(|()| http::header(headers)))?;
    checks.add(tcp_flags, self::tcp_flags);
    checks.try_add(node_name, pattern::node_name)?;
    checks.try_add_end(Side::Source, source_cluster_name, cluster)?;
    checks.try_add_end(Side::Destination, destination_cluster_name, cluster)?;
    checks.add(ip_version, |versions| {
        Box::new(move |flow| versions.contains(&ip(flow).map_or(0, |ip| ip.varint(number::ip::IPVERSION) as i32)))
    });
    checks.add(trace_id, |ids| {
        Box::new(move |flow| {
            let context = flow.own().message(flow::TRACE_CONTEXT);
            let parent = context.and_then(|context| context.message(number::tracecontext::PARENT));
            let has = parent.map_or("", |parent| parent.string(number::traceparent::TRACE_ID));
            ids.iter().any(|id| id == has)
        })
    });
    checks.add(traffic_direction, |directions| {
        Box::new(move |flow| directions.contains(&(flow.own().varint(flow::TRAFFIC_DIRECTION) as i32)))
    });
    checks.add(interface, self::interface);
    checks.add(ip_trace_id, |ids| {
        Box::new(move |flow| {
            let has = flow.own().message(flow::IP_TRACE_ID);
            ids.contains(&has.map_or(0, |has| has.varint(number::iptraceid::TRACE_ID)))
        })
    });
    if let Some(experimental) = experimental {
        checks.try_add(&experimental.cel_expression, cel::check)?;
    }
    Ok(checks.0)
}

/// The event type of layer 7.
const EVENT_L7: i32 = 129;

/// Type 0 matches any type; the sub type counts only if it is set.
fn event_type(wanted: Vec<EventTypeFilter>) -> FlowCheck {
    use number::ciliumeventtype::{SUB_TYPE, TYPE};
    Box::new(move |flow| {
        let Some(event) = flow.own().message(flow::EVENT_TYPE) else { return false };
        wanted.iter().any(|wanted| {
            (wanted.r#type == 0 || wanted.r#type == event.varint(TYPE) as i32)
                && (!wanted.match_sub_type || wanted.sub_type == event.varint(SUB_TYPE) as i32)
        })
    })
}

/// A dropped flow may not tell whether it is a reply: it counts as none.
fn reply(wanted: Vec<bool>) -> FlowCheck {
    Box::new(move |flow| {
        let is_reply = flow.own().message(flow::IS_REPLY);
        (is_reply.is_some() || verdict_of(flow) == Verdict::Dropped as i32)
            && wanted.contains(&is_reply.is_some_and(|is_reply| is_reply.bool(WRAPPED)))
    })
}

/// The field number of the value in Google's wrapper messages.
const WRAPPED: u64 = 1;

fn protocol(names: &[String]) -> Result<FlowCheck, String> {
    const KNOWN: [&str; 11] =
        ["icmp", "icmpv4", "icmpv6", "tcp", "udp", "sctp", "vrrp", "igmp", "dns", "http", "kafka"];
    let mut wanted = Vec::new();
    for name in names {
        let lower = name.to_lowercase();
        let known = KNOWN.into_iter().find(|known| *known == lower);
        wanted.push(known.ok_or_else(|| format!("invalid protocol filter: unknown protocol: {}", quote(name)))?);
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

fn identity(ids: &[u32]) -> Result<EndCheck, String> {
    let ids = ids.to_vec();
    Ok(Box::new(move |end| end.is_some_and(|end| ids.contains(&(end.varint(endpoint::IDENTITY) as u32)))))
}

/// `namespace/prefix`, where both may be empty; a prefix alone is in the namespace `default`.
fn named(names: &[String]) -> Result<impl Fn(&str, &str) -> bool + Send + Sync + use<>, String> {
    let mut wanted = Vec::new();
    for name in names {
        if name.is_empty() {
            return Err("invalid filter, name must not be empty".into());
        }
        let mut parts = name.split('/');
        let first = parts.next().unwrap_or_default();
        let (namespace, prefix) = parts.next().map_or(("default", first), |prefix| (first, prefix));
        wanted.push((namespace.to_owned(), prefix.to_owned()));
    }
    Ok(move |namespace: &str, name: &str| {
        (!namespace.is_empty() || !name.is_empty())
            && wanted
                .iter()
                .any(|(wanted, prefix)| name.starts_with(prefix) && (wanted.is_empty() || wanted == namespace))
    })
}

fn pod(names: &[String]) -> Result<EndCheck, String> {
    let named = named(names)?;
    Ok(Box::new(move |end| {
        end.is_some_and(|end| named(end.string(endpoint::NAMESPACE), end.string(endpoint::POD_NAME)))
    }))
}

fn service(names: &[String], number: u64) -> Result<FlowCheck, String> {
    use number::service::{NAME, NAMESPACE};
    let named = named(names)?;
    Ok(Box::new(move |flow| {
        let service = flow.own().message(number);
        service.is_some_and(|service| named(service.string(NAMESPACE), service.string(NAME)))
    }))
}

fn workload(wanted: &[Workload]) -> Result<EndCheck, String> {
    use number::workload::{KIND, NAME};
    let wanted = wanted.to_vec();
    Ok(Box::new(move |end| {
        let is = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
        end.is_some_and(|end| {
            end.messages(endpoint::WORKLOADS).any(|has| {
                wanted.iter().any(|wanted| is(&wanted.name, has.string(NAME)) && is(&wanted.kind, has.string(KIND)))
            })
        })
    }))
}

fn cluster(names: &[String]) -> Result<EndCheck, String> {
    if names.iter().any(String::is_empty) {
        return Err("invalid filter, name must not be empty".into());
    }
    let names = names.to_vec();
    Ok(Box::new(move |end| {
        let has = end.map_or("", |end| end.string(endpoint::CLUSTER_NAME));
        names.iter().any(|name| name == has)
    }))
}

fn port(texts: &[String], side: fn((u64, u64)) -> u64) -> Result<FlowCheck, String> {
    use number::{layer4, tcp};
    let mut wanted = Vec::new();
    for text in texts {
        wanted.push(go::parse_u16(text).map_err(|error| format!("invalid port {}: {error}", quote(text)))?);
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
fn tcp_flags(wanted: Vec<TcpFlags>) -> FlowCheck {
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

/// Index 0 and an empty name match anything.
fn interface(wanted: Vec<NetworkInterface>) -> FlowCheck {
    use number::networkinterface::{INDEX, NAME};
    Box::new(move |flow| {
        flow.own().message(flow::INTERFACE).is_some_and(|has| {
            wanted.iter().any(|wanted| {
                (wanted.index == 0 || wanted.index == has.varint(INDEX) as u32)
                    && (wanted.name.is_empty() || wanted.name == has.string(NAME))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_can_not_ask_for_more_than_there_is_time_and_memory_for() {
        let refused = |filters: &[FlowFilter]| Filters::new(filters, &[]).unwrap_err();
        let ports = FlowFilter { source_port: vec!["80".into(); VALUES], ..FlowFilter::default() };
        assert_eq!(refused(&[ports]), "too many filters: 1001 values (at most 1000)");
        let many = vec![FlowFilter::default(); VALUES + 1];
        assert_eq!(refused(&many), "too many filters: 1001 values (at most 1000)");
        let regexps = FlowFilter { dns_query: vec!["a".into(); REGEXPS + 1], ..FlowFilter::default() };
        assert_eq!(refused(&[regexps]), "too many regular expressions: 65 (at most 64)");
        let large = FlowFilter { dns_query: vec![r"(\pL{100}){100}".into()], ..FlowFilter::default() };
        assert!(refused(&[large]).contains("error parsing regexp"));
        assert!(Filters::new(&vec![FlowFilter::default(); VALUES], &[]).is_ok());
    }
}
