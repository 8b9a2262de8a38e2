//! Addresses of nodes that many nodes share, or that are within pods' ranges.

use super::{
    sources::{node, pod},
    *,
};

fn many(address: &str, count: usize) -> Vec<Value> {
    let zone = |index: usize| ["eu-1a", "eu-1b", "eu-1c"][index % 3];
    (0..count).map(|index| node(&format!("n-{index}"), zone(index), &[], address)).collect()
}

#[test]
fn a_conflict_of_many_nodes_is_reported_once_in_a_short_text() {
    let mut model = TestModel::of(&many("10.0.2.15", 300), true);
    assert_eq!(model.zone("10.0.2.15"), "unknown");
    let notices = model.model.take_notices(SystemTime::now());
    let objects: Vec<String> = notices.iter().map(|notice| notice.object.to_string()).collect();
    assert_eq!(objects, ["Node n-0", "Node n-1", "Node n-101"], "one of each zone");
    assert!(notices[0].message.contains("and 297 more"), "{}", notices[0].message);
    let origin = model.table[&"10.0.2.15/32".parse().unwrap()].origin.to_string();
    assert!(notices[0].message.len() < 250 && origin.len() < 150, "{} {origin}", notices[0].message);
    // More such nodes cause no further notice.
    for index in 300..305 {
        model.read(&node(&format!("n-{index}"), "eu-1b", &[], "10.0.2.15"));
        assert!(model.model.take_changes().zones.is_empty());
        assert!(model.model.take_notices(SystemTime::now()).is_empty());
    }
    // Another zone causes a notice.
    model.read(&node("other", "eu-1d", &[], "10.0.2.15"));
    model.apply_changes();
    assert_eq!(model.model.take_notices(SystemTime::now()).len(), 4);
}

#[test]
fn many_nodes_of_one_zone_with_one_address_are_in_it() {
    let objects: Vec<Value> = (0..50).map(|index| node(&format!("n-{index}"), "eu-1a", &[], "10.0.2.15")).collect();
    let mut model = TestModel::of(&objects, true);
    assert_eq!((model.zone("10.0.2.15"), model.endpoint("10.0.2.15")), ("eu-1a".into(), "nobody".into()));
    assert_eq!(model.notices(), []);
}

#[test]
fn simulated_nodes_do_not_unmake_where_the_pod_or_the_node_is_that_simulates_them() {
    let mut objects =
        vec![node("real", "eu-1a", &["10.244.0.0/24"], "192.168.1.11"), pod("kwok", "real", &["10.244.0.5"])];
    // Some nodes have no label with their kind.
    objects.extend(many("10.244.0.5", 30));
    for mut node in many("192.168.1.11", 30) {
        node["metadata"]["name"] = format!("kwok-{}", node["metadata"]["name"].as_str().unwrap()).into();
        node["metadata"]["labels"]["type"] = "kwok".into();
        objects.push(node);
    }
    let mut model = TestModel::of(&objects, false);
    assert_eq!((model.zone("10.244.0.5"), model.endpoint("10.244.0.5")), ("eu-1a".into(), "shop/kwok".into()));
    assert_eq!((model.zone("192.168.1.11"), model.endpoint("192.168.1.11")), ("eu-1a".into(), "Node real".into()));
    assert_eq!(model.notices(), []);
}

fn annotated(name: &str, zone: &str, cidrs: &[&str], notes: Value) -> Value {
    let mut node = node(name, zone, cidrs, "192.168.1.1");
    node["metadata"]["annotations"] = notes;
    node["status"] = json!({});
    node
}

