//! The totals of the cluster: real traffic between nodes, each a network namespace with an agent, and two replicas of
//! the controller, of which one dies, one is cut off, or both are away.

use crate::{
    bpf_fs::BpfFs,
    collector::Collector,
    common::ports::free_port,
    common::run,
    lab::{Agent, Controller, Lab, inside, until},
    nodes::{CLUSTER, CONTROL, Node, PORT, Trust, ZONES, lay_out, pod, service},
    page,
};
use meridian::{
    api::{self, Target},
    hubble::services::peer_client::PeerClient,
    proto::{
        peer::NotifyRequest,
        v1::{WatchRequest, WatchResponse},
    },
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// The port of the agents' flow servers.
const FLOWS: u16 = 4344;
/// The time limit for the next flow server of the list.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes by source and destination zone.
type Bytes = BTreeMap<(String, String), u64>;

/// The traffic sent, and the totals served last.
#[derive(Default)]
pub struct Truth {
    sent: RefCell<Bytes>,
    served: RefCell<Bytes>,
    reads: Cell<usize>,
}

impl Truth {
    /// Sends some datagrams from every pod to every pod of other nodes.
    pub fn send(&self, nodes: &[Node], size: usize) {
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

    /// The totals of the replica that serves them, if one does; they must never decrease.
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

    /// Waits until the totals equal the traffic sent.
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

    pub fn total(&self) -> u64 {
        self.sent.borrow().values().sum()
    }
}

/// Traffic between the nodes' zones: agents and controllers also talk, with addresses in no prefix.
fn between_zones(answer: &WatchResponse) -> Bytes {
    let mut bytes = Bytes::new();
    for pair in answer.zones.iter().filter(|pair| pair.locality == "cross-zone") {
        let zone = |place: &Option<meridian::proto::v1::Place>| place.as_ref().unwrap().zone.clone();
        *bytes.entry((zone(&pair.source), zone(&pair.destination))).or_default() += pair.counter.unwrap().bytes;
    }
    bytes
}

/// The bytes in the pair logs between pods.
fn logged(files: &[PathBuf]) -> u64 {
    let lines = files.iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()?["bytes"].as_u64()).sum()
}

/// The controllers and their pair logs.
pub struct Controllers {
    trust: Trust,
    pub replicas: Rc<RefCell<Vec<String>>>,
    /// The port of their Service.
    port: u16,
    logs: Vec<PathBuf>,
    collector: Collector,
}

impl Controllers {
    /// None yet, behind a Service at a port.
    pub async fn none(lab: &Lab, collector: Collector) -> Self {
        let (replicas, port) = (Rc::default(), free_port());
        service(port, Rc::clone(&replicas)).await;
        Self { trust: Trust::new(lab).await, replicas, port, logs: Vec::new(), collector }
    }

    /// Starts an agent on each node, and waits until their programs are attached: traffic counts only from then on.
    pub async fn agents(&self, lab: &Lab, nodes: &[Node], pins: &BpfFs) -> Vec<Agent> {
        let each = nodes.iter().zip(&self.trust.agents);
        let agents: Vec<Agent> = each.map(|(node, trust)| agent(lab, node, self.port, pins, trust)).collect();
        for agent in &agents {
            until("the agent", async || agent.log().contains("counting attached").then_some(())).await;
        }
        agents
    }

    /// Starts a controller that keeps its history in this folder.
    pub async fn start_with(&mut self, lab: &mut Lab, history: &Path) -> Controller {
        self.run(lab, &["--history-dir", history.to_str().unwrap()]).await
    }

    async fn start(&mut self, lab: &mut Lab) -> Controller {
        self.run(lab, &[]).await
    }

    async fn run(&mut self, lab: &mut Lab, with: &[&str]) -> Controller {
        let port = free_port();
        let log = lab.folder.as_ref().join(format!("pairs-{}", self.logs.len()));
        self.logs.push(log.clone());
        let mut args: Vec<&str> = self.trust.args.iter().map(String::as_str).collect();
        let advertise = CONTROL.to_string();
        args.extend(["--advertise", &advertise, "--pair-log", log.to_str().unwrap(), "--metrics-pods", "true"]);
        args.extend(["--cluster-name", CLUSTER, "--otlp-endpoint", &self.collector.endpoint, "--otlp-interval", "1s"]);
        args.extend(with);
        let controller = lab.controller_at(&format!("0.0.0.0:{port}"), &args).await;
        self.replicas.borrow_mut().push(format!("{CONTROL}:{port}"));
        controller
    }
}

fn agent(lab: &Lab, node: &Node, service: u16, pins: &BpfFs, trust: &[String]) -> Agent {
    let mut args: Vec<&str> = trust.iter().map(String::as_str).collect();
    let pins = pins.0.join("meridian");
    let flows = format!(":{FLOWS}");
    args.extend(["--hubble-disable-tls", "--cluster-name", CLUSTER]);
    args.extend(["--report-interval", "1s", "--pin-dir", pins.to_str().unwrap(), "--hubble-listen", &flows]);
    let (folder, feed) = (lab.folder.as_ref(), format!("{CONTROL}:{service}"));
    node.namespace.run(|| Agent::start(folder, &node.name, "up0", &feed, &args)).unwrap()
}

/// Ends an agent, and waits until it has ended so that the next one can start.
async fn ends(agent: &mut Agent, signal: Signal) {
    agent.process.signal(signal);
    until("the agent's end", async || agent.process.has_ended().then_some(())).await;
}

/// Waits until a replica is the leader, or is not.
pub async fn holds(controller: &Controller, value: f64) {
    let what = format!("{} holds the Lease: {value}", controller.feed);
    until(&what, async || (controller.metric("meridian_lease_held").await? == value).then_some(())).await;
}

/// Waits until a standby replica has all that the leader knows: what the pair log lacks, too.
async fn stands_by(controller: &Controller) {
    until("a standby replica", async || (controller.metric("meridian_standby_synced").await? == 1.0).then_some(()))
        .await;
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn totals_equal_the_traffic_whichever_process_dies() {
    inside("totals", async |lab: &mut Lab| tokio::task::LocalSet::new().run_until(totals(lab)).await);
}

async fn totals(lab: &mut Lab) {
    let nodes = lay_out(lab).await;
    let pins = BpfFs::temporary("totals");
    let (truth, collector) = (Truth::default(), Collector::start());
    let mut controllers = Controllers::none(lab, collector.clone()).await;
    let port = controllers.port;

    let mut first = controllers.start(lab).await;
    holds(&first, 1.0).await;
    let mut second = controllers.start(lab).await;
    let mut agents = controllers.agents(lab, &nodes, &pins).await;
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
    // A standby replica names the leader, whose address for people other machines can't reach.
    let refused = api::Client::connect(Target::Tcp(second.own.clone())).await.unwrap();
    let refused = refused.watch(WatchRequest::default()).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("the leader is "), "{refused}");
    let top = |server: &str| run(&["top", "--server", server, "--count", "1"]);
    let output = top(&second.own);
    assert!(output.code != Some(0) && output.stderr.contains("run the command in "), "{output:?}");
    let output = top(&first.own);
    assert!(output.stdout.contains("node-a, node-b, node-c: bytes that left"), "{output:?}");
    let sent = truth.sent.borrow().clone();
    page::is_true(&first, &sent, &["node-a", "node-b", "node-c"]).await;
    // Both replicas give a relay the addresses of flow servers, and answer health checks and both reflections.
    for controller in [&first, &second] {
        let channel = Channel::from_shared(format!("http://{}", controller.own)).unwrap().connect().await.unwrap();
        is_described(channel.clone()).await;
        let mut peers = PeerClient::new(channel).notify(NotifyRequest {}).await.unwrap().into_inner();
        for (n, node) in nodes.iter().enumerate() {
            let peer =
                timeout(PEER_TIMEOUT, peers.message()).await.expect("a flow server is announced").unwrap().unwrap();
            assert_eq!(
                (peer.name, peer.address),
                (format!("{CLUSTER}/{}", node.name), format!("10.99.{}.2:{FLOWS}", n + 1))
            );
        }
    }

    exported(&collector, &truth, 1).await;

    // An agent is killed, and the kernel continues to count.
    ends(&mut agents[0], Signal::SIGKILL).await;
    truth.send(&nodes, 700);
    agents[0] = agent(lab, &nodes[0], port, &pins, &controllers.trust.agents[0]);
    truth.send(&nodes, 300);
    truth.is_served("after an agent was killed", &[&first, &second]).await;

    stands_by(&second).await;
    // The leader ends as in a rollout, while no agent can report: the standby replica has everything, and serves it.
    for agent in &agents {
        agent.process.signal(Signal::SIGSTOP);
    }
    first.process.signal(Signal::SIGTERM);
    controllers.replicas.borrow_mut().remove(0);
    truth.is_served("after the leader has ended", &[&second]).await;
    exported(&collector, &truth, 2).await;
    for agent in &agents {
        agent.process.signal(Signal::SIGCONT);
    }
    drop(std::mem::replace(&mut first, second));
    second = controllers.start(lab).await;
    truth.send(&nodes, 350);
    truth.is_served("after agents have found the next leader", &[&first, &second]).await;

    // The leader is killed during traffic.
    stands_by(&second).await;
    first.process.signal(Signal::SIGKILL);
    controllers.replicas.borrow_mut().remove(0);
    for size in 0..10 {
        truth.send(&nodes, 100 + size);
        truth.look(&[&second]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(first);
    let third = controllers.start(lab).await;
    truth.is_served("after the leader was killed", &[&second, &third]).await;
    holds(&second, 1.0).await;
    exported(&collector, &truth, 3).await;

    // The leader is frozen, and resumes after another replica has taken over.
    stands_by(&third).await;
    second.process.signal(Signal::SIGSTOP);
    truth.send(&nodes, 400);
    holds(&third, 1.0).await;
    // By now its readiness probes have failed, and the Service leads to it no longer.
    let frozen = controllers.replicas.borrow_mut().remove(0);
    truth.send(&nodes, 500);
    truth.is_served("after the leader was cut off", &[&third]).await;
    second.process.signal(Signal::SIGCONT);
    controllers.replicas.borrow_mut().push(frozen);
    holds(&second, 0.0).await;
    truth.send(&nodes, 600);
    truth.is_served("after it has come back", &[&second, &third]).await;
    exported(&collector, &truth, 4).await;
    let mut before = None;
    until("the pair log", async || {
        let has = logged(&controllers.logs);
        if before.replace(has) != Some(has) {
            eprintln!("the pair log has {has} bytes of {}", truth.total());
        }
        (has == truth.total()).then_some(())
    })
    .await;

    // No controller runs for a long time.
    drop((second, third));
    controllers.replicas.borrow_mut().clear();
    ends(&mut agents[1], Signal::SIGTERM).await;
    truth.send(&nodes, 900);
    agents[1] = agent(lab, &nodes[1], port, &pins, &controllers.trust.agents[1]);
    truth.send(&nodes, 800);
    let fourth = controllers.start(lab).await;
    truth.is_served("after all were away", &[&fourth]).await;
    exported(&collector, &truth, 5).await;
    assert!(truth.reads.get() > 10);
}

/// Waits until the collector has the traffic sent, and each leader's sums have a start of their own.
async fn exported(collector: &Collector, truth: &Truth, leaders: usize) {
    let what = format!("the traffic at the collector, from {leaders} leaders");
    until(&what, async || (collector.totals() == *truth.sent.borrow() && collector.starts() >= leaders).then_some(()))
        .await;
    assert_eq!(collector.starts(), leaders);
}

/// A controller answers health checks, and lists the same services in the old and the new reflection.
async fn is_described(channel: Channel) {
    let asked = HealthCheckRequest { service: String::new() };
    let health = HealthClient::new(channel.clone()).check(asked).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "meridian.v1.Controller",
        "meridian.v1.Counters",
        "meridian.v1.Zones",
        "peer.Peer",
    ];
    macro_rules! listed {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let list = Some(MessageRequest::ListServices(String::new()));
            let request = ServerReflectionRequest { message_request: list, ..Default::default() };
            let mut client = ServerReflectionClient::new(channel.clone());
            let answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
            match answers.into_inner().message().await.unwrap().unwrap().message_response {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    assert_eq!(
        (listed!(v1), listed!(v1alpha)),
        (expected.map(String::from).to_vec(), expected.map(String::from).to_vec())
    );
}
