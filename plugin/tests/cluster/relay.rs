//! The stock hubble-relay in a cluster: one of our agents tells it about our agents and Cilium's, all over TLS with
//! certificates on both sides.

use crate::{
    bpf_fs::BpfFs,
    certificates::{Authority, Issued, SERVERS},
    common::ports::free_port,
    common::programs::program,
    common::running::Running,
    lab::{Agent, Lab, inside, until},
    nodes::{CONTROL, Node, PORT, Trust, lay_out, pod},
};
use meridian::{
    hubble::services::observer_client::ObserverClient,
    proto::{
        flow::{FlowFilter, Verdict},
        observer::{GetFlowsRequest, GetNodesRequest, ServerStatusRequest, export_event::ResponseTypes},
    },
};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tonic::transport::Channel;

/// The ports of Cilium's agents and of ours.
const CILIUM: &str = "4244";
const OURS: u16 = 4344;
/// The flows of a Cilium agent, with times long ago.
const RECORDED: &str = r#"{"flow":{"time":"2023-11-14T22:13:20Z","uuid":"NODE","verdict":"FORWARDED","source":{"namespace":"shop","pod_name":"a"},"destination":{"namespace":"shop","pod_name":"b"},"Type":"L3_L4","node_name":"NODE","is_reply":false},"node_name":"NODE","time":"2023-11-14T22:13:20Z"}"#;

struct Programs {
    hubble: PathBuf,
    observer: PathBuf,
    relay: PathBuf,
}

impl Programs {
    fn here() -> Self {
        let names = ["MERIDIAN_HUBBLE_CLI", "MERIDIAN_HUBBLE_OBSERVER", "MERIDIAN_HUBBLE_RELAY"];
        let [hubble, observer, relay] = names.map(program);
        Self { hubble, observer, relay }
    }

    /// The output of the stock command.
    fn says(&self, server: &str, line: &str) -> String {
        let mut command = Command::new(&self.hubble);
        command.args(line.split(' ')).args(["--server", server]).env_clear().env("HOME", "/nonexistent");
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Nodes with their state.
fn nodes(table: &str) -> BTreeSet<(String, String)> {
    let columns = |line: &str| {
        let mut columns = line.split_whitespace().map(str::to_owned);
        Some((columns.next()?, columns.next()?))
    };
    table.lines().skip(1).filter_map(columns).collect()
}

struct Agents<'a> {
    lab: &'a Lab,
    trust: &'a Trust,
    nodes: &'a [Node],
    pins: &'a BpfFs,
    feed: &'a str,
    issued: &'a Issued,
    clients: &'a Path,
}

impl Agents<'_> {
    fn start(&self, n: usize) -> Agent {
        let node = &self.nodes[n];
        let [certificate, key] = self.issued.files();
        let (pins, listen) = (self.pins.0.join("meridian"), format!(":{OURS}"));
        let name = format!("{}-meridian", node.name);
        let mut args: Vec<&str> = self.trust.agents[n].iter().map(String::as_str).collect();
        args.extend(["--report-interval", "1s", "--pin-dir", pins.to_str().unwrap(), "--hubble-listen", &listen]);
        args.extend(["--hubble-tls-cert-file", certificate, "--hubble-tls-key-file", key]);
        args.extend(["--hubble-tls-client-ca-files", self.clients.to_str().unwrap(), "--hubble-node-name", &name]);
        let (folder, feed) = (self.lab.folder.as_ref(), self.feed);
        node.namespace.run(|| Agent::start(folder, &node.name, "up0", feed, &args)).unwrap()
    }
}

