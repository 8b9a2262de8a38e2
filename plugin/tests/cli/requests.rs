//! Invalid requests, and clients that do not read: each gets its error, no other client is disturbed, and the server's
//! memory is bounded.

use crate::{common::ports::free_address, meridian, running::Running};
use meridian::{
    hubble::services::observer_client::ObserverClient,
    proto::{
        flow::{FlowFilter, flow_filter::Experimental},
        observer::{GetFlowsRequest, ServerStatusRequest, export_event::ResponseTypes},
    },
};
use nix::sys::signal::Signal;
use prost_types::FieldMask;
use std::{fmt::Write as _, io::Write as _};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

/// The capacity of the ring.
const CAPACITY: usize = 4095;
/// The number of followers that never read, and of followers for each connection.
const STUCK: usize = 1000;
const STREAMS: usize = 100;

async fn connect(at: &str) -> ObserverClient<Channel> {
    ObserverClient::new(Endpoint::from_shared(format!("http://{at}")).unwrap().connect().await.unwrap())
}

/// Flows as lines of a log, with the fields of real flows so that they have a realistic size.
fn lines(from: usize, count: usize) -> String {
    let mut text = String::new();
    for n in from..from + count {
        let end = |pod: usize| {
            let labels = r#""k8s:app=cart","k8s:io.kubernetes.pod.namespace=shop","k8s:topology.kubernetes.io/zone=a""#;
            format!(r#"{{"namespace":"shop","pod_name":"cart-{pod}","labels":[{labels}]}}"#)
        };
        let (source, destination) = (end(n % 50), end(n % 51));
        let ip = r#"{"source":"10.0.0.1","destination":"10.0.0.2","ipVersion":"IPv4"}"#;
        writeln!(
            text,
            r#"{{"flow":{{"uuid":"{n}","IP":{ip},"source":{source},"destination":{destination},"node_name":"node-a"}}}}"#
        )
        .unwrap();
    }
    text
}

fn whitelist(filter: FlowFilter) -> GetFlowsRequest {
    GetFlowsRequest { whitelist: vec![filter], ..GetFlowsRequest::default() }
}

fn expression(text: &str) -> GetFlowsRequest {
    let experimental = Some(Experimental { cel_expression: vec![text.to_owned()] });
    whitelist(FlowFilter { experimental, ..FlowFilter::default() })
}

#[tokio::test]
async fn an_invalid_request_is_refused_before_any_flow() {
    let at = &*free_address();
    let mut replay = Running::spawn_fed(&mut meridian(&["replay", "-", "--listen", at]));
    replay.stdin().write_all(lines(0, 10).as_bytes()).unwrap();
    replay.close_stdin();
    let (_, _stderr) = replay.stderr_until("loaded");
    let mut client = connect(at).await;
    let ip = |text: &str| whitelist(FlowFilter { source_ip: vec![text.into()], ..FlowFilter::default() });
    let label = |text: &str| whitelist(FlowFilter { source_label: vec![text.into()], ..FlowFilter::default() });
    let ports = FlowFilter { source_port: vec!["80".into(); 1001], ..FlowFilter::default() };
    let mask = FieldMask { paths: vec!["source.nothing".into()] };
    let huge = FlowFilter { uuid: vec!["u".repeat(5 << 20)], ..FlowFilter::default() };
    let cases = [
        (ip("10.0.0.0/99"), Code::Unknown, "invalid IP prefix \"10.0.0.0/99\" in filter: "),
        (ip("host"), Code::Unknown, "invalid IP address \"host\" in filter: "),
        (label("(app"), Code::Unknown, "invalid source label filter: "),
        (expression("_flow.verdict"), Code::Unknown, "error compiling CEL expression: got \"int\", wanted \"bool\""),
        (expression("_flow.nothing == 1"), Code::Unknown, "undefined field 'nothing'"),
        (expression(&" ".repeat(5000)), Code::Unknown, "the expression has 5000 bytes (at most 4096)"),
        (whitelist(ports), Code::Unknown, "too many filters: more than 1000 values"),
        (GetFlowsRequest { field_mask: Some(mask), ..Default::default() }, Code::Unknown, "invalid fieldmask"),
        (
            GetFlowsRequest { first: true, follow: true, ..Default::default() },
            Code::InvalidArgument,
            "first cannot be specified with follow",
        ),
        (whitelist(huge), Code::OutOfRange, "the limit is: 262144 bytes"),
    ];
    for (request, code, text) in cases {
        let status = client.get_flows(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    let mut flows = client.get_flows(GetFlowsRequest::default()).await.unwrap().into_inner();
    let mut count = 0;
    while flows.message().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 10);
    replay.signal(Signal::SIGTERM);
    assert_eq!(replay.output().code, Some(0));
}

/// The number of flows in a message, and the number reported as lost.
fn counted(message: &meridian::hubble::Reply) -> (usize, usize) {
    match message.event().unwrap().response_types {
        Some(ResponseTypes::Flow(_)) => (1, 0),
        Some(ResponseTypes::LostEvents(lost)) => (0, lost.num_events_lost as usize),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_followers_that_do_not_read_disturb_nobody() {
    let at = &*free_address();
    let capacity = CAPACITY.to_string();
    let mut replay = Running::spawn_fed(&mut meridian(&["replay", "-", "--listen", at, "--capacity", &capacity]));
    let (_, _stderr) = replay.stderr_until("serving");
    let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let mut good = connect(at).await.get_flows(follow.clone()).await.unwrap().into_inner();
    let (mut clients, mut stuck) = (Vec::new(), Vec::new());
    for _ in 0..STUCK / STREAMS {
        let mut client = connect(at).await;
        for _ in 0..STREAMS {
            stuck.push(client.get_flows(follow.clone()).await.unwrap().into_inner());
        }
        clients.push(client);
    }

    // Ten rings of flows. A reader gets every flow in order while the others are stuck.
    let (total, step, before) = (10 * CAPACITY, 1000, replay.resident());
    let mut written = 0;
    while written < total {
        let count = step.min(total - written);
        replay.stdin().write_all(lines(written, count).as_bytes()).unwrap();
        for n in written..written + count {
            match good.message().await.unwrap().unwrap().event().unwrap().response_types {
                Some(ResponseTypes::Flow(flow)) => assert_eq!(flow.uuid, n.to_string()),
                other => panic!("{other:?}"),
            }
        }
        written += count;
    }
    let status = connect(at).await.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.num_flows, status.seen_flows), (CAPACITY as u64, total as u64));
    let grown = replay.resident().saturating_sub(before) >> 20;
    println!("{STUCK} stuck followers: {grown} MiB");
    assert!(grown < 150, "{grown} MiB more");

    // A stuck follower starts to read: the stream reports the flows that it lost. The other followers on its
    // connection use up the connection's flow control window. Some were ended, because together they left more
    // unread than the server bears.
    let some: Vec<_> = stuck.into_iter().step_by(STREAMS).collect();
    let mut late = 0;
    for mut follower in some {
        let (mut flows, mut lost) = (0, 0);
        while flows + lost < total {
            let Ok(Some(message)) = follower.message().await else { break };
            let (more, missing) = counted(&message);
            (flows, lost) = (flows + more, lost + missing);
        }
        if flows + lost >= total {
            assert_eq!(flows + lost, total);
            assert!(flows >= CAPACITY.min(total) && lost > 0, "{flows} flows, {lost} lost");
            late += 1;
        }
    }
    assert!(late > 0, "no follower that started to read late got anything");

    replay.signal(Signal::SIGTERM);
    drop((good, clients));
    assert_eq!(replay.output().code, Some(0));
}
