//! The same histories with a member that lies: the thief of one node's token.
//!
//! Each history runs twice, with and without the thief. Its reports pass the checks of the service, as all do.

use super::*;
use crate::{
    proto::v1::{Counter as Count, Place as PlaceName, Reason, ZonePair},
    reports::plausible::{self, ZoneNames},
};

const THIEF: &str = "node-thief";

/// The zones of the table.
struct Zones;

impl ZoneNames for Zones {
    fn is_whole(&self) -> bool {
        true
    }

    fn contains(&self, zone: &str, region: &str) -> bool {
        (0..4).any(|n| matches!(place(n), Place::Zone(known) if (&*known.name, &*known.region) == (zone, region)))
    }
}

/// A leader with its standby.
struct Replicas {
    leader: ClusterTotals,
    standby: ClusterTotals,
    changes: broadcast::Receiver<MirrorResponse>,
    logged: u64,
    last: (u64, u64),
}

impl Replicas {
    fn start(now: Instant) -> Self {
        let (leader, standby) = (cluster_totals(), cluster_totals());
        let changes = mirror(&leader, &standby, now);
        Self { leader, standby, changes, logged: 0, last: (0, 0) }
    }

    /// A report, as the service takes it. False: it is refused.
    fn take(&self, mut report: ReportRequest, now: Instant) -> bool {
        plausible::check(&mut report, &Zones).is_ok() && self.leader.take(report, now).is_ok()
    }

    fn change_leader(&mut self, now: Instant) {
        apply_changes(&mut self.changes, &self.standby, now);
        self.leader = std::mem::replace(&mut self.standby, cluster_totals());
        self.changes = mirror(&self.leader, &self.standby, now);
    }

    /// The standby follows, and no total goes backwards.
    fn settle(&mut self, seed: u64, now: Instant) {
        apply_changes(&mut self.changes, &self.standby, now);
        let served = served(&self.leader);
        assert!(served.0 >= self.last.0 && served.1 >= self.last.1, "seed {seed}: a total goes backwards");
        self.last = served;
    }

    /// The counts of a node, whatever their order.
    fn node(&self, name: &str) -> (BTreeMap<Pair, Counter>, Stats, Vec<String>, [ByLocality; 2]) {
        let inner = self.leader.lock();
        let node = &inner.nodes[name];
        let mut pods: Vec<String> = node.pods.iter().map(|(key, counter)| format!("{key:?} {counter:?}")).collect();
        pods.sort();
        (node.matrix.clone(), node.stats, pods, [node.attributed, node.sent_by_known])
    }
}

/// The thief, with the reports that it has sent and seen.
struct Thief {
    random: Random,
    known: Vec<ReportRequest>,
}

impl Thief {
    fn amount(&mut self) -> u64 {
        let few = self.random.below(5000);
        match self.random.below(40) {
            0 => u64::MAX,
            1 => MAX_COUNTER,
            2 => MAX_COUNTER + 1,
            3 => MAX_COUNTER / 8,
            4..=8 => 0,
            _ => few,
        }
    }

    fn counter(&mut self) -> Count {
        Count { bytes: self.amount(), packets: self.amount().min(1 << 40) }
    }

    fn place(&mut self) -> Option<PlaceName> {
        let known = |n| match place(n) {
            Place::Zone(zone) => (zone.name.to_string(), zone.region.to_string()),
            other => (other.to_string(), String::new()),
        };
        let (zone, region) = match self.random.below(6) {
            0 => (format!("invented-{}", self.random.below(1000)), "r".to_owned()),
            1 => ("internet".to_owned(), "r".to_owned()),
            n => known(n as usize % 4),
        };
        (self.random.below(8) > 0).then_some(PlaceName { zone, region })
    }

    /// An earlier report of anybody, or an empty one, as one of its own node, and with changes.
    fn report(&mut self) -> ReportRequest {
        let empty = ReportRequest { boot_id: vec![7; 16], ..ReportRequest::default() };
        let index = self.random.below(self.known.len() as u64 + 1) as usize;
        let mut report = self.known.get(index).cloned().unwrap_or(empty);
        report.node = THIEF.into();
        for _ in 0..self.random.below(6) {
            self.change(&mut report);
        }
        self.known.push(report.clone());
        if self.known.len() > 30 {
            self.known.remove(self.random.below(30) as usize);
        }
        report
    }

