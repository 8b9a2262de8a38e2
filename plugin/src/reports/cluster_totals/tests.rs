//! The totals against random histories of reports, agents and replicas.

use super::*;
use crate::{
    accounting::{Service, Totals},
    counters::{Sample, TableState},
    demo::topology::place,
    identity::Endpoint,
    reports::ReportBuilder,
};
use meridian_abi::{IpVersion, flow::ServiceSide, matrix::Direction};

mod hostile;

const SERIES: usize = 6;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn end(n: u64) -> TransferEnd {
    let endpoint =
        Endpoint { namespace: format!("ns{}", n % 3).into(), pod: format!("p{n}").into(), ..Endpoint::default() };
    // Some endpoints are unknown.
    let endpoint = (n % 5 != 4).then(|| Arc::new(endpoint));
    TransferEnd { address: Some([10, 0, 0, n as u8].into()), endpoint, place: place(n as usize % 4), external: None }
}

/// A node with its counters and the agent that reports them.
struct Agent {
    node: String,
    boot: u8,
    matrix: Matrix,
    accounting: Accounting,
    reporter: ReportBuilder,
}

impl Agent {
    fn new(n: usize) -> Self {
        let (accounting, reporter) = (Accounting::new(SERIES, false), ReportBuilder::new(None, false));
        Self { node: format!("node-{n}"), boot: 1, matrix: Matrix::default(), accounting, reporter }
    }

    fn sample(&self) -> Sample {
        let now = SystemTime::UNIX_EPOCH;
        let ((prefixes, zones, reloads), feed) = (((0, 0), (0, 0), (0, 0)), None);
        Sample {
            counted: CounterSnapshot {
                whose: CounterScope::Node(self.node.clone()),
                time: now,
                began: None,
                epoch: 0,
                matrix: self.matrix.clone(),
                stats: vec![(Stat::Loopback, Counter { bytes: 5, packets: 1 })],
                totals: self.accounting.totals().clone(),
            },
            boot_id: [self.boot; 16],
            hook: "netfilter",
            hook_reason: "test".into(),
            hook_changes: 0,
            refused_hook_steps: 0,
            device_bytes: None,
            foreign_filters: 0,
            restored_filters: 0,
            flow_entries: (0, 0),
            table: TableState { prefixes, zones, loaded: now, confirmed: now, reloads, addresses: 0, feed },
            drain_seconds: 0.0,
        }
    }

    /// A new agent continues with the same counters.
    fn restart(&mut self, now: Instant) {
        let saved = wire::sums(&self.accounting);
        self.accounting = self.accounting.without_counts();
        wire::restore(&mut self.accounting, saved, now);
        self.reporter = ReportBuilder::new(None, true);
    }

    /// The counters start from zero.
    fn reboot(&mut self) {
        (self.matrix, self.accounting) = (Matrix::default(), self.accounting.without_counts());
        self.reporter = ReportBuilder::new(None, false);
        self.boot += 1;
    }

    fn report(&mut self, to: &ClusterTotals, now: Instant) {
        to.take(self.reporter.report(&self.sample()), now).unwrap();
        self.reporter.accepted();
    }
}

fn cluster_totals() -> ClusterTotals {
    ClusterTotals::new(40, true, 10)
}

/// The traffic really sent.
#[derive(Default)]
struct Truth {
    matrix: Matrix,
    by_locality: ByLocality,
    by_known: ByLocality,
}

impl Truth {
    fn crossing(&self) -> u64 {
        self.by_locality.get(Locality::CrossZone).bytes + self.by_locality.get(Locality::CrossRegion).bytes
    }
}

