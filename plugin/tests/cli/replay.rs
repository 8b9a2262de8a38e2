//! `meridian replay`: recorded flows, served as they were recorded.

use crate::{CommandOutput, Scratch, meridian, run, running::Running};
use meridian::{
    api::services::zones_client::ZonesClient,
    hubble::services::{observer_client::ObserverClient, peer_client::PeerClient},
    proto::{
        flow::{AgentEventType, FlowFilter},
        observer::{
            GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest, GetNamespacesRequest, GetNodesRequest,
            ServerStatusRequest, export_event::ResponseTypes,
        },
        peer::{ChangeNotification, ChangeNotificationType, NotifyRequest},
        v1::ListRequest,
    },
};
use nix::sys::signal::Signal;
use std::{
    io::{BufRead, Write},
    sync::atomic::{AtomicU16, Ordering},
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// Flows of two nodes; their time goes back once, and one line is cut off.
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
    let (output, _stderr) = replay.stderr_until("loaded");
    assert!(output.contains(&format!("{}:4: the line is left out: not JSON: ", file.display())), "{output}");
    assert!(output.contains("left_out=1"), "{output}");

    let channel = Endpoint::from_static("http://127.0.0.1:4299").connect().await.unwrap();
    let mut client = ObserverClient::new(channel.clone());
    assert_eq!(
        get(&mut client, GetFlowsRequest::default()).await,
        ["2@3", "lost 7", "1@5", "3@6"],
        "in the order of time"
    );
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
    let nodes: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.num_flows, node.seen_flows)).collect();
    assert_eq!(nodes, [("node-a", 2, 2), ("node-b", 1, 1)], "those of the log");

    let always =
        ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    assert_eq!(services(channel.clone()).await, [&always[..], &["observer.Observer", "peer.Peer"]].concat());
    unknown_symbols_are_answered(channel.clone()).await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "hubble.server.Observer"] {
        let asked = HealthCheckRequest { service: service.into() };
        assert_eq!(health.check(asked).await.unwrap().into_inner().status(), ServingStatus::Serving, "{service}");
    }
    // The error text is that of Go's library.
    let status = ZonesClient::new(channel).list(ListRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::Unimplemented, "unknown service meridian.v1.Zones"));

    replay.signal(Signal::SIGTERM);
    assert_eq!(replay.output().code, Some(0));
}

/// The services that reflection lists, as `hubble reflect` asks.
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

