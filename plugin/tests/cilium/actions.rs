//! Traffic of known kinds between pods, and from outside; and what is done to the cluster meanwhile.

use crate::{
    cluster::{Cluster, NODES, OUTSIDE, until},
    outside,
};
use std::{
    process::Child,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// A pod of every node.
const CLIENTS: [&str; 5] = ["get", "--namespace=billing", "--selector=app=client", "--output=name", "pods"];
/// The servers' port, and that of their service on every node.
const PORT: u16 = 8080;
const NODE_PORT: u16 = 30080;

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
    let flows: Vec<String> = ends.iter().flat_map(|end| flows(*end)).collect();
    let mut sending: Vec<Child> = clients(cluster).iter().map(|client| send(cluster, client, &flows)).collect();
    for client in &mut sending {
        assert!(client.wait().unwrap().success(), "a client could not send");
    }
}

fn flows((host, port): (&str, u16)) -> [String; 3] {
    [
        format!("tcp:{host}:{port}:300000:1000000:3"),
        format!("udp:{host}:{port}:1200:50"),
        format!("udp:{host}:{port}:4000:10"),
    ]
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

/// Traffic from outside to the service's port on a node that has none of its pods.
pub fn node_port(cluster: &Cluster) {
    let traffic = std::env::var("MERIDIAN_TRAFFIC").unwrap();
    for node in cluster.addresses(NODES[0].0) {
        let tcp = format!("tcp:{node}:{NODE_PORT}:300000:1000000:5");
        cluster.ask(OUTSIDE, &[traffic.as_str(), "send", &tcp, &format!("udp:{node}:{NODE_PORT}:1200:20")]);
    }
}

/// Bursts that go on until the work is done, one at least.
pub fn burst_while(cluster: &Cluster, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let bursts = scope.spawn(|| {
            loop {
                burst(cluster);
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        work();
        done.store(true, Ordering::Relaxed);
        bursts.join().unwrap();
    });
}

/// Ends the cilium-agent of each node, and starts it again, with more flags.
pub fn restart_cilium(cluster: &Cluster, flags: &[&str]) {
    of_each_node(|node| {
        cluster.script(&["cilium", "stop", node]);
        cluster.script(&[&["cilium", "start", node], flags].concat());
        wait_for_cilium(cluster, node);
    });
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

fn of_each_node(work: impl Fn(&'static str) + Copy + Send) {
    thread::scope(|scope| {
        for (node, _) in NODES {
            scope.spawn(move || work(node));
        }
    });
}

fn wait_for_cilium(cluster: &Cluster, node: &str) {
    until("cilium-agent", || {
        let status = cluster.command(&["cilium", "dbg", node, "status", "--brief"]).output().unwrap();
        status.status.success().then_some(())
    });
}

/// Replaces each of our agents.
pub fn restart_agents(cluster: &Cluster) {
    cluster.kubectl(&["--namespace=meridian", "rollout", "restart", "daemonset/meridian-agent"]);
    cluster.rolled_out("meridian", "daemonset/meridian-agent");
}
