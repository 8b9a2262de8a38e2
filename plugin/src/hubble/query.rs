//! The range of flows that a request asks for.
//!
//! The bounds are Hubble's: `since` before `number`; `number` counts from the newest, or with
//! `first` from the oldest; a flow later than `until` ends the stream; a follower starts at the
//! newest flow unless it asks for the past, and gets every flow after that.

use super::{filter::Filters, turn::Turn};
use crate::{
    flows::{Encoded, Ring},
    link::{Budget, Budgeted},
    proto::observer::GetFlowsRequest,
};
use prost_types::Timestamp;
use std::sync::Arc;
use tonic::Status;

/// A time as a comparable value.
type Instant = (i64, i32);

/// The flows that a request asks for.
#[derive(Debug)]
pub(super) struct Query {
    number: Option<usize>,
    first: bool,
    follow: bool,
    since: Option<Instant>,
    until: Option<Instant>,
    /// `None`: every flow passes, and nothing is kept or locked.
    filters: Option<Budgeted<Filters>>,
    is_costly: bool,
}

/// Bytes of an error at most. It is sent in a header, where each of them can take three, and clients read 16 KiB of
/// headers.
const ERROR_BYTES: usize = 4 << 10;

/// The start of a text that may be as long as a request.
fn short(mut text: String) -> String {
    if text.len() > ERROR_BYTES {
        text.truncate(text.floor_char_boundary(ERROR_BYTES));
        text.push('…');
    }
    text
}

impl Query {
    /// Parses a request. `budget` keeps its filters.
    ///
    /// # Errors
    /// The request contradicts itself, or a filter is invalid.
    pub(super) fn new(request: &GetFlowsRequest, budget: &Arc<Budget>) -> Result<Self, Status> {
        if request.first && request.follow {
            return Err(Status::invalid_argument("first cannot be specified with follow"));
        }
        // Hubble's code: its clients show only the text of an error with this code.
        let has_filters = !request.whitelist.is_empty() || !request.blacklist.is_empty();
        let filters = has_filters.then(|| Filters::new(&request.whitelist, &request.blacklist)).transpose();
        let filters = filters.map_err(|error| Status::unknown(short(error.to_string())))?;
        for bound in [&request.since, &request.until].into_iter().flatten() {
            check(bound).map_err(|error| Status::unknown(error.to_string()))?;
        }
        let number = usize::try_from(request.number).unwrap_or(usize::MAX);
        Ok(Self {
            number: (number > 0).then_some(number),
            first: request.first,
            follow: request.follow,
            since: request.since.as_ref().map(instant),
            until: request.until.as_ref().map(instant),
            is_costly: filters.as_ref().is_some_and(Filters::is_costly),
            filters: filters.map(|filters| {
                let bytes = filters.bytes();
                budget.keep(filters, bytes)
            }),
        })
    }

    /// Whether new flows are sent as they arrive.
    pub(super) const fn follow(&self) -> bool {
        self.follow
    }

    /// The limit of flows. When the limit counts from the newest flow, the start enforces it.
    pub(super) fn limit(&self) -> usize {
        let counted = self.first || self.since.is_some();
        self.number.filter(|_| counted && !self.follow).unwrap_or(usize::MAX)
    }

    /// Whether a filter takes long for a flow.
    pub(super) const fn is_costly(&self) -> bool {
        self.is_costly
    }

    /// Whether the filters have given way to those of newer requests.
    pub(super) fn is_displaced(&self) -> bool {
        self.filters.as_ref().is_some_and(Budgeted::is_displaced)
    }

    fn matches(&self, flow: &Encoded) -> bool {
        let Some(filters) = &self.filters else { return true };
        filters.with(|filters| filters.match_flow(flow)).unwrap_or(false)
    }

    /// The sequence number to start from, when the ring ends at `newest`.
    pub(super) async fn start(&mut self, ring: &Ring, newest: u64, turn: &mut Turn) -> u64 {
        let oldest = ring.range().start;
        let mut number = match (self.since, self.number) {
            (None, _) if self.first => return oldest,
            (None, None) if self.follow => return newest,
            (None, None) => return oldest,
            (Some(_), _) => None,
            (None, number) => number,
        };
        let mut end = newest;
        while end > oldest {
            let batch = ring.read_back(end);
            let from = batch.next - batch.records().len() as u64;
            for (sequence, record) in (from..batch.next).rev().zip(batch.records().iter().rev()) {
                turn.begin().await;
                let Some(flow) = record.flow().filter(|flow| self.matches(flow)) else { continue };
                // A flow without a time is no evidence that the flows before it are too old.
                if self.since.is_some_and(|since| flow.time().is_some() && time(flow) < since) {
                    return sequence + 1;
                }
                number = number.map(|number| number - 1);
                if number == Some(0) {
                    return sequence;
                }
            }
            if batch.records().is_empty() {
                // The records were overwritten in the meantime.
                return batch.next;
            }
            end = from;
        }
        oldest
    }

