//! Load on a node: flows to ten thousand addresses, and clients that follow them. The kernel would end
//! a process that went over the chart's limit.

use crate::{
    nodes::{
        actions::{ready, send},
        cluster::{Cluster, until},
        pages::{self, Series},
    },
    processes::Process,
};
use meridian::{hubble::services::observer_client::ObserverClient, proto::observer::GetFlowsRequest};
use std::path::PathBuf;
use tonic::transport::Endpoint;

const FLOWS: usize = 10_000;
/// For a client that reads late the server holds up to 400 KB of its stream: with a thousand of them, and none that
/// reads, an agent would be over its limit of 256 MiB.
const FOLLOWERS: usize = 200;
/// Streams of a connection.
const STREAMS: usize = 50;
/// The node that bears it.
const NODE: (&str, &str) = ("node-1", "172.30.0.11");

/// Bears it.
pub fn bear(cluster: &Cluster) {
    let before = restarts(cluster);
    let socket = until("the agent of the node", || {
        let agents = Process::all(cluster).into_iter().filter(|process| process.part == "agent");
        let mut sockets =
            agents.filter(|agent| agent.node() == NODE.0).map(|agent| agent.path("/run/meridian/hubble.sock"));
        sockets.next().filter(|socket| socket.exists())
    });
    // Clients read on threads of their own, whatever waits here.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let followers = follow(socket).await;
        sweep(cluster);
        let followers_of = || value(cluster, "meridian_flow_ring_readers");
        until("the clients", || (followers_of() >= FOLLOWERS as f64).then_some(()));
        until("ten thousand flows", || (value(cluster, "meridian_flow_entries") >= FLOWS as f64).then_some(()));
        drop(followers);
    });
    for process in Process::all(cluster) {
        let (most, limit) = process.memory();
        eprintln!("    {} on {}: {} MiB of {} at most", process.part, process.node(), most >> 20, limit >> 20);
        assert!(most <= limit, "{process:?}");
    }
    assert_eq!(restarts(cluster), before, "containers were started again");
}

/// How often each container was started again.
fn restarts(cluster: &Cluster) -> String {
    let path =
        "--output=jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount}{\"\\n\"}{end}";
    cluster.kubectl(&["--namespace=meridian", "get", "pods", path])
}

/// Clients that follow everything, each reading what comes.
async fn follow(socket: PathBuf) -> tokio::task::JoinSet<()> {
    let mut followers = tokio::task::JoinSet::new();
    for _ in 0..FOLLOWERS / STREAMS {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        for _ in 0..STREAMS {
            let mut client = ObserverClient::new(channel.clone());
            followers.spawn(async move {
                let request = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
                let mut flows = client.get_flows(request).await.unwrap().into_inner();
                while let Ok(Some(_)) = flows.message().await {}
            });
        }
    }
    // Until each has asked.
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    followers
}

/// Datagrams to unused addresses, through the node's uplink.
fn sweep(cluster: &Cluster) {
    let clients = ready(cluster, "billing", "client");
    let client = clients.iter().find(|client| client.node == NODE.0).unwrap();
    let flow = format!("sweep:10.200.0.1:9:100:{FLOWS}");
    assert!(send(cluster, client, &[flow]).wait().unwrap().success());
}

/// A value of the agent's page.
fn value(cluster: &Cluster, name: &str) -> f64 {
    let page = pages::agent(cluster, NODE.1);
    page.iter().filter(|series: &&Series| series.name == name).map(|series| series.value).sum()
}
