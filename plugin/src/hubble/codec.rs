//! The codec of Hubble's services, which refuses requests for flows with too many filters before it decodes them.

use super::filter::{TooMany, VALUES};
use crate::{
    link::{self, Check, Checked},
    proto::{
        observer::GetFlowsRequest,
        wire::{Message, Value},
    },
};
use std::any::TypeId;
use tonic::Status;

/// The codec of Hubble's services.
pub type Codec<T, U> = Checked<link::Codec<T, U>, FlowRequests>;

/// The fields of a request and of the messages in it: filters, their values, and a few others. A decoded filter takes a
/// kilobyte, and an empty one has two bytes on the wire.
const FIELDS: usize = 4 * VALUES;

/// The check of requests for flows.
#[derive(Clone, Copy, Debug)]
pub struct FlowRequests;

impl Check for FlowRequests {
    fn check<M: 'static>(encoded: &[u8]) -> Result<(), Status> {
        if TypeId::of::<M>() != TypeId::of::<GetFlowsRequest>() {
            return Ok(());
        }
        let inner = |value| match value {
            Value::Bytes(bytes) => Message(bytes).fields().count(),
            _ => 0,
        };
        // Lazy: it ends at the limit.
        let mut fields = 0;
        for field in Message(encoded).fields() {
            fields += 1 + inner(field.value);
            if fields > FIELDS {
                // Hubble's code, as for other filters that can't be.
                return Err(Status::unknown(TooMany::Values.to_string()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::FlowFilter;
    use prost::Message as _;

    fn check(request: &GetFlowsRequest) -> Result<(), Status> {
        FlowRequests::check::<GetFlowsRequest>(&request.encode_to_vec())
    }

    #[test]
    fn many_empty_filters_or_values_are_refused_before_they_are_decoded() {
        // Two bytes each: a hundred thousand would take a hundred megabytes.
        let empty = [10, 0].repeat(100_000);
        let refused = FlowRequests::check::<GetFlowsRequest>(&empty).unwrap_err();
        assert_eq!(refused.message(), "too many filters: more than 1000 values");
        let values = FlowFilter { source_pod: vec![String::new(); 100_000], ..FlowFilter::default() };
        assert!(check(&GetFlowsRequest { blacklist: vec![values], ..GetFlowsRequest::default() }).is_err());
        assert!(FlowRequests::check::<FlowFilter>(&empty).is_ok(), "messages of other types have no filters");
    }

    #[test]
    fn as_many_filters_as_may_be_pass() {
        let filter = FlowFilter { source_pod: vec!["shop/cart".into()], ..FlowFilter::default() };
        let request = GetFlowsRequest { whitelist: vec![filter; VALUES / 2], ..GetFlowsRequest::default() };
        assert!(check(&request).is_ok());
        let filter = FlowFilter { source_pod: vec!["shop/cart".into(); VALUES - 1], ..FlowFilter::default() };
        assert!(check(&GetFlowsRequest { whitelist: vec![filter], ..GetFlowsRequest::default() }).is_ok());
    }
}
