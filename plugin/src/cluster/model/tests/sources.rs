//! The source that counts among several.

use super::*;

pub(super) fn node(name: &str, zone: &str, cidrs: &[&str], address: &str) -> Value {
    let labels = json!({"topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": "eu-1"});
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDRs": cidrs},
        "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]},
    })
}

pub(super) fn pod(name: &str, node: &str, addresses: &[&str]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "creationTimestamp": "2026-11-25T10:00:00Z"},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "startTime": "2026-11-25T10:00:00Z", "podIPs": ips},
    })
}

pub(super) fn cilium_node(name: &str, ipam: Value) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": name}, "spec": {"ipam": ipam}})
}

pub(super) fn block(cidr: &str, node: &str) -> Value {
    let spec = json!({"cidr": cidr, "node": node, "state": "confirmed", "deleted": "false"});
    let name = format!("{node}-{}", cidr.replace(['.', '/'], "-"));
    json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "BlockAffinity", "metadata": {"name": name}, "spec": spec})
}

pub(super) fn endpoint(name: &str, node: &str, address: &str) -> Value {
    let networking = json!({"node": node, "addressing": [{"ipv4": address}]});
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": {"namespace": "shop", "name": name},
        "status": {"networking": networking},
    })
}

/// Three nodes with the ranges that kube-controller-manager assigned.
pub(super) fn nodes() -> Vec<Value> {
    vec![
        node("n1", "eu-1a", &["10.244.0.0/24"], "192.168.1.11"),
        node("n2", "eu-1b", &["10.244.1.0/24"], "192.168.1.12"),
        node("n3", "eu-1c", &["10.244.2.0/24"], "192.168.1.13"),
    ]
}

/// The same zones in any order of arrival, without any notice.
#[track_caller]
pub(super) fn lies(objects: &[Value], fixed: &str, expected: &[(&str, &str)]) -> TestModel {
    let mut last = None;
    for is_forwards in [true, false] {
        let mut model = TestModel::of(objects, is_forwards);
        if !fixed.is_empty() {
            model.fixed(fixed);
        }
        for (address, zone) in expected {
            assert_eq!(model.zone(address), *zone, "{address}, forwards: {is_forwards}");
        }
        assert_eq!(model.notices(), [], "forwards: {is_forwards}");
        assert_eq!((model.model.tally().conflicts, model.model.tally().nodes_without_zone), (0, 0));
        last = Some(model);
    }
    last.unwrap()
}

#[test]
fn the_ranges_of_cilium_s_own_pools_count_and_the_nodes_prefixes_do_not() {
    let pool = |name: &str, cidr: &str| cilium_node(name, json!({"podCIDRs": [cidr]}));
    let mut objects = nodes();
    objects.extend([pool("n1", "10.244.2.0/24"), pool("n2", "10.244.0.0/24"), pool("n3", "10.244.1.0/24")]);
    objects.extend([pod("a", "n1", &["10.244.2.5"]), pod("b", "n2", &["10.244.0.5"])]);
    let expected =
        [("10.244.2.5", "eu-1a"), ("10.244.0.5", "eu-1b"), ("10.244.2.77", "eu-1a"), ("10.244.1.200", "eu-1c")];
    let model = lies(&objects, "", &expected);
    assert_eq!(model.table.len(), 6, "three ranges and three nodes, and none for a pod");
}

#[test]
fn a_node_that_cilium_has_not_given_a_range_yet_keeps_its_prefix() {
    let mut objects = nodes();
    objects.push(cilium_node("n1", json!({"podCIDRs": ["10.244.2.0/24"]})));
    // Its own pool is empty, so its node's prefix counts.
    objects.push(cilium_node("n2", json!({"podCIDRs": []})));
    let expected = [("10.244.2.9", "eu-1a"), ("10.244.1.9", "eu-1b"), ("10.244.0.9", "unknown")];
    lies(&objects, "", &expected);
}

#[test]
fn a_wider_range_of_a_cni_counts_more_than_a_narrower_prefix_that_nobody_uses() {
    let allocated = |cidrs: Value| json!({"pools": {"allocated": [{"pool": "default", "cidrs": cidrs}]}});
    let mut objects = nodes();
    objects.push(cilium_node("n1", allocated(json!(["10.244.0.0/20", "fd00:1::/80"]))));
    let expected = [("10.244.0.9", "eu-1a"), ("10.244.1.9", "eu-1a"), ("10.244.2.9", "eu-1a"), ("fd00:1::7", "eu-1a")];
    lies(&objects, "", &expected);
}