    fn change(&mut self, report: &mut ReportRequest) {
        let (counter, n) = (self.counter(), self.random.below(1 << 20) as usize);
        match self.random.below(14) {
            0 => report.boot_id = vec![self.random.below(4) as u8; 16],
            1 => report.whole = !report.whole,
            2 => report.taken_before = !report.taken_before,
            3 => report.attributed = (0..self.random.below(7)).map(|_| self.counter()).collect(),
            4 => report.sent_by_known = (0..self.random.below(7)).map(|_| self.counter()).collect(),
            5 => report.time = Some(prost_types::Timestamp { seconds: i64::MIN + n as i64, nanos: -1 }),
            6 => report.ended.extend(report.pods.get(n % report.pods.len().max(1)).cloned()),
            7 => report.pods.extend(report.pods.get(n % report.pods.len().max(1)).cloned()),
            8 => report.names = self.known.get(n % self.known.len().max(1)).and_then(|known| known.names.clone()),
            9 => {
                let (source, destination) = (self.place(), self.place());
                let direction = ["egress", "ingress", "sideways"][n % 3].to_owned();
                let ip_version = [4, 6, 4, 6, 5][n % 5];
                let pair = ZonePair {
                    source,
                    destination,
                    direction,
                    ip_version,
                    counter: Some(counter),
                    ..ZonePair::default()
                };
                report.zones.extend((0..1 + n % 2).map(|_| pair.clone()));
            }
            10 => report.reasons.push(Reason {
                name: ["loopback", "no_ports", "invented"][n % 3].into(),
                outside: n % 2 == 0,
                counter: Some(counter),
            }),
            11 => {
                if let Some(pair) = report.zones.first_mut() {
                    pair.counter = Some(counter);
                }
            }
            12 => {
                let of_all = report.names.iter_mut().flat_map(|names| &mut names.endpoints);
                of_all.for_each(|name| name.workload_name = format!("of-the-thief-{n}"));
            }
            _ => {
                if let Some(line) = report.pods.first_mut() {
                    line.counters = vec![counter; [1, 1, 1, 0, 2][n % 5]];
                }
            }
        }
    }
}

/// Checks what the thief could change: its own counts, and no more of the sums than a node may add.
fn is_bounded(clean: &Replicas, attacked: &Replicas, seed: u64) {
    for n in 0..3 {
        let name = format!("node-{n}");
        assert_eq!(clean.node(&name), attacked.node(&name), "seed {seed}: the counts of an honest node");
    }
    let (honest, all) = (clean.leader.counted(), attacked.leader.counted());
    let mut more = 0;
    for (pair, counter) in all.matrix.cells() {
        let before = honest.matrix.get(pair);
        more += counter.bytes.checked_sub(before.bytes).expect("the thief takes nothing away");
    }
    assert!(honest.matrix.cells().all(|(pair, counter)| all.matrix.get(pair).bytes >= counter.bytes));
    let pods = all.totals.pods.sum().total().bytes - honest.totals.pods.sum().total().bytes;
    let logged = attacked.logged - clean.logged;
    assert!(more <= MAX_COUNTER && pods <= MAX_COUNTER && logged <= MAX_COUNTER, "seed {seed}: {more} {pods} {logged}");
    let mut inner = attacked.leader.lock();
    assert_eq!(inner.nodes.len(), 4, "seed {seed}");
    let zones = 4 + 2;
    assert!(inner.nodes.get(THIEF).is_none_or(|node| node.matrix.len() <= zones * zones * 4), "seed {seed}");
    let pairs: usize = inner.nodes.values().map(|node| node.pods.len()).sum();
    inner.names.expire();
    assert!(inner.names.len() <= 2 * pairs + 40, "seed {seed}: {}", inner.names.len());
    assert!(all.totals.pods.len() <= SERIES.max(40) && all.totals.namespaces.len() <= 40);
}

