//! One stock hubble-relay over cilium-agents and our agents on the same nodes: in the clear, with certificates of one
//! authority, and with those that Cilium's own chart makes.

use crate::{
    actions::burst,
    certificates::{Authority, SERVERS},
    cluster::{Cluster, NODES, until},
    machine::Machine,
    modes::{PRESET, install, uninstall, with_pods},
    nodes::{actions::restart_cilium, timed},
    outside,
    wire::Pair,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Cilium's Secrets, by the names that its chart gives them.
const SERVER: &str = "hubble-server-certs";
const RELAY: &str = "hubble-relay-client-certs";
/// Where cilium-agents find the server's on their node.
const FOLDER: &str = "/var/lib/cilium/tls";
const FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];
/// The suffix of a node's name in our flows.
const SUFFIX: &str = "-meridian";

pub fn has_both() {
    let machine = Machine::look(crate::NAME);
    {
        let cluster = with_pods("relay");
        let _outside = outside::Server::start(&cluster);
        let clear = ["--set", "hubble.tls.enabled=false"];
        timed("in the clear", || shows_both(&cluster, &clear));
        let secrets = format!("hubble.tls.serverSecretName={SERVER},hubble.tls.relaySecretName={RELAY}");
        for (what, make) in [("with one authority", one_authority as fn(&Cluster)), ("with Cilium's own", ciliums_own)]
        {
            make(&cluster);
            timed(what, || {
                serve_with_tls(&cluster);
                copy_secrets(&cluster);
                shows_both(&cluster, &["--set", &secrets]);
            });
            for secret in [SERVER, RELAY] {
                cluster.kubectl(&["--namespace=kube-system", "delete", "secret", secret]);
            }
        }
    }
    machine.must_be_as_before();
}

/// The relay knows six servers, and has the same connections from those of each kind.
fn shows_both(cluster: &Cluster, values: &[&str]) {
    let suffix = format!("hubble.nodeNameSuffix={SUFFIX}");
    let relay = "relay.enabled=true,relay.ciliumPort=4244,relay.image.repository=meridian.test/hubble-relay";
    install(cluster, &[&["--values", PRESET, "--set", &suffix, "--set", relay], values].concat());
    cluster.rolled_out("meridian", "deployment/meridian-relay");
    let nodes = NODES.iter().flat_map(|(node, _)| [(*node).to_owned(), format!("{node}{SUFFIX}")]);
    let nodes: BTreeSet<String> = nodes.collect();
    until("a relay with six connected servers", || (connected(cluster) == nodes).then_some(()));
    until("the same connections by servers of both kinds", || {
        burst(cluster);
        let [ours, ciliums] = connections(cluster);
        (ours.len() == 4 && ours == ciliums).then_some(()).or_else(|| {
            eprintln!("    ours: {ours:#?}; Cilium's: {ciliums:#?}");
            None
        })
    });
    uninstall(cluster);
}

/// The servers that the relay is connected to.
fn connected(cluster: &Cluster) -> BTreeSet<String> {
    let output = cluster.command(&["hubble", "list", "nodes", "--output=json"]).output().unwrap();
    let nodes: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let nodes = nodes.as_array().into_iter().flatten();
    let name = |node: &Value| node["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    nodes.filter(|node| node["state"] == "NODE_CONNECTED").map(name).collect()
}

/// The connections between clients and servers on different nodes, by our agents, and by Cilium's.
fn connections(cluster: &Cluster) -> [BTreeSet<Pair>; 2] {
    let mut nodes = BTreeMap::new();
    for namespace in ["shop", "billing"] {
        for pod in cluster.get(&["pods", "--namespace", namespace]) {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            nodes.insert(text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]));
        }
    }
    let filter =
        ["--from-namespace=billing", "--to-namespace=shop", "--protocol=tcp", "--last=3000", "--output=jsonpb"];
    let text = cluster.script(&[&["hubble", "observe"], &filter[..]].concat());
    let (mut ours, mut ciliums) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        let flow: Value = serde_json::from_str::<Value>(line).unwrap()["flow"].take();
        let end = |end: &str| flow[end]["pod_name"].as_str().unwrap_or_default().to_owned();
        let pair = (end("source"), end("destination"));
        if nodes.get(&pair.0) != nodes.get(&pair.1) {
            let by = flow["node_name"].as_str().unwrap();
            if by.ends_with(SUFFIX) { &mut ours } else { &mut ciliums }.insert(pair);
        }
    }
    [ours, ciliums]
}

