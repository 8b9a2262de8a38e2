//! The totals of the cluster: real traffic between nodes, each a network namespace with an agent, and two
//! replicas of the controller, of which one dies, is cut off, or both are away.

use crate::{
    bpf_fs::BpfFs,
    common::run,
    feed::{AUDIENCE, authority},
    lab::{AGENT, Agent, CONTROLLER, Controller, Lab, NAMESPACE, free_port, inside, until},
    objects::Object,
};
use meridian::{
    api::{self, Target},
    demo::{
        links::{configure, sysctl},
        namespace::Namespace,
    },
    proto::{
        peer::{NotifyRequest, peer_client::PeerClient},
        v1::{WatchRequest, WatchResponse},
    },
};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;

const ZONES: [&str; 3] = ["eu-1a", "eu-1b", "eu-1c"];
/// Where controllers are reached from every node.
const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const PORT: u16 = 9000;
/// Where agents serve flows.
const FLOWS: u16 = 4344;
const NAME: &str = "meridian-controller";

/// Bytes by zone of both ends.
type Bytes = BTreeMap<(String, String), u64>;

fn pod(node: usize, which: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, node as u8 + 1, which)
}

/// A node: a namespace with two pods' addresses, behind a router that is the lab.
struct Node {
    name: String,
    namespace: Namespace,
    sockets: Vec<UdpSocket>,
}

impl Node {
    fn new(n: usize, router: &Namespace) -> Self {
        let name = format!("node-{}", ["a", "b", "c"][n]);
        let namespace = Namespace::new(&name).unwrap();
        let third = n as u8 + 1;
        let (own, gateway) = (Ipv4Addr::new(10, 99, third, 2), Ipv4Addr::new(10, 99, third, 1));
        let peer = format!("to-{name}");
        configure(&namespace, "setting up", async |links| {
            links.veth("up0", &peer, router.as_raw_fd()).await?;
            links.up("lo", None).await?;
            links.up("up0", None).await?;
            links.address("up0", own.into(), 24).await?;
            links.address("lo", pod(n, 1).into(), 32).await?;
            links.address("lo", pod(n, 2).into(), 32).await?;
            links.route("0.0.0.0/0".parse().unwrap(), gateway.into()).await
        })
        .unwrap();
        configure(router, "setting up", async |links| {
            links.up(&peer, None).await?;
            links.address(&peer, gateway.into(), 24).await?;
            links.route(format!("10.98.{third}.0/24").parse().unwrap(), own.into()).await
        })
        .unwrap();
        // Each takes what comes, so that nobody answers that a port is closed.
        let bind = || [1, 2].map(|which| UdpSocket::bind((pod(n, which), PORT)).unwrap());
        let sockets = namespace.run(bind).unwrap().into();
        Self { name, namespace, sockets }
    }

    async fn objects(n: usize, lab: &Lab) {
        let name = format!("node-{}", ["a", "b", "c"][n]);
        let third = n + 1;
        let address = format!("10.99.{third}.2");
        lab.put(Object::node(&name, ZONES[n], &[&format!("10.98.{third}.0/24")], &[&address])).await;
        for which in [1, 2] {
            let ip = pod(n, which).to_string();
            lab.put(Object::pod(&format!("pod-{third}-{which}"), &name, "Running", &[&ip])).await;
        }
        let agent = Object::pod(&format!("agent-{third}"), &name, "Running", &[])
            .with("/metadata/namespace", json!(NAMESPACE))
            .with("/spec/serviceAccountName", json!(AGENT));
        lab.put(agent).await;
    }
}

/// What was sent, and what was served of it at last.
#[derive(Default)]
struct Truth {
    sent: RefCell<Bytes>,
    served: RefCell<Bytes>,
    reads: Cell<usize>,
}

