//! The controller's page: its watches, the table, the agents and the totals.

use super::{
    families::Families,
    parts::Part,
    traffic,
    writer::{Labels, Writer},
};
use crate::{
    cluster::{Health, KindHealth, ReviewTally, State, TableTally},
    counters::CounterSnapshot,
    feed::{Agents, Store},
    leader::Role,
    reports::{ClusterTotals, Tally},
};
use prometheus_client::registry::Unit;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};
use tokio::sync::watch;

/// An agent without a report for this long counts as silent.
pub(super) const SILENT: Duration = Duration::from_secs(60);

/// The part of the page that only a controller has.
#[derive(Debug)]
pub struct Controller {
    /// The watches.
    pub health: Arc<Health>,
    /// The state for agents.
    pub store: Arc<Store>,
    /// The agents.
    pub agents: Arc<Agents>,
    /// Static tables accepted and static tables refused, after the first.
    pub reloads: Arc<[AtomicU64; 2]>,
    /// The totals of the agents' reports.
    pub cluster_totals: Arc<ClusterTotals>,
    /// Reports accepted and refused.
    pub tally: Arc<Tally>,
    /// Whether this replica is the leader.
    pub role: watch::Receiver<Role>,
    /// The totals of the cluster, once they are complete.
    pub totals: watch::Receiver<Arc<[CounterSnapshot]>>,
    /// The families of series by pod and workload.
    pub families: Families,
    /// Tokens that the API server was asked about.
    pub reviews: Arc<ReviewTally>,
}

impl Part for Arc<Controller> {
    fn write(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let info = vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)];
        page.gauges("meridian_controller_info", "The version of the controller. Always 1.", None, &info)?;
        self.watches(page)?;
        self.table(page)?;
        self.feed(page)?;
        self.reports(page)?;
        let totals = Arc::clone(&self.totals.borrow());
        page.matrix("meridian_cluster", &totals)?;
        let began = totals.iter().filter_map(|counted| counted.began?.duration_since(UNIX_EPOCH).ok());
        let began: Vec<_> = began.map(|since| (Vec::new(), since.as_secs_f64())).collect();
        let help = "Unix time at which the first of the nodes' counters began.";
        page.gauges("meridian_cluster_counters_start_timestamp", help, Some(Unit::Seconds), &began)?;
        page.series(&totals)?;
        traffic::write(page, &totals, self.families)
    }
}

fn one<T>(value: T) -> Vec<(Labels, T)> {
    vec![(Vec::new(), value)]
}

impl Controller {
    fn watches(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let all = self.health.all();
        let kinds = all.iter().map(|(kind, health)| (kind.name(), health));
        let labels = |kind: &str| vec![("kind", kind.to_owned())];
        let gauge = |value: fn(&KindHealth) -> f64| -> Vec<(Labels, f64)> {
            kinds.clone().map(|(kind, health)| (labels(kind), value(health))).collect()
        };
        let counter = |value: fn(&KindHealth) -> u64| -> Vec<(Labels, u64)> {
            kinds.clone().map(|(kind, health)| (labels(kind), value(health))).collect()
        };
        let states = kinds.clone().flat_map(|(kind, health)| {
            State::ALL.map(|state| {
                let labels = vec![("kind", kind.to_owned()), ("state", state.name().to_owned())];
                (labels, f64::from(u8::from(health.state == state)))
            })
        });
        let help = "State of the watch of a kind of object. 1 for the current state.";
        page.gauges("meridian_watch_state", help, None, &states.collect::<Vec<_>>())?;
        page.gauges("meridian_watch_objects", "Number of known objects, by kind.", None, &gauge(|h| h.objects as f64))?;
        let help = "Number of objects with a part that could not be read and is ignored.";
        page.gauges("meridian_watch_unreadable_objects", help, None, &gauge(|h| h.unreadable as f64))?;
        page.counters(
            "meridian_watch_errors",
            "Number of failed watches and lists, by kind.",
            None,
            &counter(|h| h.errors),
        )?;
        let help = "Number of full lists made because a watch had expired.";
        page.counters("meridian_watch_relists", help, None, &counter(|h| h.relists))
    }