#[test]
fn cilium_that_repeats_the_nodes_prefixes_changes_nothing() {
    let mut objects = nodes();
    for (name, cidr) in [("n1", "10.244.0.0/24"), ("n2", "10.244.1.0/24"), ("n3", "10.244.2.0/24")] {
        objects.push(cilium_node(name, json!({"podCIDRs": [cidr]})));
    }
    let model = lies(&objects, "", &[("10.244.0.9", "eu-1a"), ("10.244.1.9", "eu-1b"), ("10.244.2.9", "eu-1c")]);
    assert_eq!(model.table.len(), 6);
}

#[test]
fn calico_s_blocks_count_and_the_nodes_prefixes_do_not() {
    let mut objects = vec![
        node("n1", "eu-1a", &["10.2.1.0/24"], "192.168.1.11"),
        node("n2", "eu-1b", &["10.2.2.0/24"], "192.168.1.12"),
        node("n3", "eu-1c", &["10.2.3.0/24"], "192.168.1.13"),
    ];
    objects.extend([block("10.2.56.0/24", "n1"), block("10.2.1.0/24", "n2"), block("10.2.2.0/24", "n3")]);
    // A pod with an address that its node has borrowed from another node's block.
    objects.push(pod("borrower", "n3", &["10.2.1.77"]));
    let expected = [
        ("10.2.1.7", "eu-1b"),
        ("10.2.56.1", "eu-1a"),
        ("10.2.2.9", "eu-1c"),
        ("10.2.3.9", "unknown"),
        ("10.2.1.77", "eu-1c"),
    ];
    lies(&objects, "", &expected);
}

#[test]
fn a_block_that_goes_gives_the_nodes_prefix_back() {
    let mut model = TestModel::of(&nodes(), true);
    model.read(&block("10.244.9.0/26", "n1"));
    assert_eq!((model.zone("10.244.0.9"), model.zone("10.244.9.9")), ("unknown".into(), "eu-1a".into()));
    model.model.remove(Kind::BlockAffinity, &key("", "n1-10-244-9-0-26"));
    assert_eq!((model.zone("10.244.0.9"), model.zone("10.244.9.9")), ("eu-1a".into(), "unknown".into()));
    // A block that is not confirmed changes nothing.
    let mut pending = block("10.244.9.0/26", "n1");
    pending["spec"]["state"] = "pending".into();
    model.read(&pending);
    assert_eq!(model.zone("10.244.0.9"), "eu-1a");
}

#[test]
fn the_static_table_counts_more_than_ranges_that_nobody_uses() {
    // Cilium chained behind the AWS VPC CNI: its own pool is inside the VPC's range, and no pod has an address of it.
    let fixed = "zones:\n- {name: eu-1a, region: eu-1, cidrs: [10.0.0.0/20]}\n- {name: eu-1b, region: eu-1, cidrs: [10.0.16.0/20]}\n";
    let objects = [
        node("n1", "eu-1a", &["10.0.17.0/24"], "10.0.0.10"),
        node("n2", "eu-1b", &["10.0.3.0/24"], "10.0.16.10"),
        cilium_node("n1", json!({"podCIDRs": ["10.0.18.0/24"]})),
        cilium_node("n2", json!({"podCIDRs": ["10.0.2.0/24"]})),
        pod("a", "n1", &["10.0.2.5"]),
        pod("b", "n2", &["10.0.18.5"]),
    ];
    let expected = [
        ("10.0.2.200", "eu-1a"),
        ("10.0.3.200", "eu-1a"),
        ("10.0.17.9", "eu-1b"),
        ("10.0.18.9", "eu-1b"),
        ("10.0.2.5", "eu-1a"),
        ("10.0.18.5", "eu-1b"),
    ];
    lies(&objects, fixed, &expected);
    // Also for exactly the same prefix.
    let same = "zones: [{name: eu-1c, region: eu-1, cidrs: [10.244.1.0/24]}]\n";
    lies(&nodes(), same, &[("10.244.1.9", "eu-1c"), ("10.244.0.9", "eu-1a")]);
}

#[test]
fn a_static_prefix_that_pods_contradict_is_reported_once() {
    let mut model = TestModel::of(&nodes(), true);
    model.fixed("zones: [{name: eu-1c, region: eu-1, cidrs: [10.244.0.0/16]}]\n");
    model.read(&pod("a", "n1", &["10.244.0.5"]));
    assert_eq!((model.zone("10.244.0.5"), model.zone("10.244.0.6")), ("eu-1a".into(), "eu-1c".into()));
    let notices = model.notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(notices[0].0, "StaticPrefixOverruled");
    let text =
        "10.244.0.0/16 is in zone eu-1c by the static table, but 10.244.0.5/32 in zone eu-1a by Pod shop/a on n1";
    assert!(notices[0].1.starts_with(text), "{}", notices[0].1);
    model.read(&pod("b", "n2", &["10.244.1.5"]));
    assert_eq!(model.zone("10.244.1.5"), "eu-1b");
    assert_eq!(model.notices(), []);
    // The static table's entry for this very address counts.
    model.fixed("zones: [{name: eu-1c, region: eu-1, cidrs: [10.244.0.5/32]}]\n");
    assert_eq!(model.zone("10.244.0.5"), "eu-1c");
}

