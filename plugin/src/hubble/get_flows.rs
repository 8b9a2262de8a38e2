//! GetFlows: streams the ring to one reader.
//!
//! A reader takes few records at a time, so a slow reader holds little memory. The stream reports overwritten
//! records once a second.

use super::{
    mask::Mask,
    query::Query,
    reply::Reply,
    turn::{CostlyTurn, Turn},
};
use crate::{
    flows::{Batch, Lost, READERS, Record, Ring},
    link::Budget,
    proto::{
        flow::{LostEvent, LostEventSource},
        observer::{ExportEvent, GetFlowsRequest, export_event::ResponseTypes},
    },
};
use futures_util::stream::{self, Stream};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How long a woken follower waits for more flows, so that a thousand followers are not woken for each flow.
const GATHER: Duration = Duration::from_millis(10);
/// How often lost records are reported to the reader; the same as Hubble's interval.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// The end of a stream whose filters take much memory that others need.
const DISPLACED: &str = "the filters of this request gave way to those of newer requests: all together are too large";

/// The parts that the streams of a server share.
#[derive(Clone, Debug)]
pub(super) struct StreamContext {
    /// The server's name.
    pub(super) server: String,
    pub(super) costly: CostlyTurn,
    /// The memory for the filters of all streams.
    pub(super) filters: Arc<Budget>,
    pub(super) shutdown: CancellationToken,
}

/// A stream in progress.
struct Reader {
    ring: Arc<Ring>,
    watch: watch::Receiver<u64>,
    query: Query,
    mask: Option<Mask>,
    serving: StreamContext,
    /// Records taken from the ring and not sent yet.
    pending: Option<Batch>,
    /// The sequence number to continue from; `None` before the start is determined.
    next: Option<u64>,
    /// The end of the ring at the time of the request.
    newest: u64,
    /// The number of flows that may still be sent.
    left: usize,
    turn: Turn,
    ended: bool,
    is_displaced: bool,
    overtaken: PendingLoss,
    _place: OwnedSemaphorePermit,
}

/// Lost records that were not reported to the reader yet.
#[derive(Debug, Default)]
struct PendingLoss {
    count: u64,
    times: Option<(SystemTime, SystemTime)>,
    reported: Option<Instant>,
}

impl PendingLoss {
    fn add(&mut self, count: u64) {
        if count > 0 {
            let now = SystemTime::now();
            self.count += count;
            self.times = Some((self.times.map_or(now, |(first, _)| first), now));
        }
    }

    /// The time of the next report.
    fn due(&self) -> Option<Instant> {
        self.times.map(|_| self.reported.map_or_else(Instant::now, |reported| reported + LOSS_INTERVAL))
    }

    fn report(&mut self, server: &str) -> Option<Reply> {
        let times = self.times.take()?;
        self.reported = Some(Instant::now());
        let (first, last) = (Some(times.0.into()), Some(times.1.into()));
        Some(loss(&Lost {
            node: server.to_owned(),
            source: LostEventSource::HubbleRingBuffer,
            count: std::mem::take(&mut self.count),
            cpu: None,
            first,
            last,
            time: last,
        }))
    }
}

/// A place for a reader.
///
/// # Errors
/// There are too many readers.
pub(super) fn place(ring: &Ring) -> Result<OwnedSemaphorePermit, Status> {
    ring.place().ok_or_else(|| Status::resource_exhausted(format!("too many readers of flows (at most {READERS})")))
}

