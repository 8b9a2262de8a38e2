//! The cost of serving flows: `meridian replay` and Cilium's own observer with the same flows in rings of the same
//! size, and the same requests in turns. Writes its table into docs/performance.md.

#![allow(clippy::unwrap_used, reason = "a bench that can't run says where and ends")]

mod report;

use meridian::{
    hubble::services::observer_client::ObserverClient,
    proto::{
        DESCRIPTORS,
        flow::{
            CiliumEventType, Emitter, Endpoint, Flow, FlowFilter, Ip, IpVersion, Layer4, Tcp, TcpFlags, Verdict,
            Workload, flow_filter::Experimental, layer4::Protocol,
        },
        observer::{ExportEvent, GetFlowsRequest, export_event::ResponseTypes},
    },
    units::grouped,
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::{FieldMask, Timestamp};
use std::{
    fmt::Write,
    fs,
    io::{self, BufRead, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint as Address};

/// The flows in each ring, which is then full.
const FLOWS: usize = 65_535;
const ROUNDS: usize = 5;
/// The least CPU time for repetitions of a request, because CPU time is measured in hundredths of a second.
const LEAST: Duration = Duration::from_millis(500);

/// The bytes of a write to a socket without a server around it.
const BUFFER: usize = 256 << 10;

/// The mask that the stock client sends for its compact lines.
const MASK: &str = "time verdict ethernet IP l4 source.identity source.namespace source.pod_name \
    destination.identity destination.namespace destination.pod_name Type node_name l7 event_type source_service \
    destination_service is_reply Summary ip_trace_id";

struct Server {
    child: Child,
    client: ObserverClient<Channel>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server and waits for the line that reports that it serves.
    fn start(runtime: &Runtime, mut command: Command, at: &str, ready: &str) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out: Box<dyn BufRead> =
            if ready == "loaded" { Box::new(BufReader::new(stderr)) } else { Box::new(BufReader::new(stdout)) };
        assert!(out.lines().map_while(Result::ok).any(|line| line.contains(ready)), "it does not serve");
        // Go's clients, which most of Hubble's are, have growing windows.
        let address = Address::from_shared(format!("http://{at}"))
            .unwrap()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(4 << 20);
        let client = ObserverClient::new(runtime.block_on(address.connect()).unwrap());
        Self { child, client }
    }

    fn spent(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().map(|field| fields[*field].parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// The number of flows in the response to a request, and the server's CPU time for it.
    fn ask(&mut self, runtime: &Runtime, request: &GetFlowsRequest) -> (usize, Duration) {
        let (mut times, before) = (0, self.spent());
        loop {
            let sent = runtime.block_on(async {
                let mut stream = self.client.get_flows(request.clone()).await.unwrap().into_inner();
                let mut sent = 0;
                while stream.message().await.unwrap().is_some() {
                    sent += 1;
                }
                sent
            });
            times += 1;
            let spent = self.spent() - before;
            if spent >= LEAST {
                return (sent, spent / times);
            }
        }
    }
}

fn main() {
    let Some(observer) = std::env::var_os("MERIDIAN_HUBBLE_OBSERVER") else {
        println!("skipped: MERIDIAN_HUBBLE_OBSERVER is not set");
        return;
    };
    let folder = std::env::temp_dir().join(format!("meridian-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (full, one) = (folder.join("full.json"), folder.join("one.json"));
    let encoded = write(&full, FLOWS);
    write(&one, 1);
    let runtime = Runtime::new().unwrap();
    let theirs = |file: &Path| {
        let (at, mut command) = (free_address(), Command::new(&observer));
        command.arg(file).args([&at, &FLOWS.to_string()]);
        Server::start(&runtime, command, &at, "listening")
    };
    let ours = |file: &Path| {
        let (at, mut command) = (free_address(), Command::new(env!("CARGO_BIN_EXE_meridian")));
        command.arg("replay").arg(file).args(["--listen", &at, "--capacity", &FLOWS.to_string()]);
        Server::start(&runtime, command, &at, "loaded")
    };
    let memory = |server: &dyn Fn(&Path) -> Server| {
        let empty = server(&one).rss();
        server(&full).rss().saturating_sub(empty) / FLOWS as u64
    };
    let memory = (memory(&theirs), memory(&ours));
    let (mut theirs, mut ours) = (theirs(&full), ours(&full));
    let mut rows = Vec::new();
    for (name, request) in requests() {
        let (mut sent, mut spent) = ((0, 0), (Vec::new(), Vec::new()));
        for _ in 0..ROUNDS {
            let (flows, time) = theirs.ask(&runtime, &request);
            (sent.0, _) = (flows, spent.0.push(time));
            let (flows, time) = ours.ask(&runtime, &request);
            (sent.1, _) = (flows, spent.1.push(time));
        }
        assert!(sent.0.abs_diff(sent.1) <= 1, "{name}: {sent:?}");
        rows.push((name, sent.1, median(spent.0), median(spent.1)));
    }
    let copied = median((0..ROUNDS).map(|_| copy_to_a_socket()).collect());
    fs::remove_dir_all(&folder).unwrap();

    let mut text = format!(
        "Measured on {} by `make bench`: {} flows of {} bytes, medians of {ROUNDS} interleaved rounds.\n\n\
         | request | flows sent | Cilium's observer | Meridian | times |\n|---|---:|---:|---:|---:|\n",
        report::machine(),
        grouped(FLOWS as u64),
        encoded / FLOWS,
    );
    for (name, sent, theirs, ours) in rows {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let times = theirs.as_secs_f64() / ours.as_secs_f64();
        writeln!(
            text,
            "| {name} | {} | {:.0} ms | {:.1} ms | {times:.1} |",
            grouped(sent as u64),
            millis(theirs),
            millis(ours)
        )
        .unwrap();
    }
    writeln!(
        text,
        "| nothing but copies to a socket | {} | – | {:.1} ms | – |",
        grouped(FLOWS as u64),
        copied.as_secs_f64() * 1e3
    )
    .unwrap();
    writeln!(
        text,
        "| memory of a flow | | {} B | {} B | {:.1} |",
        memory.0,
        memory.1,
        memory.0 as f64 / memory.1 as f64
    )
    .unwrap();
    println!("{text}");
    report::write("observer", &text);
}

fn requests() -> Vec<(&'static str, GetFlowsRequest)> {
    let all = GetFlowsRequest::default();
    let with = |filter: FlowFilter| GetFlowsRequest { whitelist: vec![filter], ..all.clone() };
    let pod = |name: &str| with(FlowFilter { source_pod: vec![name.into()], ..FlowFilter::default() });
    let cel = |text: &str| {
        let experimental = Some(Experimental { cel_expression: vec![text.into()] });
        with(FlowFilter { experimental, ..FlowFilter::default() })
    };
    let paths = MASK.split_whitespace().map(str::to_owned).collect();
    vec![
        ("all", all.clone()),
        ("all, with the stock client's mask", GetFlowsRequest { field_mask: Some(FieldMask { paths }), ..all.clone() }),
        ("a namespace: a quarter", pod("ns-1/")),
        ("a workload's pods: one in 40", pod("ns-1/app-5-")),
        ("by port: all", with(FlowFilter { destination_port: vec!["8080".into()], ..FlowFilter::default() })),
        ("by CEL, a quarter", cel("_flow.source.namespace == 'ns-1'")),
        (
            "by CEL, one in 40",
            cel("_flow.source.pod_name.startsWith('app-5-') && _flow.l4.TCP.destination_port == 8080u"),
        ),
    ]
}

/// The CPU time of the least that a server does for all flows: each is copied into a buffer, of which the kernel makes
/// segments for a client on this machine. Without HTTP/2, gRPC and filters.
fn copy_to_a_socket() -> Duration {
    let responses: Vec<Vec<u8>> = (0..FLOWS).map(|n| flow(n).encode_to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let reader = thread::spawn(move || io::copy(&mut client, &mut io::sink()).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let (start, mut buffer) = (report::cpu_time(), Vec::with_capacity(BUFFER));
    for response in &responses {
        if buffer.len() + response.len() > BUFFER {
            server.write_all(&buffer).unwrap();
            buffer.clear();
        }
        buffer.extend_from_slice(response);
    }
    server.write_all(&buffer).unwrap();
    let spent = report::cpu_time() - start;
    drop(server);
    assert_eq!(reader.join().unwrap(), responses.iter().map(|response| response.len() as u64).sum::<u64>());
    spent
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// 40 workloads of 5 pods in 4 namespaces; each talks to each.
fn endpoint(n: usize) -> Endpoint {
    let (workload, namespace) = (n / 5, format!("ns-{}", n / 5 % 4));
    let mut labels = vec![
        format!("k8s:app=app-{workload}"),
        format!("k8s:io.kubernetes.pod.namespace={namespace}"),
        "k8s:io.cilium.k8s.policy.cluster=default".to_owned(),
        "k8s:io.cilium.k8s.policy.serviceaccount=default".to_owned(),
        format!("k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace}"),
        format!("k8s:topology.kubernetes.io/zone=eu-1{}", ["a", "b", "c"][n % 3]),
    ];
    labels.sort();
    Endpoint {
        id: n as u32,
        identity: 256 + workload as u32,
        pod_name: format!("app-{workload}-6d8f7c9b5-x{n:04}"),
        workloads: vec![Workload { name: format!("app-{workload}"), kind: "Deployment".into() }],
        cluster_name: "default".into(),
        namespace,
        labels,
    }
}

#[expect(deprecated, reason = "Summary is part of what is served")]
fn flow(n: usize) -> Flow {
    let (source, destination) = (n % 200, n / 200 % 200);
    let ip = |pod: usize| format!("10.{}.{}.{}", pod % 4, pod / 4, pod);
    Flow {
        time: Some(Timestamp { seconds: 1_700_000_000 + n as i64 / 100, nanos: n as i32 % 100 * 10_000_000 }),
        uuid: format!("{n:08x}-0000-4000-8000-{n:012x}"),
        emitter: Some(Emitter { name: "Hubble".into(), version: "1.19.4".into() }),
        verdict: Verdict::Forwarded.into(),
        ip: Some(Ip {
            source: ip(source),
            destination: ip(destination),
            ip_version: IpVersion::IPv4.into(),
            ..Ip::default()
        }),
        l4: Some(Layer4 {
            protocol: Some(Protocol::Tcp(Tcp {
                source_port: 32_768 + n as u32 % 28_000,
                destination_port: 8080,
                flags: Some(TcpFlags { syn: true, ..TcpFlags::default() }),
            })),
        }),
        source: Some(endpoint(source)),
        destination: Some(endpoint(destination)),
        r#type: 1,
        node_name: format!("node-{}", source % 3),
        node_labels: vec![format!("topology.kubernetes.io/zone=eu-1{}", ["a", "b", "c"][source % 3])],
        is_reply: Some(false),
        event_type: Some(CiliumEventType { r#type: 4, sub_type: 11 }),
        traffic_direction: 2,
        trace_observation_point: 11,
        trace_reason: 1,
        summary: "TCP Flags: SYN".into(),
        ..Flow::default()
    }
}

/// Writes flows as lines of JSON; returns their encoded size in bytes.
fn write(path: &Path, count: usize) -> usize {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name("observer.ExportEvent").unwrap();
    let (mut text, mut encoded) = (Vec::new(), 0);
    for n in 0..count {
        let flow = flow(n);
        encoded += flow.encoded_len();
        let (node_name, time) = (flow.node_name.clone(), flow.time);
        let event = ExportEvent { node_name, time, response_types: Some(ResponseTypes::Flow(flow)) };
        let json = DynamicMessage::decode(message.clone(), event.encode_to_vec().as_slice()).unwrap();
        let options = SerializeOptions::new().use_proto_field_name(true);
        json.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options).unwrap();
        text.push(b'\n');
    }
    fs::write(path, text).unwrap();
    encoded
}