    fn table(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let (prefixes, addresses) = self.store.sizes();
        let TableTally { conflicts, nodes_without_zone, nodes_without_agent, cut_endpoints } = self.health.tally();
        let version = self.store.version() as f64;
        page.gauges("meridian_table_version", "Number of changes of the table since the start.", None, &one(version))?;
        page.gauges("meridian_table_prefixes", "Number of prefixes sent to agents.", None, &one(prefixes as f64))?;
        let help = "Number of addresses whose endpoint is sent to agents.";
        page.gauges("meridian_table_addresses", help, None, &one(addresses as f64))?;
        let help =
            "Number of addresses whose endpoint has labels, services or names beyond the limits. They are left out.";
        page.gauges("meridian_table_cut_endpoints", help, None, &one(cut_endpoints as f64))?;
        let help = "Number of prefixes with conflicting zones, which count as unknown.";
        page.gauges("meridian_table_conflicts", help, None, &one(conflicts as f64))?;
        let withheld: Vec<_> =
            self.health.withheld().into_iter().map(|(reason, n)| (vec![("reason", reason.to_owned())], n)).collect();
        let help = "Number of notices neither logged nor written as Events, because too many had the same reason.";
        page.counters("meridian_notices_withheld", help, None, &withheld)?;
        let help = "Number of nodes without a zone. The traffic of their pods counts as unknown.";
        page.gauges("meridian_nodes_without_zone", help, None, &one(nodes_without_zone as f64))?;
        let help = "Number of nodes without an agent. The receiving nodes count their traffic.";
        page.gauges("meridian_nodes_without_agent", help, None, &one(nodes_without_agent as f64))?;
        let results = ["taken", "refused"].into_iter().zip(&*self.reloads);
        let reloads = results.map(|(name, n)| (vec![("result", name.to_owned())], n.load(Ordering::Relaxed)));
        let help = "Number of times the static table was reloaded, by result.";
        page.counters("meridian_static_table_reloads", help, None, &reloads.collect::<Vec<_>>())
    }

    fn feed(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let (agents, behind) = self.agents.count(self.store.version());
        page.gauges("meridian_feed_agents", "Number of agents connected to this replica.", None, &one(agents as f64))?;
        let help = "Number of agents that have not acknowledged the latest version.";
        page.gauges("meridian_feed_agents_behind", help, None, &one(behind as f64))?;
        let refused = &self.agents.refused;
        let reasons = [
            ("token", &refused.token),
            ("request", &refused.request),
            ("full", &refused.full),
            ("late", &refused.late),
            ("replaced", &refused.replaced),
        ];
        let refused = reasons.map(|(reason, n)| (vec![("reason", reason.to_owned())], n.load(Ordering::Relaxed)));
        let help = "Number of agent connections and streams refused, by reason.";
        page.counters("meridian_feed_refused", help, None, &refused)?;
        let help = "Number of connections to the agents' port closed to make room for newer ones.";
        let displaced = self.agents.places.displaced();
        page.counters("meridian_feed_displaced_connections", help, None, &one(displaced))?;
        let results = [("asked", &self.reviews.asked), ("limited", &self.reviews.limited)];
        let reviews = results.map(|(result, n)| (vec![("result", result.to_owned())], n.load(Ordering::Relaxed)));
        let help = "Number of tokens that the API server was asked about, or that were refused without asking.";
        page.counters("meridian_token_reviews", help, None, &reviews)
    }

    fn reports(&self, page: &mut Writer<'_, '_>) -> fmt::Result {
        let is_leader = f64::from(u8::from(self.role.borrow().is_leader()));
        let help = "Whether this replica is the leader, which accepts the agents' reports.";
        page.gauges("meridian_lease_held", help, None, &one(is_leader))?;
        let is_synced = f64::from(u8::from(self.cluster_totals.is_synced()));
        let help = "Whether this replica stands by with the complete totals of the leader.";
        page.gauges("meridian_standby_synced", help, None, &one(is_synced))?;
        let nodes = self.cluster_totals.nodes(Instant::now());
        let silent = nodes.iter().filter(|node| node.age > SILENT).count();
        page.gauges("meridian_reporting_nodes", "Number of nodes in the totals.", None, &one(nodes.len() as f64))?;
        let help = "Number of nodes in the totals without a report for one minute.";
        page.gauges("meridian_reporting_nodes_silent", help, None, &one(silent as f64))?;
        let tally = &self.tally;
        let count = |of: &AtomicU64| one(of.load(Ordering::Relaxed));
        page.counters("meridian_reports", "Number of reports accepted.", None, &count(&tally.accepted))?;
        let help = "Number of report streams refused or ended because of their content.";
        page.counters("meridian_reports_refused", help, None, &count(&tally.refused))?;
        let help = "Number of places in reports with a zone that the controller does not know. They count as unknown.";
        page.counters("meridian_reports_unknown_zones", help, None, &count(&tally.unknown_zones))?;
        let help = "Number of flow servers that are not announced because they are not at their agent's node.";
        let refused = tally.refused_flow_servers.load(Ordering::Relaxed) as f64;
        page.gauges("meridian_refused_flow_servers", help, None, &one(refused))?;
        let help = "Number of standby replicas disconnected because they fell behind.";
        page.counters("meridian_mirrors_behind", help, None, &count(&tally.mirrors_behind))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{
            Page,
            text::{ExpositionFormat, page},
        },
        *,
    };
    use crate::{
        accounting::{Accounting, Service, Transfer, TransferEnd},
        identity::{Endpoint, Workload},
        reports::ReportBuilder,
        zones::{Pair, Place, Zone},
    };
    use meridian_abi::{Counter, flow::ServiceSide};

