//! `meridian demo`: run to its end, interrupted, killed, and serving.

use crate::{
    CommandOutput,
    machine::{Machine, alone},
    meridian, run,
    running::Running,
};
use meridian::{
    hubble::services::observer_client::ObserverClient,
    proto::{
        flow::{Flow, Verdict, layer4::Protocol},
        observer::{
            GetFlowsRequest, GetNamespacesRequest, GetNodesRequest, ServerStatusRequest, export_event::ResponseTypes,
        },
    },
};
use nix::sys::signal::Signal;
use std::io::BufRead;
use tonic::transport::Endpoint;

#[test]
fn json_is_alone_on_stdout_exact_and_has_every_locality_in_both_versions() {
    let _alone = alone();
    let before = Machine::now();
    let output = run(&["demo", "--duration", "2s", "--output", "json"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["exact"], true);
    assert_eq!(report["hook"], "netfilter");
    assert_eq!(report["matrix"], report["sent"]);
    is_priced(&report);
    is_advised(&report);
    let cells = report["matrix"].as_array().unwrap();
    for locality in ["same-zone", "cross-zone", "cross-region", "unknown"] {
        for version in [4, 6] {
            let of = |cell: &&serde_json::Value| cell["locality"] == locality && cell["ip_version"] == version;
            let bytes: u64 = cells.iter().filter(of).map(|cell| cell["bytes"].as_u64().unwrap()).sum();
            assert!(bytes > 0, "{locality} v{version}");
        }
    }
    let counted: u64 = cells.iter().map(|cell| cell["bytes"].as_u64().unwrap()).sum();
    let bytes = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(bytes("attributed_bytes") + bytes("unattributed_bytes"), counted);
    assert!(before.held().iter().all(|held| *held > 0), "programs, maps and links: {:?}", before.held());
    before.is_restored();
}

/// The cost is that of the wire's bytes by a hand calculation: 0.02 dollars for 10⁹ bytes, between zones and between the
/// demo's regions alike. Bytes to places that are not known have no price.
fn is_priced(report: &serde_json::Value) {
    let wire = |localities: &[&str]| -> u64 {
        let cells = report["sent"].as_array().unwrap();
        let of = |cell: &&serde_json::Value| localities.contains(&cell["locality"].as_str().unwrap());
        cells.iter().filter(of).map(|cell| cell["bytes"].as_u64().unwrap()).sum()
    };
    let cost = &report["cost"];
    assert_eq!(cost["unpriced_bytes"].as_u64(), Some(wire(&["unknown"])));
    // Dollars as a whole number of 10⁻¹¹.
    let parse = |text: &str| -> u128 {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        assert!(fraction.len() <= 11, "{text}");
        format!("{whole}{fraction:0<11}").parse().unwrap()
    };
    let rows = cost["rows"].as_array().unwrap();
    let sum: u128 = rows.iter().map(|row| parse(row["usd"].as_str().unwrap())).sum();
    assert_eq!(sum, 2 * u128::from(wire(&["cross-zone", "cross-region"])));
    let bytes: u64 = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
    assert_eq!(bytes, wire(&["cross-zone", "cross-region", "unknown"]));
    let workloads: Vec<&str> = rows.iter().filter_map(|row| row["key"]["workload"].as_str()).collect();
    for workload in ["orders-db", "prometheus", "collector", "web", "cart", "orders"] {
        assert!(workloads.contains(&workload), "{workloads:?}");
    }
    let monthly: f64 = cost["usd_per_month_at_this_rate"].as_str().unwrap().parse().unwrap();
    assert!(monthly > 0.0, "{cost}");
}

/// The advice begins with the database that is read across zones and the metrics that are scraped twice, and saves no
/// more than the traffic costs.
fn is_advised(report: &serde_json::Value) {
    let dollars = |text: &serde_json::Value| -> f64 { text.as_str().unwrap().parse().unwrap() };
    let findings = report["advice"].as_array().unwrap();
    let subjects: Vec<&str> = findings.iter().map(|finding| finding["subject"].as_str().unwrap()).collect();
    let twice = "Deployment monitoring/collector and StatefulSet monitoring/prometheus";
    assert!(subjects[..2].contains(&"StatefulSet shop/orders-db") && subjects[..2].contains(&twice), "{subjects:?}");
    let saving: f64 = findings.iter().map(|finding| dollars(&finding["saving_usd_per_month"])).sum();
    let all = dollars(&report["cost"]["usd_per_month_at_this_rate"]);
    // Both are cut to a millionth of a dollar, row by row.
    assert!(dollars(&findings[1]["saving_usd_per_month"]) > 0.0 && saving < all + 0.001, "{saving} of {all}");
}

#[test]
fn every_hook_is_exact() {
    let _alone = alone();
    for hook in ["tcx", "clsact"] {
        let before = Machine::now();
        let output = run(&["demo", "--duration", "1s", "--output", "json", "--hook", hook]);
        assert_eq!(output.code, Some(0), "{hook}: {output:?}");
        let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!((&report["hook"], &report["exact"]), (&hook.into(), &true.into()));
        before.is_restored();
    }
}

#[test]
fn the_table_is_exact() {
    let _alone = alone();
    let output = run(&["demo", "--duration", "500ms"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("\nExact: the kernel counted "), "{output:?}");
    assert!(output.stdout.contains("\nAt this rate the traffic between zones and regions costs "), "{output:?}");
    assert!(output.stdout.contains("\nWhat to change:\n") && output.stdout.contains("orders-db"), "{output:?}");
    assert!(output.stderr.contains("cross-zone"), "progress is on stderr: {output:?}");
}

/// Runs a demo, sends a signal when `until` appears on stderr, and waits for the end.
fn signalled(signal: Signal, until: &str) -> CommandOutput {
    let mut demo = Running::spawn(&mut meridian(&["demo", "--duration", "1m"]));
    let (_, stderr) = demo.stderr_until(until);
    demo.signal(signal);
    let rest: String = stderr.lines().map_while(Result::ok).map(|line| line + "\n").collect();
    CommandOutput { stderr: rest, ..demo.output() }
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let _alone = alone();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        for until in ["building", "1 s"] {
            let before = Machine::now();
            let output = signalled(signal, until);
            assert_eq!(output.code, Some(130), "{signal} after {until}: {output:?}");
            assert!(output.stdout.is_empty() && output.stderr.ends_with("meridian: interrupted\n"), "{output:?}");
            before.is_restored();
        }
    }
}

#[test]
fn a_killed_demo_leaves_nothing_behind() {
    let _alone = alone();
    for until in ["building", "1 s"] {
        let before = Machine::now();
        assert_eq!(signalled(Signal::SIGKILL, until).code, None);
        before.is_restored();
    }
}

#[test]
fn a_port_in_use_is_an_error_before_anything_is_built() {
    let _alone = alone();
    let before = Machine::now();
    let _taken = std::net::TcpListener::bind("127.0.0.1:4245").unwrap();
    let output = run(&["demo", "--serve"]);
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.starts_with("meridian: listening on 127.0.0.1:4245 for Hubble's clients: "), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    before.is_restored();
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "this runtime has one thread and this one task")]
async fn a_client_of_the_observer_sees_the_demos_flows() {
    let _alone = alone();
    let before = Machine::now();
    let mut demo = Running::spawn(&mut meridian(&["demo", "--duration", "1s", "--serve"]));
    let (_, stderr) = demo.stderr_until("the traffic continues");
    let channel = Endpoint::from_static("http://127.0.0.1:4245").connect().await.unwrap();
    let mut client = ObserverClient::new(channel);

    // A follower gets new flows; past flows only go to clients that ask for them.
    let request = GetFlowsRequest { number: 10, follow: true, ..GetFlowsRequest::default() };
    let mut stream = client.get_flows(request).await.unwrap().into_inner();
    let mut followed = Vec::new();
    while followed.len() < 20 {
        match stream.message().await.unwrap().unwrap().event().unwrap().response_types {
            Some(ResponseTypes::Flow(flow)) => followed.push(flow),
            other => panic!("{other:?}"),
        }
    }
    let mut stream = client.get_flows(GetFlowsRequest::default()).await.unwrap().into_inner();
    let mut flows = Vec::new();
    while let Some(response) = stream.message().await.unwrap() {
        match response.event().unwrap().response_types {
            Some(ResponseTypes::Flow(flow)) => flows.push(flow),
            other => panic!("{other:?}"),
        }
    }
    assert!(flows.len() >= 20);
    flows.iter().for_each(has_fields_of_clients);
    for locality in ["same-zone", "cross-zone", "cross-region", "unknown"] {
        assert!(flows.iter().any(|flow| label(flow, &format!("k8s:meridian.io/locality={locality}"))), "{locality}");
    }
    assert!(
        flows.iter().any(|flow| flow.is_reply == Some(true)) && flows.iter().any(|flow| flow.is_reply == Some(false))
    );

    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert!(status.num_flows >= 20 && status.seen_flows >= status.num_flows && status.uptime_ns > 0);
    assert_eq!((status.max_flows, status.num_connected_nodes), (4095, Some(4)));
    let nodes = client.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!(
        nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(),
        ["node-1", "node-2", "node-3", "node-4"]
    );
    assert!(nodes.iter().all(|node| node.seen_flows > 0));
    let namespaces = client.get_namespaces(GetNamespacesRequest {}).await.unwrap().into_inner().namespaces;
    assert_eq!(
        namespaces.iter().map(|ns| ns.namespace.as_str()).collect::<Vec<_>>(),
        ["billing", "monitoring", "shop"]
    );

    demo.signal(Signal::SIGINT);
    drop(stderr);
    assert_eq!(demo.output().code, Some(0));
    before.is_restored();
}

