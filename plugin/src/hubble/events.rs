//! GetAgentEvents and GetDebugEvents: recorded events of Cilium's own agent.

use super::query;
use crate::{
    flows::{EventLog, WantedEvents},
    proto::observer::{GetAgentEventsRequest, GetDebugEventsRequest},
};
use futures_util::stream::{self, Stream};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The events that a request asks for.
#[derive(Debug)]
pub(super) struct EventQuery {
    wanted: WantedEvents,
    follow: bool,
}

macro_rules! asked {
    ($request:ty) => {
        impl TryFrom<$request> for EventQuery {
            type Error = Status;

            fn try_from(request: $request) -> Result<Self, Status> {
                let (first, follow, since, until) = (request.first, request.follow, request.since, request.until);
                if first && follow {
                    return Err(Status::invalid_argument("first cannot be specified with follow"));
                }
                for bound in [&since, &until].into_iter().flatten() {
                    query::check(bound).map_err(|error| Status::unknown(error.to_string()))?;
                }
                let number = usize::try_from(request.number).unwrap_or(usize::MAX);
                // A follower that asks for no past events gets none.
                let number = if number > 0 || follow && since.is_none() { Some(number) } else { None };
                Ok(Self { wanted: WantedEvents { number, first, since, until }, follow })
            }
        }
    };
}

// The two requests have the same fields.
asked!(GetAgentEventsRequest);
asked!(GetDebugEventsRequest);

/// A stream in progress.
struct Reader<T> {
    log: Arc<EventLog<T>>,
    watch: watch::Receiver<u64>,
    asked: EventQuery,
    found: VecDeque<T>,
    next: u64,
    shutdown: CancellationToken,
}

/// Streams the events of a log: the present ones and, with `follow`, new ones until `shutdown`.
pub(super) fn stream<T: Clone + Send + 'static>(
    log: &Arc<EventLog<T>>,
    asked: EventQuery,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<T, Status>> + use<T> {
    let watch = log.watch();
    let (found, next) = log.read(&asked.wanted);
    let reader = Reader { log: Arc::clone(log), watch, asked, found: found.into(), next, shutdown };
    stream::unfold(reader, |mut reader| async move { Some((Ok(reader.next().await?), reader)) })
}

impl<T: Clone> Reader<T> {
    async fn next(&mut self) -> Option<T> {
        loop {
            if let Some(event) = self.found.pop_front() {
                return Some(event);
            }
            if !self.asked.follow {
                return None;
            }
            let known = self.next;
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                newer = self.watch.wait_for(|next| *next > known) => newer.map(drop).ok()?,
            }
            let (found, next) = self.log.read_from(known, &self.asked.wanted);
            (self.found, self.next) = (found.into(), next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use prost_types::Timestamp;

    fn log() -> Arc<EventLog<i64>> {
        let log = Arc::<EventLog<i64>>::default();
        (1..=3).for_each(|seconds| log.push(Some(Timestamp { seconds, nanos: 0 }), seconds));
        log
    }

    fn asked(number: u64, first: bool, follow: bool) -> Result<EventQuery, Status> {
        EventQuery::try_from(GetAgentEventsRequest { number, first, follow, ..GetAgentEventsRequest::default() })
    }

    #[tokio::test]
    async fn events_are_read_and_followed_as_flows_are() {
        let (log, shutdown) = (log(), CancellationToken::new());
        let all =
            async |asked| -> Vec<i64> { stream(&log, asked, shutdown.clone()).map(Result::unwrap).collect().await };
        assert_eq!(all(asked(0, false, false).unwrap()).await, [1, 2, 3]);
        assert_eq!(all(asked(2, false, false).unwrap()).await, [2, 3]);
        assert_eq!(all(asked(2, true, false).unwrap()).await, [1, 2]);
        let mut none = Box::pin(stream(&log, asked(0, false, true).unwrap(), shutdown.clone()));
        let mut last = Box::pin(stream(&log, asked(1, false, true).unwrap(), shutdown.clone()));
        assert_eq!(last.next().await.unwrap().unwrap(), 3);
        log.push(None, 4);
        assert_eq!((last.next().await.unwrap().unwrap(), none.next().await.unwrap().unwrap()), (4, 4));
        // The stream stays open until the server shuts down.
        assert!(futures_util::poll!(none.next()).is_pending());
        shutdown.cancel();
        assert!(none.next().await.is_none());
    }

    #[test]
    fn requests_that_hubble_refuses_are_refused() {
        let status = asked(0, true, true).unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::InvalidArgument, "first cannot be specified with follow")
        );
        let since = Some(Timestamp { seconds: 1, nanos: -5 });
        let status =
            EventQuery::try_from(GetDebugEventsRequest { since, ..GetDebugEventsRequest::default() }).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unknown);
    }
}
