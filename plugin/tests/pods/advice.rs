//! Advice in a cluster with kube-proxy: a preference for the zone is proposed and applied, and the traffic follows it as
//! predicted. Clients that go round the Service are named.

use crate::{
    nodes::{
        actions::{PORT, ready, send_from_each_client},
        cluster::{Cluster, NODES, until},
        pages, timed,
    },
    processes::Process,
};
use meridian::{
    archive::{Archive, Limits},
    historian::TICK,
    history::{Block, Span},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::Path, process::Command, sync::Arc, thread};

/// A price for the zones and regions of the tests' cluster, whose nodes have no provider.
pub const PRICES: &str =
    r#"controller.prices={"rules":[{"id":"ours","between":["zones","regions"],"sender":"0.01","receiver":"0.01"}]}"#;
/// The Service's connections of each client.
const CONNECTIONS: u64 = 30;
/// The data of each, both ways; headers are less than a tenth of it.
const BYTES: u64 = 400_000;
/// The folder of the history in a controller's pod.
const HISTORY: &str = "/history";

/// Proposes, applies and measures a change of the Service `shop/web`, whose endpoints are on the last two nodes.
pub fn works(cluster: &Cluster) {
    timed("a zone without an endpoint", || zone_without_endpoint(cluster));
    // Traffic within a node is not counted. So the first two nodes share a zone, and the first node's clients use the
    // second node's endpoint.
    cluster.kubectl(&["label", "--overwrite", "node", "node-2", "topology.kubernetes.io/zone=eu-1a"]);
    until("the endpoints' zones", || {
        // A change of the Service has them written anew.
        touch(cluster);
        endpoints(cluster).iter().all(|endpoint| endpoint["zone"] != "eu-1b").then_some(())
    });
    timed("controllers without a history", || begin_anew(cluster));
    timed("traffic to a service without a preference", || use_service(cluster));
    let all = 3 * CONNECTIONS * BYTES;
    // Half of the connections of two nodes stay there, by chance.
    timed("it is recorded", || {
        until("the traffic is recorded", || {
            let before = counted(cluster, false).total();
            // The last packets of a connection may be in the agents' next report.
            thread::sleep(2 * TICK);
            (before >= all / 2 && counted(cluster, false).total() == before).then_some(())
        });
    });
    timed("a day passes", || a_day_passes(cluster));
    let findings = advise(cluster);
    let prefer = findings.iter().find(|one| one["rule"] == "R1" && one["subject"] == "Service shop/web");
    assert_eq!(prefer.map(|one| &one["state"]), Some(&"proposed".into()), "{findings:#?}");
    assert!(findings.iter().all(|one| one["rule"] != "R3"), "each zone has an endpoint: {findings:#?}");
    let answer = what_if(cluster, "PreferSameZone");
    let crossing = |side: &str| answer["crossing"][side]["bytes_per_month"].as_u64().unwrap();
    assert!(crossing("before") > 0, "{answer}");

    timed("the patch is applied", || apply(cluster));
    timed("traffic to a service with a preference", || use_service(cluster));
    let seen = until("the traffic is reported", || {
        Some(counted(cluster, true)).filter(|seen| seen.within >= CONNECTIONS * BYTES)
    });
    assert_eq!(seen.crossing, crossing("after"), "as predicted, to the byte");
    assert!(
        seen.within < CONNECTIONS * BYTES * 11 / 10,
        "all connections of the first node, and of no other: {seen:?}"
    );
    let findings = advise(cluster);
    let state = findings.iter().find(|one| one["subject"] == "Service shop/web");
    assert_eq!(state.map(|one| &one["state"]), Some(&"working".into()), "{findings:#?}");

    timed("traffic to the pods' own addresses", || go_round_service(cluster));
    until("the cause is named", || {
        let named = |one: &Value| {
            one["rule"] == "R2" && one["state"] == "not honoured" && one.to_string().contains("the pods' addresses")
        };
        advise(cluster).into_iter().find(named)
    });
}

/// Before the preference comes an endpoint in the zone that has none.
fn zone_without_endpoint(cluster: &Cluster) {
    use_service(cluster);
    until("both changes, in this order", || {
        let findings = advise(cluster);
        let place = |rule: &str, subject: &str| {
            findings.iter().position(|one| one["rule"] == rule && one["subject"] == subject)
        };
        let spread = place("R3", "Service shop/web in eu-1a")?;
        let prefer = place("R1", "Service shop/web")?;
        assert!(spread < prefer, "{findings:#?}");
        Some(())
    });
}

/// The bytes between clients and servers that the history has.
#[derive(Debug, Default)]
struct Seen {
    crossing: u64,
    within: u64,
}

impl Seen {
    const fn total(&self) -> u64 {
        self.crossing + self.within
    }
}

