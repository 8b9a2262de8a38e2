//! Nodes that can't run an agent: their traffic counts at the receiver.

use super::{
    sources::{node, pod},
    *,
};
use meridian_abi::zone::PrefixKind::{self, Cluster, External};

impl TestModel {
    /// The zone of an address, and whether its traffic is counted at the receiver.
    fn counted(&mut self, address: &str) -> (String, PrefixKind) {
        self.apply_changes();
        let mut table = Table::new();
        self.table.iter().for_each(|(prefix, placement)| table.insert(*prefix, placement.clone()));
        let (_, placement) = table.lookup(address.parse().unwrap()).unwrap();
        (placement.place.to_string(), placement.kind)
    }
}

fn labelled(name: &str, key: &str, value: &str) -> Value {
    let mut node = node(name, "eu-1b", &["10.244.9.0/24"], "10.0.0.9");
    node["metadata"]["labels"][key] = value.into();
    node
}

#[test]
fn traffic_from_a_node_without_an_agent_counts_where_it_arrives() {
    let mut tainted = labelled("aci", "kubernetes.io/os", "linux");
    tainted["spec"]["taints"] =
        json!([{"key": "virtual-kubelet.io/provider", "value": "azure", "effect": "NoSchedule"}]);
    let mut windows = node("win", "eu-1b", &["10.244.9.0/24"], "10.0.0.9");
    windows["status"]["nodeInfo"] = json!({"operatingSystem": "windows"});
    let nodes = [
        labelled("fargate-ip-10-0-0-9", "eks.amazonaws.com/compute-type", "fargate"),
        labelled("virtual-node-aci", "type", "virtual-kubelet"),
        labelled("win-2", "kubernetes.io/os", "windows"),
        tainted,
        windows,
    ];
    for agentless in nodes {
        for is_forwards in [true, false] {
            let name = agentless["metadata"]["name"].as_str().unwrap().to_owned();
            let objects = [
                node("n1", "eu-1a", &["10.244.1.0/24"], "10.0.0.1"),
                agentless.clone(),
                pod("web", &name, &["10.0.7.7"]),
                pod("api", "n1", &["10.0.7.8"]),
            ];
            let mut model = TestModel::of(&objects, is_forwards);
            assert_eq!(model.counted("10.0.7.7"), ("eu-1b".into(), External), "{name}");
            assert_eq!(model.counted("10.0.7.8"), ("eu-1a".into(), Cluster));
            assert_eq!(model.counted("10.244.1.9"), ("eu-1a".into(), Cluster));
            assert_eq!(model.endpoint("10.0.7.7"), "shop/web", "its name is known all the same");
            assert_eq!(model.model.tally().nodes_without_agent, 1, "{name}");
            assert_eq!(model.notices(), []);
        }
    }
}

#[test]
fn a_node_that_only_looks_like_one_without_an_agent_has_one() {
    let near = [
        labelled("ec2", "eks.amazonaws.com/compute-type", "ec2"),
        labelled("auto", "eks.amazonaws.com/compute-type", "auto"),
        labelled("typed", "type", "worker"),
        labelled("linux", "kubernetes.io/os", "linux"),
        labelled("unnamed", "kubernetes.io/os", ""),
        node("plain", "eu-1b", &["10.244.9.0/24"], "10.0.0.9"),
    ];
    for near in near {
        let mut model = TestModel::of(std::slice::from_ref(&near), true);
        assert_eq!(model.counted("10.244.9.9"), ("eu-1b".into(), Cluster), "{near}");
        assert_eq!(model.counted("10.0.0.9"), ("eu-1b".into(), Cluster));
        assert_eq!(model.model.tally().nodes_without_agent, 0);
    }
}

#[test]
fn a_simulated_node_has_no_agent_and_sends_nothing() {
    let mut model = TestModel::of(&[labelled("kwok-1", "type", "kwok"), pod("fake", "kwok-1", &["10.0.7.7"])], true);
    assert_eq!(model.counted("10.0.7.7"), ("eu-1b".into(), Cluster));
    assert_eq!(model.model.tally().nodes_without_agent, 1, "nobody waits for its report");
}

