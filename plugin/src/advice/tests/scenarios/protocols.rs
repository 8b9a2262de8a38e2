//! Databases, caches, scrapers, single pods, and traffic that leaves the cluster.

use super::{
    super::cluster::{Cluster, headless, plain},
    *,
};

pub(super) fn stores() -> Vec<Scenario> {
    let db = "StatefulSet shop/orders-db@b";
    vec![
        row(
            "reads of a database in another zone",
            on("1.34").pods("StatefulSet shop/orders-db", &[("b", 1)]).sent(WEB, db, "shop/orders-db:5432", [20, 180]),
            &[("R13", "StatefulSet shop/orders-db", "3.60", "all clients of other zones are in us-east-1a")],
        ),
        row("a database of writes alone", on("1.34").sent(WEB, db, "shop/orders-db:5432", [200, 20]), &[]),
        row(
            "of a database that the provider runs one end is charged",
            on("1.34").sent(WEB, "database orders@b", ":5432", [0, 200]),
            &[("R13", "database orders", "2.00", "only the client's end is charged")],
        ),
        row(
            "a cache with a replica in the zone",
            on("1.34").pods("StatefulSet shop/redis", &[("a", 1), ("b", 1)]).sent(
                WEB,
                "StatefulSet shop/redis@b",
                "shop/redis:6379",
                [10, 100],
            ),
            &[("R12", "StatefulSet shop/redis", "2.00", "\"confidence\":\"medium\"")],
        ),
        row(
            "Kafka's consumers, not its producers",
            on("1.34")
                .pods("StrimziPodSet data/kafka", &[("a", 1), ("b", 1)])
                .service("data/kafka", &[("a", 1), ("b", 1)], plain)
                .sent(WEB, "StrimziPodSet data/kafka@b", "data/kafka:9092", [100, 300]),
            &[("R9", "StrimziPodSet data/kafka", "6.00", "RackAwareReplicaSelector")],
        ),
        row(
            "Cassandra's drivers",
            on("1.34").sent(WEB, "StatefulSet data/cassandra@b", "data/cassandra:9042", [10, 100]),
            &[("R11", "StatefulSet data/cassandra", "2.00", "rack-aware")],
        ),
        row(
            "search",
            on("1.34").sent(WEB, "StatefulSet data/search@b", "data/search:9200", [10, 100]),
            &[("R14", "StatefulSet data/search", "2.00", "allocation.awareness")],
        ),
        row(
            "replication is explained",
            on("1.34").sent("StatefulSet shop/orders-db@a", db, "shop/orders-db:5432", [100, 100]),
            &[("R10", "StatefulSet shop/orders-db", "0.00", "\"usd_per_month\":\"4\"")],
        ),
        row(
            "pods of a Deployment that talk are no replicas",
            on("1.34").sent("Deployment shop/web@a", "Deployment shop/web@b", ":8080", [100, 100]),
            &[],
        ),
        row(
            "rings are explained",
            on("1.34").service("mon/ingester", &[("a", 1), ("b", 1)], headless).sent(
                "Deployment mon/distributor@a",
                "StatefulSet mon/loki-ingester@b",
                "mon/ingester:9095",
                [100, 10],
            ),
            &[("R15", "StatefulSet mon/loki-ingester", "0.00", "ring")],
        ),
        row(
            "a database in its own zone",
            on("1.34").sent("Deployment shop/web@b", db, "shop/orders-db:5432", [20, 1800]),
            &[],
        ),
    ]
}

/// Scrapes all of a shop from a zone.
fn scraped(cluster: Cluster, by: &str, sent: u64) -> Cluster {
    ["web", "cart", "orders"]
        .into_iter()
        .fold(cluster, |cluster, target| cluster.sent(by, &format!("Deployment shop/{target}@a"), ":9090", [1, sent]))
}

