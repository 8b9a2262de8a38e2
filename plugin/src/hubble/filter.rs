//! Flow filters: which flows a request wants to see, as Hubble decides it.
//!
//! A filter matches if each of its fields does, a field if one of its values does; an empty filter
//! matches everything. A flow is shown if one filter of the whitelist matches, or there is none, and no
//! filter of the blacklist does. Errors have Hubble's own words, which its command line shows as they
//! are.

mod address;
mod go;
mod http;
mod label;
mod pattern;

use crate::proto::flow::{
    Endpoint, EventTypeFilter, Flow, FlowFilter, NetworkInterface, TcpFlags, Verdict, Workload, layer4::Protocol,
    layer7::Record,
};
use go::quote;

/// The values that all filters of a request may have together. Each may be compared with each flow of the ring.
const VALUES: usize = 1000;
/// The regular expressions among them: each may take [`go::REGEXP_BYTES`] of memory.
const REGEXPS: usize = 64;

/// One thing that a flow must be.
type Check = Box<dyn Fn(&Flow) -> bool + Send + Sync>;

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
    /// Understands the filters of a request.
    ///
    /// # Errors
    /// What a filter says that can't be, in Hubble's words.
    pub fn new(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, String> {
        bounded(whitelist.iter().chain(blacklist))?;
        let list = |filters: &[FlowFilter]| filters.iter().map(checks).collect::<Result<Vec<_>, _>>();
        Ok(Self { whitelist: list(whitelist)?, blacklist: list(blacklist)? })
    }

    /// Whether the flow is shown.
    pub fn match_flow(&self, flow: &Flow) -> bool {
        let one = |filters: &[Vec<Check>]| filters.iter().any(|checks| checks.iter().all(|check| check(flow)));
        (self.whitelist.is_empty() || one(&self.whitelist)) && !one(&self.blacklist)
    }
}

/// What Hubble does not bound: a request of a few megabytes could keep a CPU busy for minutes.
fn bounded<'f>(filters: impl Iterator<Item = &'f FlowFilter>) -> Result<(), String> {
    let (mut values, mut regexps) = (0, 0);
    for filter in filters {
        values += 1 + self::values(filter);
        regexps += filter.dns_query.len() + filter.http_path.len() + filter.http_url.len();
    }
    if values > VALUES {
        return Err(format!("too many filters: {values} values (at most {VALUES})"));
    }
    if regexps > REGEXPS {
        return Err(format!("too many regular expressions: {regexps} (at most {REGEXPS})"));
    }
    Ok(())
}

