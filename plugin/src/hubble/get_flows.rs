//! GetFlows: which flows of the ring a request asks for, and in what order.
//!
//! The bounds are Hubble's: `since` before `number`; `number` counts from the newest, or with
//! `first` from the oldest; a flow later than `until` ends the stream; a follower starts at the
//! newest flow unless it asks for the past, and gets every flow after that.

use super::{filter::Filters, mask::Mask};
use crate::{
    flows::{Lost, Record, Ring},
    proto::{
        flow::{Flow, LostEvent, LostEventSource},
        observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes},
    },
};
use futures_util::stream::{self, Stream};
use prost_types::Timestamp;
use std::{collections::VecDeque, sync::Arc, time::SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Flows that are taken from the ring at once.
const BATCH: usize = 1024;

/// A time that can be compared.
type Instant = (i64, i32);

/// What a request asks for.
#[derive(Debug)]
struct Query {
    number: Option<usize>,
    first: bool,
    follow: bool,
    since: Option<Instant>,
    until: Option<Instant>,
    filters: Filters,
}

impl Query {
    fn new(request: &GetFlowsRequest) -> Result<Self, Status> {
        if request.first && request.follow {
            return Err(Status::invalid_argument("first cannot be specified with follow"));
        }
        // As Hubble answers: its clients show the text of this code alone.
        let filters = Filters::new(&request.whitelist, &request.blacklist).map_err(Status::unknown)?;
        let number = usize::try_from(request.number).unwrap_or(usize::MAX);
        Ok(Self {
            number: (number > 0).then_some(number),
            first: request.first,
            follow: request.follow,
            since: request.since.as_ref().map(instant),
            until: request.until.as_ref().map(instant),
            filters,
        })
    }

    /// The records of the past, oldest first, and whether the stream ends with them. Bounds hold for
    /// flows; a loss is told wherever it is among them.
    fn past(&self, records: Vec<Record>) -> (VecDeque<Record>, bool) {
        let older = |since| records.iter().rposition(|record| record.flow().is_some_and(|flow| time(flow) < since));
        let newest = |number: usize| {
            let is_wanted = |record: &Record| record.flow().is_some_and(|flow| self.filters.match_flow(flow));
            let mut flows = records.iter().enumerate().rev().filter(|(_, record)| is_wanted(record));
            flows.nth(number - 1).map(|(index, _)| index)
        };
        let skip = match (self.since, self.number) {
            (None, _) if self.first => 0,
            (None, None) if self.follow => records.len(),
            (Some(since), _) => older(since).map_or(0, |older| older + 1),
            (None, Some(number)) => newest(number).unwrap_or_default(),
            (None, None) => 0,
        };
        let mut left = if self.follow { usize::MAX } else { self.number.unwrap_or(usize::MAX) };
        let (mut past, mut ended) = (VecDeque::new(), !self.follow);
        for record in records.into_iter().skip(skip) {
            if let Some(flow) = record.flow() {
                if left == 0 {
                    break;
                }
                if self.is_over(flow) {
                    ended = true;
                    break;
                }
                if !self.filters.match_flow(flow) {
                    continue;
                }
                left -= 1;
            }
            past.push_back(record);
        }
        (past, ended)
    }

    /// Whether a flow that came after the past is sent, or ends the stream.
    fn wants(&self, flow: &Flow) -> bool {
        self.is_over(flow) || (self.since.is_none_or(|since| time(flow) >= since) && self.filters.match_flow(flow))
    }

    fn is_over(&self, flow: &Flow) -> bool {
        self.until.is_some_and(|until| time(flow) > until)
    }
}

fn instant(timestamp: &Timestamp) -> Instant {
    (timestamp.seconds, timestamp.nanos)
}

fn time(flow: &Flow) -> Instant {
    flow.time.as_ref().map_or((0, 0), instant)
}

/// A stream in progress.
struct Reader {
    ring: Arc<Ring>,
    watch: watch::Receiver<u64>,
    query: Query,
    mask: Option<Mask>,
    server: String,
    /// What was taken from the ring and not yet sent.
    pending: VecDeque<Record>,
    /// Records that were overwritten before they were read.
    overtaken: u64,
    /// The sequence number to read on from; `None` when there is nothing more to read.
    next: Option<u64>,
    shutdown: CancellationToken,
}

/// The answer to a request: it ends by itself, or with `shutdown`.
///
/// # Errors
/// The request contradicts itself, or its mask names no field.
pub(super) fn stream(
    ring: &Arc<Ring>,
    request: &GetFlowsRequest,
    server: &str,
    shutdown: CancellationToken,
) -> Result<impl Stream<Item = Result<GetFlowsResponse, Status>> + use<>, Status> {
    let query = Query::new(request)?;
    let mask = Mask::new(request.field_mask.as_ref())?;
    let watch = ring.watch();
    let batch = ring.read_all();
    let (pending, ended) = query.past(batch.records);
    let next = (!ended).then_some(batch.next);
    let (ring, server) = (Arc::clone(ring), server.to_owned());
    let reader = Reader { ring, watch, query, mask, server, pending, overtaken: 0, next, shutdown };
    Ok(stream::unfold(reader, |mut reader| async move { Some((Ok(reader.next().await?), reader)) }))
}

impl Reader {
    async fn next(&mut self) -> Option<GetFlowsResponse> {
        loop {
            if self.overtaken > 0 {
                return Some(self.overtaken());
            }
            match self.pending.pop_front() {
                Some(Record::Lost(Lost { node, source, count, first, last })) => {
                    return Some(loss(source, count, &node, (first, last)));
                }
                Some(Record::Flow(flow)) if self.query.is_over(&flow) => {
                    (self.next, self.pending) = (None, VecDeque::new());
                    return None;
                }
                Some(Record::Flow(flow)) => return Some(self.response(&flow)),
                None => {}
            }
            let from = self.next?;
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                newer = self.watch.wait_for(|newest| *newest > from) => newer.ok().map(drop)?,
            }
            let batch = self.ring.read(from, BATCH);
            self.overtaken = batch.lost;
            let query = &self.query;
            let wanted = |record: &Record| record.flow().is_none_or(|flow| query.wants(flow));
            self.pending = batch.records.into_iter().filter(wanted).collect();
            self.next = Some(batch.next);
        }
    }

    fn response(&self, flow: &Flow) -> GetFlowsResponse {
        let flow = self.mask.as_ref().map_or_else(|| flow.clone(), |mask| mask.apply(flow));
        // As Hubble does: what the mask leaves out of the flow is left out here too.
        GetFlowsResponse {
            node_name: flow.node_name.clone(),
            time: flow.time,
            response_types: Some(ResponseTypes::Flow(flow)),
        }
    }

    fn overtaken(&mut self) -> GetFlowsResponse {
        let (now, lost) = (SystemTime::now(), std::mem::take(&mut self.overtaken));
        loss(LostEventSource::HubbleRingBuffer, lost, &self.server, (now, now))
    }
}