fn label(flow: &Flow, label: &str) -> bool {
    [&flow.source, &flow.destination]
        .into_iter()
        .flatten()
        .all(|endpoint| endpoint.labels.iter().any(|has| has == label))
}

fn has_fields_of_clients(flow: &Flow) {
    let (source, destination) = (flow.source.as_ref().unwrap(), flow.destination.as_ref().unwrap());
    assert_eq!(flow.verdict, Verdict::Forwarded as i32);
    assert!(flow.is_reply.is_some() && flow.time.is_some() && flow.node_name.starts_with("node-"), "{flow:?}");
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()).expect("l4") {
        Protocol::Tcp(tcp) => assert!(tcp.source_port > 0 && tcp.destination_port > 0),
        Protocol::Udp(udp) => assert!(udp.source_port > 0 && udp.destination_port > 0),
        // A late answer to a client that has ended.
        Protocol::IcmPv4(_) | Protocol::IcmPv6(_) => {}
        other => panic!("{other:?}"),
    }
    for endpoint in [source, destination] {
        // Only the place of the outsider is known, which is unknown.
        if endpoint.labels == ["k8s:meridian.io/locality=unknown", "reserved:world"] {
            continue;
        }
        assert!(!endpoint.namespace.is_empty() && !endpoint.pod_name.is_empty(), "{endpoint:?}");
        assert_eq!(endpoint.workloads.len(), 1);
        let has = |prefix: &str| endpoint.labels.iter().any(|label| label.starts_with(prefix));
        assert!(has("k8s:topology.kubernetes.io/zone=eu-") && has("k8s:app=") && has("k8s:meridian.io/locality="));
    }
}