/// A flow server of a Cilium agent on the same node.
fn cilium(programs: &Programs, lab: &Lab, node: &Node, n: usize, issued: &Issued, clients: &Path) -> Running {
    let flows = RECORDED.replace("NODE", &node.name) + "\n";
    let flows = lab.folder.file(&format!("cilium-{}.json", node.name), flows.as_bytes());
    let mut command = Command::new(&programs.observer);
    command.arg(flows).arg(format!("10.99.{}.2:{CILIUM}", n + 1)).arg("63").args(issued.files()).arg(clients);
    let mut running = node.namespace.run(|| Running::spawn_fed(&mut command)).unwrap();
    running.drain_to(fs::File::create(lab.folder.as_ref().join(format!("cilium-{}.log", node.name))).unwrap());
    running
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn one_relay_has_our_agents_and_ciliums() {
    let programs = Programs::here();
    inside("relay", async |lab: &mut Lab| {
        let nodes_here = lay_out(lab).await;
        let (trust, pins, feed) = (Trust::new(lab).await, BpfFs::temporary("relay"), free_port());
        let mut args: Vec<&str> = trust.args.iter().map(String::as_str).collect();
        let advertise = CONTROL.to_string();
        args.extend(["--advertise", &advertise, "--pair-log", "off", "--hubble-cilium-port", CILIUM]);
        let _controller = lab.controller_at(&format!("0.0.0.0:{feed}"), &args).await;
        let authority = Authority::new(lab.folder.as_ref(), "hubble");
        let (issued, client) = (authority.issue("server", SERVERS), authority.issue("client", "relay"));
        let feed = format!("{CONTROL}:{feed}");
        let agents = Agents {
            lab,
            trust: &trust,
            nodes: &nodes_here,
            pins: &pins,
            feed: &feed,
            issued: &issued,
            clients: &authority.file,
        };
        let mut ours: Vec<Agent> = (0..3).map(|n| agents.start(n)).collect();
        let of_cilium = |(n, node)| cilium(&programs, lab, node, n, &issued, &authority.file);
        let _cilium: Vec<Running> = nodes_here.iter().enumerate().map(of_cilium).collect();

        let at = format!("127.0.0.1:{}", free_port());
        let mut relay = Command::new(&programs.relay);
        relay.args(["serve", "--gops=false", "--disable-server-tls", "--retry-timeout", "1s", "--listen-address", &at]);
        relay.args(["--peer-service", &format!("10.99.1.2:{OURS}")]);
        relay.args(["--health-listen-address", &format!("127.0.0.1:{}", free_port())]);
        let [certificate, key] = client.files();
        relay.args(["--tls-hubble-client-cert-file", certificate, "--tls-hubble-client-key-file", key]);
        relay.args(["--tls-hubble-server-ca-files", authority.file.to_str().unwrap()]);
        let mut relay = Running::spawn(&mut relay);
        relay.drain_to(fs::File::create(lab.folder.as_ref().join("relay.log")).unwrap());

        let all = |state: [&str; 6]| -> BTreeSet<(String, String)> {
            let names = ["node-a", "node-b", "node-c"]
                .into_iter()
                .flat_map(|name| [name.to_owned(), format!("{name}-meridian")]);
            names.zip(state).map(|(name, state)| (name, state.to_owned())).collect()
        };
        let connected = all(["Connected"; 6]);
        until("a relay with six nodes", async || (nodes(&programs.says(&at, "list nodes")) == connected).then_some(()))
            .await;

        // Through the relay, all agents' flows equal the flows of each agent.
        for size in 1..20 {
            for (from, node) in nodes_here.iter().enumerate() {
                for to in (0..3).filter(|to| *to != from) {
                    node.sockets[0].send_to(&vec![0; size * 20], (pod(to, 1), PORT)).unwrap();
                }
            }
        }
        let sockets: Vec<String> = nodes_here
            .iter()
            .map(|node| format!("unix://{}", lab.folder.as_ref().join(&node.name).join("hubble.sock").display()))
            .collect();
        let wanted = "observe --all --namespace shop --node-name *-meridian -o jsonpb";
        until("the same flows", async || {
            let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
            let direct: BTreeSet<String> =
                sockets.iter().flat_map(|socket| lines(programs.says(socket, wanted))).collect();
            let is_there = |name: &str| direct.iter().any(|line| line.contains(name));
            let whole = ["node-a-meridian", "node-b-meridian", "node-c-meridian"].into_iter().all(is_there);
            (whole && lines(programs.says(&at, wanted)) == direct).then_some(())
        })
        .await;
        let theirs = programs.says(&at, "observe --all --node-name node-b -o jsonpb");
        assert!(theirs.lines().any(|line| line.contains(r#""uuid":"node-b""#)), "{theirs}");

        hubble_ui_gets_its_fields(&at).await;

        // An agent is killed, and a new one starts.
        ours[1].process.signal(Signal::SIGKILL);
        let without = all(["Connected", "Connected", "Connected", "Unavailable", "Connected", "Connected"]);
        until("a node is away", async || (nodes(&programs.says(&at, "list nodes")) == without).then_some(())).await;
        until("the agent's end", async || ours[1].process.has_ended().then_some(())).await;
        ours[1] = agents.start(1);
        until("it is back", async || (nodes(&programs.says(&at, "list nodes")) == connected).then_some(())).await;
    });
}

/// The requests of hubble-ui's backend: flows of a namespace, nodes, and the status.
async fn hubble_ui_gets_its_fields(relay: &str) {
    let channel = Channel::from_shared(format!("http://{relay}")).unwrap().connect().await.unwrap();
    let mut client = ObserverClient::new(channel);
    let of = |source: bool| {
        let pods = vec!["shop/".to_owned()];
        let filter = FlowFilter { reply: vec![false], ..FlowFilter::default() };
        if source { FlowFilter { source_pod: pods, ..filter } } else { FlowFilter { destination_pod: pods, ..filter } }
    };
    let hidden = [
        FlowFilter { source_label: vec!["reserved:unknown".into()], ..FlowFilter::default() },
        FlowFilter { destination_label: vec!["reserved:unknown".into()], ..FlowFilter::default() },
        FlowFilter { destination_fqdn: vec!["*.cluster.local*".into()], ..FlowFilter::default() },
    ];
    let request = GetFlowsRequest {
        number: 10_000,
        follow: true,
        whitelist: vec![of(true), of(false)],
        blacklist: hidden.into(),
        ..GetFlowsRequest::default()
    };
    let mut flows = client.get_flows(request).await.unwrap().into_inner();
    let mut nodes = BTreeSet::new();
    while nodes.len() < 3 {
        let event = flows.message().await.unwrap().unwrap().event().unwrap();
        let Some(ResponseTypes::Flow(flow)) = event.response_types else { continue };
        if !flow.node_name.ends_with("-meridian") {
            continue;
        }
        // hubble-ui draws no flow that lacks one of these.
        let (source, destination) = (flow.source.as_ref().unwrap(), flow.destination.as_ref().unwrap());
        for end in [source, destination] {
            assert!(end.identity > 0 || !end.workloads.is_empty(), "{flow:?}");
            assert!(!end.namespace.is_empty() && !end.pod_name.is_empty(), "{flow:?}");
        }
        assert!(flow.l4.as_ref().is_some_and(|l4| l4.protocol.is_some()), "{flow:?}");
        assert_eq!((flow.is_reply, flow.verdict), (Some(false), Verdict::Forwarded as i32), "{flow:?}");
        assert!(flow.time.is_some() && !flow.uuid.is_empty() && flow.event_type.is_some(), "{flow:?}");
        nodes.insert(flow.node_name);
    }
    let nodes = client.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!(nodes.len(), 6);
    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.num_connected_nodes, status.num_unavailable_nodes), (Some(6), Some(0)));
}