fn loss(
    source: LostEventSource,
    num_events_lost: u64,
    node: &str,
    (first, last): (SystemTime, SystemTime),
) -> GetFlowsResponse {
    let (first, last) = (Some(Timestamp::from(first)), Some(Timestamp::from(last)));
    let event = LostEvent { source: source.into(), num_events_lost, cpu: None, first, last };
    let response_types = Some(ResponseTypes::LostEvents(event));
    GetFlowsResponse { node_name: node.to_owned(), time: last, response_types }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::FlowFilter;
    use futures_util::StreamExt;

    /// Flows at the seconds 1 to `newest`.
    fn ring(capacity: usize, newest: i64) -> Arc<Ring> {
        let ring = Arc::new(Ring::new(capacity));
        (1..=newest).for_each(|seconds| ring.push(at(seconds)));
        ring
    }

    fn at(seconds: i64) -> Flow {
        Flow { time: Some(Timestamp { seconds, nanos: 0 }), node_name: "node-a".into(), ..Flow::default() }
    }

    fn seconds(response: GetFlowsResponse) -> i64 {
        match response.response_types {
            Some(ResponseTypes::Flow(flow)) => flow.time.unwrap().seconds,
            Some(ResponseTypes::LostEvents(lost)) => -(lost.num_events_lost as i64),
            _ => 0,
        }
    }

    async fn get(ring: &Arc<Ring>, request: &GetFlowsRequest) -> Vec<i64> {
        let stream = stream(ring, request, "node-a", CancellationToken::new()).unwrap();
        stream.map(|response| seconds(response.unwrap())).collect().await
    }

    fn request(number: u64, first: bool, since: Option<i64>, until: Option<i64>) -> GetFlowsRequest {
        let timestamp = |seconds| Timestamp { seconds, nanos: 0 };
        let (since, until) = (since.map(timestamp), until.map(timestamp));
        GetFlowsRequest { number, first, since, until, ..GetFlowsRequest::default() }
    }

    #[tokio::test]
    async fn the_bounds_are_hubbles() {
        let ring = ring(7, 7);
        let cases = [
            (request(0, false, None, None), vec![1, 2, 3, 4, 5, 6, 7]),
            (request(2, false, None, None), vec![6, 7]),
            (request(99, false, None, None), vec![1, 2, 3, 4, 5, 6, 7]),
            (request(u64::MAX, false, None, None), vec![1, 2, 3, 4, 5, 6, 7]),
            (request(2, true, None, None), vec![1, 2]),
            (request(0, false, Some(3), Some(5)), vec![3, 4, 5]),
            // since counts before number: the first two after it.
            (request(2, false, Some(3), None), vec![3, 4]),
            (request(2, true, Some(3), None), vec![3, 4]),
            // The newest two are later than until.
            (request(2, false, None, Some(3)), vec![]),
            (request(6, false, None, Some(3)), vec![2, 3]),
            (request(0, false, Some(9), None), vec![]),
        ];
        for (request, expected) in cases {
            assert_eq!(get(&ring, &request).await, expected, "{request:?}");
        }
    }

    fn only(node: &str) -> Vec<FlowFilter> {
        vec![FlowFilter { node_name: vec![node.into()], ..FlowFilter::default() }]
    }

    #[tokio::test]
    async fn the_number_is_that_of_flows_that_match() {
        let ring = Arc::new(Ring::new(15));
        for seconds in 1..=9 {
            let node_name = if seconds % 3 == 0 { "node-c" } else { "node-a" }.into();
            ring.push(Flow { node_name, ..at(seconds) });
        }
        let cases = [
            (request(2, false, None, None), vec![6, 9]),
            (request(2, true, None, None), vec![3, 6]),
            (request(1, false, Some(4), None), vec![6]),
            (request(0, false, None, Some(7)), vec![3, 6]),
        ];
        for (request, expected) in cases {
            let request = GetFlowsRequest { whitelist: only("node-c"), ..request };
            assert_eq!(get(&ring, &request).await, expected, "{request:?}");
        }
        let request = GetFlowsRequest { blacklist: only("node-a"), ..request(0, false, None, None) };
        assert_eq!(get(&ring, &request).await, [3, 6, 9]);
    }

    #[tokio::test]
    async fn a_follower_gets_only_what_matches_and_ends_at_until() {
        let ring = ring(7, 2);
        let request = GetFlowsRequest {
            follow: true,
            number: 1,
            until: Some(Timestamp { seconds: 4, nanos: 0 }),
            whitelist: only("node-a"),
            ..GetFlowsRequest::default()
        };
        let stream = stream(&ring, &request, "node-a", CancellationToken::new()).unwrap();
        ring.push(Flow { node_name: "node-b".into(), ..at(3) });
        ring.push(at(4));
        ring.push(Flow { node_name: "node-b".into(), ..at(5) });
        let got: Vec<i64> = stream.map(|response| seconds(response.unwrap())).collect().await;
        assert_eq!(got, [2, 4], "the later flow ends it, though it does not match");
    }

    #[test]
    fn a_filter_that_can_not_be_is_refused_as_hubble_does() {
        let whitelist = vec![FlowFilter { source_ip: vec!["10.0.0.0/40".into()], ..FlowFilter::default() }];
        let request = GetFlowsRequest { whitelist, ..GetFlowsRequest::default() };
        let status = stream(&ring(3, 3), &request, "", CancellationToken::new()).map(drop).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unknown);
        let expected = r#"invalid IP prefix "10.0.0.0/40" in filter: netip.ParsePrefix("10.0.0.0/40"): prefix length out of range"#;
        assert_eq!(status.message(), expected);
    }

    #[test]
    fn first_does_not_go_with_follow() {
        let request = GetFlowsRequest { first: true, follow: true, ..GetFlowsRequest::default() };
        let status = stream(&ring(3, 3), &request, "", CancellationToken::new()).map(drop).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(status.message(), "first cannot be specified with follow");
    }

    async fn follow(request: GetFlowsRequest, take: usize) -> Vec<i64> {
        let ring = ring(7, 4);
        let request = GetFlowsRequest { follow: true, ..request };
        let stream = stream(&ring, &request, "node-a", CancellationToken::new()).unwrap();
        (5..=6).for_each(|seconds| ring.push(at(seconds)));
        stream.take(take).map(|response| seconds(response.unwrap())).collect().await
    }

    #[tokio::test]
    async fn a_follower_starts_where_it_asks_to_and_gets_what_comes() {
        assert_eq!(follow(request(0, false, None, None), 2).await, [5, 6]);
        assert_eq!(follow(request(1, false, None, None), 3).await, [4, 5, 6]);
        assert_eq!(follow(request(0, false, Some(3), None), 4).await, [3, 4, 5, 6]);
        // The flow after `until` ends the stream.
        assert_eq!(follow(request(3, false, None, Some(5)), 9).await, [2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_what_it_lost() {
        let ring = ring(3, 3);
        let request = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
        let stream = stream(&ring, &request, "node-a", CancellationToken::new()).unwrap();
        (4..=9).for_each(|seconds| ring.push(at(seconds)));
        let got: Vec<i64> = stream.take(4).map(|response| seconds(response.unwrap())).collect().await;
        assert_eq!(got, [-3, 7, 8, 9]);
    }

    #[tokio::test]
    async fn a_loss_in_the_kernel_is_told_where_it_was_and_is_no_flow() {
        let ring = ring(9, 2);
        let now = SystemTime::now();
        ring.push_record(Record::Lost(Lost {
            node: "node-b".into(),
            source: LostEventSource::PerfEventRingBuffer,
            count: 70,
            first: now,
            last: now,
        }));
        ring.push(at(3));
        ring.push(at(4));
        assert_eq!(get(&ring, &request(3, false, None, None)).await, [2, -70, 3, 4]);
        assert_eq!(get(&ring, &request(3, true, None, None)).await, [1, 2, -70, 3]);
        assert_eq!(get(&ring, &request(0, false, Some(2), Some(3))).await, [2, -70, 3]);
        assert_eq!(get(&ring, &request(2, false, None, None)).await, [3, 4]);
    }

    #[tokio::test]
    async fn a_follower_ends_with_the_server() {
        let (ring, shutdown) = (ring(3, 3), CancellationToken::new());
        let request = GetFlowsRequest { follow: true, number: 1, ..GetFlowsRequest::default() };
        let stream = stream(&ring, &request, "node-a", shutdown.clone()).unwrap();
        shutdown.cancel();
        assert_eq!(stream.count().await, 1);
    }

    #[tokio::test]
    async fn a_mask_also_holds_for_the_response() {
        let field_mask = Some(prost_types::FieldMask { paths: vec!["time".into()] });
        let request = GetFlowsRequest { field_mask, ..GetFlowsRequest::default() };
        let mut stream = Box::pin(stream(&ring(3, 1), &request, "node-a", CancellationToken::new()).unwrap());
        let response = stream.next().await.unwrap().unwrap();
        assert_eq!((response.node_name.as_str(), response.time.unwrap().seconds), ("", 1));
    }
}
