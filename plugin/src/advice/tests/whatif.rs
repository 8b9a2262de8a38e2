//! What-if: bytes stay the same, and go where kube-proxy and Cilium would send them.

use super::{
    cluster::{Cluster, cilium, headless, plain, zone_name},
    *,
};
use crate::catalogue::{DataPlane, ServiceTopology};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn cart(data_plane: DataPlane) -> Cluster {
    Cluster::new("1.34", data_plane)
        .service("shop/cart", &[("a", 1), ("b", 2)], plain)
        .sent("Deployment shop/web@a", "Deployment shop/cart@b", "shop/cart:80", [20, 40])
        .sent("Deployment shop/web@a", "Deployment shop/cart@a", "shop/cart:80", [10, 20])
        .sent("Deployment shop/web@c", "Deployment shop/cart@a", "shop/cart:80", [3, 6])
}

fn ask(cluster: &Cluster, change: &str, endpoints: &str) -> Result<WhatIf, String> {
    let change = Change::parse(change, endpoints).map_err(|error| error.to_string())?;
    let traffic = cluster.traffic();
    let snapshot = Snapshot { traffic: &traffic, catalogue: &cluster.catalogue, prices: &cluster.prices };
    WhatIf::new(&snapshot, change).map_err(|error| error.to_string())
}

/// Gigabytes by zones of clients and servers: before and after.
fn pairs(answer: &WhatIf) -> Vec<(String, [u64; 2])> {
    let short = |zone: &str| zone.trim_start_matches("us-east-1").to_owned();
    let of = |([clients, servers], traffic): (&[String; 2], &ZoneTraffic)| {
        let bytes = [traffic.before, traffic.after].map(|monthly| monthly.bytes / 1_000_000_000);
        (short(clients) + &short(servers), bytes)
    };
    answer.pairs.iter().map(of).collect()
}

#[test]
fn clients_stay_in_their_zone_if_it_has_an_endpoint_and_use_all_if_not() {
    let answer = ask(&cart(DataPlane::KubeProxy), "shop/cart=PreferSameZone", "").unwrap();
    let expected = [("aa", [30, 90]), ("ab", [60, 0]), ("ca", [9, 3]), ("cb", [0, 6])];
    assert_eq!(pairs(&answer), expected.map(|(zones, bytes)| (zones.to_owned(), bytes)));
    // 69 GB crossed, 9 would have: at 0.02.
    let cost = [answer.crossing.before, answer.crossing.after].map(|monthly| monthly.cost.exact());
    assert_eq!(cost, ["1.38", "0.18"]);
    let a = answer.endpoints[&zone_name("a")];
    assert_eq!((a.count, a.bytes), ([1, 1], [39_000_000_000, 93_000_000_000]));
    assert!(answer.table().contains("Service shop/cart with PreferSameZone\n"), "{}", answer.table());
    assert_eq!(answer.json()["crossing"]["after"]["usd_per_month"], "0.18");
}

#[test]
fn endpoints_that_are_not_there_yet_are_used() {
    let answer = ask(&cart(DataPlane::KubeProxy), "shop/cart=PreferSameZone", "us-east-1c=1").unwrap();
    assert_eq!(pairs(&answer).last().unwrap(), &("cc".to_owned(), [0, 9]));
    assert_eq!((answer.crossing.after.bytes, answer.endpoints[&zone_name("c")].count), (0, [0, 1]));
    let none = ask(&cart(DataPlane::KubeProxy), "shop/cart=none", "us-east-1b=0").unwrap();
    assert_eq!(pairs(&none)[0], ("aa".to_owned(), [30, 90]));
}

#[test]
fn what_is_not_followed_changes_nothing_and_why_is_said() {
    let why = |cluster: &Cluster, value: &str| {
        let answer = ask(cluster, &format!("shop/cart={value}"), "").unwrap();
        // A third of the endpoints is in zone a.
        assert_eq!(pairs(&answer)[0], ("aa".to_owned(), [30, 30]));
        answer.ignored.unwrap()
    };
    assert!(why(&cart(cilium(20, ServiceTopology::Off)), "PreferClose").contains("is off"));
    assert!(why(&cart(cilium(19, ServiceTopology::On)), "PreferSameZone").contains("does not know"));
    assert_eq!(ask(&cart(cilium(19, ServiceTopology::On)), "shop/cart=PreferClose", "").unwrap().ignored, None);
    let nowhere = |service: &mut crate::catalogue::Service| {
        service.endpoints.ready.insert(String::new(), 3);
    };
    let cluster = cart(DataPlane::KubeProxy).service("shop/cart", &[("a", 1), ("b", 2)], nowhere);
    assert!(
        ask(&cluster, "shop/cart=PreferSameZone", "").unwrap().ignored.unwrap().contains("3 endpoints have no zone")
    );
}

#[test]
fn questions_without_an_answer_are_refused() {
    let cluster =
        cart(DataPlane::KubeProxy).service("shop/none", &[("a", 1)], plain).service("shop/pods", &[], headless);
    for (change, endpoints, part) in [
        ("shop/other=none", "", "there is no Service `shop/other`"),
        ("shop/none=none", "", "has no traffic"),
        ("shop/pods=none", "", "no address of its own"),
        ("shop/cart=none", "us-east-1a=0,us-east-1b=0", "no ready endpoint"),
        ("cart=none", "", "is not NAMESPACE/NAME="),
        ("shop/cart", "", "is not NAMESPACE/NAME="),
        ("shop/cart=PreferSameNode", "", "is not NAMESPACE/NAME="),
        ("shop/cart=none", "a", "endpoints: `a` is not ZONE=NUMBER"),
        ("shop/cart=none", "a=100001", "endpoints: `a=100001` is not"),
        ("shop/cart=none", "=1", "endpoints: `=1` is not"),
    ] {
        let error = ask(&cluster, change, endpoints).unwrap_err();
        assert!(error.contains(part), "{change}: {error}");
    }
}

#[test]
fn no_byte_is_lost_or_made() {
    let mut random = StdRng::seed_from_u64(5);
    for _ in 0..100 {
        let mut endpoints = Vec::new();
        ["a", "b", "c", ""].into_iter().for_each(|zone| endpoints.push((zone, random.random_range(0..5))));
        endpoints[0].1 += 1;
        let mut cluster = Cluster::new("1.34", DataPlane::KubeProxy).service("shop/cart", &endpoints, plain);
        for client in ["a", "b", "w", "?"] {
            let bytes = [random.random_range(1..1 << 40), random.random_range(1..1 << 40)];
            cluster = cluster.exact(
                &format!("Deployment shop/web@{client}"),
                "Deployment shop/cart@b",
                "shop/cart:80",
                bytes,
            );
        }
        for change in ["shop/cart=none", "shop/cart=PreferSameZone"] {
            let answer = ask(&cluster, change, "").unwrap();
            let sum = |of: fn(&ZoneTraffic) -> Monthly| answer.pairs.values().map(|pair| of(pair).bytes).sum::<u64>();
            assert_eq!(sum(|pair| pair.before), sum(|pair| pair.after));
            let served = |side: usize| answer.endpoints.values().map(|zone| zone.bytes[side]).sum::<u64>();
            assert_eq!(served(0), served(1));
        }
    }
}