fn send(agent: &mut Agent, random: &mut Random, truth: &mut Truth, now: Instant) {
    let (source, destination) = (end(random.below(12)), end(random.below(12)));
    let packets = 1 + random.below(9);
    let new = Counter { bytes: packets * (40 + random.below(1400)), packets };
    let (version, direction) = (IpVersion::V4, Direction::Egress);
    let pair = Pair { source: source.place.clone(), destination: destination.place.clone(), version, direction };
    truth.by_locality.add(pair.locality(), new);
    if source.endpoint.is_some() {
        truth.by_known.add(pair.locality(), new);
    }
    truth.matrix.add(pair.clone(), new);
    agent.matrix.add(pair, new);
    let service = Service::new([80, 443][random.below(2) as usize], 6, ServiceSide::Source);
    agent.accounting.add(&Transfer { source: &source, destination: &destination, service }, new, now);
}

/// Sends the leader's complete state to a standby replica.
fn mirror(leader: &ClusterTotals, standby: &ClusterTotals, now: Instant) -> broadcast::Receiver<MirrorResponse> {
    let (known, changes) = leader.mirror(now);
    known.into_iter().for_each(|message| standby.apply_mirrored(message, now).unwrap());
    changes
}

fn apply_changes(changes: &mut broadcast::Receiver<MirrorResponse>, standby: &ClusterTotals, now: Instant) {
    while let Ok(message) = changes.try_recv() {
        standby.apply_mirrored(message, now).unwrap();
    }
}

/// The sum of all bytes in the totals.
fn served(cluster_totals: &ClusterTotals) -> (u64, u64) {
    let counted = cluster_totals.counted();
    let matrix = counted.matrix.cells().map(|(_, counter)| counter.bytes).sum();
    (matrix, counted.totals.pods.sum().total().bytes)
}

fn crossing(cluster_totals: &ClusterTotals) -> u64 {
    cluster_totals.take_interval().iter().map(|line| line.counter.bytes).sum()
}

fn is_exact(cluster_totals: &ClusterTotals, truth: &Truth, seed: u64) {
    let counted = cluster_totals.counted();
    assert_eq!(counted.matrix, truth.matrix, "seed {seed}");
    let Totals { pods, transfers, workloads, senders, namespaces } = &counted.totals;
    let sums = [pods.sum(), transfers.sum(), workloads.sum(), namespaces.sum()];
    assert_eq!(sums, [truth.by_locality; 4], "seed {seed}");
    assert_eq!(senders.sum(), truth.by_known, "seed {seed}");
}

#[test]
fn reports_that_are_lost_or_repeated_and_holders_that_die_cost_nothing() {
    for seed in 0..40 {
        let (mut random, mut truth, mut now) = (Random(seed), Truth::default(), Instant::now());
        let mut agents: Vec<Agent> = (0..4).map(Agent::new).collect();
        let (mut leader, mut standby) = (cluster_totals(), cluster_totals());
        let mut changes = mirror(&leader, &standby, now);
        let (mut logged, mut last) = (0, (0, 0));
        for _ in 0..600 {
            let agent = &mut agents[random.below(4) as usize];
            match random.below(16) {
                0..=6 => send(agent, &mut random, &mut truth, now),
                7..=9 => agent.report(&leader, now),
                // The report is lost with its stream.
                10 => {
                    agent.reporter.report(&agent.sample());
                    agent.reporter.begin();
                }
                // The report is accepted, but the acknowledgement is lost.
                11 => {
                    leader.take(agent.reporter.report(&agent.sample()), now).unwrap();
                    agent.reporter.begin();
                }
                12 => {
                    now += Duration::from_secs(100);
                    agent.accounting.expire(now);
                    leader.expire(now);
                    standby.expire(now);
                }
                13 => {
                    // A graceful end: the last report is accepted.
                    agent.report(&leader, now);
                    if random.below(2) == 0 { agent.restart(now) } else { agent.reboot() }
                }
                14 => logged += crossing(&leader),
                // The leader dies; the standby takes over, and another replica becomes the standby.
                _ => {
                    apply_changes(&mut changes, &standby, now);
                    (leader, standby) = (standby, cluster_totals());
                    agents.iter_mut().for_each(|agent| agent.reporter.begin());
                    changes = mirror(&leader, &standby, now);
                }
            }
            apply_changes(&mut changes, &standby, now);
            let served = served(&leader);
            assert!(served.0 >= last.0 && served.1 >= last.1, "seed {seed}: a total goes backwards");
            last = served;
        }
        agents.iter_mut().for_each(|agent| agent.report(&leader, now));
        is_exact(&leader, &truth, seed);
        apply_changes(&mut changes, &standby, now);
        is_exact(&standby, &truth, seed);
        assert_eq!(logged + crossing(&leader), truth.crossing(), "seed {seed}: each byte is logged once");
    }
}

