//! The table of CNIs in docs/kubernetes.md: the source that names a pod's zone, by the objects that each CNI writes.

use super::{
    sources::{block, cilium_node, node, pod},
    *,
};

/// A cluster of two nodes in two zones, with a pod on the second one at the address.
struct Cluster {
    name: &'static str,
    objects: Vec<Value>,
    address: &'static str,
    /// The decisive object for the address once the pod is known, and the zone of the address before.
    source: &'static str,
    before: &'static str,
}

fn nodes(cidrs: [&[&str]; 2], provider: &str, notes: [Value; 2]) -> Vec<Value> {
    let mut nodes = vec![node("n1", "eu-1a", cidrs[0], "192.168.1.11"), node("n2", "eu-1b", cidrs[1], "192.168.1.12")];
    for (node, note) in nodes.iter_mut().zip(notes) {
        node["spec"]["providerID"] = format!("{provider}{}", node["metadata"]["name"].as_str().unwrap()).into();
        node["metadata"]["annotations"] = note;
    }
    nodes
}

/// Nodes with `spec.podCIDRs`.
fn with_cidrs(provider: &str) -> Vec<Value> {
    nodes([&["10.244.1.0/24"], &["10.244.2.0/24"]], provider, [json!({}), json!({})])
}

/// Nodes without `spec.podCIDRs`, as where addresses are those of the cloud's network.
fn without_cidrs(provider: &str) -> Vec<Value> {
    nodes([&[], &[]], provider, [json!({}), json!({})])
}

fn plus(mut objects: Vec<Value>, more: impl IntoIterator<Item = Value>) -> Vec<Value> {
    objects.extend(more);
    objects
}

/// An ENI of a CiliumNode, with the address in its pool.
fn eni(name: &str, address: &str) -> Value {
    let mut node = cilium_node(name, json!({"pool": {address: {"resource": "eni-1"}}}));
    node["status"] = json!({"eni": {"enis": {"eni-1": {"id": "eni-1", "addresses": [address]}}}});
    node
}

fn clusters() -> Vec<Cluster> {
    let allocated = |cidr: &str| json!({"pools": {"allocated": [{"pool": "default", "cidrs": [cidr]}]}});
    let swapped = |name: &str, cidr: &str| cilium_node(name, json!({"podCIDRs": [cidr]}));
    let ovn = |cidr: &str| json!({"k8s.ovn.org/node-subnets": format!("{{\"default\":[\"{cidr}\"]}}")});
    let router = |cidr: &str| json!({"kube-router.io/pod-cidrs": cidr});
    let cluster = |name, objects, address, source, before| Cluster { name, objects, address, source, before };
    vec![
        cluster(
            "Cilium, cluster-pool",
            plus(with_cidrs(""), [swapped("n1", "10.244.2.0/24"), swapped("n2", "10.244.1.0/24")]),
            "10.244.1.7",
            "CiliumNode n2",
            "eu-1b",
        ),
        cluster(
            "Cilium, multi-pool",
            plus(with_cidrs(""), [cilium_node("n2", allocated("10.9.0.0/27"))]),
            "10.9.0.7",
            "CiliumNode n2",
            "eu-1b",
        ),
        cluster(
            "Cilium, kubernetes",
            plus(with_cidrs(""), [swapped("n1", "10.244.1.0/24"), swapped("n2", "10.244.2.0/24")]),
            "10.244.2.7",
            "CiliumNode n2",
            "eu-1b",
        ),
        cluster(
            "Cilium, ENI",
            plus(without_cidrs("aws:///eu-1b/i-"), [eni("n2", "10.0.5.7")]),
            "10.0.5.7",
            "n2",
            "eu-1b",
        ),
        cluster(
            "Cilium chained to another CNI",
            plus(without_cidrs("aws:///eu-1b/i-"), [swapped("n1", "10.0.9.0/24")]),
            "10.0.5.7",
            "Pod shop/a",
            "unknown",
        ),
        cluster(
            "Calico",
            plus(with_cidrs(""), [block("10.7.1.0/26", "n1"), block("10.7.2.0/26", "n2")]),
            "10.7.2.7",
            "BlockAffinity n2-10-7-2-0-26",
            "eu-1b",
        ),
        cluster("Calico with host-local addresses, Canal", with_cidrs(""), "10.244.2.7", "Node n2", "eu-1b"),
        cluster("AWS VPC CNI", without_cidrs("aws:///eu-1b/i-"), "10.0.5.7", "Pod shop/a", "unknown"),
        cluster("Azure CNI overlay", without_cidrs("azure:///subscriptions/s/"), "10.244.2.7", "Pod shop/a", "unknown"),
        cluster(
            "Azure CNI overlay, with prefixes",
            with_cidrs("azure:///subscriptions/s/"),
            "10.244.2.7",
            "Node n2",
            "eu-1b",
        ),
        cluster("Azure CNI with a pod subnet", without_cidrs("azure:///s/"), "10.241.0.7", "Pod shop/a", "unknown"),
        cluster("GKE", with_cidrs("gce://project/eu-1b/"), "10.244.2.7", "Node n2", "eu-1b"),
        cluster(
            "OVN-Kubernetes",
            nodes([&[], &[]], "", [ovn("10.128.0.0/23"), ovn("10.129.0.0/23")]),
            "10.129.1.7",
            "Node n2",
            "eu-1b",
        ),
        cluster("flannel, kindnet, Antrea", with_cidrs("kind://docker/"), "10.244.2.7", "Node n2", "eu-1b"),
        cluster(
            "kube-router",
            nodes([&["10.244.2.0/24"], &["10.244.1.0/24"]], "", [router("10.244.1.0/24"), router("10.244.2.0/24")]),
            "10.244.2.7",
            "Node n2",
            "eu-1b",
        ),
        cluster("OKE, VCN-native", without_cidrs("ocid1.instance.oc1."), "10.0.20.7", "Pod shop/a", "unknown"),
        cluster("Terway", without_cidrs("cn-hangzhou.i-"), "172.16.4.7", "Pod shop/a", "unknown"),
    ]
}

#[test]
fn every_cni_of_the_table_names_a_pods_zone() {
    for Cluster { name, objects, address, source, before } in clusters() {
        for is_forwards in [true, false] {
            let mut model = TestModel::of(&objects, is_forwards);
            assert_eq!(model.zone(address), before, "{name}, before the pod is known");
            model.read(&pod("a", "n2", &[address]));
            assert_eq!((model.zone(address), model.endpoint(address)), ("eu-1b".into(), "shop/a".into()), "{name}");
            let asked: IpAddr = address.parse().unwrap();
            let covering = model.table.iter().filter(|(prefix, _)| prefix.contains(asked));
            let (_, placement) = covering.max_by_key(|(prefix, _)| prefix.prefix()).unwrap();
            assert!(placement.origin.contains(source), "{name}: {}", placement.origin);
            assert_eq!(model.notices(), [], "{name}");
            assert_eq!((model.model.tally().conflicts, model.model.tally().nodes_without_zone), (0, 0), "{name}");
        }
    }
}

#[test]
fn the_table_of_the_page_has_every_cni() {
    let page = include_str!("../../../../../docs/kubernetes.md");
    for Cluster { name, .. } in clusters() {
        let name = name.strip_suffix(", with prefixes").unwrap_or(name);
        let row = page.lines().find(|line| line.strip_prefix("| ").is_some_and(|row| row.starts_with(name)));
        let row = row.unwrap_or_else(|| panic!("no row for {name}"));
        assert!(row.contains("unit tests"), "{row}");
    }
}
