//! Flow filters: select the flows of a request, as Hubble does.
//!
//! A filter matches if each of its fields matches, a field if one of its values matches; an empty filter matches
//! everything. A flow passes if no filter of the blacklist matches, and a filter of the whitelist matches or the
//! whitelist is empty. Errors have Hubble's exact texts, which its command line shows.

mod address;
mod bounds;
mod cel;
mod field;
mod go;
mod http;
mod invalid;
mod label;
mod names;
mod packet;
mod pattern;

pub use bounds::TooMany;
pub(super) use bounds::VALUES;
pub use invalid::InvalidFilter;

use crate::{
    flows::{Encoded, Part},
    proto::{
        flow::{EventTypeFilter, FlowFilter, NetworkInterface, Verdict},
        number::{self, flow},
    },
};
use ahash::AHashMap;
use bounds::Sums;
use field::{EndCheck, FlowCheck, SizedCheck, record, verdict_of};
use prost::Message;

/// The limit of cached results of a request. Its checks share it, and one that has reached its part drops all.
const MAX_CACHED_RESULTS: usize = 1792;
/// The memory of a cached result: the table has up to twice as many places as results.
const RESULT_BYTES: usize = 2 * 20;
/// The memory of a check beside that of its values.
const CHECK_BYTES: usize = 256;
/// The memory of a value beside its bytes.
const VALUE_BYTES: usize = 64;

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
    fn matches(&mut self, flow: &Encoded, remembered: usize) -> bool {
        match self {
            Self::Flow(check) => check(flow),
            Self::End { side, check, known } => {
                let end = match side {
                    Side::Source => flow.source(),
                    Side::Destination => flow.destination(),
                };
                if known.len() >= remembered {
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
    is_costly: bool,
    /// The limit of cached results of each check.
    remembered: usize,
    bytes: usize,
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
    pub fn new(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, InvalidFilter> {
        let mut sums = Sums::default();
        // The texts of the values.
        let text: usize = whitelist.iter().chain(blacklist).map(Message::encoded_len).sum();
        let mut list =
            |filters: &[FlowFilter]| filters.iter().map(|filter| checks(filter, &mut sums)).collect::<Result<_, _>>();
        let (whitelist, blacklist): (Vec<Vec<Check>>, Vec<Vec<Check>>) = (list(whitelist)?, list(blacklist)?);
        let all = || whitelist.iter().chain(&blacklist).flatten();
        let ends = all().filter(|check| matches!(check, Check::End { .. })).count();
        let known = if ends > 0 { MAX_CACHED_RESULTS * RESULT_BYTES } else { 0 };
        let bytes = sums.bytes() + sums.values() * VALUE_BYTES + text + all().count() * CHECK_BYTES + known;
        Ok(Self {
            whitelist,
            blacklist,
            is_costly: sums.are_costly(),
            remembered: MAX_CACHED_RESULTS / ends.max(1),
            bytes,
        })
    }

    /// Whether compiling the filters of a request takes long.
    pub fn take_long_to_compile(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> bool {
        whitelist.iter().chain(blacklist).any(|filter| {
            let FlowFilter { dns_query, http_path, http_url, source_fqdn, destination_fqdn, .. } = filter;
            let texts = [dns_query, http_path, http_url, source_fqdn, destination_fqdn, &filter.node_name];
            texts.iter().any(|texts| !texts.is_empty()) || filter.experimental.is_some()
        })
    }

    /// The limit of the memory that the filters take.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the filters may take long for a flow: expressions, or many values.
    pub const fn is_costly(&self) -> bool {
        self.is_costly
    }

    /// Whether the flow passes.
    pub fn match_flow(&mut self, flow: &Encoded) -> bool {
        let remembered = self.remembered;
        let one = |filters: &mut [Vec<Check>]| {
            filters.iter_mut().any(|checks| checks.iter_mut().all(|check| check.matches(flow, remembered)))
        };
        (self.whitelist.is_empty() || one(&mut self.whitelist)) && !one(&mut self.blacklist)
    }
}

/// Collects the checks of a filter; a field without values adds none.
struct Checks<'s> {
    checks: Vec<Check>,
    sums: &'s mut Sums,
}

impl Checks<'_> {
    fn add<T: Clone>(&mut self, values: &[T], check: impl FnOnce(Vec<T>) -> FlowCheck) -> Result<(), InvalidFilter> {
        self.try_add(values, |values| Ok(check(values.to_vec())))
    }

    fn try_add<T>(
        &mut self,
        values: &[T],
        check: impl FnOnce(&[T]) -> Result<FlowCheck, InvalidFilter>,
    ) -> Result<(), InvalidFilter> {
        self.sums.add_values(values.len())?;
        if !values.is_empty() {
            self.checks.push(Check::Flow(check(values)?));
        }
        Ok(())
    }

    fn try_add_sized<T>(
        &mut self,
        values: &[T],
        check: impl FnOnce(&[T]) -> Result<SizedCheck, InvalidFilter>,
    ) -> Result<(), InvalidFilter> {
        self.sums.add_values(values.len())?;
        if !values.is_empty() {
            let SizedCheck { check, bytes } = check(values)?;
            self.sums.add_bytes(bytes)?;
            self.checks.push(Check::Flow(check));
        }
        Ok(())
    }

    fn try_add_end<T>(
        &mut self,
        side: Side,
        values: &[T],
        check: impl FnOnce(&[T]) -> Result<EndCheck, InvalidFilter>,
    ) -> Result<(), InvalidFilter> {
        self.sums.add_values(values.len())?;
        if !values.is_empty() {
            self.checks.push(Check::End { side, check: check(values)?, known: AHashMap::default() });
        }
        Ok(())
    }
}

/// In Hubble's order, because only the first error is returned.
fn checks(filter: &FlowFilter, sums: &mut Sums) -> Result<Vec<Check>, InvalidFilter> {
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
    sums.add_filter(filter)?;
    let mut checks = Checks { checks: Vec::new(), sums };
    checks.add(uuid, self::uuid)?;
    checks.add(event_type, self::event_type)?;
    checks.add(verdict, self::verdict)?;
    checks.add(drop_reason_desc, drop_reason)?;
    checks.add(reply, self::reply)?;
    checks.add(encrypted, packet::encrypted)?;
    checks.try_add_end(Side::Source, source_identity, names::identity)?;
    checks.try_add_end(Side::Destination, destination_identity, names::identity)?;
    checks.try_add(protocol, packet::protocol)?;
    checks.try_add(source_ip, |ips| Ok(address::check(ips, number::ip::SOURCE)?))?;
    checks.try_add(destination_ip, |ips| Ok(address::check(ips, number::ip::DESTINATION)?))?;
    checks.try_add(source_ip_xlated, |ips| Ok(address::check(ips, number::ip::SOURCE_XLATED)?))?;
    checks.try_add_end(Side::Source, source_pod, names::pod)?;
    checks.try_add_end(Side::Destination, destination_pod, names::pod)?;
    checks.try_add_end(Side::Source, source_workload, names::workload)?;
    checks.try_add_end(Side::Destination, destination_workload, names::workload)?;
    let service = |number| move |names: &[String]| names::service(names, number);
    checks.try_add(source_service, service(flow::SOURCE_SERVICE)).map_err(InvalidFilter::of("source service"))?;
    let destination = service(flow::DESTINATION_SERVICE);
    checks.try_add(destination_service, destination).map_err(InvalidFilter::of("destination service"))?;
    checks.try_add_sized(source_fqdn, |patterns| Ok(pattern::fqdn(patterns, flow::SOURCE_NAMES)?))?;
    checks.try_add_sized(destination_fqdn, |patterns| Ok(pattern::fqdn(patterns, flow::DESTINATION_NAMES)?))?;
    checks.try_add_sized(dns_query, self::dns_query).map_err(InvalidFilter::of("DNS query"))?;
    let label = |selectors: &[String]| Ok(label::of_end(selectors)?);
    checks.try_add_end(Side::Source, source_label, label).map_err(InvalidFilter::of("source label"))?;
    checks.try_add_end(Side::Destination, destination_label, label).map_err(InvalidFilter::of("destination label"))?;
    let of_node = |selectors: &[String]| Ok(label::of_node(selectors)?);
    checks.try_add(node_labels, of_node).map_err(InvalidFilter::of("node label"))?;
    let port = |side: fn((u64, u64)) -> u64| move |ports: &[String]| packet::port(ports, side);
    checks.try_add(source_port, port(|(source, _)| source)).map_err(InvalidFilter::of("source port"))?;
    let destination = port(|(_, destination)| destination);
    checks.try_add(destination_port, destination).map_err(InvalidFilter::of("destination port"))?;
    let l7 = |what| l7_only(event_type, what);
    checks.try_add(http_status_code, |codes| l7("status code").and_then(|()| http::status_code(codes)))?;
    checks.try_add(http_method, |methods| l7("method").map(|()| http::method(methods)))?;
    checks.try_add_sized(http_path, |paths| l7("path").and_then(|()| http::path(paths)))?;
    checks.try_add_sized(http_url, |urls| l7("url").and_then(|()| http::url(urls)))?;
    checks.try_add(http_header, |headers| l7("headers").map(|()| http::header(headers)))?;
    checks.add(tcp_flags, packet::tcp_flags)?;
    checks.try_add_sized(node_name, |patterns| Ok(pattern::node_name(patterns)?))?;
    checks.try_add_end(Side::Source, source_cluster_name, names::cluster)?;
    checks.try_add_end(Side::Destination, destination_cluster_name, names::cluster)?;
    checks.add(ip_version, packet::ip_version)?;
    checks.add(trace_id, self::trace_id)?;
    checks.add(traffic_direction, self::traffic_direction)?;
    checks.add(interface, self::interface)?;
    checks.add(ip_trace_id, self::ip_trace_id)?;
    if let Some(experimental) = experimental {
        checks.try_add_sized(&experimental.cel_expression, |expressions| Ok(cel::check(expressions)?))?;
    }
    Ok(checks.checks)
}

fn verdict(verdicts: Vec<i32>) -> FlowCheck {
    Box::new(move |flow| verdicts.contains(&verdict_of(flow)))
}

fn traffic_direction(directions: Vec<i32>) -> FlowCheck {
    Box::new(move |flow| directions.contains(&(flow.own().varint(flow::TRAFFIC_DIRECTION) as i32)))
}

fn uuid(uuids: Vec<String>) -> FlowCheck {
    Box::new(move |flow| {
        let has = flow.own().string(flow::UUID);
        uuids.iter().any(|uuid| uuid == has)
    })
}

fn drop_reason(reasons: Vec<i32>) -> FlowCheck {
    Box::new(move |flow| {
        verdict_of(flow) == Verdict::Dropped as i32
            && reasons.contains(&(flow.own().varint(flow::DROP_REASON_DESC) as i32))
    })
}

fn dns_query(patterns: &[String]) -> Result<SizedCheck, InvalidFilter> {
    let patterns = go::regexps(patterns).map_err(InvalidFilter::DnsQuery)?;
    let bytes = patterns.bytes();
    let check = Box::new(move |flow: &Encoded| {
        let query = record(flow, number::layer7::DNS).map(|dns| dns.string(number::dns::QUERY));
        query.is_some_and(|query| patterns.is_match(query))
    });
    Ok(SizedCheck { check, bytes })
}

fn trace_id(ids: Vec<String>) -> FlowCheck {
    Box::new(move |flow| {
        let context = flow.own().message(flow::TRACE_CONTEXT);
        let parent = context.and_then(|context| context.message(number::tracecontext::PARENT));
        let has = parent.map_or("", |parent| parent.string(number::traceparent::TRACE_ID));
        ids.iter().any(|id| id == has)
    })
}

fn ip_trace_id(ids: Vec<u64>) -> FlowCheck {
    Box::new(move |flow| {
        let has = flow.own().message(flow::IP_TRACE_ID);
        ids.contains(&has.map_or(0, |has| has.varint(number::iptraceid::TRACE_ID)))
    })
}

/// A filter by HTTP is refused where flows of other layers are asked for, too.
fn l7_only(event_type: &[EventTypeFilter], what: &'static str) -> Result<(), InvalidFilter> {
    let is_asked_for = event_type.is_empty() || event_type.iter().any(|wanted| wanted.r#type == EVENT_L7);
    if is_asked_for { Ok(()) } else { Err(InvalidFilter::NotL7(what)) }
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
    use super::{
        bounds::{REGEXPS, VALUES},
        *,
    };

    #[test]
    fn a_thousand_checks_remember_no_more_than_one() {
        use crate::proto::flow::{Endpoint, Flow};
        let filter = || FlowFilter { source_pod: vec!["shop/".into()], ..FlowFilter::default() };
        for checks in [1, 10, 490] {
            let mut filters = Filters::new(&vec![filter(); checks], &[]).unwrap();
            let mut most = 0;
            for n in 0..2 * MAX_CACHED_RESULTS / checks {
                let source = Some(Endpoint { namespace: format!("ns-{n}"), ..Endpoint::default() });
                assert!(!filters.match_flow(&Flow { source, ..Flow::default() }.into()));
                let known = filters.whitelist.iter().flatten().map(|check| match check {
                    Check::End { known, .. } => known.len(),
                    Check::Flow(_) => 0,
                });
                most = known.sum::<usize>().max(most);
            }
            assert!(
                (MAX_CACHED_RESULTS - checks..=MAX_CACHED_RESULTS).contains(&most),
                "{checks} checks remember {most}"
            );
        }
    }

    #[test]
    fn a_request_can_not_ask_for_more_than_there_is_time_and_memory_for() {
        let refused = |filters: &[FlowFilter]| Filters::new(filters, &[]).unwrap_err().to_string();
        let ports = FlowFilter { source_port: vec!["80".into(); VALUES], ..FlowFilter::default() };
        assert_eq!(refused(&[ports]), "too many filters: more than 1000 values");
        let many = vec![FlowFilter::default(); VALUES + 1];
        assert_eq!(refused(&many), "too many filters: more than 1000 values");
        let regexps = FlowFilter { dns_query: vec!["a".into(); REGEXPS + 1], ..FlowFilter::default() };
        assert_eq!(refused(&[regexps]), "too many regular expressions: more than 64");
        let large = FlowFilter { dns_query: vec![r"(\pL{100}){100}".into()], ..FlowFilter::default() };
        assert!(refused(&[large]).contains("error parsing regexp"));
        assert!(Filters::new(&vec![FlowFilter::default(); VALUES], &[]).is_ok());
    }
}
