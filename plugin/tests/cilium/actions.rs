//! Traffic of known kinds between pods, and from outside; and what is done to the cluster meanwhile.

use crate::cluster::{Cluster, NODES, OUTSIDE, until};
use std::{
    process::Child,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// A pod of every node.
const CLIENTS: [&str; 4] = ["--namespace=billing", "--selector=app=client", "--output=name", "pods"];
/// The servers' port, and that of their service on every node.
const PORT: u16 = 8080;
const NODE_PORT: u16 = 30080;

/// Traffic from each client to each server: TCP, UDP, and datagrams that are cut; by address and by service.
pub fn burst(cluster: &Cluster) {
    let mut flows = Vec::new();
    let addresses = ["--namespace=shop", "get", "pods", "--output=jsonpath={.items[*].status.podIP}"];
    let service = ["--namespace=shop", "get", "service", "web", "--output=jsonpath={.spec.clusterIP}"];
    let servers = cluster.kubectl(&addresses);
    let servers = servers.split(' ').map(|address| (address.to_owned(), PORT));
    for (host, port) in servers.chain([(cluster.kubectl(&service), 80)]) {
        flows.push(format!("tcp:{host}:{port}:300000:1000000:3"));
        flows.push(format!("udp:{host}:{port}:1200:50"));
        flows.push(format!("udp:{host}:{port}:4000:10"));
    }
    let clients = cluster.kubectl(&[&["get"], &CLIENTS[..]].concat());
    let send = |client: &str| -> Child {
        let mut command = cluster.command(&["kubectl", "--namespace=billing", "exec", client, "--", "traffic", "send"]);
        command.args(&flows).spawn().unwrap()
    };
    let sending: Vec<Child> = clients.lines().map(send).collect();
    assert_eq!(sending.len(), 3, "{clients}");
    for mut client in sending {
        assert!(client.wait().unwrap().success(), "a client could not send");
    }
}

/// Traffic from outside to the service's port on a node that has none of its pods.
pub fn node_port(cluster: &Cluster) {
    let flow = format!("tcp:172.30.0.11:{NODE_PORT}:300000:1000000:5");
    let traffic = std::env::var("MERIDIAN_TRAFFIC").unwrap();
    cluster.ask(OUTSIDE, &[traffic.as_str(), "send", &flow, &format!("udp:172.30.0.11:{NODE_PORT}:1200:20")]);
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

/// Ends the cilium-agent of each node, and starts it again.
pub fn restart_cilium(cluster: &Cluster) {
    let restart = |node| {
        cluster.script(&["cilium", "stop", node]);
        cluster.script(&["cilium", "start", node]);
        until("cilium-agent", || {
            let status = cluster.command(&["cilium", "dbg", node, "status", "--brief"]).output().unwrap();
            status.status.success().then_some(())
        });
    };
    thread::scope(|scope| {
        for (node, _) in NODES {
            scope.spawn(move || restart(node));
        }
    });
}

/// Replaces each of our agents.
pub fn restart_agents(cluster: &Cluster) {
    cluster.kubectl(&["--namespace=meridian", "rollout", "restart", "daemonset/meridian-agent"]);
    cluster.rolled_out("meridian", "daemonset/meridian-agent");
}