#[test]
fn a_member_that_lies_changes_its_own_counts_alone() {
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..20 {
        let (mut random, mut truth, mut now) = (Random(seed), Truth::default(), Instant::now());
        let mut thief = Thief { random: Random(seed + 1000), known: Vec::new() };
        let mut agents: Vec<Agent> = (0..3).map(Agent::new).collect();
        let [mut clean, mut attacked] = [Replicas::start(now), Replicas::start(now)];
        for _ in 0..400 {
            let agent = &mut agents[random.below(3) as usize];
            match random.below(18) {
                0..=6 => send(agent, &mut random, &mut truth, now),
                7..=8 => report(agent, &mut thief, [&clean, &attacked], now),
                9 => {
                    report(agent, &mut thief, [&clean, &attacked], now);
                    if random.below(2) == 0 { agent.restart(now) } else { agent.reboot() }
                }
                10 => {
                    now += Duration::from_secs(100);
                    agent.accounting.expire(now);
                    let all = [&clean, &attacked].map(|replicas| [&replicas.leader, &replicas.standby]);
                    all.into_iter().flatten().for_each(|totals| totals.expire(now));
                }
                11 => [&mut clean, &mut attacked].into_iter().for_each(|replicas| {
                    replicas.logged += crossing(&replicas.leader);
                }),
                12 => {
                    [&mut clean, &mut attacked].into_iter().for_each(|replicas| replicas.change_leader(now));
                    agents.iter_mut().for_each(|agent| agent.reporter.begin());
                }
                _ => {
                    let is_taken = attacked.take(thief.report(), now);
                    *(if is_taken { &mut taken } else { &mut refused }) += 1;
                }
            }
            clean.settle(seed, now);
            attacked.settle(seed, now);
        }
        attacked.take(ReportRequest { node: THIEF.into(), boot_id: vec![1; 16], ..ReportRequest::default() }, now);
        agents.iter_mut().for_each(|agent| report(agent, &mut thief, [&clean, &attacked], now));
        for replicas in [&mut clean, &mut attacked] {
            replicas.settle(seed, now);
            replicas.logged += crossing(&replicas.leader);
            apply_changes(&mut replicas.changes, &replicas.standby, now);
            assert_eq!(served(&replicas.leader), served(&replicas.standby), "seed {seed}");
        }
        is_exact(&clean.leader, &truth, seed);
        is_bounded(&clean, &attacked, seed);
    }
    assert!(taken > 200 && refused > 50, "{taken} {refused}");
}

/// An honest agent's report is taken everywhere; the thief may know it.
fn report(agent: &mut Agent, thief: &mut Thief, replicas: [&Replicas; 2], now: Instant) {
    let report = agent.reporter.report(&agent.sample());
    thief.known.push(report.clone());
    for replicas in replicas {
        assert!(replicas.take(report.clone(), now), "an honest report is refused");
    }
    agent.reporter.accepted();
}

#[test]
fn a_thief_adds_no_more_by_outlasting_leaders_or_the_memory_of_its_node() {
    let mut now = Instant::now();
    let lie = |boot: u8| ReportRequest {
        node: THIEF.into(),
        boot_id: vec![boot; 16],
        reasons: vec![wire::reason(Stat::Loopback, Counter { bytes: MAX_COUNTER, packets: 1 })],
        ..ReportRequest::default()
    };
    let mut replicas = Replicas::start(now);
    for boot in 1..=40 {
        replicas.take(lie(boot), now);
        replicas.change_leader(now);
        replicas.settle(0, now);
    }
    let lost = |replicas: &Replicas| replicas.leader.counted().stats[Stat::Loopback as usize].1.bytes;
    assert_eq!(lost(&replicas), MAX_COUNTER);
    // A node that was silent for long is forgotten. No total overflows however often that happens.
    for boot in 41..=80 {
        now += FORGOTTEN + Duration::from_secs(60);
        [&replicas.leader, &replicas.standby].into_iter().for_each(|totals| totals.expire(now));
        replicas.take(lie(boot), now);
        replicas.settle(0, now);
    }
    assert_eq!(lost(&replicas), 15 * MAX_COUNTER, "the sixteenth would overflow");
    replicas.change_leader(now);
    assert!(!replicas.take(lie(81), now));
    assert_eq!(lost(&replicas), 15 * MAX_COUNTER);
}
