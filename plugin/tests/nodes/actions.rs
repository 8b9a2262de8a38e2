//! Traffic of known kinds between pods, and from outside; and what is done to the cluster meanwhile.

use super::cluster::{Cluster, NODES, OUTSIDE, until};
use serde_json::Value;
use std::{
    process::Child,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// The servers' port, and that of their service on every node.
pub const PORT: u16 = 8080;
const NODE_PORT: u16 = 30080;

/// Traffic from each client to each server: TCP, UDP, and datagrams that are cut; by address of either family, by
/// service, and by the name of one without an address.
pub fn burst(cluster: &Cluster) {
    assert!(sends(cluster, &flows(cluster)), "a client could not send");
}

/// Waits until no node sends a service's traffic to pods that are lost. It is the nodes' own network that tries: a packet
/// to a node that is off is counted where it leaves, and never reaches the wire.
pub fn services_are_settled(cluster: &Cluster) {
    let services = ["--namespace=shop", "get", "service", "web", "--output=jsonpath={.spec.clusterIPs[*]}"];
    let services = cluster.kubectl(&services);
    // Each connection goes to one pod of them all.
    let flows: Vec<String> = services.split(' ').map(|address| format!("tcp:[{address}]:80:10:10:20")).collect();
    until("the services' traffic passes", || {
        let trying: Vec<Child> =
            ready(cluster, "shop", "host").iter().map(|host| send(cluster, host, &flows)).collect();
        let passed: Vec<bool> = trying.into_iter().map(|mut host| host.wait().unwrap().success()).collect();
        passed.into_iter().all(|passed| passed).then_some(())
    });
}

/// From a client to each server, each service, and the one that is a name alone.
fn flows(cluster: &Cluster) -> Vec<String> {
    let servers = ready(cluster, "shop", "web");
    let services = ["--namespace=shop", "get", "service", "web", "--output=jsonpath={.spec.clusterIPs[*]}"];
    let services = cluster.kubectl(&services);
    let host = |address: &str| if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let servers = servers.iter().flat_map(|pod| &pod.addresses).map(|address| (host(address), PORT));
    let services = services.split(' ').map(|address| (host(address), 80));
    let all = servers.chain(services).chain([("web-headless.shop.svc.cluster.local".to_owned(), PORT)]);
    all.flat_map(|(host, port)| flows_to(&host, port)).collect()
}

/// TCP, UDP, and datagrams that are cut, to one port.
pub fn flows_to(host: &str, port: u16) -> [String; 3] {
    [
        format!("tcp:{host}:{port}:300000:1000000:3"),
        format!("udp:{host}:{port}:1200:50"),
        format!("udp:{host}:{port}:4000:10"),
    ]
}

/// The same flows from each client at once.
pub fn send_from_each_client(cluster: &Cluster, flows: &[String]) {
    assert!(sends(cluster, flows), "a client could not send");
}

/// Whether all clients could send.
fn sends(cluster: &Cluster, flows: &[String]) -> bool {
    let clients = ready(cluster, "billing", "client");
    let sending: Vec<Child> = clients.iter().map(|client| send(cluster, client, flows)).collect();
    assert!(sending.len() >= 2, "{clients:?}");
    let ends: Vec<bool> = sending.into_iter().map(|mut client| client.wait().unwrap().success()).collect();
    ends.into_iter().all(|sent| sent)
}

/// A client that sends.
pub fn send(cluster: &Cluster, from: &ReadyPod, flows: &[String]) -> Child {
    let exec = ["kubectl", "--namespace", &from.namespace, "exec", &from.name, "--", "traffic", "send"];
    cluster.command(&exec).args(flows).spawn().unwrap()
}

/// A pod that is ready.
#[derive(Debug)]
pub struct ReadyPod {
    pub namespace: String,
    pub name: String,
    pub node: String,
    pub addresses: Vec<String>,
}

/// The pods of a workload that are ready.
pub fn ready(cluster: &Cluster, namespace: &str, workload: &str) -> Vec<ReadyPod> {
    let pods = cluster.get(&["pods", "--namespace", namespace, "--selector", &format!("app={workload}")]);
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        pod["metadata"]["deletionTimestamp"].is_null() && ready.next().is_some()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pods = pods.iter().filter(is_ready).map(|pod| ReadyPod {
        namespace: namespace.to_owned(),
        name: text(&pod["metadata"]["name"]),
        node: text(&pod["spec"]["nodeName"]),
        addresses: pod["status"]["podIPs"].as_array().unwrap().iter().map(|ip| text(&ip["ip"])).collect(),
    });
    pods.collect()
}

/// Traffic from outside to the service's port at addresses of a node that has none of its pods.
pub fn node_port(cluster: &Cluster, addresses: &[String]) {
    let traffic = std::env::var("MERIDIAN_TRAFFIC").unwrap();
    for node in addresses {
        let tcp = format!("tcp:{node}:{NODE_PORT}:300000:1000000:5");
        cluster.ask(OUTSIDE, &[traffic.as_str(), "send", &tcp, &format!("udp:{node}:{NODE_PORT}:1200:20")]);
    }
}

/// Bursts until the work is done, at least one.
pub fn burst_while(burst: impl Fn() + Sync, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let bursts = scope.spawn(|| {
            loop {
                burst();
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

/// Works on all nodes at once.
pub fn of_each_node(work: impl Fn(&'static str) + Copy + Send) {
    thread::scope(|scope| {
        for (node, _) in NODES {
            scope.spawn(move || work(node));
        }
    });
}

/// Waits until the cilium-agent of a node is ready.
pub fn wait_for_cilium(cluster: &Cluster, node: &str) {
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
