//! The stream between controller and agents: access, malformed messages, and the time while the controller is away.

use crate::{
    common::ports::free_port,
    lab::{AGENT, CONTROLLER, Lab, NAMESPACE, inside, until},
    objects::Object,
};
use meridian::{
    feed::services::feed_client::FeedClient,
    proto::v1::{FollowRequest, Hello, Position, follow_request::Request},
};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tonic::{Code, transport::Channel};

pub const AUDIENCE: &str = "meridian-controller";

fn table() -> BTreeMap<String, String> {
    BTreeMap::from([("10.0.1.0/24".to_owned(), "eu-1a".to_owned())])
}

async fn node(lab: &Lab) -> String {
    lab.put(Object::node("node-a", "eu-1a", &["10.0.1.0/24"], &[])).await
}

/// An authority, and where its certificate is.
pub fn authority(lab: &Lab, name: &str) -> (CertifiedIssuer<'static, KeyPair>, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let path = lab.folder.file(&format!("{name}.crt"), issuer.pem().as_bytes());
    (issuer, path)
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn agents_and_controller_know_each_other() {
    inside("tokens", async |lab: &mut Lab| {
        let version = node(lab).await;
        let (issuer, ca) = authority(lab, "ours");
        let (_, other_ca) = authority(lab, "theirs");
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["meridian-controller".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let certificate = lab.folder.file("tls.crt", certificate.pem().as_bytes());
        let key = lab.folder.file("tls.key", key.serialize_pem().as_bytes());
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let controller = lab.controller(&["--tls-cert", &text(&certificate), "--tls-key", &text(&key)]).await;

        // A token is bound to the agent's pod, and the pod to a node.
        let pod = Object::pod("agent-a", "node-a", "Running", &[])
            .with("/metadata/namespace", json!(NAMESPACE))
            .with("/spec/serviceAccountName", json!(AGENT));
        lab.put(pod).await;
        let token = async |name: &str, account: &str, pod: Option<&str>, audience: &str| {
            lab.folder.file(name, lab.token(account, pod, audience).await.as_bytes())
        };
        let good = token("good", AGENT, Some("agent-a"), AUDIENCE).await;
        let other_audience = token("audience", AGENT, Some("agent-a"), "somebody-else").await;
        let other_account = token("account", CONTROLLER, None, AUDIENCE).await;
        let nonsense = lab.folder.file("nonsense", b"nonsense\n");
        let agent = |node: &str, ca: &Path, name: &str, token: Option<&Path>| {
            let (ca, token) = (text(ca), token.map(text));
            let mut args = vec!["--controller-ca", &ca, "--controller-name", name];
            args.extend(token.iter().flat_map(|token| ["--controller-token", token.as_str()]));
            lab.agent(node, &controller, &args)
        };
        let name = "meridian-controller";
        let refused = [
            (agent("node-b", &ca, name, Some(&good)), "the token belongs to an agent on node-a, not on node-b"),
            (agent("node-c", &ca, name, None), "Unauthenticated: the request has no token"),
            (agent("node-d", &ca, name, Some(&nonsense)), "Unauthenticated: the token is refused"),
            (agent("node-e", &ca, name, Some(&other_audience)), "Unauthenticated: the token is refused"),
            (agent("node-f", &ca, name, Some(&other_account)), "which is not an agent"),
            (agent("node-g", &other_ca, name, Some(&good)), "UnknownIssuer"),
            (agent("node-h", &ca, "somebody-else", Some(&good)), "certificate not valid for name"),
        ];
        for (agent, reason) in &refused {
            until(reason, async || agent.log().contains(reason).then_some(())).await;
        }
        drop(refused);
        let agent = agent("node-a", &ca, name, Some(&good));
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table()).await;
        let refused = controller.metric(r#"meridian_feed_refused_total{reason="token"}"#).await.unwrap();
        let disagreed = controller.metric(r#"meridian_tls_refused_connections_total{server="feed"}"#).await.unwrap();
        assert!(refused >= 5.0 && disagreed >= 2.0);
        let log = controller.log();
        assert!(log.contains("an agent is refused") && log.contains("the TLS handshake failed"), "{log}");
        // The certificate is renewed: later connections get the new one.
        let (issuer, new_ca) = authority(lab, "new");
        let key = KeyPair::generate().unwrap();
        let new = CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &issuer).unwrap();
        lab.folder.file("tls.key", key.serialize_pem().as_bytes());
        lab.folder.file("tls.crt", new.pem().as_bytes());
        let (ca, token) = (text(&new_ca), text(&good));
        let args = ["--controller-ca", ca.as_str(), "--controller-name", name, "--controller-token", token.as_str()];
        drop(agent);
        let agent = lab.agent("node-a", &controller, &args);
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table()).await;
    });
}

/// The status with which a stream of these requests ends.
async fn follow(channel: &Channel, requests: Vec<FollowRequest>) -> (Code, String) {
    let mut client = FeedClient::new(channel.clone()).max_encoding_message_size(usize::MAX);
    let requests = tokio_stream::iter(requests);
    let mut responses = match client.follow(requests).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return (status.code(), status.message().to_owned()),
    };
    loop {
        match responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return (Code::Ok, String::new()),
            Err(status) => return (status.code(), status.message().to_owned()),
        }
    }
}

