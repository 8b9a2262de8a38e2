//! How much the filters of a request may ask for.

use crate::proto::flow::FlowFilter;

/// The limit of values in all filters of a request. Each may be compared with each flow of the ring.
pub(super) const VALUES: usize = 1000;
/// The regular expressions among them: each may take [`super::go::REGEXP_BYTES`] of memory.
pub(super) const REGEXPS: usize = 64;
/// The limit of CEL expressions.
const EXPRESSIONS: usize = 16;

/// A request that asks for too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Values of fields.
    #[error("too many filters: {0} values (at most {VALUES})")]
    Values(usize),
    /// Regular expressions.
    #[error("too many regular expressions: {0} (at most {REGEXPS})")]
    Regexps(usize),
    /// CEL expressions.
    #[error("too many CEL expressions: {0} (at most {EXPRESSIONS})")]
    Expressions(usize),
}

/// Hubble bounds none of these: a request of a few megabytes could keep a CPU busy for minutes.
///
/// # Errors
/// It asks for more.
pub(super) fn bounded<'f>(filters: impl Iterator<Item = &'f FlowFilter>) -> Result<(), TooMany> {
    let (mut values, mut regexps, mut expressions) = (0, 0, 0);
    for filter in filters {
        values += 1 + self::values(filter);
        regexps += filter.dns_query.len() + filter.http_path.len() + filter.http_url.len();
        expressions += filter.experimental.as_ref().map_or(0, |experimental| experimental.cel_expression.len());
    }
    if values > VALUES {
        return Err(TooMany::Values(values));
    }
    if regexps > REGEXPS {
        return Err(TooMany::Regexps(regexps));
    }
    if expressions > EXPRESSIONS {
        return Err(TooMany::Expressions(expressions));
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
