//! Clusters that look like those of a rule and are not, and unusual ones that are.

use super::{
    super::cluster::{Cluster, cilium, close, headless, plain, same_zone},
    *,
};
use crate::catalogue::{Service, ServiceTopology};

const BOTH: &[(&str, u32)] = &[("a", 1), ("b", 1)];

fn cart(cluster: Cluster, set: fn(&mut Service)) -> Cluster {
    even(cluster).service("shop/cart", BOTH, set)
}

pub(super) fn services() -> Vec<Scenario> {
    vec![
        row(
            "a spelling of the annotation that Kubernetes does not read asks for nothing",
            cart(on("1.34"), |service| service.topology_mode = Some("AUTO".to_owned())),
            &[("R1", "Service shop/cart", "2.00", "PreferSameZone")],
        ),
        row(
            "an annotation that Kubernetes does not read does not win over the field",
            cart(on("1.34"), |service| {
                close(service);
                service.topology_mode = Some("AUTO".to_owned());
            }),
            &[("R2", "Service shop/cart", "2.00", "the connections are older than the change")],
        ),
        row(
            "the deprecated value is a preference on 1.35, too",
            cart(on("1.35"), close),
            &[("R2", "Service shop/cart", "2.00", "the connections are older than the change")],
        ),
        row(
            "PreferSameNode is a preference for the zone, too",
            cart(on("1.35"), |service| {
                close(service);
                service.distribution = Some("PreferSameNode".to_owned());
            }),
            &[("R2", "Service shop/cart", "2.00", "the connections are older than the change")],
        ),
        row(
            "pods of a StatefulSet by their own names",
            on("1.34").service("shop/store", BOTH, headless).sent(
                WEB,
                "StatefulSet shop/store@b",
                "shop/store:7000",
                [50, 50],
            ),
            &[],
        ),
        row(
            "a service without a selector has hand-made endpoints with zones",
            cart(on("1.34"), |service| service.selector.clear()),
            &[("R1", "Service shop/cart", "2.00", "PreferSameZone")],
        ),
        row(
            "hand-made endpoints without zones get no hints",
            even(on("1.34")).service("shop/cart", &[("", 2)], |service| service.selector.clear()),
            &[("R3", "Service shop/cart in us-east-1a, us-east-1b", "2.00", "\"patch\":null")],
        ),
        row(
            "two ports of a service are one finding",
            cart(on("1.34"), plain).sent(WEB, CART_B, "shop/cart:9000", [0, 100]),
            &[("R1", "Service shop/cart", "4.00", "1.33 times the load that they have now: add 1")],
        ),
        row(
            "a database's port and another one of the same pods are two findings",
            on("1.34")
                .service("shop/store", BOTH, plain)
                .sent(WEB, "StatefulSet shop/store@b", "shop/store:5432", [0, 100])
                .sent(WEB, "StatefulSet shop/store@b", "shop/store:8080", [0, 100])
                .sent("Deployment shop/web@b", "StatefulSet shop/store@b", "shop/store:8080", [0, 200]),
            &[
                ("R13", "StatefulSet shop/store", "2.00", "replica"),
                ("R1", "Service shop/store", "2.00", "PreferSameZone"),
            ],
        ),
        row(
            "metrics of a DNS server do not make it another service",
            on("1.34")
                .service("kube-system/kube-dns", BOTH, plain)
                .sent(WEB, "Deployment kube-system/coredns@b", "kube-system/kube-dns:53", [30, 30])
                .sent(WEB, "Deployment kube-system/coredns@b", "kube-system/kube-dns:9153", [1, 2])
                .sent("Deployment shop/web@b", "Deployment kube-system/coredns@b", "kube-system/kube-dns:53", [60, 60]),
            &[("R6", "Service kube-system/kube-dns", "1.26", "NodeLocal DNSCache")],
        ),
        row(
            "a mesh's proxies may ignore a preference that is not set yet",
            on("1.34").service("shop/cart", BOTH, plain).sent(WEB, CART_B, "shop/cart:15008", [10, 90]).sent(
                "Deployment shop/web@b",
                CART_B,
                "shop/cart:15008",
                [10, 90],
            ),
            &[("R1", "Service shop/cart", "2.00", "\"confidence\":\"low\"")],
        ),
        row(
            "Cilium 1.20 with service topology knows PreferSameZone",
            cart(Cluster::new("1.35", cilium(20, ServiceTopology::On)), same_zone),
            &[("R2", "Service shop/cart", "2.00", "the connections are older than the change")],
        ),
        row(
            "without service topology Cilium 1.19 is asked for that first",
            cart(Cluster::new("1.35", cilium(19, ServiceTopology::Off)), same_zone),
            &[("R2", "Service shop/cart", "2.00", "its service topology is off")],
        ),
        row(
            "a client whose zone is another region",
            on("1.34").service("shop/cart", BOTH, plain).sent(
                "Deployment shop/web@w",
                CART_B,
                "shop/cart:8080",
                [50, 50],
            ),
            &[("R3", "Service shop/cart in us-west-2a", "2.00", "us-west-2a")],
        ),
        row(
            "traffic of which nobody knows which end serves",
            on("1.34").service("shop/cart", BOTH, plain).sent(WEB, CART_B, ":0", [50, 50]),
            &[],
        ),
    ]
}