#[test]
fn the_address_from_which_a_node_reaches_its_pods_belongs_to_the_node() {
    let subnets = r#"{"default":["10.128.0.0/23","fd01:0:0:1::/64"],"tenant":["10.131.0.0/24"]}"#;
    let objects = [
        annotated("ovn-1", "eu-1a", &["10.130.0.0/24"], json!({"k8s.ovn.org/node-subnets": subnets})),
        annotated("ovn-2", "eu-1b", &[], json!({"k8s.ovn.org/node-subnets": r#"{"default":"10.129.0.0/23"}"#})),
        annotated(
            "cal-1",
            "eu-1a",
            &[],
            json!({"projectcalico.org/IPv4VXLANTunnelAddr": "172.16.50.128", "projectcalico.org/IPv4Address": "192.168.1.21/24"}),
        ),
        annotated("cal-2", "eu-1b", &[], json!({"projectcalico.org/IPv4IPIPTunnelAddr": "172.16.60.1"})),
        annotated(
            "fl-1",
            "eu-1b",
            &["10.244.1.0/24", "fd00:1::/64"],
            json!({"flannel.alpha.coreos.com/backend-type": "vxlan"}),
        ),
        annotated("fl-2", "eu-1c", &["10.244.2.0/24"], json!({"flannel.alpha.coreos.com/backend-type": "host-gw"})),
        pod("a", "ovn-1", &["10.128.0.7"]),
    ];
    for is_forwards in [true, false] {
        let mut model = TestModel::of(&objects, is_forwards);
        for (address, zone, endpoint) in [
            ("10.128.0.2", "eu-1a", "Node ovn-1"),
            ("10.129.0.2", "eu-1b", "Node ovn-2"),
            ("fd01:0:0:1::2", "eu-1a", "Node ovn-1"),
            ("10.128.1.9", "eu-1a", "nobody"),
            ("10.130.0.9", "unknown", "nobody"),
            ("10.131.0.2", "unknown", "nobody"),
            ("10.128.0.7", "eu-1a", "shop/a"),
            ("172.16.50.128", "eu-1a", "Node cal-1"),
            ("192.168.1.21", "eu-1a", "Node cal-1"),
            ("172.16.60.1", "eu-1b", "Node cal-2"),
            ("10.244.1.0", "eu-1b", "Node fl-1"),
            ("fd00:1::", "eu-1b", "Node fl-1"),
            ("10.244.2.0", "eu-1c", "nobody"),
        ] {
            assert_eq!((model.zone(address), model.endpoint(address)), (zone.into(), endpoint.into()), "{address}");
        }
        assert_eq!(model.notices(), []);
    }
}

#[test]
fn annotations_of_other_cnis_name_the_node_s_own_addresses_and_ranges() {
    let objects = [
        annotated(
            "ovn",
            "eu-1a",
            &[],
            json!({
                "k8s.ovn.org/node-subnets": r#"{"default":"10.130.0.0/23"}"#,
                "k8s.ovn.org/node-gateway-router-lrp-ifaddr": r#"{"ipv4":"100.64.0.2/16","ipv6":"fd98::2/64"}"#,
                "k8s.ovn.org/node-transit-switch-port-ifaddr": r#"{"ipv4":"100.88.0.2/16"}"#,
            }),
        ),
        annotated("antrea", "eu-1b", &["10.10.1.0/24"], json!({"node.antrea.io/mac-address": "02:00:00:00:00:01"})),
        annotated(
            "router",
            "eu-1c",
            &["10.20.1.0/24"],
            json!({"kube-router.io/pod-cidrs": "10.20.7.0/24,fd00:7::/64"}),
        ),
        annotated("cilium", "eu-1a", &["10.30.1.0/24"], json!({"io.cilium.network.ipv4-cilium-host": "10.30.1.99"})),
        annotated("k3s", "eu-1b", &["10.42.0.0/24"], json!({"flannel.alpha.coreos.com/public-ipv6": "fd01::7"})),
        // Without its annotation the first address of a prefix is a pod's or nobody's.
        annotated(
            "bridge",
            "eu-1c",
            &["10.50.1.0/24"],
            json!({"antrea.example.com/x": "y", "kube-router.io/pod-cidr": ""}),
        ),
    ];
    for is_forwards in [true, false] {
        let mut model = TestModel::of(&objects, is_forwards);
        for (address, zone, endpoint) in [
            ("100.64.0.2", "eu-1a", "Node ovn"),
            ("fd98::2", "eu-1a", "Node ovn"),
            ("100.88.0.2", "eu-1a", "Node ovn"),
            ("100.64.0.3", "unknown", "nobody"),
            ("10.10.1.1", "eu-1b", "Node antrea"),
            ("10.10.1.2", "eu-1b", "nobody"),
            ("10.20.7.9", "eu-1c", "nobody"),
            ("fd00:7::9", "eu-1c", "nobody"),
            ("10.20.7.2", "eu-1c", "nobody"),
            ("10.20.1.9", "unknown", "nobody"),
            ("10.30.1.99", "eu-1a", "Node cilium"),
            ("fd01::7", "eu-1b", "Node k3s"),
            ("10.50.1.1", "eu-1c", "nobody"),
        ] {
            assert_eq!((model.zone(address), model.endpoint(address)), (zone.into(), endpoint.into()), "{address}");
        }
        assert_eq!(model.notices(), []);
    }
}

#[test]
fn a_pod_that_has_a_node_s_old_tunnel_address_has_it() {
    let note = |address: &str| json!({"projectcalico.org/IPv4VXLANTunnelAddr": address});
    let mut model = TestModel::of(
        &[annotated("n1", "eu-1a", &[], note("172.16.0.5")), annotated("n2", "eu-1b", &[], json!({}))],
        true,
    );
    model.read(&pod("a", "n2", &["172.16.0.5"]));
    assert_eq!((model.zone("172.16.0.5"), model.endpoint("172.16.0.5")), ("eu-1b".into(), "shop/a".into()));
    assert_eq!(model.notices(), []);
    model.read(&annotated("n1", "eu-1a", &[], note("172.16.0.6")));
    model.model.remove(Kind::Pod, &key("shop", "a"));
    assert_eq!((model.zone("172.16.0.5"), model.endpoint("172.16.0.5")), ("unknown".into(), "nobody".into()));
    assert_eq!((model.zone("172.16.0.6"), model.endpoint("172.16.0.6")), ("eu-1a".into(), "Node n1".into()));
}

#[test]
fn an_invalid_annotation_is_reported() {
    for (key, text) in [
        ("k8s.ovn.org/node-subnets", "10.128.0.0/23"),
        ("k8s.ovn.org/node-subnets", r#"{"default":["ten"]}"#),
        ("projectcalico.org/IPv4VXLANTunnelAddr", "tunnel"),
        ("k8s.ovn.org/node-gateway-router-lrp-ifaddr", "100.64.0.2/16"),
        ("k8s.ovn.org/node-transit-switch-port-ifaddr", r#"{"ipv4":"x"}"#),
        ("kube-router.io/pod-cidr", "ten"),
    ] {
        let mut model = TestModel::of(&[annotated("n1", "eu-1a", &["10.0.1.0/24"], json!({key: text}))], true);
        let notices = model.notices_now();
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].contains(key), "{notices:?}");
        assert_eq!(model.zone("10.0.1.9"), "eu-1a", "the rest of it counts");
    }
}

#[test]
fn public_and_reserved_ranges_are_ours_by_the_static_table() {
    let objects = [
        node("n1", "eu-1a", &["7.0.0.0/24"], "11.0.1.4"),
        node("n2", "eu-1b", &["240.0.1.0/24"], "11.0.2.4"),
        pod("a", "n1", &["7.0.0.9"]),
    ];
    let mut model = TestModel::of(&objects, true);
    assert_eq!(model.zone("11.0.200.5"), "internet");
    model.fixed("zones:\n- {name: unknown, cidrs: [11.0.0.0/16, 7.0.0.0/8]}\n- {name: eu-1c, region: eu-1, cidrs: [240.1.0.0/16]}\n");
    for (address, zone) in [
        ("11.0.200.5", "unknown"),
        ("11.0.2.4", "eu-1b"),
        ("7.0.0.9", "eu-1a"),
        ("7.0.9.9", "unknown"),
        ("11.1.0.1", "internet"),
        ("240.0.1.9", "eu-1b"),
        ("240.1.0.9", "eu-1c"),
        ("240.9.0.9", "unknown"),
    ] {
        assert_eq!(model.zone(address), zone, "{address}");
    }
    assert_eq!(model.notices(), []);
}

#[test]
fn an_ipv4_address_that_is_written_as_ipv6_is_that_address() {
    let mut model = TestModel::of(&[node("n1", "eu-1a", &["::ffff:10.0.1.0/120"], "::ffff:192.168.1.1")], true);
    model.read(&node("n2", "eu-1b", &["fd00:1::/64"], "fd00::1"));
    model.read(&pod("a", "n2", &["::ffff:10.9.0.5", "10.9.0.5"]));
    let expected = [
        ("10.0.1.0/24", "eu-1a"),
        ("10.9.0.5/32", "eu-1b"),
        ("192.168.1.1/32", "eu-1a"),
        ("fd00:1::/64", "eu-1b"),
        ("fd00::1/128", "eu-1b"),
    ];
    let mut zones = model.zones();
    zones.sort();
    assert_eq!(zones, pairs(&expected));
    assert_eq!(model.endpoint("10.9.0.5"), "shop/a");
}
