//! A cluster of three real kubelets, brought up by `scripts/cluster.sh` and taken away with the last of its tests.

use serde_json::Value;
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// How long something may take before the test gives up.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The nodes, and where each is.
pub const NODES: [(&str, &str); 3] = [("node-1", "172.30.0.11"), ("node-2", "172.30.0.12"), ("node-3", "172.30.0.13")];
/// Where the control plane and the nodes' bridge are.
pub const OUTSIDE: &str = "control-plane";

/// A running cluster.
pub struct Cluster {
    /// Its name, so that it can be beside others, such as one that a person has.
    pub name: &'static str,
    /// Whether Cilium is its pod network.
    pub has_cilium: bool,
    /// Nodes that are switched off.
    lost: Mutex<BTreeSet<String>>,
}

impl Cluster {
    /// Brings it up, with Cilium in this mode or without it.
    pub fn up(name: &'static str, cilium: Option<&str>) -> Self {
        // From here on, so that a cluster that doesn't come up is taken away, too.
        let cluster = Self { name, has_cilium: cilium.is_some(), lost: Mutex::default() };
        let mut arguments = vec!["up"];
        arguments.extend(cilium.into_iter().flat_map(|mode| ["--cilium", mode]));
        cluster.script(&arguments);
        cluster
    }

    /// Runs `scripts/cluster.sh`, and returns what it printed.
    pub fn script(&self, arguments: &[&str]) -> String {
        expect(arguments, self.command(arguments).stderr(Stdio::inherit()).output().unwrap())
    }

    /// The same, to be run by the caller.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cluster.sh");
        let mut command = Command::new(script);
        // As a person would who has cloned it.
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        command.args(arguments).env("MERIDIAN_CLUSTER", self.name).stdin(Stdio::null());
        command
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.script(&[&["kubectl"], arguments].concat())
    }

    /// Pulls a node's plug.
    pub fn lose(&self, node: &str) {
        self.script(&["lose", node]);
        self.lost.lock().unwrap().insert(node.to_owned());
    }

    /// Puts it back, and waits until it is ready.
    pub fn boot(&self, node: &str) {
        // The node's last status is ready until it reports again.
        self.script(&["boot", node]);
        until(&format!("{node} is ready"), || self.is_ready(node).then_some(()));
        self.lost.lock().unwrap().remove(node);
    }

    /// Whether the node's status has it.
    pub fn is_ready(&self, node: &str) -> bool {
        let path = "--output=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        self.kubectl(&["get", "node", node, path]) == "True"
    }

    /// Whether no node is switched off.
    pub fn is_whole(&self) -> bool {
        self.lost.lock().unwrap().is_empty()
    }

    /// The objects that `kubectl get` finds.
    pub fn get(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], arguments].concat());
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    pub fn apply(&self, file: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        self.kubectl(&["apply", "--filename", file.to_str().unwrap()]);
    }

    /// Makes an object, or changes the one that is there.
    pub fn create(&self, object: &Value) {
        self.create_text(&object.to_string());
    }

    /// The same of objects in YAML.
    pub fn create_text(&self, objects: &str) {
        let mut kubectl = self.command(&["kubectl", "apply", "--filename=-"]);
        let mut kubectl = kubectl.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        kubectl.stdin.take().unwrap().write_all(objects.as_bytes()).unwrap();
        assert!(kubectl.wait().unwrap().success(), "{objects}");
    }

    /// The addresses of a node, one of each IP version that the cluster has.
    pub fn addresses(&self, node: &str) -> Vec<String> {
        let path = r#"--output=jsonpath={.status.addresses[?(@.type=="InternalIP")].address}"#;
        self.kubectl(&["get", "node", node, path]).split(' ').map(str::to_owned).collect()
    }

    /// Waits until what a workload asks for is there.
    pub fn rolled_out(&self, namespace: &str, workload: &str) {
        self.kubectl(&["--namespace", namespace, "rollout", "status", workload, "--timeout=120s"]);
    }

    /// Runs a program of this machine in the network of a node, or outside.
    pub fn in_network<S: AsRef<OsStr>>(&self, machine: &str, command: &[S]) -> Output {
        let network = format!("--net=/run/netns/{}-{machine}", self.name);
        Command::new("nsenter").arg(network).args(command).output().unwrap()
    }

    /// The same, which must succeed.
    pub fn ask<S: AsRef<OsStr>>(&self, machine: &str, command: &[S]) -> String {
        let shown: Vec<&str> = command.iter().filter_map(|word| word.as_ref().to_str()).collect();
        expect(&shown, self.in_network(machine, command))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() && std::env::var_os("MERIDIAN_KEEP").is_some() {
            eprintln!("the cluster {} stays as it is", self.name);
            return;
        }
        let _ = self.command(&["down"]).status();
    }
}

fn expect(arguments: &[&str], output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Waits until something is so.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {TIMEOUT:?}");
        thread::sleep(Duration::from_millis(300));
    }
}