/// How many values the fields of a filter have together.
fn values(filter: &FlowFilter) -> usize {
    macro_rules! sum {
        ($($field:ident),* $(,)?) => {{
            // Every field must be named here, or this does not compile.
            let FlowFilter { experimental: _, $($field),* } = filter;
            0 $(+ $field.len())*
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

/// Collects the checks of a filter; a field without values asks for nothing.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add<T>(&mut self, values: &[T], check: impl FnOnce(Vec<T>) -> Check)
    where
        T: Clone,
    {
        if !values.is_empty() {
            self.0.push(check(values.to_vec()));
        }
    }

    fn try_add<T>(&mut self, values: &[T], check: impl FnOnce(&[T]) -> Result<Check, String>) -> Result<(), String> {
        if !values.is_empty() {
            self.0.push(check(values)?);
        }
        Ok(())
    }
}

/// In the order in which Hubble builds them: the first error is the one that is told.
fn checks(filter: &FlowFilter) -> Result<Vec<Check>, String> {
    // Every field must be named here, or this does not compile.
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
        experimental: _,
    } = filter;
    let mut checks = Checks::default();
    checks.add(uuid, |uuids| Box::new(move |flow| uuids.contains(&flow.uuid)));
    checks.add(event_type, self::event_type);
    checks.add(verdict, |verdicts| Box::new(move |flow| verdicts.contains(&flow.verdict)));
    checks.add(drop_reason_desc, |reasons| {
        Box::new(move |flow| flow.verdict == Verdict::Dropped as i32 && reasons.contains(&flow.drop_reason_desc))
    });
    checks.add(reply, self::reply);
    checks.add(encrypted, |wanted| {
        Box::new(move |flow| wanted.contains(&flow.ip.as_ref().is_some_and(|ip| ip.encrypted)))
    });
    checks
        .add(source_identity, |ids| Box::new(move |flow| source(flow).is_some_and(|end| ids.contains(&end.identity))));
    checks.add(destination_identity, |ids| {
        Box::new(move |flow| destination(flow).is_some_and(|end| ids.contains(&end.identity)))
    });
    checks.try_add(protocol, self::protocol)?;
    checks.try_add(source_ip, |ips| address::check(ips, |ip| &ip.source))?;
    checks.try_add(destination_ip, |ips| address::check(ips, |ip| &ip.destination))?;
    checks.try_add(source_ip_xlated, |ips| address::check(ips, |ip| &ip.source_xlated))?;
    checks
        .try_add(source_pod, |names| named(names, |flow| source(flow).map(|end| (&*end.namespace, &*end.pod_name))))?;
    checks.try_add(destination_pod, |names| {
        named(names, |flow| destination(flow).map(|end| (&*end.namespace, &*end.pod_name)))
    })?;
    checks.add(source_workload, |wanted| workload(wanted, source));
    checks.add(destination_workload, |wanted| workload(wanted, destination));
    checks
        .try_add(source_service, |names| {
            named(names, |flow| flow.source_service.as_ref().map(|service| (&*service.namespace, &*service.name)))
        })
        .map_err(|error| format!("invalid source service filter: {error}"))?;
    checks
        .try_add(destination_service, |names| {
            named(names, |flow| flow.destination_service.as_ref().map(|service| (&*service.namespace, &*service.name)))
        })
        .map_err(|error| format!("invalid destination service filter: {error}"))?;
    checks.try_add(source_fqdn, |patterns| pattern::fqdn(patterns, |flow| &flow.source_names))?;
    checks.try_add(destination_fqdn, |patterns| pattern::fqdn(patterns, |flow| &flow.destination_names))?;
    checks
        .try_add(dns_query, |patterns| {
            let patterns = go::regexps(patterns).map_err(|(_, error)| format!("failed to compile regexp: {error}"))?;
            Ok(Box::new(move |flow| match record(flow) {
                Some(Record::Dns(dns)) => patterns.iter().any(|pattern| pattern.is_match(&dns.query)),
                _ => false,
            }))
        })
        .map_err(|error| format!("invalid DNS query filter: {error}"))?;
    checks
        .try_add(source_label, |selectors| label::check(selectors, |flow| source(flow).map_or(&[], |end| &end.labels)))
        .map_err(|error| format!("invalid source label filter: {error}"))?;
    checks
        .try_add(destination_label, |selectors| {
            label::check(selectors, |flow| destination(flow).map_or(&[], |end| &end.labels))
        })
        .map_err(|error| format!("invalid destination label filter: {error}"))?;
    checks
        .try_add(node_labels, |selectors| label::check(selectors, |flow| &flow.node_labels))
        .map_err(|error| format!("invalid node label filter: {error}"))?;
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
    checks.try_add(source_cluster_name, |names| cluster(names, source))?;
    checks.try_add(destination_cluster_name, |names| cluster(names, destination))?;
    checks.add(ip_version, |versions| {
        Box::new(move |flow| versions.contains(&flow.ip.as_ref().map_or(0, |ip| ip.ip_version)))
    });
    checks.add(trace_id, |ids| {
        Box::new(move |flow| {
            let parent = flow.trace_context.as_ref().and_then(|context| context.parent.as_ref());
            ids.iter().any(|id| *id == parent.map_or("", |parent| &parent.trace_id))
        })
    });
    checks.add(traffic_direction, |directions| Box::new(move |flow| directions.contains(&flow.traffic_direction)));
    checks.add(interface, self::interface);
    checks.add(ip_trace_id, |ids| {
        Box::new(move |flow| ids.contains(&flow.ip_trace_id.as_ref().map_or(0, |id| id.trace_id)))
    });
    Ok(checks.0)
}

/// The event type of layer 7.
const EVENT_L7: i32 = 129;

const fn source(flow: &Flow) -> Option<&Endpoint> {
    flow.source.as_ref()
}

const fn destination(flow: &Flow) -> Option<&Endpoint> {
    flow.destination.as_ref()
}

fn l4(flow: &Flow) -> Option<&Protocol> {
    flow.l4.as_ref()?.protocol.as_ref()
}

fn record(flow: &Flow) -> Option<&Record> {
    flow.l7.as_ref()?.record.as_ref()
}

/// Type 0 is any; the sub type counts only if it is asked for.
fn event_type(wanted: Vec<EventTypeFilter>) -> Check {
    Box::new(move |flow| {
        let Some(event) = &flow.event_type else { return false };
        wanted.iter().any(|wanted| {
            (wanted.r#type == 0 || wanted.r#type == event.r#type)
                && (!wanted.match_sub_type || wanted.sub_type == event.sub_type)
        })
    })
}

/// Of a dropped flow it may not be known whether it is a reply: it counts as none.
fn reply(wanted: Vec<bool>) -> Check {
    Box::new(move |flow| {
        (flow.is_reply.is_some() || flow.verdict == Verdict::Dropped as i32)
            && wanted.contains(&flow.is_reply.unwrap_or_default())
    })
}

#[expect(deprecated, reason = "clients may still ask for Kafka")]
fn protocol(names: &[String]) -> Result<Check, String> {
    const KNOWN: [&str; 11] =
        ["icmp", "icmpv4", "icmpv6", "tcp", "udp", "sctp", "vrrp", "igmp", "dns", "http", "kafka"];
    let mut wanted = Vec::new();
    for name in names {
        let lower = name.to_lowercase();
        let known = KNOWN.into_iter().find(|known| *known == lower);
        wanted.push(known.ok_or_else(|| format!("invalid protocol filter: unknown protocol: {}", quote(name)))?);
    }
    Ok(Box::new(move |flow| {
        let l4 = match l4(flow) {
            Some(Protocol::Tcp(_)) => "tcp",
            Some(Protocol::Udp(_)) => "udp",
            Some(Protocol::IcmPv4(_)) => "icmpv4",
            Some(Protocol::IcmPv6(_)) => "icmpv6",
            Some(Protocol::Sctp(_)) => "sctp",
            Some(Protocol::Vrrp(_)) => "vrrp",
            Some(Protocol::Igmp(_)) => "igmp",
            None => "",
        };
        let l7 = match record(flow) {
            Some(Record::Dns(_)) => "dns",
            Some(Record::Http(_)) => "http",
            Some(Record::Kafka(_)) => "kafka",
            None => "",
        };
        let icmp = if l4.starts_with("icmp") { "icmp" } else { "" };
        wanted.iter().any(|wanted| [l4, l7, icmp].contains(wanted))
    }))
}

/// `namespace/prefix`, where both may be empty; a prefix alone is of the namespace `default`.
fn named(
    names: &[String],
    of: impl Fn(&Flow) -> Option<(&str, &str)> + Send + Sync + 'static,
) -> Result<Check, String> {
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
    Ok(Box::new(move |flow| {
        let (namespace, name) = of(flow).unwrap_or_default();
        (!namespace.is_empty() || !name.is_empty())
            && wanted
                .iter()
                .any(|(wanted, prefix)| name.starts_with(prefix) && (wanted.is_empty() || wanted == namespace))
    }))
}

fn workload(wanted: Vec<Workload>, end: fn(&Flow) -> Option<&Endpoint>) -> Check {
    Box::new(move |flow| {
        let is = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
        end(flow).is_some_and(|end| {
            end.workloads
                .iter()
                .any(|has| wanted.iter().any(|wanted| is(&wanted.name, &has.name) && is(&wanted.kind, &has.kind)))
        })
    })
}

fn cluster(names: &[String], end: fn(&Flow) -> Option<&Endpoint>) -> Result<Check, String> {
    if names.iter().any(String::is_empty) {
        return Err("invalid filter, name must not be empty".into());
    }
    let names = names.to_vec();
    Ok(Box::new(move |flow| end(flow).is_some_and(|end| names.contains(&end.cluster_name))))
}

fn port(texts: &[String], side: fn((u32, u32)) -> u32) -> Result<Check, String> {
    let mut wanted = Vec::new();
    for text in texts {
        wanted.push(go::parse_u16(text).map_err(|error| format!("invalid port {}: {error}", quote(text)))?);
    }
    Ok(Box::new(move |flow| {
        let ports = match l4(flow) {
            Some(Protocol::Tcp(tcp)) => (tcp.source_port, tcp.destination_port),
            Some(Protocol::Udp(udp)) => (udp.source_port, udp.destination_port),
            Some(Protocol::Sctp(sctp)) => (sctp.source_port, sctp.destination_port),
            _ => return false,
        };
        // A port has 16 bits, whatever the message says.
        wanted.contains(&(side(ports) as u16))
    }))
}

/// Every flag of an entry must be set in the flow.
fn tcp_flags(wanted: Vec<TcpFlags>) -> Check {
    let bits = |flags: &TcpFlags| {
        let TcpFlags { fin, syn, rst, psh, ack, urg, ece, cwr, ns } = *flags;
        [fin, syn, rst, psh, ack, urg, ece, cwr, ns].into_iter().fold(0u16, |bits, flag| bits << 1 | u16::from(flag))
    };
    let wanted: Vec<u16> = wanted.iter().map(bits).collect();
    Box::new(move |flow| match l4(flow) {
        Some(Protocol::Tcp(tcp)) => {
            tcp.flags.as_ref().map(bits).is_some_and(|has| wanted.iter().any(|wanted| wanted & !has == 0))
        }
        _ => false,
    })
}

/// Index 0 and an empty name are any.
fn interface(wanted: Vec<NetworkInterface>) -> Check {
    Box::new(move |flow| {
        flow.interface.as_ref().is_some_and(|has| {
            wanted.iter().any(|wanted| {
                (wanted.index == 0 || wanted.index == has.index) && (wanted.name.is_empty() || wanted.name == has.name)
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
