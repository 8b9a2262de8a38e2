//! The stock hubble-relay with our servers, with Cilium's own, and with both.

use crate::{
    cli::{Server, command, serve},
    ports::free_address,
    programs::program,
    recorded::flows_after,
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// The number of flows of each node.
const FLOWS: usize = 300;
const CAPACITY: &str = "511";
const TIMEOUT: Duration = Duration::from_secs(60);
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// The programs and files of these tests.
pub struct Lab {
    pub hubble: PathBuf,
    observer: PathBuf,
    relay: PathBuf,
    pub folder: PathBuf,
}

impl Lab {
    pub fn new(name: &str) -> Self {
        let names = ["MERIDIAN_HUBBLE_CLI", "MERIDIAN_HUBBLE_OBSERVER", "MERIDIAN_HUBBLE_RELAY"];
        let [hubble, observer, relay] = names.map(program);
        let folder = std::env::temp_dir().join(format!("meridian-relay-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for n in 0..NODES.len() {
            // No two flows have the same time: their order would be undefined.
            let text = flows_after(41 + n as u64, FLOWS, 1000 * n as i32);
            fs::write(folder.join(format!("{n}.json")), text).unwrap();
        }
        Self { hubble, observer, relay, folder }
    }

    pub fn flows(&self, n: usize) -> PathBuf {
        self.folder.join(format!("{n}.json"))
    }

    fn theirs(&self, n: usize) -> Server {
        let (at, mut command) = (free_address(), Command::new(&self.observer));
        command.arg(self.flows(n)).args([&at, CAPACITY]);
        serve(command, at, "listening")
    }

    pub fn ours_at(&self, n: usize, at: String, args: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
        command.arg("replay").arg(self.flows(n)).args(["--listen", &at, "--capacity", CAPACITY]);
        command.args(["--node", NODES[n]]).args(args);
        serve(command, at, "serving Hubble's clients")
    }

    fn ours(&self, n: usize) -> Server {
        self.ours_at(n, free_address(), &[])
    }

    /// A server that announces these peers and serves no flows.
    fn announcing(&self, peers: &[&Server]) -> Server {
        let (at, mut command) = (free_address(), Command::new(env!("CARGO_BIN_EXE_meridian")));
        command.args(["replay", "/dev/null", "--listen", &at]);
        for (name, peer) in NODES.iter().zip(peers) {
            command.args(["--peer", &format!("{name}={}", peer.at)]);
        }
        serve(command, at, "loaded")
    }

    /// A relay with these peers, once it is connected to all of them.
    fn relay(&self, peers: &[&Server]) -> (Server, Server) {
        let announcing = self.announcing(peers);
        let relay = self.relay_of(&announcing.at, &["--disable-client-tls"]);
        self.until(&relay, "status", |output| output.contains("Connected Nodes: 3/3"));
        (relay, announcing)
    }

    pub fn relay_of(&self, peer_service: &str, args: &[&str]) -> Server {
        let (at, mut command) = (free_address(), Command::new(&self.relay));
        command.args(["serve", "--gops=false", "--disable-server-tls", "--retry-timeout", "1s"]);
        command.args(["--peer-service", peer_service, "--listen-address", &at]);
        command.args(["--health-listen-address", &free_address()]).args(args);
        serve(command, at, "Starting gRPC server")
    }

    /// The output of the stock command with a server, exit code and errors first.
    pub fn says(&self, of: &Server, line: &str) -> String {
        let output = command(&self.hubble, &of.at, &self.folder, line).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&of.at, "RELAY");
        format!("exit {:?}\n{}{}", output.status.code(), text(&output.stderr), text(&output.stdout))
    }

    pub fn until(&self, of: &Server, line: &str, is_so: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + TIMEOUT;
        loop {
            let output = self.says(of, line);
            if is_so(&output) {
                return output;
            }
            assert!(Instant::now() < end, "hubble {line}: {output}");
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The lines, sorted: flows of several nodes arrive in any order.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Nodes with their state.
fn nodes(table: &str) -> Vec<(String, String)> {
    let columns = |line: &str| {
        let mut columns = line.split_whitespace().map(str::to_owned);
        Some((columns.next()?, columns.next()?))
    };
    table.lines().filter(|line| line.starts_with("node-")).filter_map(columns).collect()
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn a_relay_over_ours_answers_like_one_over_ciliums() {
    let lab = Lab::new("same");
    let theirs: Vec<Server> = (0..3).map(|n| lab.theirs(n)).collect();
    let ours: Vec<Server> = (0..3).map(|n| lab.ours(n)).collect();
    let (reference, _announcing) = lab.relay(&theirs.iter().collect::<Vec<_>>());
    let (relay, _announcing_ours) = lab.relay(&ours.iter().collect::<Vec<_>>());
    // One of Cilium's servers and two of ours.
    let (mixed, _announcing_mixed) = lab.relay(&[&ours[0], &theirs[1], &ours[2]]);

    // In the order of time, within the relay's sorting window.
    for line in [
        "observe --last 20 -o jsonpb",
        "observe --last 5",
        "observe --last 30 --protocol tcp -o json",
        "observe --last 20 --verdict DROPPED -o compact",
        "observe --last 10 --print-node-name",
    ] {
        let expected = lab.says(&reference, line);
        assert!(expected.starts_with("exit Some(0)") && expected.lines().count() > 10, "{line}: {expected}");
        assert_eq!(lab.says(&relay, line), expected, "hubble {line}");
        assert_eq!(lab.says(&mixed, line), expected, "hubble {line}, mixed");
    }
    for line in [
        "observe --all -o jsonpb",
        "observe --first 40 -o jsonpb",
        "observe --all --namespace shop -o jsonpb",
        "observe --all --not --label app=web -o jsonpb",
        "observe --all --from-pod shop/ --to-port 80 -o jsonpb",
        "observe --all --node-name node-b -o jsonpb",
        "observe --all --cel-expression _flow.verdict==Verdict.DROPPED -o jsonpb",
        "observe --since 2023-11-14T22:13:30Z --until 2023-11-14T22:14:20Z -o jsonpb",
        "observe --all --field-mask uuid,verdict -o jsonpb",
        "observe --all --from-ip nonsense",
    ] {
        let expected = lab.says(&reference, line);
        let (ours, mixed) = (lab.says(&relay, line), lab.says(&mixed, line));
        assert!(expected.lines().count() > 1, "{line}: {expected}");
        // Equal errors of several peers are reported together, in any order.
        if line.ends_with("nonsense") {
            let error = |output: &str| output.contains("unable to parse IP\" on 3 nodes: node-");
            assert!(error(&expected) && error(&ours) && error(&mixed), "{expected}{ours}{mixed}");
            continue;
        }
        assert_eq!(sorted(&ours), sorted(&expected), "hubble {line}");
        assert_eq!(sorted(&mixed), sorted(&expected), "hubble {line}, mixed");
    }
    assert_eq!(lab.says(&relay, "list namespaces"), lab.says(&reference, "list namespaces"));
    // Cilium's ring shows a flow only when the next one has come, so it has one more.
    for (relay, held) in [(&relay, 900), (&mixed, 901)] {
        let table = lab.says(relay, "list nodes");
        assert_eq!(nodes(&table), NODES.map(|name| (name.to_owned(), "Connected".to_owned())), "{table}");
        let status = lab.says(relay, "status");
        assert!(status.contains(&format!("Current/Max Flows: {held}/1,533")), "{status}");
        assert!(status.contains("Healthcheck (via RELAY): Ok"), "{status}");
    }
}

/// Follows a relay and collects the nodes of its flows while `wanted` is true.
fn follow(lab: &Lab, relay: &Server, mut wanted: impl FnMut(&str) -> bool) {
    let mut command = command(&lab.hubble, &relay.at, &lab.folder, "observe --follow --last 0 -o jsonpb");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    for line in lines {
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["flow"]["uuid"].as_str().is_some_and(&mut wanted) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn a_peer_dies_and_comes_back() {
    let lab = Lab::new("back");
    // Each flow of a node has the node's name.
    for (n, node) in NODES.iter().enumerate() {
        let path = lab.flows(n);
        let text = fs::read_to_string(&path).unwrap();
        let named = text.lines().map(|line| {
            let mut event: Value = serde_json::from_str(line).unwrap();
            event["flow"]["uuid"] = (*node).into();
            event.to_string() + "\n"
        });
        let named: String = named.collect();
        fs::write(path, named).unwrap();
    }
    // The servers send slowly enough to last for the test.
    let slowly = ["--rate", "20"];
    let (first, third) = (lab.ours_at(0, free_address(), &slowly), lab.ours_at(2, free_address(), &slowly));
    let second = lab.ours_at(1, free_address(), &slowly);
    let (relay, _announcing) = lab.relay(&[&first, &second, &third]);
    let mut heard = std::collections::BTreeSet::new();
    follow(&lab, &relay, |node| {
        heard.insert(node.to_owned());
        heard.len() == 3
    });

    let at = second.at.clone();
    drop(second);
    lab.until(&relay, "status", |output| output.contains("Connected Nodes: 2/3") && output.contains("node-2"));
    let table = lab.says(&relay, "list nodes");
    let states = [("node-1", "Connected"), ("node-2", "Unavailable"), ("node-3", "Connected")];
    assert_eq!(nodes(&table), states.map(|(name, state)| (name.to_owned(), state.to_owned())), "{table}");
    let others = lab.says(&relay, "observe --last 10 -o jsonpb");
    let of = |node: &str| others.lines().filter(|line| line.contains(&format!("\"uuid\":\"{node}\""))).count();
    assert_eq!((of("node-1"), of("node-2"), of("node-3")), (10, 0, 10), "{others}");

    // A follower that is connected gets the node's flows again.
    std::thread::scope(|scope| {
        let (lab, relay) = (&lab, &relay);
        let follower = scope.spawn(move || {
            let mut before = 0;
            follow(lab, relay, |node| {
                before += usize::from(node != "node-2");
                node == "node-2"
            });
            before
        });
        sleep(Duration::from_secs(1));
        let back = lab.ours_at(1, at, &slowly);
        assert!(follower.join().unwrap() > 0);
        lab.until(relay, "status", |output| output.contains("Connected Nodes: 3/3"));
        drop(back);
    });
}