/// Streams the answer to a request, until it is complete or the server shuts down.
///
/// # Errors
/// The request contradicts itself, or a filter or the mask is invalid.
pub(super) fn stream(
    ring: &Arc<Ring>,
    request: &GetFlowsRequest,
    serving: StreamContext,
    place: OwnedSemaphorePermit,
) -> Result<impl Stream<Item = Result<Reply, Status>> + use<>, Status> {
    let query = Query::new(request, &serving.filters)?;
    let mask = Mask::new(request.field_mask.as_ref())?;
    let reader = Reader {
        _place: place,
        watch: ring.watch(),
        newest: ring.range().end,
        ring: Arc::clone(ring),
        mask,
        turn: Turn::new(query.is_costly().then(|| serving.costly.clone())),
        serving,
        pending: None,
        next: None,
        left: query.limit(),
        ended: false,
        is_displaced: false,
        overtaken: PendingLoss::default(),
        query,
    };
    // In a box, because the stream moves it before and after each flow.
    Ok(stream::unfold(Box::new(reader), |mut reader| async move { Some((reader.next().await?, reader)) }))
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Reply, Status>> {
        loop {
            if self.query.is_displaced() {
                let is_reported = std::mem::replace(&mut self.is_displaced, true);
                return (!is_reported).then(|| Err(Status::resource_exhausted(DISPLACED)));
            }
            if self.overtaken.due().is_some_and(|due| due <= Instant::now()) {
                return self.overtaken.report(&self.serving.server).map(Ok);
            }
            if self.pending.is_some() {
                self.turn.begin().await;
            }
            if let Some(reply) = self.pending() {
                self.turn.answered();
                return Some(Ok(reply));
            }
            if self.ended {
                return self.overtaken.report(&self.serving.server).map(Ok);
            }
            if self.pending.is_none() {
                self.read().await?;
            }
        }
    }

    /// The next reply from the records taken from the ring. Without one, the turn is over or no records are left.
    fn pending(&mut self) -> Option<Reply> {
        loop {
            let (query, turn, mut is_wanted) = (&mut self.query, &self.turn, false);
            let record = self.pending.as_mut()?.take(|flow| {
                is_wanted = query.is_over(flow) || query.wants(flow);
                is_wanted || turn.is_over()
            });
            let Some(record) = record else {
                // A follower that waits holds no records that have left the ring.
                self.pending = None;
                return None;
            };
            match &*record {
                Record::Lost(lost) => return Some(loss(lost)),
                Record::Flow(_) if !is_wanted => return None,
                Record::Flow(flow) if self.query.is_over(flow) => self.end(),
                Record::Flow(flow) => {
                    let reply = match &mut self.mask {
                        None => Reply::Flow(record),
                        Some(mask) => Reply::masked(flow, mask),
                    };
                    self.left -= 1;
                    if self.left == 0 {
                        self.end();
                    }
                    return Some(reply);
                }
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.pending = None;
    }

    /// Takes more records from the ring; a follower waits for them. `None` when the server shuts down.
    async fn read(&mut self) -> Option<()> {
        let next = match self.next {
            Some(next) => next,
            None => self.query.start(&self.ring, self.newest, &mut self.turn).await,
        };
        let end = if self.query.follow() { u64::MAX } else { self.newest };
        let batch = self.ring.read(next, end);
        // Records that came after the request are not part of the answer.
        let lost = batch.lost.min(end.saturating_sub(next));
        self.overtaken.add(lost);
        self.ring.overtook(lost);
        self.next = Some(batch.next);
        let (next, count) = (batch.next, batch.records().len());
        if count > 0 {
            self.pending = Some(batch);
            return Some(());
        }
        self.turn.rest();
        if !self.query.follow() {
            self.ended = true;
            return Some(());
        }
        let report_due = async {
            match self.overtaken.due() {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.serving.shutdown.cancelled() => return None,
            () = report_due => return Some(()),
            newer = self.watch.wait_for(|newest| *newest > next) => newer.ok().map(drop)?,
        }
        sleep(GATHER).await;
        Some(())
    }
}

pub(super) fn loss(lost: &Lost) -> Reply {
    let Lost { node, source, count, cpu, first, last, time } = lost;
    let (source, num_events_lost) = ((*source).into(), *count);
    let event = LostEvent { source, num_events_lost, cpu: *cpu, first: *first, last: *last };
    let response_types = Some(ResponseTypes::LostEvents(event));
    ExportEvent { node_name: node.clone(), time: *time, response_types }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flows::Encoded,
        proto::flow::{Flow, FlowFilter},
    };
    use futures_util::StreamExt;
    use prost_types::Timestamp;

    /// Flows at the seconds 1 to `newest`.
    fn ring(capacity: usize, newest: i64) -> Arc<Ring> {
        let ring = Arc::new(Ring::new(capacity));
        (1..=newest).for_each(|seconds| ring.push(at(seconds).into()));
        ring
    }

    fn at(seconds: i64) -> Flow {
        Flow { time: Some(Timestamp { seconds, nanos: 0 }), node_name: "node-a".into(), ..Flow::default() }
    }

    fn seconds(reply: &Reply) -> i64 {
        match reply.event().unwrap().response_types {
            Some(ResponseTypes::Flow(flow)) => flow.time.unwrap().seconds,
            Some(ResponseTypes::LostEvents(lost)) => -(lost.num_events_lost as i64),
            _ => 0,
        }
    }

    fn serving() -> StreamContext {
        let (costly, shutdown) = (CostlyTurn::default(), CancellationToken::new());
        StreamContext { server: "node-a".into(), costly, filters: Arc::new(Budget::new(1 << 20)), shutdown }
    }

    fn stream(
        ring: &Arc<Ring>,
        request: &GetFlowsRequest,
        serving: StreamContext,
    ) -> Result<impl Stream<Item = Result<Reply, Status>> + use<>, Status> {
        super::stream(ring, request, serving, place(ring)?)
    }

    async fn get(ring: &Arc<Ring>, request: &GetFlowsRequest) -> Vec<i64> {
        let stream = stream(ring, request, serving()).unwrap();
        stream.map(|response| seconds(&response.unwrap())).collect().await
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
            ring.push(Flow { node_name, ..at(seconds) }.into());
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
    async fn a_follower_gets_only_matching_flows_and_ends_at_until() {
        let ring = ring(7, 2);
        let request = GetFlowsRequest {
            follow: true,
            number: 1,
            until: Some(Timestamp { seconds: 4, nanos: 0 }),
            whitelist: only("node-a"),
            ..GetFlowsRequest::default()
        };
        let stream = stream(&ring, &request, serving()).unwrap();
        ring.push(Encoded::from(Flow { node_name: "node-b".into(), ..at(3) }));
        ring.push(at(4).into());
        ring.push(Encoded::from(Flow { node_name: "node-b".into(), ..at(5) }));
        let got: Vec<i64> = stream.map(|response| seconds(&response.unwrap())).collect().await;
        assert_eq!(got, [2, 4], "the later flow ends it, though it does not match");
    }

    #[test]
    fn a_filter_that_can_not_be_is_refused_as_hubble_does() {
        let whitelist = vec![FlowFilter { source_ip: vec!["10.0.0.0/40".into()], ..FlowFilter::default() }];
        let request = GetFlowsRequest { whitelist, ..GetFlowsRequest::default() };
        let status = stream(&ring(3, 3), &request, serving()).map(drop).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unknown);
        let expected = r#"invalid IP prefix "10.0.0.0/40" in filter: netip.ParsePrefix("10.0.0.0/40"): prefix length out of range"#;
        assert_eq!(status.message(), expected);
    }

    #[test]
    fn first_does_not_go_with_follow() {
        let request = GetFlowsRequest { first: true, follow: true, ..GetFlowsRequest::default() };
        let status = stream(&ring(3, 3), &request, serving()).map(drop).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(status.message(), "first cannot be specified with follow");
    }

    #[test]
    fn too_many_readers_are_refused() {
        let ring = ring(3, 3);
        let places: Vec<_> = (0..READERS).map(|_| ring.place().unwrap()).collect();
        let open = || stream(&ring, &GetFlowsRequest::default(), serving());
        let status = open().map(drop).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(status.message(), "too many readers of flows (at most 2048)");
        drop(places);
        let stream = open().map_err(drop).unwrap();
        assert_eq!(ring.readers(), (1, 1));
        drop(stream);
        assert_eq!(ring.readers(), (0, 1));
    }

    async fn follow(request: GetFlowsRequest, take: usize) -> Vec<i64> {
        let ring = ring(7, 4);
        let request = GetFlowsRequest { follow: true, ..request };
        let stream = stream(&ring, &request, serving()).unwrap();
        (5..=6).for_each(|seconds| ring.push(at(seconds).into()));
        stream.take(take).map(|response| seconds(&response.unwrap())).collect().await
    }

    #[tokio::test]
    async fn a_follower_starts_where_it_asks_to_and_gets_new_flows() {
        assert_eq!(follow(request(0, false, None, None), 2).await, [5, 6]);
        assert_eq!(follow(request(1, false, None, None), 3).await, [4, 5, 6]);
        assert_eq!(follow(request(0, false, Some(3), None), 4).await, [3, 4, 5, 6]);
        // The flow after `until` ends the stream.
        assert_eq!(follow(request(3, false, None, Some(5)), 9).await, [2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn a_slow_follower_gets_the_number_of_lost_flows() {
        let ring = ring(3, 3);
        let request = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
        let stream = stream(&ring, &request, serving()).unwrap();
        (4..=9).for_each(|seconds| ring.push(at(seconds).into()));
        let got: Vec<i64> = stream.take(4).map(|response| seconds(&response.unwrap())).collect().await;
        assert_eq!(got, [-3, 7, 8, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn losses_are_sent_together_once_a_second() {
        let ring = ring(3, 0);
        let request = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
        let mut stream = Box::pin(stream(&ring, &request, serving()).unwrap());
        let start = tokio::time::Instant::now();
        let rounds: [&[i64]; 3] = [&[-7, 8, 9, 10], &[18, 19, 20], &[28, 29, 30]];
        for (round, expected) in (0..).zip(rounds) {
            (1..=10).for_each(|n| ring.push(at(10 * round + n).into()));
            for expected in expected {
                assert_eq!(seconds(&stream.next().await.unwrap().unwrap()), *expected);
            }
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        let event = stream.next().await.unwrap().unwrap().event().unwrap();
        let Some(ResponseTypes::LostEvents(lost)) = event.response_types else { panic!("{event:?}") };
        assert_eq!((lost.num_events_lost, start.elapsed()), (14, LOSS_INTERVAL));
        assert_eq!((lost.source(), ring.overtaken()), (LostEventSource::HubbleRingBuffer, 21));
        assert!(lost.first.map(|time| time.seconds) <= lost.last.map(|time| time.seconds) && lost.first.is_some());
    }

    #[tokio::test]
    async fn a_reader_of_the_past_that_loses_all_of_it_gets_the_number() {
        let ring = ring(3, 3);
        let stream = stream(&ring, &GetFlowsRequest::default(), serving()).unwrap();
        let mut stream = Box::pin(stream);
        assert_eq!(seconds(&stream.next().await.unwrap().unwrap()), 1);
        // A record that the reader holds stays valid.
        (4..=300).for_each(|seconds| ring.push(at(seconds).into()));
        let rest: Vec<i64> = stream.map(|response| seconds(&response.unwrap())).collect().await;
        assert_eq!(rest, [2, 3]);

        let ring = super::tests::ring(300, 200);
        let stream = self::stream(&ring, &GetFlowsRequest::default(), serving()).unwrap();
        let mut stream = Box::pin(stream);
        assert_eq!(seconds(&stream.next().await.unwrap().unwrap()), 1);
        (201..=900).for_each(|seconds| ring.push(at(seconds).into()));
        let rest: Vec<i64> = stream.map(|response| seconds(&response.unwrap())).collect().await;
        assert_eq!(rest, (2..=64).chain([-136]).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_loss_in_the_kernel_is_sent_in_its_place_and_is_no_flow() {
        let ring = ring(9, 2);
        ring.push_record(lost(70));
        ring.push(at(3).into());
        ring.push(at(4).into());
        assert_eq!(get(&ring, &request(3, false, None, None)).await, [2, -70, 3, 4]);
        assert_eq!(get(&ring, &request(3, true, None, None)).await, [1, 2, -70, 3]);
        assert_eq!(get(&ring, &request(0, false, Some(2), Some(3))).await, [2, -70, 3]);
        assert_eq!(get(&ring, &request(2, false, None, None)).await, [3, 4]);
        // A loss after the newest flow is sent too, but not to a reader of the oldest flows.
        ring.push_record(lost(9));
        assert_eq!(get(&ring, &request(2, false, None, None)).await, [3, 4, -9]);
        assert_eq!(get(&ring, &request(2, true, None, None)).await, [1, 2]);
        assert_eq!(get(&ring, &request(1, false, Some(3), None)).await, [-70, 3]);
    }

    fn lost(count: u64) -> Record {
        let (node, source) = ("node-b".into(), LostEventSource::PerfEventRingBuffer);
        Record::Lost(Box::new(Lost { node, source, count, cpu: Some(5), first: None, last: None, time: None }))
    }

    #[tokio::test]
    async fn a_loss_keeps_its_cpu_and_has_no_invented_time() {
        let ring = ring(3, 0);
        ring.push_record(lost(3));
        let stream = stream(&ring, &GetFlowsRequest::default(), serving()).unwrap();
        let event = Box::pin(stream).next().await.unwrap().unwrap().event().unwrap();
        let Some(ResponseTypes::LostEvents(lost)) = event.response_types else { panic!("{event:?}") };
        assert_eq!((lost.cpu, lost.first, lost.last, event.time), (Some(5), None, None, None));
    }

    #[tokio::test]
    async fn a_flow_without_a_time_cuts_nothing() {
        let ring = Arc::new(Ring::new(15));
        for seconds in 1..=6 {
            ring.push_record(Record::Flow(at(seconds).into()));
            ring.push_record(Record::Flow(Flow { time: None, ..at(0) }.into()));
        }
        let timed = async |request| -> Vec<i64> {
            let stream = stream(&ring, &request, serving()).unwrap();
            let time = |reply: Reply| match reply.event().unwrap().response_types {
                Some(ResponseTypes::Flow(flow)) => flow.time.map(|time| time.seconds),
                other => panic!("{other:?}"),
            };
            stream.map(|reply| time(reply.unwrap())).collect::<Vec<_>>().await.into_iter().flatten().collect()
        };
        assert_eq!(timed(request(0, false, Some(3), Some(5))).await, [3, 4, 5]);
        assert_eq!(timed(request(0, false, Some(2), None)).await, [2, 3, 4, 5, 6]);
        assert_eq!(timed(request(0, false, None, Some(2))).await, [1, 2]);
        assert_eq!(timed(request(3, false, None, None)).await, [6]);
    }

    #[tokio::test]
    async fn a_follower_ends_with_the_server() {
        let (ring, serving) = (ring(3, 3), serving());
        let shutdown = serving.shutdown.clone();
        let request = GetFlowsRequest { follow: true, number: 1, ..GetFlowsRequest::default() };
        let stream = stream(&ring, &request, serving).unwrap();
        shutdown.cancel();
        assert_eq!(stream.count().await, 1);
    }

    #[tokio::test]
    async fn an_expression_at_its_limit_leaves_time_for_others_after_each_flow() {
        let list = format!("[{}1]", "1,".repeat(40));
        let costly = format!("!{list}.all(a, {list}.all(b, a == b)) && _flow.uuid == 'x'");
        let experimental = Some(crate::proto::flow::flow_filter::Experimental { cel_expression: vec![costly; 2] });
        let whitelist = vec![FlowFilter { experimental, ..FlowFilter::default() }];
        let request = GetFlowsRequest { whitelist, ..request(0, true, None, None) };
        let (ring, turns) = (ring(15, 15), std::cell::Cell::new(0));
        let clients = (0..3).map(|_| async {
            // Of three clients that share a server.
            get(&ring, &request).await
        });
        let mut others = Box::pin(async {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        });
        let all = futures_util::future::join_all(clients);
        tokio::select! {
            biased;
            got = all => assert!(got.iter().all(Vec::is_empty)),
            () = &mut others => {}
        }
        assert!(turns.get() >= 15, "others had {} turns during three times 15 flows", turns.get());
    }

    #[tokio::test]
    async fn a_mask_also_holds_for_the_response() {
        let field_mask = Some(prost_types::FieldMask { paths: vec!["time".into()] });
        let request = GetFlowsRequest { field_mask, ..GetFlowsRequest::default() };
        let mut stream = Box::pin(stream(&ring(3, 1), &request, serving()).unwrap());
        let response = stream.next().await.unwrap().unwrap().event().unwrap();
        assert_eq!((response.node_name.as_str(), response.time.unwrap().seconds), ("", 1));
    }

    #[tokio::test]
    async fn a_mask_that_can_not_be_is_refused_with_hubbles_code() {
        let field_mask = Some(prost_types::FieldMask { paths: vec!["colour".into()] });
        let request = GetFlowsRequest { field_mask, ..GetFlowsRequest::default() };
        let status = stream(&ring(3, 1), &request, serving()).map(drop).unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::Unknown, "invalid fieldmask"));
    }
}
