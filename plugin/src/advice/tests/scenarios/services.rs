//! Services: preferred zones, capacity, preferences that are not honoured, and what became of them.

use super::{
    super::cluster::{Cluster, cilium, close, headless, node_port, plain, same_zone},
    *,
};
use crate::catalogue::{Kind, ServiceTopology};

pub(super) fn preferring() -> Vec<Scenario> {
    let both: &[(&str, u32)] = &[("a", 1), ("b", 1)];
    let cart = |cluster: Cluster, set| even(cluster).service("shop/cart", both, set);
    vec![
        row(
            "1.34 prefers by PreferSameZone",
            cart(on("1.34"), plain),
            &[("R1", "Service shop/cart", "2.00", "PreferSameZone")],
        ),
        row("1.35, too", cart(on("1.35"), plain), &[("R1", "Service shop/cart", "2.00", "\"confidence\":\"high\"")]),
        row(
            "1.33 prefers by PreferClose",
            cart(on("1.33"), plain),
            &[("R1", "Service shop/cart", "2.00", "PreferClose")],
        ),
        row(
            "1.30 has the field behind a gate alone",
            cart(on("1.30"), plain),
            &[("R1", "Service shop/cart", "2.00", "\"service.kubernetes.io/topology-mode\":\"Auto\"")],
        ),
        row(
            "an unknown version prefers by the value that most know",
            cart(Cluster::new("", KUBE_PROXY), plain),
            &[("R1", "Service shop/cart", "2.00", "PreferClose")],
        ),
        row(
            "Cilium 1.19 does not know PreferSameZone",
            cart(Cluster::new("1.35", cilium(19, ServiceTopology::On)), plain),
            &[("R1", "Service shop/cart", "2.00", "PreferClose")],
        ),
        row(
            "Cilium 1.20 does",
            cart(Cluster::new("1.35", cilium(20, ServiceTopology::On)), plain),
            &[("R1", "Service shop/cart", "2.00", "PreferSameZone")],
        ),
        row(
            "Cilium without service topology is to be set first",
            cart(Cluster::new("1.34", cilium(20, ServiceTopology::Off)), plain),
            &[("R1", "Service shop/cart", "2.00", "set loadBalancer.serviceTopology=true first")],
        ),
        row(
            "Cilium 1.18.0 refuses connections where there is no endpoint",
            cart(Cluster::new("1.33", cilium(18, ServiceTopology::On)), plain),
            &[("R1", "Service shop/cart", "2.00", "1.18.0")],
        ),
        row(
            "whether Cilium follows can be unknown",
            cart(Cluster::new("1.34", cilium(20, ServiceTopology::Unknown)), plain),
            &[("R1", "Service shop/cart", "2.00", "\"confidence\":\"medium\"")],
        ),
        row(
            "DNS is a service like others, and has a cache of its own",
            on("1.34")
                .service("kube-system/kube-dns", both, plain)
                .sent(WEB, "Deployment kube-system/coredns@b", "kube-system/kube-dns:53", [30, 30])
                .sent(WEB, "Deployment kube-system/coredns@a", "kube-system/kube-dns:53", [30, 30])
                .sent("Deployment shop/web@b", "Deployment kube-system/coredns@b", "kube-system/kube-dns:53", [60, 60]),
            &[("R6", "Service kube-system/kube-dns", "1.20", "NodeLocal DNSCache")],
        ),
        row("a headless service has its clients choose", cart(on("1.34"), headless), &[]),
        row("a service of nodes alone has no choice", cart(on("1.34"), |service| service.is_node_local = true), &[]),
        row("another name is not ours", cart(on("1.34"), |service| service.kind = Kind::ExternalName), &[]),
        row("a service outside the catalogue gets no advice", even(on("1.34")), &[]),
        row(
            "a single endpoint can't be nearer",
            on("1.34").service("shop/cart", &[("b", 1)], plain).sent(
                "Deployment shop/web@b",
                CART_B,
                "shop/cart:8080",
                [10, 40],
            ),
            &[],
        ),
        row(
            "an endpoint without a zone takes all hints away",
            even(on("1.34")).service("shop/cart", &[("a", 1), ("b", 1), ("", 1)], plain),
            &[],
        ),
        row("Azure does not charge", cart(on("1.34").of("azure"), plain), &[]),
        row(
            "traffic without a price is shown in bytes",
            cart(on("1.34").of(""), plain),
            &[("R1", "Service shop/cart", "0.00", "\"unpriced_bytes_per_month\":100000000000")],
        ),
        row(
            "Google charges the sender, for 2^30 bytes",
            cart(on("1.34").of("gcp"), plain),
            // 100 GB / 2^30 · 0.01 = 0.93.
            &[],
        ),
        row("less than the floor is not shown", even_small(both), &[]),
        row(
            "an unknown zone is not another zone",
            on("1.34").service("shop/cart", both, plain).sent(
                "Deployment shop/web@?",
                CART_B,
                "shop/cart:8080",
                [100, 400],
            ),
            &[],
        ),
    ]
}

