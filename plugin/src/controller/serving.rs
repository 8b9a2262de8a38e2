//! Serves the totals of the cluster while this replica is the leader: samples, the pair log, the peers.

use super::{Error, announced::announced};
use crate::{
    cluster::{Health, Kind},
    counters::CounterSnapshot,
    export::{Output, PairLog, PairLogTally},
    hubble::{PeerAddress, Peers, node_name, server_name},
    identity::Index,
    leader::Role,
    reports::{ClusterTotals, Tally},
    servers::END_TIMEOUT,
};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// The interval at which the totals are renewed.
const TICK: Duration = Duration::from_secs(1);
/// A new leader serves no totals until every node has reported, but not longer than this: partial totals would look as
/// if counters went backwards. A disconnected agent reconnects sooner.
const TOTALS_TIMEOUT: Duration = Duration::from_secs(60);
/// An agent without a report for this long is no longer announced to hubble-relay.
const ANNOUNCE_TTL: Duration = Duration::from_secs(60);

/// Serves the totals while this replica is the leader.
pub(super) struct LeaderServer {
    pub(super) pair_log: Option<(Output, Duration)>,
    pub(super) log: Option<PairLog>,
    pub(super) cluster_totals: Arc<ClusterTotals>,
    pub(super) health: Arc<Health>,
    /// The lines of all pair logs of this process.
    pub(super) pair_log_tally: Arc<PairLogTally>,
    pub(super) role: watch::Receiver<Role>,
    pub(super) cluster: String,
    pub(super) cilium_port: Option<u16>,
    pub(super) index: Arc<Index>,
    pub(super) tally: Arc<Tally>,
    pub(super) totals: watch::Sender<Arc<[CounterSnapshot]>>,
    pub(super) peers: watch::Sender<Arc<Peers>>,
}

impl LeaderServer {
    /// Runs until `shutdown`; then writes the pair log.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut held, mut expected, mut is_whole, mut epoch) = (None, 0, false, 0);
        // A moment before the end, because the standby replicas disconnect at the end.
        let mut is_mirrored = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = self.role.changed() => {}
                () = shutdown.cancelled() => break,
            }
            let now = Instant::now();
            self.cluster_totals.expire(now);
            self.announce(now);
            if !self.role.borrow_and_update().is_leader() {
                if held.take().is_some() {
                    is_whole = false;
                    self.totals.send_replace(Arc::from([]));
                    // Unlogged pairs are left to the next leader, if a standby replica mirrors them.
                    self.end_log(shutdown.is_cancelled() && !is_mirrored);
                }
                continue;
            }
            let since = *held.get_or_insert_with(|| {
                epoch += 1;
                expected = self.reporting(now, ANNOUNCE_TTL);
                // This replica has all reports that it served.
                is_whole = self.cluster_totals.is_complete();
                now
            });
            is_whole |= self.is_whole(expected, now.duration_since(since));
            is_mirrored = self.cluster_totals.is_mirrored();
            if is_whole {
                self.totals.send_replace(Arc::from([CounterSnapshot { epoch, ..self.cluster_totals.counted() }]));
                self.log()?;
            }
        }
        self.end_log(held.is_some() && !is_mirrored);
        Ok(())
    }

    /// Announces the agents whose flows are reachable, as reported here or at the leader.
    fn announce(&self, now: Instant) {
        let all = self.cluster_totals.nodes(now);
        let (mut peers, mut refused) = (Peers::new(), 0);
        for reporting in all.iter().filter(|node| node.age < ANNOUNCE_TTL) {
            let (node, Some(claim)) = (&reporting.node, &reporting.flow_server) else { continue };
            let announced = match announced(&self.cluster, reporting, claim, (&self.index, &all)) {
                Ok(announced) => announced,
                Err(reason) => {
                    refused += 1;
                    tracing::debug!(node, %reason, claim = ?claim, "a flow server is not announced");
                    continue;
                }
            };
            // A relay has one peer service, so ours also announces Cilium's servers.
            if let Some(port) = self.cilium_port {
                let server_name = announced.peer.server_name.as_ref().map(|_| server_name(&self.cluster, node));
                let address = SocketAddr::new(announced.address.ip(), port).to_string();
                peers.insert(node_name(&self.cluster, node), PeerAddress { address, server_name });
            }
            peers.insert(announced.name, announced.peer);
        }
        let before = self.tally.refused_flow_servers.swap(refused, Ordering::Relaxed);
        if refused > before {
            tracing::warn!(
                refused,
                "flow servers are not announced: their reported addresses are not those of their nodes"
            );
        }
        self.peers.send_if_modified(|known| {
            let has_changed = **known != peers;
            if has_changed {
                *known = Arc::new(peers);
            }
            has_changed
        });
    }

    /// The number of nodes that reported in this time.
    fn reporting(&self, now: Instant, within: Duration) -> usize {
        self.cluster_totals.nodes(now).iter().filter(|node| node.age <= within).count()
    }

    /// Whether all nodes have reported since this replica became the leader: as many as reported to the last leader,
    /// or, if that is unknown, as many as the cluster has.
    fn is_whole(&self, expected: usize, held: Duration) -> bool {
        let all = || self.health.all().get(&Kind::Node).map_or(0, |nodes| nodes.objects);
        let nodes = || all().saturating_sub(self.health.tally().nodes_without_agent);
        let expected = if expected > 0 { expected } else { nodes() };
        expected > 0 && self.reporting(Instant::now(), held) >= expected || held >= TOTALS_TIMEOUT
    }

    fn log(&mut self) -> Result<(), Error> {
        let Some((output, every)) = &self.pair_log else { return Ok(()) };
        if self.log.is_none() {
            let log = PairLog::start(output, *every, Arc::clone(&self.pair_log_tally));
            self.log = Some(log.map_err(|source| Error::PairLog { output: output.clone(), source })?);
        }
        // Looked at again, because the process may have been frozen in between: the next leader logs these pairs, too.
        if let Some(log) = self.log.as_mut().filter(|_| self.role.borrow().is_leader()) {
            log.tick(|| vec![(String::new(), self.cluster_totals.take_interval())]);
        }
        Ok(())
    }

    fn end_log(&mut self, with_the_rest: bool) {
        let Some(log) = self.log.take() else { return };
        let rest = if with_the_rest { self.cluster_totals.take_interval() } else { Vec::new() };
        log.end(vec![(String::new(), rest)], END_TIMEOUT);
    }
}
