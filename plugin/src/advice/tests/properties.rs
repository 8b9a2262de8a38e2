//! Random clusters: the same advice in any order of the input, and no byte saved twice.

use super::{
    cluster::{Cluster, cilium, close, headless, node_port, plain, same_zone},
    *,
};
use crate::catalogue::{DataPlane, ServiceTopology};
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};

const ZONES: [&str; 5] = ["a", "b", "c", "w", "?"];
const WORKLOADS: [&str; 12] = [
    "Deployment shop/web",
    "Deployment shop/cart",
    "StatefulSet shop/orders-db",
    "StatefulSet mon/prometheus",
    "Deployment mon/collector",
    "DaemonSet mon/agent",
    "StatefulSet mon/loki-ingester",
    "StrimziPodSet data/kafka",
    "Node node-1",
    "database rds",
    "loadbalancer front",
    "nat gateway",
];
const SERVICES: [&str; 5] = ["", "shop/cart", "shop/web", "mon/agent", "data/kafka"];
const PORTS: [u16; 10] = [0, 53, 80, 4317, 5432, 6379, 9090, 9092, 9095, 15_008];

/// Some transfer, as text that the cluster takes.
type Sent = (String, String, String, [u64; 2]);

fn transfer(random: &mut StdRng) -> Sent {
    let mut end = || format!("{}@{}", WORKLOADS.choose(random).unwrap(), ZONES.choose(random).unwrap());
    let (client, server) = (end(), end());
    let service = format!("{}:{}", SERVICES.choose(random).unwrap(), PORTS.choose(random).unwrap());
    (client, server, service, [random.random_range(0..1 << 40), random.random_range(0..1 << 40)])
}

fn cluster(random: &mut StdRng) -> Cluster {
    let planes =
        [DataPlane::KubeProxy, DataPlane::Unknown, cilium(19, ServiceTopology::On), cilium(20, ServiceTopology::Off)];
    let version = ["", "1.30", "1.33", "1.34"].choose(random).unwrap();
    let mut cluster = Cluster::new(version, *planes.choose(random).unwrap());
    cluster.provider_of(["aws", "gcp", "azure", ""].choose(random).unwrap());
    for service in SERVICES.iter().skip(1) {
        let set = *[plain, close, same_zone, headless, node_port].choose(random).unwrap();
        let endpoints: Vec<(&str, u32)> =
            ["a", "b", "c", ""].into_iter().map(|zone| (zone, random.random_range(0..4))).collect();
        cluster = cluster.service(service, &endpoints, set);
    }
    for workload in WORKLOADS {
        let pods: Vec<(&str, u32)> =
            ["a", "b", "w"].into_iter().map(|zone| (zone, random.random_range(0..3))).collect();
        if random.random() {
            cluster = cluster.pods(workload, &pods);
        }
    }
    cluster
}

fn filled(cluster: &Cluster, hours: &[Vec<Sent>]) -> Traffic {
    let mut traffic = Traffic::default();
    for (hour, sent) in hours.iter().enumerate() {
        let filled = sent.iter().fold(cluster.empty_at(hour as u64), |cluster, (client, server, service, bytes)| {
            cluster.exact(client, server, service, *bytes)
        });
        filled.blocks().iter().for_each(|block| traffic.add(block));
    }
    traffic.set_recorded(cluster.recorded);
    traffic
}

#[test]
fn advice_is_the_same_in_any_order_and_saves_no_byte_twice() {
    let mut random = StdRng::seed_from_u64(23);
    let mut found = std::collections::BTreeSet::new();
    for round in 0..150 {
        let cluster = cluster(&mut random);
        let mut hours: Vec<Vec<Sent>> = (0..random.random_range(1..4))
            .map(|_| (0..random.random_range(0..60)).map(|_| transfer(&mut random)).collect())
            .collect();
        let advice = |hours: &[Vec<Sent>]| {
            let traffic = filled(&cluster, hours);
            let snapshot = Snapshot { traffic: &traffic, catalogue: &cluster.catalogue, prices: &cluster.prices };
            Advice::new(&snapshot, &Options::all())
        };
        let first = advice(&hours);
        // The blocks and their rows come in another order.
        hours.iter_mut().for_each(|sent| sent.shuffle(&mut random));
        let order: Vec<usize> = (0..hours.len()).rev().collect();
        let turned: Vec<Vec<Sent>> = order.into_iter().map(|hour| hours[hour].clone()).collect();
        assert_eq!(first, advice(&turned), "round {round}");
        assert!(
            first.saving.bytes <= first.crossing.bytes && first.saving.cost <= first.crossing.cost,
            "round {round}"
        );
        let about: u64 = first.findings.iter().map(|finding| finding.traffic.bytes).sum();
        assert!(about <= first.crossing.bytes, "round {round}: a byte is in two findings");
        for finding in &first.findings {
            assert!(finding.saving.bytes <= finding.traffic.bytes && finding.saving.cost <= finding.traffic.cost);
            found.insert(finding.rule);
        }
        let mut ids: Vec<&str> = first.findings.iter().map(|finding| finding.id.as_str()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "round {round}: two findings have one id");
    }
    assert!(found.len() >= 10, "the clusters are too dull: {found:?}");
}
