//! Traffic of known kinds between pods, and from outside; and what is done to the cluster meanwhile.

use crate::{
    cluster::{Cluster, NODES},
    nodes::actions::{PORT, flows_to, of_each_node, wait_for_cilium},
    outside,
};
use std::process::Child;

/// A pod of every node.
const CLIENTS: [&str; 5] = ["get", "--namespace=billing", "--selector=app=client", "--output=name", "pods"];

/// Traffic from each client to each server: TCP, UDP, and datagrams that are cut; by address and by service; and the
/// same to outside. Over every IP version that the cluster has.
pub fn burst(cluster: &Cluster) {
    let addresses = ["--namespace=shop", "get", "pods", "--output=jsonpath={.items[*].status.podIPs[*].ip}"];
    let service = ["--namespace=shop", "get", "service", "web", "--output=jsonpath={.spec.clusterIPs[*]}"];
    let (servers, service) = (cluster.kubectl(&addresses), cluster.kubectl(&service));
    let mut ends: Vec<(&str, u16)> = servers.split(' ').map(|address| (address, PORT)).collect();
    ends.extend(service.split(' ').map(|address| (address, 80)));
    let versions = service.split(' ').count();
    ends.extend(outside::ADDRESSES[..versions].iter().map(|address| (*address, outside::PORT)));
    let flows: Vec<String> = ends.iter().flat_map(|(host, port)| flows_to(host, *port)).collect();
    let mut sending: Vec<Child> = clients(cluster).iter().map(|client| send(cluster, client, &flows)).collect();
    for client in &mut sending {
        assert!(client.wait().unwrap().success(), "a client could not send");
    }
}

/// The client of each node.
pub fn clients(cluster: &Cluster) -> Vec<String> {
    let clients: Vec<String> = cluster.kubectl(&CLIENTS).lines().map(str::to_owned).collect();
    assert_eq!(clients.len(), NODES.len(), "{clients:?}");
    clients
}

/// Starts the client's sending.
pub fn send(cluster: &Cluster, client: &str, flows: &[String]) -> Child {
    let mut command = cluster.command(&["kubectl", "--namespace=billing", "exec", client, "--", "traffic", "send"]);
    command.args(flows).spawn().unwrap()
}

/// Replaces the cilium-agent of each node by one of the next version.
pub fn upgrade_cilium(cluster: &Cluster) {
    let version = |node| cluster.script(&["cilium", "dbg", node, "version"]);
    let daemon = |text: String| text.lines().find(|line| line.starts_with("Daemon:")).map(str::to_owned);
    of_each_node(|node| {
        let before = daemon(version(node));
        cluster.script(&["cilium", "upgrade", node]);
        wait_for_cilium(cluster, node);
        let after = daemon(version(node));
        assert!(after.is_some() && after != before, "{node} had {before:?}, and has {after:?}");
    });
}