/// An unknown symbol gets an error, and the stream continues.
async fn unknown_symbols_are_answered(channel: Channel) {
    let asked = ["flow.nothing", "observer.Observer", "grpc.health.v1.Health"].map(|symbol| ServerReflectionRequest {
        message_request: Some(MessageRequest::FileContainingSymbol(symbol.into())),
        ..ServerReflectionRequest::default()
    });
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::iter(asked)).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        found.push(match answer.message_response.unwrap() {
            MessageResponse::ErrorResponse(error) => error.error_code,
            MessageResponse::FileDescriptorResponse(_) => 0,
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(found, [tonic::Code::NotFound as i32, 0, 0]);
}

/// A flow at a second of the minute.
fn line(uuid: &str, node: &str, second: u32) -> String {
    let time = format!("2026-01-02T03:04:{second:02}Z");
    format!(
        r#"{{"flow":{{"time":"{time}","uuid":"{uuid}","node_name":"{node}","source":{{"namespace":"shop"}}}},"node_name":"{node}","time":"{time}"}}"#
    )
}

/// The output of a server of these files, up to the line that reports that it serves.
async fn served(files: &[&str], args: &[&str]) -> (Running, ObserverClient<Channel>, String) {
    static PORT: AtomicU16 = AtomicU16::new(4250);
    let at = format!("127.0.0.1:{}", PORT.fetch_add(1, Ordering::Relaxed));
    let mut replay = Running::spawn(&mut meridian(&[&["replay", "--listen", &at], args, files].concat()));
    let (output, stderr) = replay.stderr_until("loaded");
    std::thread::spawn(move || stderr.lines().for_each(drop));
    let channel = Endpoint::from_shared(format!("http://{at}")).unwrap().connect().await.unwrap();
    (replay, ObserverClient::new(channel), output)
}

#[tokio::test]
async fn logs_of_several_nodes_are_one_in_the_order_of_time() {
    let scratch = Scratch::new("several");
    let log = |node: &str, seconds: &mut dyn Iterator<Item = u32>| -> String {
        seconds.map(|n| line(&format!("u{n}"), node, n) + "\n").collect()
    };
    let a = scratch.file("a.json", log("node-a", &mut (0..60).step_by(2)).as_bytes());
    // Newest first, as some log collectors write.
    let b = scratch.file("b.json", log("node-b", &mut (0..60).skip(1).step_by(2).rev()).as_bytes());
    let files = [b.to_str().unwrap(), a.to_str().unwrap()];
    let (replay, mut client, _) = served(&files, &["--capacity", "63"]).await;
    let at = |seconds: i64| Some(prost_types::Timestamp { seconds: 1_767_323_040 + seconds, nanos: 0 });
    let expected = |seconds: std::ops::Range<u32>| seconds.map(|n| format!("u{n}@{n}")).collect::<Vec<_>>();
    let all = GetFlowsRequest::default;
    assert_eq!(get(&mut client, GetFlowsRequest { since: at(10), until: at(19), ..all() }).await, expected(10..20));
    assert_eq!(get(&mut client, GetFlowsRequest { until: at(19), ..all() }).await, expected(0..20));
    assert_eq!(get(&mut client, GetFlowsRequest { since: at(50), ..all() }).await, expected(50..60));
    assert_eq!(get(&mut client, GetFlowsRequest { number: 4, ..all() }).await, expected(56..60));
    assert_eq!(get(&mut client, GetFlowsRequest { number: 3, first: true, ..all() }).await, expected(0..3));
    drop(replay);
    // The newest flows are kept, regardless of the order of the files.
    let (_replay, mut client, output) = served(&files, &["--capacity", "7"]).await;
    assert_eq!(get(&mut client, all()).await, expected(53..60));
    assert!(output.contains("there are more flows than are kept") && output.contains("older=53"), "{output}");
    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.num_flows, status.seen_flows, status.num_connected_nodes), (7, 60, Some(2)));
}

#[tokio::test]
async fn late_flows_from_a_pipe_are_put_in_order() {
    let mut replay = Running::spawn_fed(&mut meridian(&["replay", "-", "--listen", "127.0.0.1:4289"]));
    let (_, _stderr) = replay.stderr_until("serving Hubble's clients");
    let channel = Endpoint::from_static("http://127.0.0.1:4289").connect().await.unwrap();
    let mut client = ObserverClient::new(channel);
    let mut feed = async |lines: &[String], wanted: &[&str]| {
        replay.stdin().write_all(lines.concat().as_bytes()).unwrap();
        while get(&mut client, GetFlowsRequest::default()).await != wanted {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    feed(&[line("c", "n", 3), line("a", "n", 1)], &["a@1", "c@3"]).await;
    feed(&[line("d", "n", 4), line("b", "n", 2)], &["a@1", "b@2", "c@3", "d@4"]).await;
}

#[tokio::test]
async fn losses_take_no_flows_place() {
    let scratch = Scratch::new("losses");
    let flows: String = (0..3).map(|n| line(&format!("f{n}"), "node-a", n) + "\n").collect();
    let lost = r#"{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"1"},"node_name":"node-a","time":"2026-01-02T03:04:09Z"}"#;
    let file = scratch.file("lost.json", (flows + &format!("{lost}\n").repeat(70_000)).as_bytes());
    let (_replay, mut client, output) = served(&[file.to_str().unwrap()], &[]).await;
    assert!(output.contains("flows=3 left_out=0 lost=70000"), "{output}");
    let last = GetFlowsRequest { number: 2, ..GetFlowsRequest::default() };
    assert_eq!(get(&mut client, last).await, ["f1@1", "f2@2", "lost 70000"]);
    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.num_flows, status.seen_flows), (3, 3));
}