/// The least that a controller has recorded; `is_lately`: in this hour.
fn counted(cluster: &Cluster, is_lately: bool) -> Seen {
    let path = "--output=jsonpath={.items[*].metadata.name}";
    let selector = "--selector=app.kubernetes.io/component=controller";
    let pods = cluster.kubectl(&["--namespace=meridian", "get", "pods", selector, path]);
    let from = if is_lately { "1h" } else { "2d" };
    let report = ["report", "--from", from, "--by", "workload-pair", "--locality", "all", "--output", "json"];
    let seen = pods.split(' ').map(|pod| {
        let report = [&["--namespace=meridian", "exec", pod, "--", "/meridian"][..], &report].concat();
        let report: Value = serde_json::from_str(&cluster.kubectl(&report)).unwrap();
        let mut seen = Seen::default();
        for row in report["rows"].as_array().unwrap() {
            let key = &row["key"];
            let ends = [&key["source_workload"], &key["destination_workload"]].map(Value::as_str);
            if !matches!(ends, [Some("web"), Some("client")] | [Some("client"), Some("web")]) {
                continue;
            }
            let side = if key["locality"] == "same-zone" { &mut seen.within } else { &mut seen.crossing };
            *side += row["bytes"].as_u64().unwrap();
        }
        seen
    });
    seen.min_by_key(Seen::total).unwrap()
}

/// The service's IPv4 address.
fn address(cluster: &Cluster) -> String {
    cluster.kubectl(&["--namespace=shop", "get", "service", "web", "--output=jsonpath={.spec.clusterIP}"])
}

/// The same connections from each client to the Service.
fn use_service(cluster: &Cluster) {
    send_from_each_client(cluster, &[format!("tcp:{}:80:100000:300000:{CONNECTIONS}", address(cluster))]);
}

/// Far more traffic from each client to each server's own address.
fn go_round_service(cluster: &Cluster) {
    let servers = ready(cluster, "shop", "web");
    let flow = |pod: &crate::nodes::actions::ReadyPod| {
        let address = pod.addresses.iter().find(|address| !address.contains(':')).unwrap();
        format!("tcp:{address}:{PORT}:100000:300000:{}", 5 * CONNECTIONS)
    };
    send_from_each_client(cluster, &servers.iter().map(flow).collect::<Vec<_>>());
}

/// The same command of `meridian` in a pod of the controller.
fn ask(cluster: &Cluster, arguments: &[&str]) -> String {
    let pod = ["--namespace=meridian", "exec", "deployment/meridian-controller", "--", "/meridian"];
    cluster.kubectl(&[&pod[..], arguments].concat())
}

fn advise(cluster: &Cluster) -> Vec<Value> {
    let output = ask(cluster, &["advise", "--from", "2d", "--min-data", "0s", "--output", "json"]);
    serde_json::from_str::<Value>(&output).unwrap()["findings"].as_array().unwrap().clone()
}

fn what_if(cluster: &Cluster, preference: &str) -> Value {
    let change = format!("shop/web={preference}");
    serde_json::from_str(&ask(cluster, &["whatif", &change, "--from", "2d", "--output", "json"])).unwrap()
}