#[test]
fn a_new_controller_gets_all_counts_from_the_agents() {
    for seed in 0..20 {
        let (mut random, mut truth, now) = (Random(seed), Truth::default(), Instant::now());
        let mut agents: Vec<Agent> = (0..4).map(Agent::new).collect();
        let mut leader = cluster_totals();
        for round in 0..300 {
            let agent = &mut agents[random.below(4) as usize];
            match random.below(8) {
                0..=4 => send(agent, &mut random, &mut truth, now),
                5 => agent.report(&leader, now),
                6 => agent.restart(now),
                _ if round % 50 == 0 => {
                    leader = cluster_totals();
                    agents.iter_mut().for_each(|agent| agent.reporter.begin());
                }
                _ => {}
            }
        }
        agents.iter_mut().for_each(|agent| agent.report(&leader, now));
        is_exact(&leader, &truth, seed);
        // An hour later; the controller was away the whole time.
        (0..100).for_each(|n| send(&mut agents[n % 4], &mut random, &mut truth, now));
        leader = cluster_totals();
        agents.iter_mut().for_each(|agent| {
            agent.reporter.begin();
            agent.report(&leader, now);
        });
        is_exact(&leader, &truth, seed);
        assert_eq!(crossing(&leader), 0, "what another one may have logged is not logged again");
    }
}

/// The bytes for the history since the last call.
fn grown(cluster_totals: &ClusterTotals, all: bool) -> u64 {
    let TrafficDelta { transfers, others, .. } = cluster_totals.take_growth(all);
    let transfers = transfers.iter().map(|(_, counter)| counter.bytes).sum::<u64>();
    transfers + others.iter().map(|(_, counter)| counter.bytes).sum::<u64>()
}

#[test]
fn histories_of_two_replicas_grow_alike_and_a_change_of_leader_counts_nothing_twice() {
    let now = Instant::now();
    let [leader, standby] = [(), ()].map(|()| cluster_totals().with_growth());
    let (mut random, mut truth, mut agent) = (Random(7), Truth::default(), Agent::new(0));
    let mut changes = mirror(&leader, &standby, now);
    let mut sums = [0, 0];
    for round in 0..30 {
        (0..5).for_each(|_| send(&mut agent, &mut random, &mut truth, now));
        if round < 20 {
            agent.report(&leader, now);
            apply_changes(&mut changes, &standby, now);
            sums[0] += grown(&leader, round == 19);
        } else {
            agent.reporter.begin();
            agent.report(&standby, now);
        }
        sums[1] += grown(&standby, round == 19 || round == 29);
        if round == 19 {
            assert_eq!(sums[0], sums[1]);
        }
    }
    assert_eq!(sums[1], truth.by_locality.total().bytes);
    assert!(sums[0] < sums[1]);
}

#[test]
fn half_a_mirror_changes_nothing() {
    let (mut random, mut truth, now) = (Random(3), Truth::default(), Instant::now());
    let mut agents: Vec<Agent> = (0..4).map(Agent::new).collect();
    let (leader, standby) = (cluster_totals(), cluster_totals());
    for agent in &mut agents {
        (0..20).for_each(|_| send(agent, &mut random, &mut truth, now));
        agent.report(&leader, now);
    }
    let (known, _) = leader.mirror(now);
    let half = known.len() / 2;
    known.into_iter().take(half).for_each(|message| standby.apply_mirrored(message, now).unwrap());
    assert!(!standby.is_synced());
    agents.iter_mut().for_each(|agent| {
        agent.reporter.begin();
        agent.report(&standby, now);
    });
    is_exact(&standby, &truth, 3);
}