impl Truth {
    /// Some datagrams from every pod to every pod of another node.
    fn send(&self, nodes: &[Node], size: usize) {
        for (from, node) in nodes.iter().enumerate() {
            for (n, socket) in node.sockets.iter().enumerate() {
                for to in (0..nodes.len()).filter(|to| *to != from) {
                    let size = size + 10 * from + n;
                    socket.send_to(&vec![0; size], (pod(to, 1 + n as u8), PORT)).unwrap();
                    let pair = (ZONES[from].to_owned(), ZONES[to].to_owned());
                    *self.sent.borrow_mut().entry(pair).or_default() += size as u64 + 28;
                }
            }
        }
    }

    /// What a replica serves, if one does; never less than was served before.
    async fn look(&self, controllers: &[&Controller]) -> Option<WatchResponse> {
        for controller in controllers {
            let ask = async {
                let client = api::Client::connect(Target::Tcp(controller.own.clone())).await.ok()?;
                let mut answers = client.watch(WatchRequest { interval: None, pairs: 100 }).await.ok()?;
                answers.next().await.ok()?
            };
            let Ok(Some(answer)) = tokio::time::timeout(Duration::from_millis(500), ask).await else { continue };
            let served = between_zones(&answer);
            let mut before = self.served.borrow_mut();
            for (pair, bytes) in &*before {
                let now = served.get(pair).copied().unwrap_or_default();
                assert!(now >= *bytes, "{pair:?} goes backwards: {bytes} to {now}");
            }
            *before = served;
            self.reads.set(self.reads.get() + 1);
            return Some(answer);
        }
        None
    }

    /// Waits until what is served is what was sent.
    async fn is_served(&self, what: &str, controllers: &[&Controller]) -> WatchResponse {
        until(what, async || {
            let answer = self.look(controllers).await?;
            let (served, sent) = (self.served.borrow(), self.sent.borrow());
            for (pair, bytes) in &*served {
                assert!(bytes <= &sent[pair], "{what}: {pair:?} has {bytes} of {} bytes", sent[pair]);
            }
            (*served == *sent).then_some(answer)
        })
        .await
    }

    fn total(&self) -> u64 {
        self.sent.borrow().values().sum()
    }
}

/// Between the nodes' zones: agents and controllers talk, too, from and to addresses in no prefix.
fn between_zones(answer: &WatchResponse) -> Bytes {
    let mut bytes = Bytes::new();
    for pair in answer.zones.iter().filter(|pair| pair.locality == "cross-zone") {
        let zone = |place: &Option<meridian::proto::v1::Place>| place.as_ref().unwrap().zone.clone();
        *bytes.entry((zone(&pair.source), zone(&pair.destination))).or_default() += pair.counter.unwrap().bytes;
    }
    bytes
}

/// What the pair logs have, by the source's pod.
fn logged(files: &[PathBuf]) -> u64 {
    let lines = files.iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()?["bytes"].as_u64()).sum()
}

/// What a Service is to agents: one port, behind it whichever replica takes the connection.
async fn service(port: u16, replicas: Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind((CONTROL, port)).await.unwrap();
    tokio::task::spawn_local(async move {
        for turn in 0.. {
            let Ok((mut from, _)) = listener.accept().await else { return };
            let replicas = replicas.borrow().clone();
            tokio::task::spawn_local(async move {
                for n in 0..replicas.len() {
                    if let Ok(mut to) = TcpStream::connect(&replicas[(turn + n) % replicas.len()]).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                        return;
                    }
                }
            });
        }
    });
}

/// Everything that controllers and agents need to know each other.
struct Trust {
    args: Vec<String>,
    agents: Vec<Vec<String>>,
}