    /// The totals of a cluster in which one byte went from one zone to another.
    fn totals(cluster_totals: &ClusterTotals) -> Arc<[CounterSnapshot]> {
        let mut counted = cluster_totals.counted();
        let place = |name: &str| Place::Zone(Arc::new(Zone { name: name.into(), region: "eu-1".into() }));
        let pair = Pair {
            source: place("eu-1a"),
            destination: place("eu-1b"),
            version: meridian_abi::IpVersion::V4,
            direction: meridian_abi::matrix::Direction::Egress,
        };
        counted.began = Some(UNIX_EPOCH);
        counted.matrix.add(pair, meridian_abi::Counter { bytes: 1, packets: 1 });
        Arc::from([counted])
    }

    pub(in super::super) fn measured() -> Arc<Controller> {
        let health = Arc::new(Health::default());
        health.set(crate::cluster::Kind::Node, State::Watching, None);
        let cluster_totals = Arc::new(ClusterTotals::new(10, false, 10));
        Arc::new(Controller {
            health,
            store: Arc::default(),
            agents: Arc::default(),
            reloads: Arc::default(),
            tally: Arc::default(),
            role: watch::Sender::new(Role::Leader(crate::leader::Term::default())).subscribe(),
            totals: watch::Sender::new(totals(&cluster_totals)).subscribe(),
            cluster_totals,
            families: Families::default(),
            reviews: Arc::default(),
        })
    }

    /// The end of a transfer on a node: a pod of a DaemonSet, or the node itself.
    fn end(node: usize, is_pod: bool) -> TransferEnd {
        let name = format!("n-{node}");
        let workload = Some(Arc::new(Workload { kind: "DaemonSet".into(), name: "logs".into() }));
        let (namespace, pod) = ("logs".into(), format!("logs-{node}").into());
        let of_pod = || Endpoint { namespace, pod, workload, ..Endpoint::node(&name) };
        let endpoint = if is_pod { of_pod() } else { Endpoint::node(&name) };
        let zone = Zone { name: ["eu-1a", "eu-1b"][node % 2].into(), region: "eu-1".into() };
        TransferEnd {
            address: None,
            endpoint: Some(Arc::new(endpoint)),
            place: Place::Zone(Arc::new(zone)),
            external: None,
        }
    }

    /// The page of a cluster with this many nodes that all report traffic with their neighbour, and all have the same
    /// troubles.
    fn page_of(nodes: usize) -> String {
        const SERIES: usize = 100;
        let now = Instant::now();
        let cluster_totals = ClusterTotals::new(SERIES, false, nodes);
        for node in 0..nodes {
            let mut accounting = Accounting::new(SERIES, false);
            for (from, to) in [(true, true), (true, false), (false, true), (false, false)] {
                let (source, destination) = (end(node, from), end(node + 1, to));
                let service = Service::new(443, 6, ServiceSide::Destination);
                let transfer = Transfer { source: &source, destination: &destination, service };
                accounting.add(&transfer, Counter { bytes: 100, packets: 1 }, now);
            }
            let mut sample = super::super::text::tests::sample();
            sample.counted.whose = crate::counters::CounterScope::Node(format!("n-{node}"));
            sample.counted.totals = accounting.totals().clone();
            cluster_totals.take(ReportBuilder::new(None, false).report(&sample), now).unwrap();
        }
        let totals: Arc<[CounterSnapshot]> = Arc::from([cluster_totals.counted()]);
        let health = Arc::new(Health::default());
        let (notices, _queue) = crate::cluster::Notices::new(Arc::clone(&health));
        notices.report((0..nodes).map(|node| crate::cluster::Notice::hook_changed(&format!("n-{node}"), "tcx", "why")));
        let families = Families { pods: true, ..Families::default() };
        let totals = watch::Sender::new(totals).subscribe();
        let controller = Arc::into_inner(measured()).unwrap();
        let controller =
            Controller { health, totals, cluster_totals: Arc::new(cluster_totals), families, ..controller };
        page(&Page::default().with(Arc::new(controller)), ExpositionFormat::Prometheus).unwrap()
    }

    #[test]
    fn the_page_of_three_thousand_nodes_has_no_more_series_than_that_of_three_hundred() {
        let [few, many] = [300, 3000].map(page_of);
        let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(series(&few), series(&many));
        let longest = |text: &str| text.lines().map(str::len).max().unwrap();
        // The names of nodes in the bounded sums may have one more digit.
        assert!(longest(&many) <= longest(&few) + 4, "{} {}", longest(&few), longest(&many));
        // Beyond those sums no label names a node.
        let of_sums = ["meridian_workload_", "meridian_pod_", "pod_cross_zone", "kubecost_"];
        let named = many.lines().find(|line| line.contains("n-1") && !of_sums.iter().any(|sum| line.starts_with(sum)));
        assert_eq!(named, None);
        let withheld = many.lines().find(|line| line.starts_with("meridian_notices_withheld_total{reason=\"Hook"));
        assert_eq!(withheld.and_then(|line| line.rsplit(' ').next()), Some("2968"));
    }
}
