//! Names what a request asks for that is not there yet.

use crate::proto::{flow::FlowFilter, observer::GetFlowsRequest};
use tonic::Status;

/// Refuses a request with filters: ignoring one would show more flows than were asked for.
pub(super) fn refuse_unsupported(request: &GetFlowsRequest) -> Result<(), Status> {
    let lists = [("whitelist", &request.whitelist), ("blacklist", &request.blacklist)];
    for (list, filters) in lists {
        if let Some(field) = filters.iter().find_map(first_field) {
            return Err(Status::unimplemented(format!("{list}: the filter field {field} is not supported yet")));
        }
    }
    // A filter without fields matches every flow.
    if request.blacklist.is_empty() {
        Ok(())
    } else {
        Err(Status::unimplemented("blacklist: an empty filter, which leaves out every flow, is not supported yet"))
    }
}

/// The first field of the filter that is set.
fn first_field(filter: &FlowFilter) -> Option<&'static str> {
    macro_rules! lists {
        ($($field:ident),* $(,)?) => {{
            // Every field must be named here, or this does not compile.
            let FlowFilter { experimental, $($field),* } = filter;
            $(if !$field.is_empty() { return Some(stringify!($field)); })*
            let cel = experimental.as_ref().is_some_and(|experimental| !experimental.cel_expression.is_empty());
            cel.then_some("experimental.cel_expression")
        }};
    }
    lists!(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::flow_filter::Experimental;

    #[test]
    fn a_filter_is_refused_by_its_name() {
        let refused = |request: GetFlowsRequest| refuse_unsupported(&request).unwrap_err();
        let filter = FlowFilter { destination_pod: vec!["shop/".into()], ..FlowFilter::default() };
        let status = refused(GetFlowsRequest { whitelist: vec![filter.clone()], ..GetFlowsRequest::default() });
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert_eq!(status.message(), "whitelist: the filter field destination_pod is not supported yet");
        let status = refused(GetFlowsRequest { blacklist: vec![filter], ..GetFlowsRequest::default() });
        assert!(status.message().starts_with("blacklist: "));
        let experimental = Some(Experimental { cel_expression: vec!["true".into()] });
        let filter = FlowFilter { experimental, ..FlowFilter::default() };
        let status = refused(GetFlowsRequest { whitelist: vec![filter], ..GetFlowsRequest::default() });
        assert!(status.message().contains("experimental.cel_expression"));
        refused(GetFlowsRequest { blacklist: vec![FlowFilter::default()], ..GetFlowsRequest::default() });
    }

    #[test]
    fn an_empty_filter_is_no_filter() {
        let request = GetFlowsRequest { whitelist: vec![FlowFilter::default()], ..GetFlowsRequest::default() };
        assert!(refuse_unsupported(&request).is_ok());
        assert!(refuse_unsupported(&GetFlowsRequest::default()).is_ok());
    }
}