impl Trust {
    async fn new(lab: &Lab) -> Self {
        let (issuer, ca) = authority(lab, "ours");
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let certificate = text(&lab.folder.file("tls.crt", certificate.pem().as_bytes()));
        let key = text(&lab.folder.file("tls.key", key.serialize_pem().as_bytes()));
        let token = text(&lab.folder.file("replica", lab.token(CONTROLLER, None, AUDIENCE).await.as_bytes()));
        let ca = text(&ca);
        let args = [
            ["--tls-cert", &certificate],
            ["--tls-key", &key],
            ["--replica-ca", &ca],
            ["--replica-name", NAME],
            ["--replica-token", &token],
            ["--pair-log-interval", "1s"],
        ];
        let mut agents = Vec::new();
        for n in 1..=3 {
            let token = lab.token(AGENT, Some(&format!("agent-{n}")), AUDIENCE).await;
            let token = text(&lab.folder.file(&format!("agent-{n}"), token.as_bytes()));
            let args = [["--controller-ca", &ca], ["--controller-name", NAME], ["--controller-token", &token]];
            agents.push(args.concat().into_iter().map(str::to_owned).collect());
        }
        Self { args: args.concat().into_iter().map(str::to_owned).collect(), agents }
    }
}

/// The controllers and what they write.
struct Controllers {
    trust: Trust,
    replicas: Rc<RefCell<Vec<String>>>,
    logs: Vec<PathBuf>,
}

impl Controllers {
    async fn start(&mut self, lab: &mut Lab) -> Controller {
        let port = free_port();
        let log = lab.folder.as_ref().join(format!("pairs-{}", self.logs.len()));
        self.logs.push(log.clone());
        let mut args: Vec<&str> = self.trust.args.iter().map(String::as_str).collect();
        let advertise = CONTROL.to_string();
        args.extend(["--advertise", &advertise, "--pair-log", log.to_str().unwrap(), "--metrics-pods", "true"]);
        let controller = lab.controller_at(&format!("0.0.0.0:{port}"), &args).await;
        self.replicas.borrow_mut().push(format!("{CONTROL}:{port}"));
        controller
    }
}

fn agent(lab: &Lab, node: &Node, service: u16, pins: &BpfFs, trust: &[String]) -> Agent {
    let mut args: Vec<&str> = trust.iter().map(String::as_str).collect();
    let pins = pins.0.join("meridian");
    let flows = format!(":{FLOWS}");
    args.extend(["--report-interval", "1s", "--pin-dir", pins.to_str().unwrap(), "--hubble-listen", &flows]);
    let (folder, feed) = (lab.folder.as_ref(), format!("{CONTROL}:{service}"));
    node.namespace.run(|| Agent::start(folder, &node.name, "up0", &feed, &args)).unwrap()
}

/// Nobody is in the way of the next agent then.
async fn ends(agent: &mut Agent, signal: Signal) {
    agent.process.signal(signal);
    until("the agent's end", async || agent.process.has_ended().then_some(())).await;
}

async fn holds(controller: &Controller, value: f64) {
    let what = format!("{} holds the Lease: {value}", controller.feed);
    until(&what, async || (controller.metric("meridian_lease_held").await? == value).then_some(())).await;
}

#[test]
fn totals_are_what_was_sent_whoever_dies() {
    inside("totals", async |lab: &mut Lab| tokio::task::LocalSet::new().run_until(totals(lab)).await);
}