#[test]
fn a_standby_that_mirrored_to_the_end_has_all_served_totals() {
    let now = Instant::now();
    let (holder, standby) = (cluster_totals(), cluster_totals());
    let mut changes = mirror(&holder, &standby, now);
    assert!(standby.is_synced());
    let (mut agent, mut truth) = (Agent::new(1), Truth::default());
    send(&mut agent, &mut Random(7), &mut truth, now);
    agent.report(&holder, now);
    apply_changes(&mut changes, &standby, now);
    assert!(!standby.is_complete(), "more may be taken there");
    assert!(holder.close());
    let late = agent.reporter.report(&agent.sample());
    assert!(matches!(holder.take(late, now), Err(Refused::Closed)));
    apply_changes(&mut changes, &standby, now);
    assert!(standby.is_complete());
    assert_eq!(served(&standby), served(&holder));
    // Another leader continues from there.
    let other = cluster_totals();
    mirror(&other, &standby, now);
    assert!(!standby.is_complete());
    standby.apply_mirrored(MirrorResponse { response: Some(Response::Last(true)) }, now).unwrap();
    standby.missed_a_term();
    standby.mirror_ended();
    assert!(!standby.is_complete() && !standby.is_synced());
}

#[test]
fn a_silent_node_is_silent_on_a_later_mirror_too() {
    let (leader, standby, now) = (cluster_totals(), cluster_totals(), Instant::now());
    Agent::new(0).report(&leader, now);
    let later = now + Duration::from_secs(3600);
    Agent::new(1).report(&leader, later);
    mirror(&leader, &standby, later);
    let ages = |cluster_totals: &ClusterTotals| {
        cluster_totals.nodes(later).into_iter().map(|node| node.age.as_secs()).collect::<Vec<_>>()
    };
    assert_eq!(ages(&standby), [3600, 0]);
    standby.expire(now + FORGOTTEN + Duration::from_secs(61));
    assert_eq!(ages(&standby), [0], "the one is forgotten, the other is not");
}

#[test]
fn nonsense_is_refused_and_adds_nothing() {
    let (cluster_totals, now) = (ClusterTotals::new(4, false, 1), Instant::now());
    let agent = |node| Agent { node, ..Agent::new(0) };
    let report = |node: &str| ReportBuilder::new(None, false).report(&agent(node.to_owned()).sample());
    let good = report("node-a");
    let line = v1::Line::default();
    let bad = [
        (ReportRequest { node: String::new(), ..good.clone() }, "a report names its node"),
        (ReportRequest { boot_id: vec![1], ..good.clone() }, "the boot id is not 16 bytes"),
        (ReportRequest { pods: vec![line.clone()], ..good.clone() }, "a pair has one counter"),
        (ReportRequest { ended: vec![line], ..good.clone() }, "a pair has two ends"),
        (
            ReportRequest { zones: vec![v1::ZonePair::default()], ..good.clone() },
            "a pair of zones is of IP version 4 or 6",
        ),
    ];
    for (report, reason) in bad {
        assert_eq!(cluster_totals.take(report, now).unwrap_err().to_string(), reason);
    }
    assert_eq!(cluster_totals.counted().whose, CounterScope::Cluster(Vec::new()));
    cluster_totals.take(good, now).unwrap();
    assert_eq!(
        cluster_totals.take(report("node-b"), now).unwrap_err().to_string(),
        "there are reports of 1 nodes already"
    );
}

