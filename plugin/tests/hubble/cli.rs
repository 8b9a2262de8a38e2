//! The stock hubble command against Cilium's own observer and against `meridian replay`, over the
//! same flows: what it prints must be the same.

use crate::random::Random;
use meridian::proto::{
    DESCRIPTORS,
    flow::Flow,
    observer::{ExportEvent, export_event::ResponseTypes},
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::Timestamp;
use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// The flows' first second.
const START: i64 = 1_700_000_000;
const FLOWS: usize = 300;
/// 2^n - 1, more than there are flows.
const CAPACITY: &str = "511";

/// A server that ends with the test.
struct Server {
    child: Child,
    at: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Starts a server and waits for the line that says that it serves.
fn serve(mut command: Command, at: String, ready: &str) -> Server {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out: Box<dyn BufRead> = if ready == "loaded" {
        Box::new(BufReader::new(child.stderr.take().unwrap()))
    } else {
        Box::new(BufReader::new(child.stdout.take().unwrap()))
    };
    let server = Server { child, at };
    assert!(out.lines().map_while(Result::ok).any(|line| line.contains(ready)), "it does not serve");
    server
}

/// Flows with rising times, as JSON lines.
fn flows() -> String {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name("observer.GetFlowsResponse").unwrap();
    let mut random = Random::new(11);
    let mut text = String::new();
    for n in 0..FLOWS {
        let time = Some(Timestamp { seconds: START + n as i64, nanos: 1_000_000 * (n as i32 % 7) });
        let flow = Flow { time, ..random.flow() };
        let node_name = flow.node_name.clone();
        let response = ExportEvent { node_name, time, response_types: Some(ResponseTypes::Flow(flow)) };
        let json = DynamicMessage::decode(message.clone(), response.encode_to_vec().as_slice()).unwrap();
        let mut line = Vec::new();
        let options = SerializeOptions::new().use_proto_field_name(true);
        json.serialize_with_options(&mut serde_json::Serializer::new(&mut line), &options).unwrap();
        text.push_str(std::str::from_utf8(&line).unwrap());
        text.push('\n');
    }
    text
}

/// The command lines, in words.
fn command_lines() -> Vec<String> {
    let mut lines: Vec<String> = ["compact", "dict", "table", "tab", "json", "jsonpb"]
        .iter()
        .map(|output| format!("observe --all -o {output}"))
        .collect();
    let time = |second: i64| {
        let time = jiff::Timestamp::from_second(START + second).unwrap();
        time.to_string()
    };
    lines.extend(
        [
            "observe --last 5",
            "observe",
            "observe --first 5",
            "observe --last 999",
            "observe --last 3 --protocol udp",
            "observe --first 3 --protocol udp",
            "observe --first 2 --follow",
            "observe --all --print-node-name",
            "observe --all --numeric",
            "observe --all --ip-translation=false",
            "observe --all --time-format RFC3339Nano",
            "observe --all --field-mask uuid,verdict -o json",
            "observe --all --field-mask source.ID,l4.TCP -o json",
            "observe --all --field-mask no.such -o json",
            // Not parts of what is in l4: Cilium's server then leaves parts of the flow before in it.
            "observe --all --field-mask trace_context.parent.trace_id,IP.source -o json",
            "observe --all --field-mask time,source.labels -o jsonpb",
            "observe agent-events --all",
            "observe debug-events --all",
            "list namespaces",
            "list namespaces -o json",
        ]
        .map(str::to_owned),
    );
    lines.extend([
        format!("observe --since {} --until {}", time(100), time(110)),
        format!("observe --since {} --last 2", time(100)),
        format!("observe --since {} --first 2", time(100)),
        format!("observe --until {} --last 2", time(100)),
        format!("observe --until {} --first 2", time(100)),
        format!("observe --since {} --protocol tcp", time(250)),
        format!("observe --since {}", time(9999)),
    ]);
    let filters = [
        "--all-namespaces",
        "--from-all-namespaces",
        "--to-all-namespaces",
        "--cluster cluster-1",
        "--from-cluster default",
        "--to-cluster cluster-1",
        "--drop-reason-desc POLICY_DENIED",
        "--encrypted",
        "--unencrypted",
        "--fqdn *.example.com",
        "--from-fqdn a.example.com",
        "--to-fqdn x_y.org",
        "--fqdn a..",
        "--identity 2",
        "--from-identity 1",
        "--to-identity 3",
        "--identity world",
        "--ip 10.0.1.7",
        "--from-ip 10.0.0.0/8",
        "--to-ip fd00::/16",
        "--ip fd00:0::1",
        "--ip 10.0.0.0/99",
        "--from-ip nonsense",
        "--label app=cart",
        "--from-label app!=cart",
        "--to-label k8s:app",
        "--label reserved:world",
        "--label (app",
        "--from-label app=ca+rt",
        "--namespace shop",
        "--from-namespace billing",
        "--to-namespace default",
        "--pod shop/cart",
        "--from-pod cart",
        "--to-pod /web",
        "--pod shop/",
        "--port 80",
        "--from-port 443",
        "--to-port 8080",
        "--port http",
        "--port 70000",
        "--service shop/cart",
        "--from-service default/web",
        "--to-service /",
        "--workload Deployment/cart",
        "--from-workload web",
        "--to-workload StatefulSet/",
        "--http-method get",
        "--http-path /x/\\d+",
        "--http-status 2+",
        "--http-status 600",
        "--http-url example",
        "--http-header a:1",
        "--http-status 200 --type l7",
        "--http-status 200 --type trace",
        "--interface eth0",
        "--ip-trace-id 1",
        "--ip-version none",
        "--ipv4",
        "--ipv6",
        "--node-label zone=a",
        "--node-name node-a",
        "--node-name cluster-1/",
        "--node-name a/b/c",
        "--protocol tcp",
        "--protocol icmp",
        "--protocol http",
        "--protocol quic",
        "--snat-ip 8.8.8.8",
        "--tcp-flags syn",
        "--tcp-flags syn,ack",
        "--tcp-flags nonsense",
        "--trace-id t1",
        "--traffic-direction ingress",
        "--traffic-direction sideways",
        "--type trace",
        "--type drop",
        "--type trace:to-stack",
        "--type l7",
        "--uuid u1",
        "--verdict FORWARDED",
        "--verdict DROPPED --verdict ERROR",
        "--not --verdict FORWARDED",
        "--namespace shop --not --port 80",
        "--from-pod shop/cart --to-port 443",
        "--ipv4 --protocol udp --not --from-namespace shop",
    ];
    lines.extend(filters.iter().map(|filter| format!("observe --all -o jsonpb {filter}")));
    let raw = [
        r#"observe --all --allowlist {"source_pod":["shop/"]}"#,
        r#"observe --all --denylist {"verdict":["FORWARDED"]}"#,
        r#"observe --all --allowlist {"reply":[false],"event_type":[{"type":4}]}"#,
        r#"observe --all --allowlist {"no_such":1}"#,
    ];
    lines.extend(raw.map(str::to_owned));
    lines
}

/// Exit code and what is printed, without the server's address.
fn run(hubble: &Path, server: &Server, home: &Path, line: &str) -> String {
    let output = Command::new(hubble)
        .args(line.split(' '))
        .args(["--server", &server.at])
        .env_clear()
        .envs([("HOME", home.as_os_str()), ("TZ", "UTC".as_ref())])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&server.at, "SERVER");
    format!("exit {:?}\n{}{}", output.status.code(), text(&output.stderr), text(&output.stdout))
}

/// The first line in which two outputs differ.
fn difference(theirs: &str, ours: &str) -> String {
    let lines = theirs.lines().zip(ours.lines()).find(|(theirs, ours)| theirs != ours);
    let (theirs, ours) = lines.unwrap_or_else(|| {
        let longer = |text: &str| text.lines().count();
        if longer(theirs) > longer(ours) { ("more lines", "fewer") } else { ("fewer lines", "more") }
    });
    format!("  Cilium's: {theirs}\n  ours:     {ours}\n")
}

#[test]
fn the_stock_command_prints_the_same_of_our_server_as_of_ciliums() {
    let program = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(hubble), Some(observer)) = (program("MERIDIAN_HUBBLE_CLI"), program("MERIDIAN_HUBBLE_OBSERVER")) else {
        println!("skipped: MERIDIAN_HUBBLE_CLI or MERIDIAN_HUBBLE_OBSERVER is not set");
        return;
    };
    let folder = std::env::temp_dir().join(format!("meridian-hubble-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("flows.json");
    std::fs::write(&file, flows()).unwrap();

    let (at, mut command) = (free_address(), Command::new(observer));
    command.args([file.as_os_str(), at.as_ref(), CAPACITY.as_ref()]);
    let theirs = serve(command, at, "listening");
    let (at, mut command) = (free_address(), Command::new(env!("CARGO_BIN_EXE_meridian")));
    let args: [OsString; 6] =
        ["replay".into(), file.into(), "--listen".into(), at.clone().into(), "--capacity".into(), CAPACITY.into()];
    command.args(args);
    let ours = serve(command, at, "loaded");

    let all = run(&hubble, &theirs, &folder, "observe --all -o jsonpb");
    assert_eq!((all.lines().count(), all.starts_with("exit Some(0)")), (1 + FLOWS, true), "{all}");
    let lines = command_lines();
    let (next, differences) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (theirs, ours) = (run(&hubble, &theirs, &folder, line), run(&hubble, &ours, &folder, line));
            if theirs != ours {
                differences.lock().unwrap().push(format!("hubble {line}\n{}", difference(&theirs, &ours)));
            }
        }
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    std::fs::remove_dir_all(&folder).unwrap();
    let differences = differences.into_inner().unwrap();
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), lines.len(), differences.concat());
}
