//! Objects of both IP versions, and objects of which a part is not there yet or not any more.

use super::{
    sources::{block, cilium_node, endpoint, lies, node, nodes, pod},
    *,
};

#[test]
fn interfaces_of_aws_with_both_ip_versions_have_the_ranges_of_both() {
    let mut objects = vec![
        node("n1", "eu-1a", &[], "192.168.1.11"),
        node("n2", "eu-1b", &["10.5.0.0/24", "fd00:5::/64"], "2001:db8::2"),
    ];
    objects.push(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "n1"},
        "spec": {"ipam": {"pool": {"10.7.0.9": {}, "10.7.0.10": {"owner": "shop/a"}}, "ipv6-pool": {"2600:1f13::9": {}}}},
        "status": {"eni": {"enis": {"eni-1": {
            "prefixes": ["10.8.0.0/28"], "ipv6-prefixes": ["2600:1f13:f:1::/80"], "addresses": ["10.7.0.11"],
        }}}},
    }));
    // Either family first, or the older field alone.
    objects.push(pod("a", "n2", &["fd00:5::7", "10.5.0.7"]));
    let mut old = pod("b", "n2", &[]);
    old["status"] = json!({"phase": "Running", "podIP": "10.6.0.1"});
    objects.push(old);
    let expected = [
        ("10.7.0.9", "eu-1a"),
        ("10.7.0.11", "eu-1a"),
        ("2600:1f13::9", "eu-1a"),
        ("10.8.0.3", "eu-1a"),
        ("2600:1f13:f:1::7", "eu-1a"),
        ("10.5.0.7", "eu-1b"),
        ("fd00:5::7", "eu-1b"),
        ("fd00:5::8", "eu-1b"),
        ("10.6.0.1", "eu-1b"),
        ("2001:db8::2", "eu-1b"),
    ];
    lies(&objects, "", &expected);
}

#[test]
fn half_deleted_and_half_made_objects_change_no_zone_and_are_no_matter() {
    let mut objects = nodes();
    // Blocks of the node n1, in the range of n2: about to go, gone, not confirmed yet, of no machine.
    let block = |name: &str, field: &str, value: Value| {
        let mut block = block("10.244.1.0/26", "n1");
        block["metadata"]["name"] = name.into();
        block["spec"][field] = value;
        block
    };
    objects.extend([
        block("a", "state", json!("pendingDeletion")),
        block("b", "deleted", json!("true")),
        block("c", "deleted", json!(true)),
        block("d", "state", json!("pending")),
        block("e", "type", json!("virtual")),
    ]);
    // Endpoints that have no network yet, or that name no node.
    let cilium = |kind: &str, name: &str, rest: Value| {
        let mut object =
            json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": {"namespace": "shop", "name": name}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    objects.extend([
        cilium("CiliumEndpoint", "f", json!({})),
        cilium("CiliumEndpoint", "g", json!({"status": {"networking": null}})),
        cilium("CiliumEndpoint", "h", json!({"status": {"networking": {"node": "192.168.1.11", "addressing": null}}})),
        endpoint("i", "", "10.244.1.9"),
        endpoint("j", "0.0.0.0", "10.244.1.9"),
        endpoint("k", "192.168.9.9", "10.244.1.9"),
        cilium("CiliumNode", "n2", json!({"spec": {"ipam": {"pool": null, "podCIDRs": null}}, "status": null})),
    ]);
    // Pods without a node, without an address, and one that has ended.
    let mut unscheduled = pod("l", "", &[]);
    unscheduled["status"] = json!({"phase": "Pending"});
    let mut ended = pod("m", "n1", &["10.244.1.9"]);
    ended["status"]["phase"] = "Failed".into();
    ended["metadata"]["deletionTimestamp"] = "2026-11-25T11:00:00Z".into();
    objects.extend([unscheduled, ended, pod("n", "n1", &[])]);
    lies(&objects, "", &[("10.244.0.9", "eu-1a"), ("10.244.1.9", "eu-1b"), ("10.244.2.9", "eu-1c")]);
}