fn even_small(both: &[(&str, u32)]) -> Cluster {
    on("1.34").service("shop/cart", both, plain).sent(WEB, CART_B, "shop/cart:8080", [9, 40]).sent(
        "Deployment shop/web@b",
        CART_B,
        "shop/cart:8080",
        [9, 40],
    )
}

pub(super) fn capacity() -> Vec<Scenario> {
    // A load of 60 : 40 over one endpoint each: 1.2 and 0.8 of the even load.
    let loads = |a: u64, b: u64, endpoints: &[(&str, u32)]| {
        on("1.34")
            .service("shop/cart", endpoints, plain)
            .sent(WEB, CART_B, "shop/cart:8080", [0, a / 2])
            .sent(WEB, "Deployment shop/cart@a", "shop/cart:8080", [0, a / 2])
            .sent("Deployment shop/web@b", CART_B, "shop/cart:8080", [0, b])
    };
    vec![
        row(
            "1.2 times the load is no warning",
            loads(120, 80, &[("a", 1), ("b", 1)]),
            &[(
                "R1",
                "Service shop/cart",
                "1.20",
                "would have 1.20 times the load that each has now\",\"an endpoint in us-east-1b (1 there) would have 0.80",
            )],
        ),
        row(
            "more is one, with the endpoints to add",
            loads(150, 50, &[("a", 2), ("b", 2)]),
            &[("R1", "Service shop/cart", "1.50", "1.50 times the load that they have now: add 1")],
        ),
        row(
            "more than twice is refused: endpoints first",
            loads(180, 20, &[("a", 1), ("b", 2)]),
            &[("R3", "Service shop/cart, endpoints", "1.80", "Add endpoints (2 in us-east-1a)")],
        ),
        row(
            "the load is that of the busiest hours",
            // Most of the time evenly; in one hour of two all from zone a.
            loads(100, 100, &[("a", 1), ("b", 1)]).next_hour().sent(WEB, CART_B, "shop/cart:8080", [0, 300]),
            &[("R1", "Service shop/cart", "7.00", "2.00 times the load that they have now: add 1")],
        ),
        row(
            "a zone without an endpoint comes first",
            loads(100, 100, &[("a", 1), ("b", 1)]).sent("Deployment shop/web@c", CART_B, "shop/cart:8080", [0, 100]),
            &[
                ("R3", "Service shop/cart in us-east-1c", "2.00", "topologySpreadConstraints"),
                ("R1", "Service shop/cart", "1.00", "clients in us-east-1c have no endpoint in their zone"),
            ],
        ),
        row(
            "what has volumes can't be spread by a patch",
            on("1.34").service("shop/store", &[("b", 2)], plain).sent(
                WEB,
                "StatefulSet shop/store@b",
                "shop/store:8080",
                [50, 50],
            ),
            &[("R3", "Service shop/store in us-east-1a", "2.00", "\"patch\":null")],
        ),
        row(
            "a service without ready endpoints gets no advice",
            on("1.34").service("shop/cart", &[], plain).sent(WEB, CART_B, "shop/cart:8080", [50, 50]),
            &[],
        ),
    ]
}