fn hello(node: &str, digests: Vec<u8>) -> FollowRequest {
    let hello = Hello { node: node.into(), digests, ..Hello::default() };
    FollowRequest { request: Some(Request::Hello(hello)) }
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn nonsense_is_refused_and_costs_no_memory() {
    inside("nonsense", async |lab: &mut Lab| {
        node(lab).await;
        let controller = lab.controller(&["--agent-accounts", "off", "--max-agents", "3"]).await;
        controller.watches("Pod", "watching").await;
        let channel = Channel::from_shared(format!("http://{}", controller.feed)).unwrap().connect().await.unwrap();
        let acknowledged =
            FollowRequest { request: Some(Request::Acknowledged(Position { instance: 1, version: u64::MAX })) };
        // Once before the measurement, so that everything made on first use exists.
        let (code, _) = follow(&channel, vec![hello("warm", Vec::new()), FollowRequest::default()]).await;
        assert_eq!(code, Code::InvalidArgument);
        let before = controller.process.resident();

        let output = async |requests| follow(&channel, requests).await;
        for (requests, reason) in [
            (vec![acknowledged], "the first message is not a hello"),
            (vec![FollowRequest::default()], "the first message is not a hello"),
            (vec![], "the first message is not a hello"),
            (vec![hello("", Vec::new())], "a hello names the agent's node"),
            (vec![hello(&"n".repeat(254), Vec::new())], "a hello names the agent's node"),
            (vec![hello("a", vec![0; 17])], "digests are 16384 bytes or none"),
            (vec![hello("a", Vec::new()), hello("a", Vec::new())], "after its hello an agent only acknowledges"),
        ] {
            let (code, message) = output(requests).await;
            assert_eq!((code, message.as_str()), (Code::InvalidArgument, reason));
        }
        for _ in 0..20 {
            let (code, message) = output(vec![hello("a", vec![7; 20 << 20])]).await;
            assert!(
                code == Code::OutOfRange && message.ends_with("bytes, and at most 32768 are taken"),
                "{code} {message}"
            );
        }
        // Bytes that are not HTTP, and headers of messages that never arrive.
        let mut state = 7u32;
        let mut noise = |len: usize| -> Vec<u8> {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            (0..len).map(|_| next()).collect()
        };
        for n in 0..200 {
            let mut stream = TcpStream::connect(&controller.feed).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            let preface: &[u8] = if n % 2 == 0 { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" } else { b"" };
            // The server may have closed the connection already.
            let _ = stream.write_all(&[preface, &noise(1 + n * 50)].concat());
            let _ = stream.read(&mut [0; 1024]);
        }
        let more = controller.process.resident().saturating_sub(before);
        assert!(more <= 8 << 20, "{} KiB more", more >> 10);

        // As many streams as the limit allows; one more is refused.
        let mut streams = Vec::new();
        for node in ["a", "b", "c"] {
            let endless =
                tokio_stream::StreamExt::chain(tokio_stream::once(hello(node, Vec::new())), tokio_stream::pending());
            let mut responses = FeedClient::new(channel.clone()).follow(endless).await.unwrap().into_inner();
            responses.message().await.unwrap().unwrap();
            streams.push(responses);
        }
        let (code, message) = output(vec![hello("d", Vec::new())]).await;
        assert_eq!((code, message.as_str()), (Code::ResourceExhausted, "3 agents are connected already"));
        assert!(controller.metric(r#"meridian_feed_refused_total{reason="request"}"#).await.unwrap() >= 8.0);
        assert_eq!(controller.metric(r#"meridian_feed_refused_total{reason="full"}"#).await, Some(1.0));
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn agents_run_and_start_without_their_controller() {
    inside("away", async |lab: &mut Lab| {
        let version = node(lab).await;
        let controller = lab.controller(&["--agent-accounts", "off"]).await;
        let feed = controller.feed.clone();
        let agent = lab.agent("node-a", &controller, &[]);
        controller.settle("Node", &version, 1).await;
        let is_connected = async |value: f64| {
            let series = r#"meridian_feed_connected{node="node-a"}"#;
            until(series, async || (agent.metric(series).await? == value).then_some(())).await;
        };
        is_connected(1.0).await;

        controller.process.signal(Signal::SIGKILL);
        drop(controller);
        is_connected(0.0).await;
        agent.has_exactly(&table()).await;
        assert!(agent.log().contains("the controller can't be reached: the last table stays in force"));
        let confirmed = async |agent: &crate::lab::Agent| {
            agent.metric(r#"meridian_zone_table_confirmed_timestamp_seconds{node="node-a"}"#).await
        };
        let at = confirmed(&agent).await.unwrap();
        assert!((0.0..60.0).contains(&(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - at)));

        // The agent ends, and a new one loads the table from disk; a killed agent leaves the same table.
        agent.process.signal(Signal::SIGTERM);
        until("its end", async || (agent.metric("meridian_build_info").await.is_none()).then_some(())).await;
        drop(agent);
        for _ in 0..2 {
            let agent = lab.agent_at("node-a", &feed, &[]);
            until("the table from disk", async || agent.log().contains("the saved table is in force").then_some(()))
                .await;
            let known = until("its metrics", async || confirmed(&agent).await).await;
            assert!((known - at).abs() < 5.0, "it is as old as it was: {known} {at}");
            agent.has_exactly(&table()).await;
            agent.process.signal(Signal::SIGKILL);
        }

        // A damaged table is reported, and not used.
        let saved = lab.folder.as_ref().join("node-a/state/table");
        let mut bytes = std::fs::read(&saved).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&saved, bytes).unwrap();
        let agent = lab.agent_at("node-a", &feed, &[]);
        until("the damage", async || agent.log().contains("its checksum is wrong").then_some(())).await;

        // The controller comes back as another instance.
        let controller = lab.controller_at(&feed, &["--agent-accounts", "off"]).await;
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table()).await;
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn streams_end_after_their_time_and_agents_come_again() {
    inside("moves", async |lab: &mut Lab| {
        let version = node(lab).await;
        let controller = lab.controller(&["--agent-accounts", "off", "--stream-age", "1s"]).await;
        let agent = lab.agent("node-a", &controller, &[]);
        let series = |name: &str| format!(r#"meridian_feed_{name}_total{{node="node-a"}}"#);
        until("three connections", async || (agent.metric(&series("connections")).await? >= 3.0).then_some(())).await;
        assert_eq!(agent.metric(&series("failures")).await, Some(0.0));
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table()).await;
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn agents_that_never_read_hold_no_memory() {
    inside("slow", async |lab: &mut Lab| {
        // A large table: 20,000 prefixes of one node.
        let mut zones = String::from("zones:\n- name: eu-1a\n  region: eu-1\n  cidrs:\n");
        for n in 0..20_000 {
            zones.push_str(&format!("  - 10.{}.{}.{}/30\n", n >> 14, n >> 6 & 255, (n & 63) << 2));
        }
        let zones = lab.folder.file("zones.yaml", zones.as_bytes());
        let controller = lab.controller(&["--agent-accounts", "off", "--zones-file", zones.to_str().unwrap()]).await;
        controller.watches("Pod", "watching").await;
        until("the table", async || (controller.metric("meridian_table_prefixes").await? >= 20_000.0).then_some(()))
            .await;
        let before = controller.process.resident();
        let mut stuck = Vec::new();
        for n in 0..300 {
            let channel = Channel::from_shared(format!("http://{}", controller.feed)).unwrap().connect().await.unwrap();
            let node = hello(&format!("stuck-{n}"), Vec::new());
            let endless = tokio_stream::StreamExt::chain(tokio_stream::once(node), tokio_stream::pending());
            stuck.push(FeedClient::new(channel).follow(endless).await.unwrap().into_inner());
        }
        let version = node(lab).await;
        let agent = lab.agent("node-a", &controller, &[]);
        until("the agent that reads", async || {
            let status = controller.status().await?;
            let node = status.kinds.iter().find(|kind| kind.name == "Node")?;
            let seen = node.resource_version.parse::<u64>().ok()? >= version.parse().ok()?;
            let has = status.agents.iter().any(|agent| agent.node == "node-a" && agent.acknowledged >= node.version);
            (seen && has).then_some(())
        })
        .await;
        assert_eq!(agent.pod("10.0.1.5").await, "");
        // Encoded updates are shared by all streams; only the windows are separate for each connection.
        let each = controller.process.resident().saturating_sub(before) / stuck.len() as u64;
        assert!(each <= 256 << 10, "{} KiB each", each >> 10);
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn an_agent_that_starts_before_its_controller_counts_from_the_first_table_on() {
    inside("first", async |lab: &mut Lab| {
        let version = node(lab).await;
        let feed = format!("127.0.0.1:{}", free_port());
        let agent = lab.agent_at("node-a", &feed, &[]);
        until("its word", async || {
            agent.log().contains("waiting for the controller's first table; nothing is counted before it").then_some(())
        })
        .await;
        // The agent answers health checks, but counts nothing before it has a table.
        until("its page", async || agent.metric("meridian_flow_ring_limit").await).await;
        assert_eq!(agent.metric("meridian_build_info").await, None);
        assert!(!agent.log().contains("packets are counted here"), "{}", agent.log());

        let controller = lab.controller_at(&feed, &["--agent-accounts", "off"]).await;
        controller.settle("Node", &version, 1).await;
        until("its start", async || agent.log().contains("packets are counted here").then_some(())).await;
        agent.has_exactly(&table()).await;
    });
}
