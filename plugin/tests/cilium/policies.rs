//! Policies by which Cilium drops packets: those that it drops at a sending pod are not counted; those that it drops
//! where they arrive were sent, and are.

use crate::{
    actions::{clients, send},
    cluster::{Cluster, NODES, until},
    modes::growth,
    wire::Wire,
};
use serde_json::{Value, json};

/// Ports to which sending is denied, and at which receiving is denied.
const SENDER: u16 = 8081;
const RECEIVER: u16 = 8082;
/// Of each datagram, which is cut.
const SIZE: u64 = 6000;

/// Puts policies in force, sends what they forbid, and takes them away.
pub fn drop_packets(cluster: &Cluster, wire: &Wire) {
    let policies = policies();
    for policy in &policies {
        cluster.create(policy);
    }
    wait_until_enforced(cluster);
    let web = cluster.get(&["pods", "--namespace=shop"]);
    let servers: Vec<&str> = web.iter().map(|pod| pod["status"]["podIP"].as_str().unwrap()).collect();

    let before = wire.by_pods(&wire.carried());
    refused(cluster, &servers, SENDER);
    let carried = growth(&before, &wire.by_pods(&wire.carried()));
    assert!(carried.is_empty(), "the policy let packets of pods pass: {carried:#?}");
    refused(cluster, &servers, RECEIVER);
    let carried = growth(&before, &wire.by_pods(&wire.carried()));
    assert_eq!(carried.len(), 4, "clients and servers on different nodes: {carried:#?}");
    assert!(carried.values().all(|bytes| *bytes > SIZE), "the wire carried too little: {carried:#?}");

    from_node(cluster, NODES[1].1);
    for policy in &policies {
        cluster.kubectl(&["delete", policy["kind"].as_str().unwrap(), policy["metadata"]["name"].as_str().unwrap()]);
    }
}

/// Those for pods name them, those for nodes the nodes. None of them makes an end deny what it does not name.
fn policies() -> Vec<Value> {
    let ports = |port: u16| {
        let port = port.to_string();
        json!([{"ports": [{"port": port, "protocol": "UDP"}, {"port": port, "protocol": "TCP"}]}])
    };
    let policy = |name: &str, selector: &str, labels: Value, mut rules: Value| {
        rules[selector] = labels;
        rules["enableDefaultDeny"] = json!({"egress": false, "ingress": false});
        json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
               "metadata": {"name": name}, "spec": rules})
    };
    let app = |name: &str| json!({"matchLabels": {"app": name}});
    let egress = json!([{"toEntities": ["all"], "toPorts": ports(SENDER)}]);
    let ingress = json!([{"fromEntities": ["all"], "toPorts": ports(RECEIVER)}]);
    vec![
        policy("clients", "endpointSelector", app("client"), json!({"egressDeny": egress})),
        policy("servers", "endpointSelector", app("web"), json!({"ingressDeny": ingress})),
        policy("nodes", "nodeSelector", json!({}), json!({"ingressDeny": ingress})),
    ]
}

/// Until every agent has all of them.
fn wait_until_enforced(cluster: &Cluster) {
    until("policies in force", || {
        let enforced = |(node, _)| {
            let list = cluster.script(&["cilium", "dbg", node, "endpoint", "list", "--output=json"]);
            let list: Value = serde_json::from_str(&list).unwrap();
            let has_one = |endpoint: &&Value| endpoint["status"]["policy"]["realized"]["policy-enabled"] != "none";
            let pods = if node == NODES[0].0 { 1 } else { 2 };
            // The node itself is an endpoint, too.
            list.as_array().unwrap().iter().filter(has_one).count() > pods
        };
        NODES.into_iter().all(enforced).then_some(())
    });
}

/// Datagrams and connections from each client to each server, none of which is answered.
fn refused(cluster: &Cluster, servers: &[&str], port: u16) {
    let clients = clients(cluster);
    let flows = servers.iter().flat_map(|server| {
        [format!("udp:{server}:{port}:{SIZE}:1"), format!("tcp:{server}:{port}:1:1:1")].map(|flow| vec![flow])
    });
    let mut sending: Vec<_> =
        flows.flat_map(|flow| clients.iter().map(move |client| send(cluster, client, &flow))).collect();
    for client in &mut sending {
        assert!(!client.wait().unwrap().success(), "an answer to a packet that should be dropped");
    }
}

/// A datagram from the first node itself to another, whose firewall drops it.
fn from_node(cluster: &Cluster, to: &str) {
    let traffic = std::env::var("MERIDIAN_TRAFFIC").unwrap();
    let output = cluster.in_network(NODES[0].0, &[traffic, "send".into(), format!("udp:{to}:{RECEIVER}:{SIZE}:1")]);
    assert!(!output.status.success(), "an answer to a packet that should be dropped");
}