pub(super) fn not_honoured() -> Vec<Scenario> {
    let both: &[(&str, u32)] = &[("a", 1), ("b", 1)];
    let cart = |cluster: Cluster, set| even(cluster).service("shop/cart", both, set);
    const OLD: &[Expected] = &[("R2", "Service shop/cart", "2.00", "the connections are older than the change")];
    vec![
        row("a preference that is followed is silent", cart_followed(), &[]),
        row("old connections", cart(on("1.34"), same_zone), OLD),
        row(
            "no hints",
            cart(on("1.34"), |service| {
                same_zone(service);
                (service.endpoints.hinted, service.endpoints.unhinted) = (Default::default(), 2);
            }),
            &[("R2", "Service shop/cart", "2.00", "2 of 2 ready endpoints have no hint; then all hints are ignored")],
        ),
        row(
            "hints for another zone",
            cart(on("1.34"), |service| {
                close(service);
                service.endpoints.hinted.remove("us-east-1b");
            }),
            &[("R2", "Service shop/cart", "2.00", "no endpoint is hinted for us-east-1b")],
        ),
        row(
            "the annotation wins",
            cart(on("1.34"), |service| {
                close(service);
                service.topology_mode = Some("Auto".to_owned());
            }),
            &[("R2", "Service shop/cart", "2.00", "\"service.kubernetes.io/topology-mode\":null}}")],
        ),
        row(
            "Auto gives up",
            cart(on("1.33"), |service| service.topology_mode = Some("auto".to_owned())),
            &[("R2", "Service shop/cart", "2.00", "overload a zone by more than 20 %")],
        ),
        row(
            "an annotation that is off is none",
            cart(on("1.33"), |service| service.topology_mode = Some("disabled".to_owned())),
            &[("R1", "Service shop/cart", "2.00", "PreferClose")],
        ),
        row(
            "Cilium's service topology is off",
            cart(Cluster::new("1.34", cilium(20, ServiceTopology::Off)), close),
            &[("R2", "Service shop/cart", "2.00", "its service topology is off")],
        ),
        row(
            "Cilium is too old for the value",
            cart(Cluster::new("1.34", cilium(19, ServiceTopology::On)), same_zone),
            &[("R2", "Service shop/cart", "2.00", "Cilium 1.19 does not know the value PreferSameZone: 1.20")],
        ),
        row("Cilium knows the old value", cart(Cluster::new("1.34", cilium(19, ServiceTopology::On)), close), OLD),
        row(
            "Cilium can't be asked",
            cart(Cluster::new("1.34", cilium(20, ServiceTopology::Unknown)), close),
            &[("R2", "Service shop/cart", "2.00", "can't be read")],
        ),
        row(
            "a mesh chooses",
            cart(on("1.34"), |service| {
                close(service);
                service.mesh_distribution = Some("PreferClose".to_owned());
            }),
            &[("R2", "Service shop/cart", "2.00", "a mesh's proxies choose")],
        ),
        row(
            "session affinity",
            cart(on("1.34"), |service| {
                close(service);
                service.has_affinity = true;
            }),
            &[("R2", "Service shop/cart", "2.00", "\"sessionAffinity\":\"None\"")],
        ),
        row(
            "the second hop of a node's port",
            on("1.34").service("shop/cart", both, node_port).sent("Node node-1@a", CART_B, "shop/cart:8080", [10, 90]),
            &[("R2", "Service shop/cart", "2.00", "traffic comes through the nodes' ports")],
        ),
        row(
            "a headless service does not follow",
            cart(on("1.34"), |service| {
                close(service);
                service.is_headless = true;
            }),
            &[("R2", "Service shop/cart", "2.00", "the service is headless")],
        ),
        row(
            "no ready endpoint in the zone",
            on("1.34").service("shop/cart", &[("b", 2)], close).sent(WEB, CART_B, "shop/cart:8080", [10, 90]),
            &[("R3", "Service shop/cart in us-east-1a", "2.00", "2 in us-east-1b")],
        ),
    ]
}

pub(super) fn over_time() -> Vec<Scenario> {
    let both: &[(&str, u32)] = &[("a", 1), ("b", 1)];
    let (crossing, near) = ([0, 100], "Deployment shop/cart@a");
    let cart = |set| on("1.34").service("shop/cart", both, set);
    vec![
        row(
            "a preference that has begun to work",
            cart(same_zone).sent(WEB, CART_B, "shop/cart:8080", crossing).next_hour().sent(
                WEB,
                near,
                "shop/cart:8080",
                crossing,
            ),
            &[("R1", "Service shop/cart", "0.00", "100 % crossed zones before, and 0 % does recently")],
        ),
        row(
            "a preference that works no more",
            cart(same_zone).sent(WEB, near, "shop/cart:8080", crossing).next_hour().sent(
                WEB,
                CART_B,
                "shop/cart:8080",
                crossing,
            ),
            &[("R2", "Service shop/cart", "2.00", "\"state\":\"regressed\"")],
        ),
        row(
            "a preference that never worked",
            cart(same_zone).sent(WEB, CART_B, "shop/cart:8080", crossing).next_hour().sent(
                WEB,
                CART_B,
                "shop/cart:8080",
                crossing,
            ),
            &[("R2", "Service shop/cart", "4.00", "\"state\":\"not honoured\"")],
        ),
        row(
            "a preference that works, and a zone whose traffic no longer leaves its node",
            cart(same_zone)
                .sent(WEB, CART_B, "shop/cart:8080", crossing)
                .sent("Deployment shop/web@b", near, "shop/cart:8080", crossing)
                .next_hour()
                .sent(WEB, near, "shop/cart:8080", crossing),
            &[("R1", "Service shop/cart", "0.00", "100 % crossed zones before, and 0 % does recently")],
        ),
        row(
            "a preference that fails in a zone, and one whose traffic has ended",
            cart(same_zone)
                .sent(WEB, CART_B, "shop/cart:8080", crossing)
                .sent("Deployment shop/web@b", near, "shop/cart:8080", crossing)
                .next_hour()
                .sent(WEB, CART_B, "shop/cart:8080", crossing),
            &[("R2", "Service shop/cart", "6.00", "\"state\":\"not honoured\"")],
        ),
        row(
            "one that no client used recently",
            cart(same_zone).sent(WEB, CART_B, "shop/cart:8080", crossing).next_hour(),
            &[("R2", "Service shop/cart", "2.00", "\"state\":\"not honoured\"")],
        ),
    ]
}

/// Nine of ten bytes stay in the zone.
fn cart_followed() -> Cluster {
    on("1.34")
        .service("shop/cart", &[("a", 1), ("b", 1)], same_zone)
        .sent(WEB, CART_B, "shop/cart:8080", [0, 100])
        .sent(WEB, "Deployment shop/cart@a", "shop/cart:8080", [0, 900])
}
