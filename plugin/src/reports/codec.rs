//! How reports are read. Those with too many lines or names are refused before they are decoded.

use crate::{
    link::{Check, Checked, SmallCodec},
    proto::{
        v1::ReportRequest,
        wire::{Message, Value},
    },
};
use std::any::TypeId;
use tonic::Status;

/// The codec of the service Reports. Its buffers are small, because a controller has thousands of streams.
pub type Codec<T, U> = Checked<SmallCodec<T, U>, ReportSizes>;

/// The lines of a report: the pairs of zones and of pods that a node can have, those that ended, and a few others.
const LINES: usize = 4 << 16;
/// The fields of all lines, and the names.
const FIELDS: usize = 1 << 20;

/// The check of reports. A decoded line takes over a hundred bytes, and an empty one has two bytes on the wire.
#[derive(Clone, Copy, Debug)]
pub struct ReportSizes;

impl Check for ReportSizes {
    fn check<M: 'static>(encoded: &[u8]) -> Result<(), Status> {
        if TypeId::of::<M>() != TypeId::of::<ReportRequest>() {
            return Ok(());
        }
        let (mut lines, mut fields) = (0, 0);
        for field in Message(encoded).fields() {
            lines += 1;
            if let Value::Bytes(bytes) = field.value {
                fields += Message(bytes).fields().count();
            }
            if lines > LINES || fields > FIELDS {
                return Err(Status::invalid_argument("the report has too many lines"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Counter, End, Line, Names};
    use prost::Message as _;

    #[test]
    fn a_report_of_empty_lines_is_refused_before_it_is_decoded() {
        let pods = [8 << 3 | 2, 0].repeat(8 << 20);
        assert!(ReportSizes::check::<ReportRequest>(&pods).is_err());
        let counters = Line { counters: vec![Counter::default(); 2 << 20], ..Line::default() };
        let report = ReportRequest { pods: vec![counters], ..ReportRequest::default() };
        assert!(ReportSizes::check::<ReportRequest>(&report.encode_to_vec()).is_err());
        let names = Names { endpoints: vec![Default::default(); 2 << 20], ..Names::default() };
        let report = ReportRequest { names: Some(names), ..ReportRequest::default() };
        assert!(ReportSizes::check::<ReportRequest>(&report.encode_to_vec()).is_err());
    }

    #[test]
    fn the_largest_report_of_a_node_passes() {
        let end = Some(End::default());
        let line =
            Line { source: end.clone(), destination: end, counters: vec![Counter::default(); 2], ..Line::default() };
        let (pods, ended) = (vec![line.clone(); 1 << 16], vec![line; 1 << 16]);
        let names = Names { endpoints: vec![Default::default(); 1 << 17], ..Names::default() };
        let report = ReportRequest { pods, ended, names: Some(names), ..ReportRequest::default() };
        assert!(ReportSizes::check::<ReportRequest>(&report.encode_to_vec()).is_ok());
    }
}