/// Secrets whose certificates are of an authority of the test's.
fn one_authority(cluster: &Cluster) {
    let folder = std::env::temp_dir().join(format!("meridian-cilium-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let authority = Authority::new(&folder, "authority");
    for (secret, name) in [(SERVER, SERVERS), (RELAY, "*.hubble-relay.cilium.io")] {
        let issued = authority.issue(secret, name);
        let [certificate, key] = issued.files();
        let authority = authority.file.to_str().unwrap();
        let files = [authority, certificate, key];
        let files: Vec<String> =
            FILES.iter().zip(files).map(|(key, file)| format!("--from-file={key}={file}")).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        cluster.kubectl(&[&["--namespace=kube-system", "create", "secret", "generic", secret], &files[..]].concat());
    }
    fs::remove_dir_all(folder).unwrap();
}

/// Those that Cilium's chart makes by itself.
fn ciliums_own(cluster: &Cluster) {
    let chart = format!("{}/chart", std::env::var("MERIDIAN_CILIUM").unwrap());
    let values = "hubble.relay.enabled=true,hubble.tls.auto.method=helm";
    let mut command = vec!["helm", "template", "cilium", &chart, "--namespace=kube-system", "--set", values];
    command.extend(["--show-only=templates/hubble/tls-helm/server-secret.yaml"]);
    command.extend(["--show-only=templates/hubble/tls-helm/relay-client-secret.yaml"]);
    cluster.create_text(&cluster.script(&command));
}

/// A file of a Secret of Cilium's.
fn content(cluster: &Cluster, secret: &str, file: &str) -> String {
    let template = format!(r#"--output=go-template={{{{index .data "{file}" | base64decode}}}}"#);
    cluster.kubectl(&["--namespace=kube-system", "get", "secret", secret, &template])
}

/// Starts cilium-agents again, as they are with their Secret.
fn serve_with_tls(cluster: &Cluster) {
    for file in FILES {
        let text = content(cluster, SERVER, file);
        for (node, _) in NODES {
            let write = r#"mkdir -p "$1"; printf %s "$3" >"$1/$2""#;
            cluster.script(&["on", node, "sh", "-ec", write, "sh", FOLDER, file, &text]);
        }
    }
    let [authority, certificate, key] = FILES.map(|file| format!("{FOLDER}/{file}"));
    let flags = [
        "--hubble-disable-tls=false".to_owned(),
        format!("--hubble-tls-client-ca-files={authority}"),
        format!("--hubble-tls-cert-file={certificate}"),
        format!("--hubble-tls-key-file={key}"),
    ];
    restart_cilium(cluster, &flags.each_ref().map(String::as_str));
}

/// Copies Cilium's Secrets to where our agents, controller and relay find them.
fn copy_secrets(cluster: &Cluster) {
    let namespace = ["create", "namespace", "meridian"];
    let _ = cluster.command(&[&["kubectl"], &namespace[..]].concat()).output().unwrap();
    for secret in [SERVER, RELAY] {
        let object = cluster.kubectl(&["--namespace=kube-system", "get", "secret", secret, "--output=json"]);
        let object: Value = serde_json::from_str(&object).unwrap();
        let copy = serde_json::json!({"apiVersion": "v1", "kind": "Secret", "type": object["type"], "data": object["data"],
            "metadata": {"name": secret, "namespace": "meridian"}});
        // One of another type may be there.
        cluster.kubectl(&["--namespace=meridian", "delete", "secret", secret, "--ignore-not-found"]);
        cluster.create(&copy);
    }
}