/// A report of a node with these pairs of invented pods, each of a byte.
fn invented(node: &str, from: usize, count: usize) -> ReportRequest {
    let endpoints = (from..from + count).map(|n| v1::EndpointName {
        namespace: "shop".into(),
        pod: format!("invented-{n}"),
        ..Default::default()
    });
    let counter = v1::Counter { bytes: 1, packets: 1 };
    let pods = (1..=count as u32).map(|endpoint| v1::Line {
        source: Some(v1::End { endpoint, ..Default::default() }),
        destination: Some(v1::End::default()),
        counters: vec![counter],
        ..Default::default()
    });
    ReportRequest {
        node: node.into(),
        boot_id: vec![1; 16],
        names: Some(v1::Names { endpoints: endpoints.collect(), zones: Vec::new() }),
        pods: pods.collect(),
        ..ReportRequest::default()
    }
}

#[test]
fn invented_pairs_of_a_node_are_bounded_however_often_it_reports() {
    let totals = ClusterTotals::new(100, false, 10);
    for n in 0..8 {
        totals.take(invented("a", 60_000 * n, 60_000), Instant::now()).unwrap();
    }
    let mut inner = totals.lock();
    assert_eq!(inner.nodes["a"].pods.len(), PAIRS);
    inner.names.expire();
    assert!(inner.names.len() <= PAIRS + 4 * 100, "{}", inner.names.len());
}

#[test]
fn a_pair_beyond_what_was_attributed_takes_nothing_of_what_others_send_later() {
    let (totals, now) = (cluster_totals(), Instant::now());
    let mut agent = Agent::new(0);
    let add = |agent: &mut Agent, [from, to]: [u64; 2], bytes| {
        let transfer = Transfer { source: &end(from), destination: &end(to), service: Service::default() };
        agent.accounting.add(&transfer, Counter { bytes, packets: 1 }, now);
    };
    // Zones 0 and 1, in turns of pairs.
    add(&mut agent, [0, 1], 1000);
    let mut report = agent.reporter.report(&agent.sample());
    report.attributed.iter_mut().for_each(|counter| counter.bytes = counter.bytes.min(400));
    totals.take(report, now).unwrap();
    agent.reporter.accepted();
    add(&mut agent, [0, 1], 1);
    add(&mut agent, [8, 5], 70);
    let mut report = agent.reporter.report(&agent.sample());
    report.attributed.iter_mut().for_each(|counter| counter.bytes = counter.bytes.min(471));
    totals.take(report, now).unwrap();
    let sums: BTreeMap<String, u64> = totals
        .counted()
        .totals
        .pods
        .series()
        .map(|(key, total)| (key.source.0.as_ref().unwrap().0.pod.to_string(), total.total().bytes))
        .collect();
    assert_eq!(sums, BTreeMap::from([("p0".to_owned(), 401), ("p8".to_owned(), 70)]));
}

#[test]
fn a_counter_that_can_not_be_is_refused_and_no_total_overflows_or_falls() {
    let totals = ClusterTotals::new(100, false, 100);
    let report = |node: &str, boot: u8, bytes: u64| ReportRequest {
        node: node.into(),
        boot_id: vec![boot; 16],
        attributed: vec![v1::Counter { bytes, packets: 1 }],
        reasons: vec![wire::reason(Stat::Loopback, Counter { bytes, packets: 1 })],
        ..ReportRequest::default()
    };
    let now = Instant::now();
    assert!(totals.take(report("a", 1, u64::MAX), now).is_err());
    totals.take(report("a", 1, 1000), now).unwrap();
    // Counters that begin again and again.
    let taken = (2..=255).filter(|boot| totals.take(report("a", *boot, MAX_COUNTER / 8), now).is_ok()).count();
    assert!(taken <= 4, "{taken}: what is attributed and what has a reason count");
    // And of many nodes.
    let nodes = (0..90).filter(|n| totals.take(report(&format!("n{n}"), 1, MAX_COUNTER / 2), now).is_ok()).count();
    assert!(nodes <= 16, "{nodes}");
    let before = totals.counted().stats[Stat::Loopback as usize].1.bytes;
    totals.take(report("honest", 1, 1000), now).unwrap();
    assert_eq!(totals.counted().stats[Stat::Loopback as usize].1.bytes, before + 1000);
}