#[tokio::test]
async fn events_of_a_recorded_agent_are_served() {
    let scratch = Scratch::new("agent-events");
    let event = r#"{"agent_event":{"type":"POLICY_UPDATED","policy_update":{"labels":["a=b"],"revision":"7"}},"node_name":"node-a","time":"2026-01-02T03:04:05Z"}"#;
    let file = scratch.file("events.json", format!("{event}\n{}\n", line("one", "node-a", 6)).as_bytes());
    let (_replay, mut client, _) = served(&[file.to_str().unwrap()], &[]).await;
    let asked = GetAgentEventsRequest { number: 20, ..GetAgentEventsRequest::default() };
    let mut events = client.get_agent_events(asked).await.unwrap().into_inner();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(
        (event.node_name.as_str(), event.agent_event.unwrap().r#type()),
        ("node-a", AgentEventType::PolicyUpdated)
    );
    assert!(events.message().await.unwrap().is_none());
    let refused = GetDebugEventsRequest { first: true, follow: true, ..GetDebugEventsRequest::default() };
    assert_eq!(client.get_debug_events(refused).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_packed_log_is_unpacked_and_lines_left_out_are_counted_by_reason() {
    let scratch = Scratch::new("packed");
    let mut packed = Vec::new();
    for n in 0..5 {
        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        member.write_all(format!("{}\nnonsense\n{{\"level\":\"info\"}}\n", line("u", "n", n)).as_bytes()).unwrap();
        packed.extend(member.finish().unwrap());
    }
    let file = scratch.file("events.log.gz", &packed);
    let (_replay, mut client, output) = served(&[file.to_str().unwrap()], &[]).await;
    assert_eq!(get(&mut client, GetFlowsRequest::default()).await, ["u@0", "u@1", "u@2", "u@3", "u@4"]);
    assert!(output.contains(":2: the line is left out: not JSON: `nonsense`; 5 are left out as not JSON"), "{output}");
    assert!(
        output.contains("; 5 are left out as JSON without a flow") && output.contains("flows=5 left_out=10"),
        "{output}"
    );
}

#[tokio::test]
async fn packed_logs_that_were_rotated_come_back_whole() {
    const FLOWS: usize = 9000;
    let scratch = Scratch::new("rotated");
    let flow = |n: usize| {
        let time = format!("2026-01-02T{:02}:{:02}:{:02}Z", 3 + n / 3600, n / 60 % 60, n % 60);
        let text = "x".repeat(200);
        format!(
            "{{\"flow\":{{\"time\":\"{time}\",\"uuid\":\"{n}\",\"Summary\":\"{text}\"}},\"node_name\":\"n\",\"time\":\"{time}\"}}\n"
        )
    };
    let many = scratch.file("many.json", (0..FLOWS).map(flow).collect::<String>().as_bytes());
    let log = scratch.as_ref().join("rotated/events.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    let rotate = ["--rate", "3000", "--hubble-export-file-max-size-mb", "1", "--hubble-export-file-compress"];
    let export = ["--hubble-export-file-path", log.to_str().unwrap()];
    let (exporting, mut client, _) = served(&[many.to_str().unwrap()], &[&rotate[..], &export[..]].concat()).await;
    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.seen_flows, FLOWS as u64);
    exporting.signal(Signal::SIGTERM);
    assert_eq!(exporting.output().code, Some(0));
    let files: Vec<_> = std::fs::read_dir(log.parent().unwrap()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.iter().any(|file| file.extension().is_some_and(|end| end == "gz")), "{files:?}");
    let names: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let (_replay, mut client, output) = served(&names, &[]).await;
    assert!(output.contains("flows=9000 left_out=0"), "{output}");
    let expected: Vec<String> = (0..FLOWS).map(|n| format!("{n}@{}", n % 60)).collect();
    let all = GetFlowsRequest { number: FLOWS as u64, ..GetFlowsRequest::default() };
    assert_eq!(get(&mut client, all).await, expected, "each once, in the order of time");
}

#[tokio::test]
async fn a_socket_is_served_as_a_port_is() {
    let scratch = Scratch::new("socket");
    let file = scratch.file("flows.json", line("u", "n", 1).as_bytes());
    let socket = file.with_extension("sock");
    let at = format!("unix://{}", socket.display());
    let mut replay = Running::spawn(&mut meridian(&["replay", file.to_str().unwrap(), "--listen", &at]));
    let (output, _stderr) = replay.stderr_until("loaded");
    assert!(output.contains(&format!("serving Hubble's clients on {at}")), "{output}");
    let channel = Endpoint::from_shared(at.clone()).unwrap().connect().await.unwrap();
    assert_eq!(get(&mut ObserverClient::new(channel.clone()), GetFlowsRequest::default()).await, ["u@1"]);
    let mut peers = PeerClient::new(channel).notify(NotifyRequest {}).await.unwrap().into_inner();
    assert_eq!(peers.message().await.unwrap().unwrap().address, at);
}

#[test]
fn logs_without_any_flow_are_a_failure_of_one_line() {
    let scratch = Scratch::new("nothing");
    let file = |name: &str, text: &[u8]| scratch.file(name, text).to_str().unwrap().to_owned();
    let text = file("text.txt", b"Jan  2 03:04:05: shop/cart-0:80 -> shop/web-0 to-stack FORWARDED\nanother\n");
    let json = file("other.json", b"{\"level\":\"info\"}\n{}\n");
    let (empty, xz) = (file("empty.json", b"\n"), file("a.xz", b"\xfd7zXZ\0\0\0"));
    let cases = [
        (vec![&text], format!("meridian: {text}: no flow in it: 2 not JSON, the first {text}:1: not JSON: `Jan ")),
        (vec![&json], format!("meridian: {json}: no flow in it: 2 JSON without a flow, the first {json}:1: ")),
        (vec![&empty], format!("meridian: {empty}: there is nothing in it\n")),
        (
            vec![&xz],
            format!("meridian: {xz}: no flow in it: 1 files that are packed in another way, the first {xz}:1: xz "),
        ),
        (vec![&json, &text], "meridian: 2 files: no flow in it: 2 not JSON, the first ".to_owned()),
    ];
    for (files, expected) in cases {
        let args: Vec<&str> = ["replay", "--listen", "127.0.0.1:4288"]
            .into_iter()
            .chain(files.into_iter().map(|file| file.as_str()))
            .collect();
        let output = run(&args);
        assert_eq!((output.code, output.stderr.lines().count()), (Some(1), 1), "{output:?}");
        assert!(output.stderr.starts_with(&expected), "{output:?}");
    }
}

#[test]
fn an_unreadable_log_is_an_error_with_its_reason() {
    let refused = |args: &[&str], expected: &str| {
        let output: CommandOutput = run(&[&["replay"], args].concat());
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains(expected), "{output:?}");
    };
    refused(&["/nowhere/flows.json"], "meridian: /nowhere/flows.json: No such file or directory (os error 2)\n");
    refused(&["x", "--capacity", "1000"], "`1000` is not a power of two less one, such as 4095 or 65535");
    refused(&["x", "--peer", "node-a"], "`node-a` is not a name, `=`, a host and a port");
    refused(&["x", "--listen", "unix:"], "`unix:` is not a socket like unix:/run/hubble.sock");
    refused(&["x", "--listen", "example.com:80"], "`example.com:80` is not an address");
    refused(&["x", "--peer", "node-a=unix:"], "`node-a=unix:` is not a name");
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
    let others = ["--peer", "node-a=unix:///run/hubble.sock", "--peer", "west/node-b=[fd00::1]:4244"];
    let cases: [(&str, &[&str], &[&str], &str); 2] = [
        ("127.0.0.1:4296", &named, &["east/here=127.0.0.1:4296"], "east"),
        ("127.0.0.1:4295", &others, &["node-a=unix:///run/hubble.sock", "west/node-b=[fd00::1]:4244"], ""),
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
        // The stream stays open until the server shuts down.
        replay.signal(Signal::SIGTERM);
        assert!(peers.message().await.is_ok_and(|more| more.is_none()));
        assert_eq!(replay.output().code, Some(0));
    }
}
