//! The totals of the cluster: elects the leader, which sums the reports, and serves the totals.

use super::{
    Error,
    serving::LeaderServer,
    settings::{LeaseSettings, TotalsSettings},
};
use crate::{
    cluster::{Client, Health, Lease, Notice, Notices},
    counters::CounterSnapshot,
    export::PairLogTally,
    feed::Store,
    hubble::Peers,
    identity::Index,
    leader::{Leader, Role, Term},
    link::{Authenticate, Settings},
    reports::{ClusterTotals, HookChange, Mirror, ReportsService, Tally, ZoneNames},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// The parts of the controller that the totals use.
pub(super) struct Totals<'a> {
    pub(super) settings: &'a TotalsSettings,
    pub(super) client: Client,
    pub(super) feed: SocketAddr,
    pub(super) api: SocketAddr,
    pub(super) cluster_totals: Arc<ClusterTotals>,
    pub(super) agents: Arc<dyn Authenticate>,
    pub(super) replicas: Arc<dyn Authenticate>,
    /// The sender of Events about changed hooks.
    pub(super) notices: Notices,
    pub(super) health: Arc<Health>,
    /// Zones and addresses.
    pub(super) store: Arc<Store>,
    pub(super) index: Arc<Index>,
    pub(super) shutdown: CancellationToken,
}

/// The zones that were sent to agents.
struct Zones(Arc<Store>);

impl ZoneNames for Zones {
    fn is_whole(&self) -> bool {
        self.0.version() > 0
    }

    fn contains(&self, zone: &str, region: &str) -> bool {
        self.0.has_zone(zone, region)
    }
}

/// The services of the totals, and their tasks.
pub(super) struct TotalsServices {
    pub(super) service: ReportsService,
    pub(super) totals: watch::Receiver<Arc<[CounterSnapshot]>>,
    pub(super) peers: watch::Receiver<Arc<Peers>>,
    /// Lines of the pair log.
    pub(super) pair_log: Arc<PairLogTally>,
    /// Ends when the Lease is released.
    pub(super) lease: Option<JoinHandle<()>>,
    /// The settings of connections to other replicas, if there may be any.
    pub(super) replicas: Option<Settings>,
    /// Ends when the pair log is written.
    pub(super) serving: JoinHandle<Result<(), Error>>,
}

/// Logs that a node's hook was changed, and writes an Event for the node.
fn report_hook_change(notices: Notices) -> impl Fn(HookChange) {
    move |HookChange { node, hook, reason }| notices.report([Notice::hook_changed(&node, &hook, &reason)])
}

impl Totals<'_> {
    /// Starts the election. Must be called inside a runtime.
    pub(super) fn start(self) -> Result<TotalsServices, Error> {
        let Self { settings, cluster_totals, shutdown, .. } = &self;
        let (role, lease, replicas) = match &settings.lease {
            None => (watch::Sender::new(Role::Leader(Term::default())).subscribe(), None, None),
            Some(lease) => {
                let link =
                    Settings { server: place(lease, self.feed, self.api)?.feed, ..lease.link.clone() }.checked()?;
                let (role, running) = self.stand_for(lease, link.clone())?;
                (role, Some(running), Some(link))
            }
        };
        let tally = Arc::new(Tally::default());
        let service = ReportsService {
            cluster_totals: Arc::clone(cluster_totals),
            role: role.clone(),
            agents: Arc::clone(&self.agents),
            replicas: Arc::clone(&self.replicas),
            tally: Arc::clone(&tally),
            zones: Arc::new(Zones(Arc::clone(&self.store))),
            streams: Arc::default(),
            hook_changed: Arc::new(report_hook_change(self.notices.clone())),
            shutdown: shutdown.clone(),
        };
        let (sender, peers) = (watch::Sender::new(Arc::from([])), watch::Sender::new(Arc::default()));
        let (totals, announced) = (sender.subscribe(), peers.subscribe());
        let pair_log = Arc::default();
        let serving = LeaderServer {
            pair_log: settings.pair_log.clone().map(|output| (output, settings.pair_log_interval)),
            log: None,
            cluster_totals: Arc::clone(cluster_totals),
            health: Arc::clone(&self.health),
            pair_log_tally: Arc::clone(&pair_log),
            role,
            cluster: settings.cluster_name.clone(),
            cilium_port: settings.cilium_port,
            index: Arc::clone(&self.index),
            tally,
            totals: sender,
            peers,
        };
        let serving = tokio::spawn(serving.run(shutdown.clone()));
        Ok(TotalsServices { service, totals, peers: announced, pair_log, lease, replicas, serving })
    }

    /// Runs for the Lease, and mirrors the leader in the meantime.
    fn stand_for(
        &self,
        lease: &LeaseSettings,
        settings: Settings,
    ) -> Result<(watch::Receiver<Role>, JoinHandle<()>), Error> {
        let place = place(lease, self.feed, self.api)?;
        let role = watch::Sender::new(Role::Standby(None));
        let receiver = role.subscribe();
        let ended = Arc::new(Notify::new());
        let mirror = Mirror {
            settings,
            cluster_totals: Arc::clone(&self.cluster_totals),
            role: receiver.clone(),
            ended: Arc::clone(&ended),
        };
        tokio::spawn(mirror.run());
        let which = (lease.namespace.clone(), lease.name.clone());
        let lease = Lease::new(self.client.clone(), which, place, (Arc::clone(&self.cluster_totals) as _, ended));
        Ok((receiver, tokio::spawn(lease.run(role, self.shutdown.clone()))))
    }
}

/// The addresses of this replica.
fn place(lease: &LeaseSettings, feed: SocketAddr, api: SocketAddr) -> Result<Leader, Error> {
    let ip = match lease.advertise {
        Some(ip) => ip,
        None if !feed.ip().is_unspecified() => feed.ip(),
        None => return Err(Error::NoAddress { feed }),
    };
    Ok(Leader {
        name: lease.replica.clone(),
        feed: SocketAddr::new(ip, feed.port()).to_string(),
        api: announced_api(ip, api).map_or_else(String::new, |api| api.to_string()),
    })
}

/// The address of the port for people; `None` if only this machine can reach it, which is at `ip` for others.
fn announced_api(ip: IpAddr, api: SocketAddr) -> Option<SocketAddr> {
    match api.ip() {
        own if own.is_unspecified() => Some(SocketAddr::new(ip, api.port())),
        own if own.is_loopback() && !ip.is_loopback() => None,
        _ => Some(api),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_only_this_machine_can_reach_is_not_announced() {
        let announced = |ip: &str, api: &str| {
            announced_api(ip.parse().unwrap(), api.parse().unwrap()).map(|address| address.to_string())
        };
        assert_eq!(announced("10.0.0.2", "127.0.0.1:4344"), None);
        assert_eq!(announced("fd00::2", "[::1]:4344"), None);
        assert_eq!(announced("10.0.0.2", "0.0.0.0:4344").as_deref(), Some("10.0.0.2:4344"));
        assert_eq!(announced("fd00::2", "[::]:4344").as_deref(), Some("[fd00::2]:4344"));
        assert_eq!(announced("10.0.0.2", "10.0.0.3:4344").as_deref(), Some("10.0.0.3:4344"));
        // Replicas on one machine reach one another.
        assert_eq!(announced("127.0.0.1", "127.0.0.1:4344").as_deref(), Some("127.0.0.1:4344"));
    }
}