/// Runs the command of the patch, and waits until kube-proxy follows it.
fn apply(cluster: &Cluster) {
    let commands = ask(cluster, &["advise", "--from", "2d", "--min-data", "0s", "--output", "patch"]);
    let command = commands.lines().find(|line| line.starts_with("kubectl -n shop patch service web "));
    let command = command.unwrap_or_else(|| panic!("no patch: {commands}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cluster.sh");
    let shell = format!("kubectl() {{ \"$0\" kubectl \"$@\"; }}; {command}");
    let status = Command::new("sh").args(["-c", &shell]).arg(script).env("MERIDIAN_CLUSTER", cluster.name).status();
    assert!(status.unwrap().success(), "{command}");
    until("every endpoint has a hint", || {
        endpoints(cluster).iter().all(|endpoint| endpoint["hints"]["forZones"].is_array()).then_some(())
    });
    until("each node's rules have the endpoints for its zone alone", || {
        NODES.iter().all(|(node, _)| rules_follow_hints(cluster, node)).then_some(())
    });
}

/// Whether a node's rules for the Service have the endpoints with a hint for the node's zone, and no others.
fn rules_follow_hints(cluster: &Cluster, node: &str) -> bool {
    let zone = r"--output=jsonpath={.metadata.labels.topology\.kubernetes\.io/zone}";
    let zone = cluster.kubectl(&["get", "node", node, zone]);
    let is_hinted = |endpoint: &&Value| {
        endpoint["hints"]["forZones"].as_array().is_some_and(|zones| zones.iter().any(|hint| hint["name"] == *zone))
    };
    let endpoints = endpoints(cluster);
    let hinted = endpoints.iter().filter(is_hinted).flat_map(|endpoint| endpoint["addresses"].as_array().unwrap());
    let hinted = hinted.map(|address| address.as_str().unwrap().to_owned());
    chosen_endpoints(cluster, node) == hinted.filter(|address| !address.contains(':')).collect()
}

/// The IPv4 addresses among which a node's kube-proxy chooses for the Service: it has a chain for each of its ports, with
/// a map of endpoints.
fn chosen_endpoints(cluster: &Cluster, node: &str) -> BTreeSet<String> {
    let rules = cluster.ask(node, &["nft", "list", "table", "ip", "kube-proxy"]);
    let is_of_service = |chain: &&str| {
        let name = chain.split_whitespace().next().unwrap_or_default();
        name.starts_with("service-") && name.contains("-shop/web/")
    };
    let maps =
        rules.split("chain ").filter(is_of_service).filter_map(|chain| chain.split_once(" map {")?.1.split('}').next());
    let words = maps.flat_map(|map| map.split(|c: char| c.is_whitespace() || c == ','));
    words.filter(|word| word.parse::<Ipv4Addr>().is_ok()).map(str::to_owned).collect()
}

/// The Service's endpoints.
fn endpoints(cluster: &Cluster) -> Vec<Value> {
    let slices = cluster.get(&["endpointslices", "--namespace=shop", "--selector=kubernetes.io/service-name=web"]);
    slices.iter().flat_map(|slice| slice["endpoints"].as_array().unwrap().clone()).collect()
}

/// Changes the Service in a way that concerns nothing: those who follow it look at it again.
fn touch(cluster: &Cluster) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let label = format!("tests/touched={}", now.as_millis());
    cluster.kubectl(&["--namespace=shop", "label", "--overwrite", "service", "web", &label]);
}

/// The controllers' processes.
fn controllers(cluster: &Cluster) -> Vec<Process> {
    Process::all(cluster).into_iter().filter(|process| process.part == "controller").collect()
}

/// Ends all controllers, which write the open hour, and waits for the next ones.
fn restart(cluster: &Cluster) {
    let before = controllers(cluster);
    for process in &before {
        kill(Pid::from_raw(process.id()), Signal::SIGTERM).unwrap();
    }
    let ended: BTreeSet<i32> = before.iter().map(Process::id).collect();
    until("controllers start again", || {
        let new = controllers(cluster).into_iter().filter(|process| !ended.contains(&process.id()));
        (new.count() == before.len()).then_some(())
    });
}

/// Waits until a controller has the reports of all agents.
fn serve_totals(cluster: &Cluster) {
    // Traffic before an agent's first report to a controller belongs to no hour of its history.
    until("totals", || {
        pages::holder(cluster)?;
        let mut series = pages::totals(cluster).into_iter();
        series.find(|series| series.name == "meridian_cluster_zone_bytes_total")
    });
}

/// New pods of the controllers, with new volumes. None of the old ones is left when they start: at a change of hour a new
/// replica would copy the sealed hour from the leader.
fn begin_anew(cluster: &Cluster) {
    let scale = |replicas: usize| {
        let replicas = format!("--replicas={replicas}");
        cluster.kubectl(&["--namespace=meridian", "scale", "deployment/meridian-controller", &replicas]);
    };
    let before = controllers(cluster).len();
    scale(0);
    until("no controllers", || controllers(cluster).is_empty().then_some(()));
    scale(before);
    cluster.rolled_out("meridian", "deployment/meridian-controller");
    until("as many controllers as before", || (controllers(cluster).len() == before).then_some(()));
    serve_totals(cluster);
}

/// Moves all traffic so far a day into the past: a preference is judged by the last twelve hours.
fn a_day_passes(cluster: &Cluster) {
    restart(cluster);
    let moved = std::env::temp_dir().join(format!("meridian-pods-{}", std::process::id()));
    let mut archive = Archive::open(&moved, Limits::default(), Arc::default()).unwrap();
    for file in blocks(&controllers(cluster)[0].path(HISTORY)) {
        let mut block = Block::decode(&fs::read(&file).unwrap()).unwrap();
        block.span = Span::hour_of(block.span.start - u64::from(Span::DAY));
        archive.write(&block).unwrap();
    }
    begin_anew(cluster);
    for controller in controllers(cluster) {
        for file in blocks(&moved) {
            fs::copy(&file, controller.path(HISTORY).join(file.file_name().unwrap())).unwrap();
        }
    }
    drop(archive);
    fs::remove_dir_all(&moved).unwrap();
    // They look into the folder when they start.
    restart(cluster);
    serve_totals(cluster);
}

/// The files of a history.
fn blocks(folder: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "block")).collect()
}