#[test]
fn an_external_prefix_gives_way_to_the_cluster_and_is_reported() {
    let mut model = TestModel::of(&nodes(), true);
    model.fixed(
        "zones: [{name: eu-1c, region: eu-1}]\nexternal: [{name: db, cidr: 10.244.0.0/16, zone: eu-1c, class: vm}]\n",
    );
    assert_eq!((model.zone("10.244.0.5"), model.zone("10.244.9.5")), ("eu-1a".into(), "eu-1c".into()));
    let notices: Vec<&str> = model.notices().into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(notices, ["StaticPrefixOverruled"]);
}

#[test]
fn an_address_of_a_finished_pod_belongs_to_the_running_pod() {
    let stale = [endpoint("old", "192.168.1.12", "10.244.0.5"), endpoint("older", "192.168.1.13", "192.168.1.11")];
    let mut objects = nodes();
    objects.extend(stale);
    objects.push(pod("a", "n1", &["10.244.0.5"]));
    let mut model = lies(&objects, "", &[("10.244.0.5", "eu-1a"), ("192.168.1.11", "eu-1a")]);
    assert_eq!(model.endpoint("10.244.0.5"), "shop/a");
    // The pod is not known yet, so its CiliumEndpoint counts.
    model.read(&endpoint("new", "192.168.1.12", "10.244.0.6"));
    assert_eq!(model.zone("10.244.0.6"), "eu-1b");
    // The pod counts also on a node without a zone.
    model.read(&node("n1", "", &["10.244.0.0/24"], "192.168.1.11"));
    assert_eq!(model.zone("10.244.0.5"), "unknown");
}

#[test]
fn of_two_pods_with_one_address_the_newer_counts() {
    let mut older = pod("lost", "n2", &["10.244.0.5"]);
    older["metadata"]["creationTimestamp"] = "2026-11-25T09:00:00Z".into();
    let mut objects = nodes();
    objects.extend([older.clone(), pod("a", "n1", &["10.244.0.5"])]);
    let mut model = lies(&objects, "", &[("10.244.0.5", "eu-1a")]);
    assert_eq!(model.endpoint("10.244.0.5"), "shop/a");
    // For two pods of the same age, neither counts.
    older["metadata"]["creationTimestamp"] = "2026-11-25T10:00:00Z".into();
    model.read(&older);
    assert_eq!(model.zone("10.244.0.5"), "unknown");
    assert_eq!((model.model.tally().conflicts, model.model.tally().nodes_without_zone), (1, 0));
}

#[test]
fn addresses_of_nobody_are_left_out_without_a_word() {
    let mut objects = nodes();
    objects.push(node("n4", "eu-1c", &[], "0.0.0.0"));
    for (index, address) in ["0.0.0.0", "127.0.0.1", "::", "::1", "", "224.0.0.1"].iter().enumerate() {
        for node in ["n1", "n2"] {
            objects.push(pod(&format!("p{index}-{node}"), node, &[address]));
        }
    }
    let model = lies(&objects, "", &[("127.0.0.1", "unknown"), ("0.0.0.0", "unknown"), ("10.244.0.1", "eu-1a")]);
    assert_eq!(model.table.len(), 6);
    assert_eq!(model.model.count(Kind::Pod), (12, 0), "nothing of them is a problem");
}

#[test]
fn a_pod_that_has_ended_is_in_no_service_of_the_one_that_has_its_address() {
    let slice = |service: &str, pod: Value| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "shop", "name": service, "labels": {"kubernetes.io/service-name": service}},
            "endpoints": [{"addresses": ["10.244.0.5"], "targetRef": pod}],
        })
    };
    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name}, "spec": {"clusterIP": "10.96.0.9"}});
    let mut failed = pod("old", "n2", &["10.244.0.5"]);
    failed["status"]["phase"] = "Failed".into();
    let mut objects = nodes();
    objects.extend([failed, pod("a", "n1", &["10.244.0.5"])]);
    objects.extend(["left", "right", "any", "vm"].map(service));
    objects.push(slice("left", json!({"kind": "Pod", "name": "old"})));
    objects.push(slice("right", json!({"kind": "Pod", "name": "a"})));
    // Hand-made EndpointSlices name no pod, or another object.
    objects.push(slice("any", Value::Null));
    objects.push(slice("vm", json!({"kind": "VirtualMachine", "name": "old"})));
    let mut model = lies(&objects, "", &[("10.244.0.5", "eu-1a")]);
    assert_eq!(model.endpoint("10.244.0.5"), "shop/a");
    let services = &model.identities[&"10.244.0.5".parse().unwrap()].services;
    assert_eq!(services.iter().map(|name| &**name).collect::<Vec<_>>(), ["any", "right", "vm"]);
}