#[test]
fn a_field_that_is_null_is_one_that_is_missing() {
    let labels = json!({"topology.kubernetes.io/zone": "eu-1a", "topology.kubernetes.io/region": "eu-1"});
    let meta = |name: &str| json!({"name": name, "labels": labels, "annotations": null, "creationTimestamp": null});
    let of_shop = |name: &str| json!({"namespace": "shop", "name": name, "labels": null, "ownerReferences": null});
    let mut model = TestModel::of(&nodes(), true);
    for object in [
        json!({"kind": "Node", "metadata": meta("a"), "spec": null, "status": null}),
        json!({"kind": "Node", "metadata": meta("b")}),
        json!({"kind": "Node", "metadata": meta("c"),
            "spec": {"podCIDR": null, "podCIDRs": null, "providerID": null, "taints": null},
            "status": {"addresses": null, "nodeInfo": null}}),
        json!({"kind": "Node", "metadata": meta("d"), "spec": {"podCIDR": "10.9.0.0/24", "podCIDRs": null}}),
        json!({"kind": "Pod", "metadata": of_shop("a"), "spec": null, "status": null}),
        json!({"kind": "Pod", "metadata": of_shop("b")}),
        json!({"kind": "Pod", "metadata": of_shop("c"), "spec": {"nodeName": null, "hostNetwork": null},
            "status": {"phase": null, "podIP": null, "podIPs": null, "startTime": null}}),
        json!({"kind": "Pod", "metadata": of_shop("d"), "spec": {"nodeName": "n2"},
            "status": {"podIP": "10.9.0.7", "podIPs": [{"ip": null}]}}),
        json!({"kind": "Service", "metadata": of_shop("a"), "spec": null}),
        json!({"kind": "Service", "metadata": of_shop("b"), "spec": {"clusterIP": null, "ports": null, "selector": null}}),
        json!({"kind": "EndpointSlice", "metadata": of_shop("a"), "addressType": "IPv4", "endpoints": null}),
        json!({"kind": "EndpointSlice", "metadata": of_shop("b"), "addressType": "IPv4",
            "endpoints": [{"addresses": null, "conditions": null, "targetRef": null, "zone": null, "hints": null}]}),
    ] {
        let group = if object["kind"] == "EndpointSlice" { "discovery.k8s.io/" } else { "" };
        let mut object = object;
        object["apiVersion"] = format!("{group}v1").into();
        model.read(&object);
    }
    model.apply_changes();
    assert_eq!([model.zone("10.9.0.9"), model.zone("10.9.0.7")], ["eu-1a", "eu-1b"]);
    assert_eq!((model.model.count(Kind::Node), model.model.count(Kind::Pod)), ((7, 0), (4, 0)));
    assert_eq!(model.notices(), []);
}

#[test]
fn what_a_former_node_has_left_behind_hides_no_range_of_a_node_that_is_there() {
    let mut objects = nodes();
    // Blocks of a removed node, and a pool that was its own, within the ranges of other nodes and outside of them.
    objects.extend([block("10.244.1.64/26", "gone"), block("10.245.0.0/26", "gone")]);
    objects.push(cilium_node("gone", json!({"podCIDRs": ["10.244.2.0/25"]})));
    let expected =
        [("10.244.1.70", "eu-1b"), ("10.244.2.9", "eu-1c"), ("10.244.0.9", "eu-1a"), ("10.245.0.9", "unknown")];
    let mut model = lies(&objects, "", &expected);
    // The node is there again, and gone once more.
    model.read(&node("gone", "eu-1d", &[], "192.168.1.14"));
    let zones = |model: &mut TestModel| ["10.244.1.70", "10.244.2.9", "10.244.1.9"].map(|address| model.zone(address));
    assert_eq!(zones(&mut model), ["eu-1d", "eu-1d", "eu-1b"]);
    model.model.remove(Kind::Node, &key("", "gone"));
    assert_eq!(zones(&mut model), ["eu-1b", "eu-1c", "eu-1b"]);
}

#[test]
fn every_address_and_addresses_of_a_link_are_nobodys() {
    let objects = [
        node("all", "eu-1a", &["0.0.0.0/0", "::/0"], "fe80::1"),
        node("link", "eu-1b", &["10.9.0.0/24"], "169.254.0.2"),
        node("half", "eu-1c", &["128.0.0.0/1"], "192.168.1.12"),
        pod("a", "link", &["fe80::2", "10.9.0.7"]),
    ];
    let mut model = TestModel::of(&objects, true);
    for address in ["8.8.8.8", "2001:db8::1", "fe80::1", "fe80::2", "169.254.0.2"] {
        assert!(!model.zone(address).starts_with("eu-"), "{address}: {}", model.zone(address));
    }
    assert_eq!([model.zone("200.0.0.1"), model.zone("10.9.0.7")], ["eu-1c", "eu-1b"]);
    let notices = model.notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].1.contains("spec.podCIDRs: `0.0.0.0/0` is every address"), "{notices:?}");
}
