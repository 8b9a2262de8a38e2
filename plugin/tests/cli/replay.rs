//! `meridian replay`: recorded flows, served as they were.

use crate::{Said, Scratch, meridian, run, running::Running};
use meridian::{
    hubble::services::{observer_client::ObserverClient, peer_client::PeerClient},
    proto::{
        flow::FlowFilter,
        observer::{
            GetFlowsRequest, GetNamespacesRequest, GetNodesRequest, ServerStatusRequest, export_event::ResponseTypes,
        },
        peer::{ChangeNotification, ChangeNotificationType, NotifyRequest},
    },
};
use nix::sys::signal::Signal;
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// Flows of two nodes; their time goes back once, and one line is torn.
const LOG: &str = r#"{"flow":{"time":"2026-11-22T10:00:05Z","uuid":"1","node_name":"node-a","source":{"namespace":"shop","pod_name":"cart-0"}},"node_name":"node-a","time":"2026-11-22T10:00:05Z"}
{"flow":{"time":"2026-11-22T10:00:03Z","uuid":"2","node_name":"node-b","source":{"namespace":"billing","pod_name":"ledger-0"}},"node_name":"node-b","time":"2026-11-22T10:00:03Z"}
{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"},"node_name":"node-b","time":"2026-11-22T10:00:04Z"}
{"flow":{"time":"2026-11-2
{"flow":{"time":"2026-11-22T10:00:06Z","uuid":"3","node_name":"node-a","source":{"namespace":"shop","pod_name":"cart-1"}},"node_name":"node-a","time":"2026-11-22T10:00:06Z"}
"#;

async fn get(client: &mut ObserverClient<Channel>, request: GetFlowsRequest) -> Vec<String> {
    let mut stream = client.get_flows(request).await.unwrap().into_inner();
    let mut got = Vec::new();
    while let Some(response) = stream.message().await.unwrap() {
        got.push(match response.event().unwrap().response_types {
            Some(ResponseTypes::Flow(flow)) => format!("{}@{}", flow.uuid, flow.time.unwrap().seconds % 60),
            Some(ResponseTypes::LostEvents(lost)) => format!("lost {}", lost.num_events_lost),
            other => panic!("{other:?}"),
        });
    }
    got
}

#[tokio::test]
async fn recorded_flows_are_served_as_they_were() {
    let scratch = Scratch::new("replay");
    let file = scratch.file("flows.json", LOG.as_bytes());
    let args = ["replay", file.to_str().unwrap(), "--listen", "127.0.0.1:4299", "--node", "here"];
    let mut replay = Running::spawn(&mut meridian(&args));
    let (said, _stderr) = replay.stderr_until("loaded");
    assert!(said.contains(&format!("{}:4: the line is left out: not JSON: ", file.display())), "{said}");
    assert!(said.contains("left_out=1"), "{said}");

    let channel = Endpoint::from_static("http://127.0.0.1:4299").connect().await.unwrap();
    let mut client = ObserverClient::new(channel.clone());
    assert_eq!(get(&mut client, GetFlowsRequest::default()).await, ["1@5", "2@3", "lost 7", "3@6"]);
    let filter = |source_pod: &str| FlowFilter { source_pod: vec![source_pod.into()], ..FlowFilter::default() };
    let of_shop = GetFlowsRequest { number: 1, whitelist: vec![filter("shop/")], ..GetFlowsRequest::default() };
    assert_eq!(get(&mut client, of_shop.clone()).await, ["3@6"]);
    let not_of_shop = GetFlowsRequest { whitelist: Vec::new(), blacklist: of_shop.whitelist, number: 5, ..of_shop };
    assert_eq!(get(&mut client, not_of_shop).await, ["2@3", "lost 7"]);
    let refused = GetFlowsRequest { whitelist: vec![filter("")], ..GetFlowsRequest::default() };
    let status = client.get_flows(refused).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::Unknown, "invalid filter, name must not be empty"));
    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.max_flows, status.seen_flows), (65_535, 3));
    let nodes = client.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!(nodes.iter().map(|node| (node.name.as_str(), node.seen_flows)).collect::<Vec<_>>(), [("here", 3)]);

    assert_eq!(services(channel).await, ["observer.Observer", "peer.Peer"]);

    replay.signal(Signal::SIGTERM);
    assert_eq!(replay.said().code, Some(0));
}

/// What the reflection that `hubble reflect` asks lists.
async fn services(channel: Channel) -> Vec<String> {
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_can_not_be_replayed_is_said() {
    let refused = |args: &[&str], expected: &str| {
        let said: Said = run(&[&["replay"], args].concat());
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains(expected), "{said:?}");
    };
    refused(&["/nowhere/flows.json"], "meridian: /nowhere/flows.json: No such file or directory (os error 2)\n");
    refused(&["x", "--capacity", "1000"], "`1000` is not a power of two less one, such as 4095 or 65535");
    refused(&["x", "--peer", "node-a"], "`node-a` is not a name, `=`, a host and a port");
    refused(&["x", "--peer", "node-a=10.0.0.1"], "such as node-a=10.0.0.1:4244");
    refused(&[], "required arguments were not provided");
}

#[tokio::test]
async fn a_cluster_has_a_name_and_peers_are_announced() {
    let scratch = Scratch::new("peers");
    let file = scratch.file("flows.json", LOG.as_bytes());
    let file = file.to_str().unwrap();
    let announced = |notification: ChangeNotification| {
        assert_eq!(notification.r#type(), ChangeNotificationType::PeerAdded);
        format!("{}={}", notification.name, notification.address)
    };
    let named = ["--node", "here", "--cluster-name", "east"];
    let others = ["--peer", "node-a=10.0.0.1:4244", "--peer", "west/node-b=[fd00::1]:4244"];
    let cases: [(&str, &[&str], &[&str], &str); 2] = [
        ("127.0.0.1:4296", &named, &["east/here=127.0.0.1:4296"], "east"),
        ("127.0.0.1:4295", &others, &["node-a=10.0.0.1:4244", "west/node-b=[fd00::1]:4244"], ""),
    ];
    for (at, args, expected, cluster) in cases {
        let mut replay = Running::spawn(&mut meridian(&[&["replay", file, "--listen", at], args].concat()));
        let (_, _stderr) = replay.stderr_until("loaded");
        let channel = Endpoint::from_shared(format!("http://{at}")).unwrap().connect().await.unwrap();
        let mut peers = PeerClient::new(channel.clone()).notify(NotifyRequest {}).await.unwrap().into_inner();
        for expected in expected {
            assert_eq!(announced(peers.message().await.unwrap().unwrap()), *expected);
        }
        let mut client = ObserverClient::new(channel);
        let namespaces = client.get_namespaces(GetNamespacesRequest {}).await.unwrap().into_inner().namespaces;
        assert!(namespaces.len() == 2 && namespaces.iter().all(|namespace| namespace.cluster == cluster));
        // The stream stays until the server ends.
        replay.signal(Signal::SIGTERM);
        assert!(peers.message().await.is_ok_and(|more| more.is_none()));
        assert_eq!(replay.said().code, Some(0));
    }
}
