//! Crowds of clients that ask for much and take nothing: the server stays within the memory that the chart gives an
//! agent, and serves others.

use crate::{common::ports::free_address, meridian, running::Running};
use meridian::{
    flows::READERS,
    hubble::services::observer_client::ObserverClient,
    proto::{
        flow::{FlowFilter, flow_filter::Experimental},
        observer::{GetFlowsRequest, export_event::ResponseTypes},
    },
};
use nix::sys::signal::Signal;
use std::{fmt::Write as _, io::Write as _};
use tonic::transport::{Channel, Endpoint};

/// The chart's limit for an agent, minus the 44 MiB of an agent without clients.
const MIB: u64 = 256 - 44;

/// A server of flows that come from its input.
struct Server {
    process: Running,
    at: String,
}

impl Server {
    fn start() -> Self {
        let at = free_address();
        let mut command = meridian(&["replay", "-", "--listen", &at, "--capacity", "4095"]);
        let mut process = Running::spawn_fed(&mut command);
        let (_, mut rest) = process.stderr_until("serving");
        std::thread::spawn(move || std::io::copy(&mut rest, &mut std::io::sink()));
        Self { process, at }
    }

    /// Flows from this number, which the server takes.
    fn feed(&mut self, from: usize, count: usize) {
        let mut lines = String::new();
        for n in from..from + count {
            let end = |pod: usize| {
                let labels = r#""k8s:app=cart","k8s:io.kubernetes.pod.namespace=shop""#;
                format!(r#"{{"namespace":"shop","pod_name":"cart-{pod}","labels":[{labels}]}}"#)
            };
            let (source, destination) = (end(n % 50), end(n % 51));
            let flow = format!(r#""uuid":"{n}","source":{source},"destination":{destination},"node_name":"node-a""#);
            writeln!(lines, r#"{{"flow":{{{flow}}}}}"#).unwrap();
        }
        self.process.stdin().write_all(lines.as_bytes()).unwrap();
    }

    async fn client(&self) -> ObserverClient<Channel> {
        ObserverClient::new(Endpoint::from_shared(format!("http://{}", self.at)).unwrap().connect().await.unwrap())
    }

    fn mib(&self) -> u64 {
        self.process.resident() >> 20
    }

    fn end(mut self) {
        self.process.close_stdin();
        self.process.signal(Signal::SIGTERM);
        assert_eq!(self.process.output().code, Some(0));
    }
}

fn following(filter: FlowFilter) -> GetFlowsRequest {
    GetFlowsRequest { whitelist: vec![filter], follow: true, ..GetFlowsRequest::default() }
}

/// The number of the next flow.
async fn next(stream: &mut tonic::Streaming<meridian::hubble::Reply>) -> Option<usize> {
    match stream.message().await.ok()??.event().unwrap().response_types {
        Some(ResponseTypes::Flow(flow)) => flow.uuid.parse().ok(),
        other => panic!("{other:?}"),
    }
}

/// Filters that each take as much memory as a request may.
fn heavy(n: usize) -> FlowFilter {
    match n % 3 {
        // Compiled, each takes some hundred kilobytes.
        0 => FlowFilter { dns_query: vec![r"\pL{5}x".into(); 24], ..FlowFilter::default() },
        1 => {
            let cel_expression = vec![format!("{}false", "_flow.uuid == 'x' || ".repeat(190)); 15];
            FlowFilter { experimental: Some(Experimental { cel_expression }), ..FlowFilter::default() }
        }
        _ => FlowFilter { source_pod: vec!["p".repeat(240); 950], ..FlowFilter::default() },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filters_of_all_clients_together_leave_an_agent_within_its_memory() {
    let mut server = Server::start();
    let (mut clients, mut stuck) = (Vec::new(), Vec::new());
    for n in 0..60 {
        if n % 20 == 0 {
            clients.push(server.client().await);
        }
        stuck.push(clients.last_mut().unwrap().get_flows(following(heavy(n))).await.unwrap().into_inner());
    }
    // A client with a small filter is served beside them, and one with a large one takes the place of another.
    let named = FlowFilter { node_name: vec!["node-*".into()], ..FlowFilter::default() };
    let large = FlowFilter { node_name: vec!["node-a".into()], ..heavy(0) };
    let any = FlowFilter { uuid: vec!["0".into()], ..FlowFilter::default() };
    let request = GetFlowsRequest { whitelist: vec![any, large], follow: true, ..GetFlowsRequest::default() };
    let mut served = Vec::new();
    for request in [following(named), request] {
        served.push(server.client().await.get_flows(request).await.unwrap().into_inner());
    }
    server.feed(0, 10);
    for stream in &mut served {
        assert_eq!(next(stream).await, Some(0));
    }
    let mib = server.mib();
    println!("heavy filters: {mib} MiB resident");
    assert!(mib < MIB, "{mib} MiB");
    // Those that gave way end with a reason.
    let mut displaced = 0;
    for stream in &mut stuck {
        let ended = tokio::time::timeout(std::time::Duration::from_millis(100), stream.message()).await;
        displaced += usize::from(matches!(ended, Ok(Err(status)) if status.message().contains("gave way")));
    }
    assert!(displaced > 0, "no stream gave way");
    drop((served, stuck, clients));
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_served_beside_as_many_followers_that_take_nothing_as_there_may_be() {
    let mut server = Server::start();
    let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let mut reader = server.client().await.get_flows(follow.clone()).await.unwrap().into_inner();
    let (mut clients, mut stuck) = (Vec::new(), Vec::new());
    // The reader is one of them.
    for n in 1..READERS {
        if n % 200 == 1 {
            clients.push(server.client().await);
        }
        stuck.push(clients.last_mut().unwrap().get_flows(follow.clone()).await.unwrap().into_inner());
    }
    for from in (0..8000).step_by(1000) {
        server.feed(from, 1000);
        for n in from..from + 1000 {
            assert_eq!(next(&mut reader).await, Some(n));
        }
    }
    let mib = server.mib();
    println!("{} followers that take nothing: {mib} MiB resident", stuck.len());
    assert!(mib < MIB, "{mib} MiB");
    drop((reader, stuck, clients));
    server.end();
}