#[test]
fn a_pod_counts_as_its_node_does_whatever_the_prefix_around_it() {
    let objects = [
        node("n1", "eu-1b", &[], "10.0.0.1"),
        labelled("fargate", "eks.amazonaws.com/compute-type", "fargate"),
        pod("web", "fargate", &["10.0.7.7"]),
        pod("api", "n1", &["10.0.7.8"]),
    ];
    let zones = "zones: [{name: eu-1b, region: eu-1, cidrs: [10.0.0.0/16]}]\n";
    let mut model = TestModel::of(&objects, true);
    model.fixed(zones);
    assert_eq!(model.counted("10.0.7.7"), ("eu-1b".into(), External), "the subnet has agents, this node has none");
    assert_eq!(model.counted("10.0.7.8"), ("eu-1b".into(), Cluster));
    let subnet =
        "zones: [{name: eu-1b, region: eu-1}]\nexternal: [{name: vpc, cidr: 10.0.0.0/16, zone: eu-1b, class: vm}]\n";
    model.fixed(subnet);
    assert_eq!(model.counted("10.0.7.8"), ("eu-1b".into(), Cluster), "its sender's node counts it, not the receiver's");
    assert_eq!(model.counted("10.0.7.9"), ("eu-1b".into(), External));
}

#[test]
fn a_node_counts_by_its_present_labels() {
    let mut model = TestModel::of(&[labelled("n", "type", "virtual-kubelet")], true);
    assert_eq!(model.counted("10.244.9.9").1, External);
    model.read(&labelled("n", "type", "worker"));
    assert_eq!(model.counted("10.244.9.9").1, Cluster);
    assert_eq!(model.model.tally().nodes_without_agent, 0);
    model.read(&labelled("n", "type", "virtual-kubelet"));
    model.model.remove(Kind::Node, &key("", "n"));
    assert_eq!(model.model.tally().nodes_without_agent, 0);
}

#[test]
fn the_labels_of_agents_nodes_are_those_that_were_asked_for() {
    let labels = |selector: &[&str], labels: &[&str]| LabelKeys {
        agentless: objects::Agentless {
            labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
            selector: selector.iter().map(|label| label.parse().unwrap()).collect(),
        },
        ..LabelKeys::default()
    };
    let agentless = |keys: &LabelKeys, node: &Value| {
        let mut model = Model::default();
        model.apply(Kind::Node, objects::read(Kind::Node, node.to_string().as_bytes(), keys).unwrap());
        model.tally().nodes_without_agent == 1
    };
    let pool = |value| labelled("n", "pool", value);
    assert!(!agentless(&labels(&["pool=a"], &[]), &pool("a")));
    assert!(agentless(&labels(&["pool=a"], &[]), &pool("b")));
    assert!(agentless(&labels(&["pool=a", "kubernetes.io/os=linux"], &[]), &pool("a")), "all of them");
    assert!(agentless(&labels(&[], &["pool=b", "pool=c"]), &pool("c")), "any of them");
    assert!(!agentless(&labels(&[], &["pool=b", "pool=c"]), &pool("a")));
    for wrong in ["", "pool", "=a"] {
        assert!(wrong.parse::<objects::NodeLabel>().is_err(), "{wrong}");
    }
}

#[test]
fn pods_of_a_cluster_without_zones_have_no_prefix_each() {
    let bare = |name: &str, address: &str| {
        let mut node = node(name, "", &[], address);
        node["metadata"]["labels"] = json!({});
        node
    };
    let mut objects = vec![bare("n1", "10.0.0.1"), bare("n2", "10.0.0.2")];
    objects.extend((0..50).map(|n| pod(&format!("p{n}"), "n1", &[&format!("10.0.7.{n}")])));
    // A public address is the internet's unless a prefix claims it as ours.
    objects.push(pod("public", "n1", &["11.0.7.7"]));
    for is_forwards in [true, false] {
        let mut model = TestModel::of(&objects, is_forwards);
        assert_eq!((model.zone("10.0.7.7"), model.zone("11.0.7.7")), ("unknown".into(), "unknown".into()));
        let prefixes: Vec<String> = model.table.keys().map(ToString::to_string).collect();
        assert_eq!(prefixes, ["10.0.0.1/32", "10.0.0.2/32", "11.0.7.7/32"]);
        // One that gets a zone gets its pods' prefixes with it.
        model.read(&node("n1", "eu-1a", &[], "10.0.0.1"));
        assert_eq!(model.zone("10.0.7.7"), "eu-1a");
        // A wider prefix in a zone is not the zone of a pod without a known node.
        model.read(&bare("n1", "10.0.0.1"));
        model.read(&node("n3", "eu-1a", &["10.0.7.0/24"], "10.0.0.3"));
        assert_eq!((model.zone("10.0.7.7"), model.zone("10.0.7.77")), ("unknown".into(), "eu-1a".into()));
    }
}