pub(super) fn node_local() -> Vec<Scenario> {
    let agent = "DaemonSet mon/agent@b";
    vec![
        row(
            "a DaemonSet that does not run in the clients' zone",
            on("1.33").service("mon/agent", &[("b", 3)], plain).sent(WEB, agent, "mon/agent:4317", [90, 10]),
            &[("R3", "Service mon/agent in us-east-1a", "2.00", "\"patch\":null")],
        ),
        row(
            "a DaemonSet whose service keeps to the node",
            on("1.34").service("mon/agent", &[("a", 3), ("b", 3)], |service| service.is_node_local = true).sent(
                WEB,
                agent,
                "mon/agent:4317",
                [90, 10],
            ),
            &[],
        ),
        row(
            "Cilium without service topology does not follow PreferSameNode",
            Cluster::new("1.35", cilium(20, ServiceTopology::Off))
                .service("mon/agent", &[("a", 3), ("b", 3)], plain)
                .sent(WEB, agent, "mon/agent:4317", [90, 10]),
            &[("R5", "Service mon/agent", "2.00", "set loadBalancer.serviceTopology=true first")],
        ),
    ]
}

pub(super) fn protocols() -> Vec<Scenario> {
    let near = |server: &str, port: &str| {
        on("1.34").sent(WEB, &format!("{server}@a"), &format!("data/store:{port}"), [10, 1000])
    };
    vec![
        row("Kafka in the consumers' zone", near("StatefulSet data/kafka", "9092"), &[]),
        row("Cassandra in the driver's zone", near("StatefulSet data/cassandra", "9042"), &[]),
        row("a cache in the client's zone", near("StatefulSet data/redis", "6379"), &[]),
        row("search in the client's zone", near("StatefulSet data/search", "9200"), &[]),
        row("a ring in one zone", near("StatefulSet mon/loki-ingester", "9095"), &[]),
        row(
            "a cache of writes alone",
            on("1.34").sent(WEB, "StatefulSet data/redis@b", "data/redis:6379", [500, 10]),
            &[],
        ),
        row(
            "Kafka's producers alone",
            on("1.34").sent(WEB, "StatefulSet data/kafka@b", "data/kafka:9092", [500, 10]),
            &[],
        ),
        row(
            "a server of a ring's port that is none",
            on("1.34").service("shop/cart", BOTH, plain).sent(WEB, CART_B, "shop/cart:9095", [10, 90]).sent(
                "Deployment shop/web@b",
                CART_B,
                "shop/cart:9095",
                [10, 90],
            ),
            &[("R1", "Service shop/cart", "2.00", "PreferSameZone")],
        ),
        row(
            "pods of a StatefulSet in one zone",
            on("1.34").sent(
                "StatefulSet shop/orders-db@a",
                "StatefulSet shop/orders-db@a",
                "shop/orders-db:5432",
                [100, 100],
            ),
            &[],
        ),
    ]
}

pub(super) fn external() -> Vec<Scenario> {
    const PRICES: &str = "rules:\n  - {id: nlb, provider: aws, class: loadbalancer, between: zones, sender: \"0.01\", \
                          receiver: \"0.01\", unit: GB}\n";
    vec![
        row(
            "a load balancer in another zone, with a price of its own",
            on("1.34").own_prices(PRICES).sent(
                "loadbalancer front@a",
                "Deployment shop/web@b",
                "shop/web:8080",
                [40, 60],
            ),
            &[("R16", "loadbalancer front", "2.00", "cross-zone load balancing off")],
        ),
        row(
            "a load balancer that sends to its own zone",
            on("1.34").own_prices(PRICES).sent(
                "loadbalancer front@b",
                "Deployment shop/web@b",
                "shop/web:8080",
                [400, 600],
            ),
            &[],
        ),
        row("a NAT gateway in the client's zone", on("1.34").sent(WEB, "nat nat-a@a", ":443", [400, 1600]), &[]),
        row("addresses outside of all prefixes", on("1.34").sent(WEB, "internet world@*", ":443", [400, 1600]), &[]),
        row(
            "a virtual machine in another zone is no gateway",
            on("1.34").sent(WEB, "vm old@b", ":443", [100, 200]),
            &[],
        ),
    ]
}