#[test]
fn a_static_pod_is_its_own_and_an_executor_its_driver_s() {
    let owned = |name: &str, kind: &str, owner: &str| {
        let mut pod = pod(name, "n1", &[&format!("10.244.0.{}", name.len())]);
        let owners = json!([{"apiVersion": "v1", "kind": kind, "name": owner, "uid": "u", "controller": true}]);
        pod["metadata"]["ownerReferences"] = owners;
        pod
    };
    let mut objects = nodes();
    objects.extend([owned("mirror-n1", "Node", "n1"), owned("executor-1", "Pod", "driver")]);
    let model = lies(&objects, "", &[("10.244.0.9", "eu-1a")]);
    let workload = |address: &str| model.identities[&address.parse().unwrap()].workload.clone();
    assert_eq!(workload("10.244.0.9"), None);
    let driver = workload("10.244.0.10").unwrap();
    assert_eq!((&*driver.kind, &*driver.name), ("Pod", "driver"));
}

#[test]
fn only_a_controller_owns_a_pod_and_only_a_node_itself_does_not() {
    let owned = |name: &str, owners: Value| {
        let mut pod = pod(name, "n1", &[&format!("10.244.0.{}", name.len())]);
        pod["metadata"]["ownerReferences"] = owners;
        pod
    };
    let owner = |version: &str, kind: &str, name: &str, controller: bool| json!({"apiVersion": version, "kind": kind, "name": name, "uid": name, "controller": controller});
    let both = json!([owner("v1", "Node", "n1", false), owner("batch/v1", "Job", "backup", true)]);
    let image = json!([owner("apps.kruise.io/v1alpha1", "NodeImage", "n1", true)]);
    let follower = json!([{"apiVersion": "v1", "kind": "Pod", "name": "driver", "uid": "d"}]);
    let mut objects = nodes();
    objects.extend([owned("job-of-node", both), owned("image", image), owned("follower", follower)]);
    let model = lies(&objects, "", &[("10.244.0.5", "eu-1a")]);
    let workload = |address: &str| {
        let workload = model.identities[&address.parse().unwrap()].workload.clone();
        workload.map(|workload| (workload.kind.to_string(), workload.name.to_string()))
    };
    assert_eq!(workload("10.244.0.11"), Some(("Job".into(), "backup".into())));
    assert_eq!(workload("10.244.0.5"), Some(("NodeImage".into(), "n1".into())));
    assert_eq!(workload("10.244.0.8"), None);
}

#[test]
fn a_source_that_is_switched_off_has_no_effect() {
    let mut objects = nodes();
    objects.extend([block("10.244.9.0/26", "n1"), cilium_node("n2", json!({"podCIDRs": ["10.244.0.0/24"]}))]);
    objects.extend([endpoint("e", "192.168.1.13", "10.7.0.1"), pod("a", "n3", &["10.8.0.1"])]);
    let zones = |ignored: &[Source]| -> Vec<String> {
        let mut model = TestModel::default();
        model.model.ignore(ignored.iter().copied());
        objects.iter().for_each(|object| model.read(object));
        let asked = ["10.244.0.9", "10.244.2.9", "10.244.9.9", "10.7.0.1", "10.8.0.1", "192.168.1.11"];
        let zones = asked.map(|address| model.zone(address)).to_vec();
        assert_eq!(model.endpoint("10.8.0.1"), "shop/a", "who has an address is known all the same");
        zones
    };
    let all = ["eu-1b", "eu-1c", "eu-1a", "eu-1c", "eu-1c", "eu-1a"];
    assert_eq!(zones(&[]), all);
    let without = |changed: &[(usize, &'static str)]| {
        let mut expected = all.to_vec();
        changed.iter().for_each(|(index, zone)| expected[*index] = zone);
        expected
    };
    assert_eq!(zones(&[Source::NodePodCidrs]), without(&[(1, "unknown")]));
    assert_eq!(zones(&[Source::CalicoBlocks, Source::CiliumNodes]), without(&[(0, "eu-1a"), (2, "unknown")]));
    assert_eq!(zones(&[Source::CiliumEndpoints]), without(&[(3, "unknown")]));
    assert_eq!(zones(&[Source::Pods]), without(&[(4, "unknown")]));
    // A CiliumEndpoint names its node by the address.
    assert_eq!(zones(&[Source::NodeAddresses]), without(&[(3, "unknown"), (5, "unknown")]));
}