pub(super) fn scrapers_and_others() -> Vec<Scenario> {
    let (prometheus, collector) = ("StatefulSet mon/prometheus@b", "Deployment mon/collector@b");
    let many = |cluster: Cluster, count| cluster.pods("Deployment shop/web", &[("a", count)]);
    vec![
        row(
            "two fetch the same",
            scraped(scraped(on("1.34"), prometheus, 100), collector, 95),
            // The smaller one: 3 · 96 GB.
            &[(
                "R8",
                "Deployment mon/collector and StatefulSet mon/prometheus",
                "5.76",
                "costs less, Deployment mon/collector",
            )],
        ),
        row("not the same amount", scraped(scraped(on("1.34"), prometheus, 100), collector, 85), &[]),
        row(
            "not the same targets",
            scraped(scraped(on("1.34"), prometheus, 100), collector, 100).sent(
                collector,
                "Deployment shop/ledger@a",
                ":9090",
                [1, 20],
            ),
            &[],
        ),
        row(
            "a scraper of many",
            many(scraped(on("1.34"), prometheus, 100), 20),
            &[("R7", "StatefulSet mon/prometheus", "6.06", "action: keep")],
        ),
        row(
            "a client of many that is no scraper",
            many(on("1.34"), 100).sent("Deployment shop/gateway@b", "Deployment shop/web@a", ":8080", [100, 100]),
            &[],
        ),
        row(
            "one pod each",
            on("1.34").pods("Deployment shop/report", &[("a", 1)]).pods("StatefulSet shop/store", &[("b", 1)]).sent(
                "Deployment shop/report@a",
                "StatefulSet shop/store@b",
                "shop/store:7000",
                [40, 60],
            ),
            &[("R4", "Deployment shop/report and StatefulSet shop/store", "2.00", "\"values\":[\"us-east-1b\"]")],
        ),
        row(
            "two pods on one side",
            on("1.34").pods("Deployment shop/report", &[("a", 1)]).pods("StatefulSet shop/store", &[("b", 2)]).sent(
                "Deployment shop/report@a",
                "StatefulSet shop/store@b",
                ":7000",
                [40, 60],
            ),
            &[],
        ),
        row(
            "nobody moves to be near its monitoring",
            on("1.34").pods("Deployment shop/report", &[("a", 1)]).pods("Deployment mon/collector", &[("b", 1)]).sent(
                "Deployment shop/report@a",
                "Deployment mon/collector@b",
                ":4317",
                [60, 40],
            ),
            &[],
        ),
        row(
            "nobody moves to another region",
            on("1.34").pods("Deployment shop/report", &[("a", 1)]).pods("Deployment shop/store", &[("w", 1)]).sent(
                "Deployment shop/report@a",
                "Deployment shop/store@w",
                ":7000",
                [40, 60],
            ),
            &[],
        ),
        row(
            "a collector on every node",
            on("1.34").service("mon/agent", &[("a", 3), ("b", 3)], plain).sent(
                WEB,
                "DaemonSet mon/agent@b",
                "mon/agent:4317",
                [90, 10],
            ),
            &[("R5", "Service mon/agent", "2.00", "PreferSameNode")],
        ),
        row(
            "a collector on every node, before 1.34",
            on("1.33").service("mon/agent", &[("a", 3), ("b", 3)], plain).sent(
                WEB,
                "DaemonSet mon/agent@b",
                "mon/agent:4317",
                [90, 10],
            ),
            &[("R5", "Service mon/agent", "2.00", "\"internalTrafficPolicy\":\"Local\"")],
        ),
        row(
            "a load balancer from another zone, which has no list price",
            on("1.34").sent("loadbalancer front@a", "Deployment shop/web@b", "shop/web:8080", [40, 60]),
            &[("R16", "loadbalancer front", "0.00", "\"unpriced_bytes_per_month\":100000000000")],
        ),
        row(
            "a NAT gateway in another zone",
            on("1.34").sent(WEB, "nat nat-b@b", ":443", [40, 160]),
            &[("R17", "nat nat-b", "2.00", "NAT gateway in each zone")],
        ),
    ]
}
