//! `meridian.v1.Counters` of the cluster: the leader answers.

use super::{CountersService, services::counters_server::Counters};
use crate::{
    counters::CounterSnapshot,
    leader::{Leader, Role, until_lost},
    proto::v1::{WatchRequest, WatchResponse},
};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Serves the cluster's counters at the leader; other replicas refuse.
#[derive(Debug)]
pub struct LeaderCounters {
    /// The totals, once they are complete.
    pub counters: CountersService<CounterSnapshot>,
    /// Whether this replica is the leader.
    pub role: watch::Receiver<Role>,
}

#[tonic::async_trait]
impl Counters for LeaderCounters {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let refusal = |role: &Role| role.refusal(|leader: &Leader| &leader.api);
        if let Some(status) = refusal(&self.role.borrow()) {
            return Err(status);
        }
        let answers = self.counters.watch(request).await?.into_inner();
        let last = stream::once(async { Err(Status::unavailable("another replica is the leader now")) });
        let role = self.role.clone();
        let answers = answers.take_while(move |_| std::future::ready(role.borrow().is_leader()));
        // The last message tells the client why the stream ends.
        Ok(Response::new(answers.take_until(Box::pin(until_lost(self.role.clone()))).chain(last).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        leader::{Term, leader_in},
        reports::ClusterTotals,
    };
    use std::sync::Arc;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    fn counters(role: watch::Receiver<Role>) -> LeaderCounters {
        let cluster_totals = ClusterTotals::new(10, false, 10);
        let totals = watch::Sender::new(Arc::from([cluster_totals.counted()])).subscribe();
        let counters = CountersService::new(totals, CancellationToken::new());
        LeaderCounters { counters, role }
    }

    #[tokio::test(start_paused = true)]
    async fn totals_are_served_while_this_replica_is_the_leader() {
        // Without a Lease there is only one replica, which stays the leader.
        let alone = counters(watch::Sender::new(Role::Leader(Term::default())).subscribe());
        let mut answers = alone.watch(Request::new(WatchRequest::default())).await.unwrap().into_inner();
        for _ in 0..3 {
            assert!(answers.next().await.unwrap().is_ok());
        }
        let role = watch::Sender::new(Role::Leader(Term::default()));
        let service = counters(role.subscribe());
        let mut answers = service.watch(Request::new(WatchRequest::default())).await.unwrap().into_inner();
        assert!(answers.next().await.unwrap().is_ok());
        role.send_replace(Role::Standby(None));
        let end = answers.next().await.unwrap().unwrap_err();
        assert_eq!(end.message(), "another replica is the leader now");
        assert!(answers.next().await.is_none());
        // A replica that was frozen notices the end of its term itself.
        let term = Term::default();
        role.send_replace(Role::Leader(term.clone()));
        let mut answers = service.watch(Request::new(WatchRequest::default())).await.unwrap().into_inner();
        assert!(answers.next().await.unwrap().is_ok());
        term.lasts_until(Instant::now());
        assert!(answers.next().await.unwrap().is_err());
        assert!(service.watch(Request::new(WatchRequest::default())).await.is_err());
        let leader = Leader { name: "b".into(), feed: "10.0.0.2:4345".into(), api: "10.0.0.2:4344".into() };
        role.send_replace(Role::Standby(Some(leader)));
        let refused = service.watch(Request::new(WatchRequest::default())).await.map(drop).unwrap_err();
        assert_eq!(refused.message(), "not the holder: 10.0.0.2:4344 (b)");
        assert_eq!(leader_in(&refused).as_deref(), Some("10.0.0.2:4344"));
    }
}