async fn totals(lab: &mut Lab) {
    let router = Namespace::current("router").unwrap();
    configure(&router, "setting up", async |links| links.address("lo", CONTROL.into(), 32).await).unwrap();
    sysctl(&router, "ipv4/ip_forward", "1").unwrap();
    lab.put(Object::namespace("shop")).await;
    lab.put(Object::account("shop", "default")).await;
    for n in 0..3 {
        Node::objects(n, lab).await;
    }
    let nodes: Vec<Node> = (0..3).map(|n| Node::new(n, &router)).collect();
    let pins = BpfFs::temporary("totals");
    let (replicas, port, truth) = (Rc::default(), free_port(), Truth::default());
    service(port, Rc::clone(&replicas)).await;
    let mut controllers = Controllers { trust: Trust::new(lab).await, replicas, logs: Vec::new() };

    let first = controllers.start(lab).await;
    holds(&first, 1.0).await;
    let second = controllers.start(lab).await;
    let mut agents: Vec<Agent> =
        nodes.iter().zip(&controllers.trust.agents).map(|(node, trust)| agent(lab, node, port, &pins, trust)).collect();
    // Counted by the kernel and said by the controller: before an agent is there nobody counts.
    for agent in &agents {
        until("the agent", async || agent.log().contains("the controller's table is here").then_some(())).await;
    }
    let until_current = Duration::from_secs(2);
    tokio::time::sleep(until_current).await;
    for size in 1..20 {
        truth.send(&nodes, size * 20);
    }
    let answer = truth.is_served("at first", &[&first, &second]).await;
    assert_eq!(answer.nodes, ["node-a", "node-b", "node-c"]);
    // The pairs come from flow entries, which are read a moment before the matrix.
    until("all of it between pods that are known", async || {
        let answer = truth.look(&[&first]).await?;
        let crossing = answer.pairs.iter().filter(|pair| pair.locality == "cross-zone");
        let between_pods: u64 = crossing.map(|pair| pair.counter.unwrap().bytes).sum();
        (between_pods == truth.total()).then_some(())
    })
    .await;
    let namespaces =
        r#"meridian_namespace_bytes_total{source_namespace="shop",destination_namespace="shop",locality="cross-zone"}"#;
    until("the same by namespace", async || (first.metric(namespaces).await? == truth.total() as f64).then_some(()))
        .await;
    // Who does not sum up says who does.
    let refused = api::Client::connect(Target::Tcp(second.own.clone())).await.unwrap();
    let refused = refused.watch(WatchRequest::default()).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains(&format!("not the holder: {}", first.own)), "{refused}");
    let top = ["top", "--server", &second.own, "--count", "1"];
    let said = run(&top);
    assert!(said.stdout.contains("node-a, node-b, node-c: bytes that left"), "{said:?}");
    // Either tells a relay whose flows are where.
    for controller in [&first, &second] {
        let channel = Channel::from_shared(format!("http://{}", controller.own)).unwrap().connect().await.unwrap();
        let mut peers = PeerClient::new(channel).notify(NotifyRequest {}).await.unwrap().into_inner();
        for (n, node) in nodes.iter().enumerate() {
            let told = peers.message().await.unwrap().unwrap();
            assert_eq!((told.name, told.address), (node.name.clone(), format!("10.99.{}.2:{FLOWS}", n + 1)));
        }
    }

    // An agent is killed, and the kernel goes on.
    ends(&mut agents[0], Signal::SIGKILL).await;
    truth.send(&nodes, 700);
    agents[0] = agent(lab, &nodes[0], port, &pins, &controllers.trust.agents[0]);
    truth.send(&nodes, 300);
    truth.is_served("after an agent was killed", &[&first, &second]).await;

    // The holder is killed in the middle.
    first.process.signal(Signal::SIGKILL);
    controllers.replicas.borrow_mut().remove(0);
    for size in 0..10 {
        truth.send(&nodes, 100 + size);
        truth.look(&[&second]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(first);
    let third = controllers.start(lab).await;
    truth.is_served("after the holder was killed", &[&second, &third]).await;
    holds(&second, 1.0).await;

    // The holder is cut off, and comes back when another one has taken over.
    second.process.signal(Signal::SIGSTOP);
    truth.send(&nodes, 400);
    holds(&third, 1.0).await;
    truth.send(&nodes, 500);
    truth.is_served("after the holder was cut off", &[&third]).await;
    second.process.signal(Signal::SIGCONT);
    holds(&second, 0.0).await;
    truth.send(&nodes, 600);
    truth.is_served("after it has come back", &[&second, &third]).await;
    until("the pair log", async || (logged(&controllers.logs) == truth.total()).then_some(())).await;

    // No controller is there for a long time.
    drop((second, third));
    controllers.replicas.borrow_mut().clear();
    ends(&mut agents[1], Signal::SIGTERM).await;
    truth.send(&nodes, 900);
    agents[1] = agent(lab, &nodes[1], port, &pins, &controllers.trust.agents[1]);
    truth.send(&nodes, 800);
    let fourth = controllers.start(lab).await;
    truth.is_served("after all were away", &[&fourth]).await;
    assert!(truth.reads.get() > 10);
}