    /// Whether the flow is sent.
    pub(super) fn wants(&mut self, flow: &Encoded) -> bool {
        self.since.is_none_or(|since| time(flow) >= since) && self.matches(flow)
    }

    /// Whether the flow ends the stream, even if the flow itself does not match.
    pub(super) fn is_over(&self, flow: &Encoded) -> bool {
        self.until.is_some_and(|until| time(flow) > until)
    }
}

/// The first and last second of a valid `google.protobuf.Timestamp`.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A time out of range, in Go's text format.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("proto: timestamp ({fields}) {wrong}")]
pub(super) struct OutOfRange {
    fields: String,
    wrong: &'static str,
}

/// Refuses a time out of range, with the error text of Go's library.
///
/// # Errors
/// The timestamp is out of range.
pub(super) fn check(timestamp: &Timestamp) -> Result<(), OutOfRange> {
    let Timestamp { seconds, nanos } = timestamp;
    let wrong = if seconds < SECONDS.start() {
        "before 0001-01-01"
    } else if seconds > SECONDS.end() {
        "after 9999-12-31"
    } else if !(0..1_000_000_000).contains(nanos) {
        "has out-of-range nanos"
    } else {
        return Ok(());
    };
    // The text format leaves out fields that are zero.
    let fields = [("seconds", *seconds), ("nanos", (*nanos).into())];
    let fields: Vec<_> = fields.iter().filter(|(_, n)| *n != 0).map(|(name, n)| format!("{name}:{n}")).collect();
    Err(OutOfRange { fields: fields.join(" "), wrong })
}

fn instant(timestamp: &Timestamp) -> Instant {
    (timestamp.seconds, timestamp.nanos)
}

fn time(flow: &Encoded) -> Instant {
    flow.time().as_ref().map_or((0, 0), instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_out_of_range_is_refused_as_gos_library_does() {
        let cases = [
            ((1, -5), "(seconds:1 nanos:-5) has out-of-range nanos"),
            ((0, 2_000_000_000), "(nanos:2000000000) has out-of-range nanos"),
            ((-62_135_596_801, 0), "(seconds:-62135596801) before 0001-01-01"),
            ((253_402_300_800, 7), "(seconds:253402300800 nanos:7) after 9999-12-31"),
            ((i64::MIN, i32::MAX), "(seconds:-9223372036854775808 nanos:2147483647) before 0001-01-01"),
        ];
        for ((seconds, nanos), expected) in cases {
            let bound = Some(Timestamp { seconds, nanos });
            let requests = [
                GetFlowsRequest { since: bound, ..GetFlowsRequest::default() },
                GetFlowsRequest { until: bound, ..GetFlowsRequest::default() },
            ];
            for request in requests {
                let status = Query::new(&request, &Arc::new(Budget::new(0))).unwrap_err();
                assert_eq!(status.code(), tonic::Code::Unknown);
                assert_eq!(status.message(), format!("proto: timestamp {expected}"));
            }
        }
        for (seconds, nanos) in [(*SECONDS.start(), 0), (*SECONDS.end(), 999_999_999), (0, 0), (-1, 1)] {
            assert!(check(&Timestamp { seconds, nanos }).is_ok());
        }
    }

    #[test]
    fn an_error_fits_into_a_client_s_headers_however_long_the_expression_is() {
        let expression = format!("unknown_{}", "ä".repeat(100_000));
        let experimental = Some(crate::proto::flow::flow_filter::Experimental { cel_expression: vec![expression] });
        let filter = crate::proto::flow::FlowFilter { experimental, ..Default::default() };
        let request = GetFlowsRequest { whitelist: vec![filter], ..GetFlowsRequest::default() };
        let status = Query::new(&request, &Arc::new(Budget::new(0))).err().unwrap();
        assert!(3 * status.message().len() < 16 << 10, "{} bytes", status.message().len());
    }
}
