//! Names what a request asks for that is not there yet.

use crate::proto::{flow::FlowFilter, observer::GetFlowsRequest};
use tonic::Status;

/// Refuses a request with expressions: ignoring one would show more flows than were asked for.
pub(super) fn refuse_unsupported(request: &GetFlowsRequest) -> Result<(), Status> {
    let has_expression = |filter: &FlowFilter| {
        filter.experimental.as_ref().is_some_and(|experimental| !experimental.cel_expression.is_empty())
    };
    if request.whitelist.iter().chain(&request.blacklist).any(has_expression) {
        return Err(Status::unimplemented("the filter field experimental.cel_expression is not supported yet"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::flow_filter::Experimental;

    #[test]
    fn an_expression_is_refused_by_its_name() {
        let experimental = Some(Experimental { cel_expression: vec!["true".into()] });
        let blacklist = vec![FlowFilter { experimental, ..FlowFilter::default() }];
        let request = GetFlowsRequest { blacklist, ..GetFlowsRequest::default() };
        let status = refuse_unsupported(&request).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().contains("experimental.cel_expression"));
        assert!(refuse_unsupported(&GetFlowsRequest::default()).is_ok());
    }
}
