//! What must hold beside Cilium, in each of its modes.

use crate::{
    actions::{burst, burst_while, node_port, restart_agents, restart_cilium},
    beside::Objects,
    cluster::Cluster,
    machine::Machine,
    offsets::{Offsets, REPORTS},
    said,
    wire::Wire,
};
use std::collections::BTreeSet;

/// What a mode of Cilium asks for.
struct Mode {
    name: &'static str,
    /// The hook with the preset for Cilium, which lets the agent read Cilium's configuration.
    hook: &'static str,
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh default"]
fn default() {
    holds(&Mode { name: "default", hook: "tcx" });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh tunnel-ebpf"]
fn tunnel_ebpf() {
    holds(&Mode { name: "tunnel-ebpf", hook: "tcx" });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh native-ebpf"]
fn native_ebpf() {
    holds(&Mode { name: "native-ebpf", hook: "tcx" });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh native-legacy"]
fn native_legacy() {
    holds(&Mode { name: "native-legacy", hook: "tcx" });
}

/// The only one in which every packet of a pod passes netfilter.
#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh native-iptables"]
fn native_iptables() {
    holds(&Mode { name: "native-iptables", hook: "netfilter" });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh endpoint-slices"]
fn endpoint_slices() {
    holds(&Mode { name: "endpoint-slices", hook: "tcx" });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh multi-pool"]
fn multi_pool() {
    holds(&Mode { name: "multi-pool", hook: "tcx" });
}

/// Whatever happens, what Meridian says grows by what the wire carried; Cilium keeps what it has; and when all is
/// over, nothing is left.
fn holds(mode: &Mode) {
    let machine = Machine::look();
    {
        let cluster = Cluster::up(mode.name);
        cluster.apply("conformance/cluster/workloads.yaml");
        cluster.rolled_out("shop", "deployment/web");
        cluster.rolled_out("billing", "daemonset/client");
        let wire = Wire::tap(&cluster);
        let ciliums = Objects::look(&cluster);

        install(&cluster, &["--values", "helm/meridian/presets/cilium.yaml"]);
        assert_eq!(said::hooks(&cluster), BTreeSet::from([mode.hook.to_owned()]));
        counts_all_that_happens(&cluster, &wire);
        ciliums.must_still_be(&Objects::look(&cluster));
        uninstall(&cluster);
        ciliums.must_be_as_before(&cluster);

        // Whoever knows of no preset.
        install(&cluster, &[]);
        let start = Offsets::look(&cluster, &wire);
        burst(&cluster);
        node_port(&cluster);
        start.must_be_as_before("without a preset", &cluster, &wire);
        uninstall(&cluster);
        ciliums.must_be_as_before(&cluster);
        burst(&cluster);
    }
    machine.must_be_as_before();
}

fn counts_all_that_happens(cluster: &Cluster, wire: &Wire) {
    let start = Offsets::look(cluster, wire);
    let carried = wire.by_pods(&wire.carried());
    burst(cluster);
    let burst = wire.by_pods(&wire.carried());
    assert_eq!(burst.len(), 8, "each client and each server on another node, there and back: {burst:#?}");
    for (pair, bytes) in &burst {
        assert!(bytes - carried.get(pair).unwrap_or(&0) > 900_000, "the wire carried too little: {pair:?} {bytes}");
    }
    let after = start.must_be_as_before("pods to pods and to a service", cluster, wire);
    let zones = wire.by_zones(&wire.carried());
    node_port(cluster);
    let now = wire.by_zones(&wire.carried());
    let to_servers: u64 =
        now.iter().filter(|((from, to), _)| from == "eu-1a" && to.starts_with("eu")).map(|(_, b)| b).sum();
    let before: u64 =
        zones.iter().filter(|((from, to), _)| from == "eu-1a" && to.starts_with("eu")).map(|(_, b)| b).sum();
    assert!(to_servers - before > 1_500_000, "the wire carried too little from the node to the servers: {now:?}");
    let after = after.must_be_as_before("from outside to a node's port", cluster, wire);
    burst_while(cluster, || restart_cilium(cluster));
    let after = after.must_be_as_before("while cilium-agents start again", cluster, wire);
    burst_while(cluster, || restart_agents(cluster));
    after.must_be_as_before("while our agents start again", cluster, wire);
}

fn install(cluster: &Cluster, values: &[&str]) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let chart = format!("{root}/helm/meridian");
    let mut arguments = vec!["helm", "install", "meridian", &chart, "--namespace", "meridian", "--create-namespace"];
    arguments.extend(["--wait", "--timeout", "3m", "--set", "image.repository=meridian.test/meridian"]);
    let reports = format!("agent.reportInterval={REPORTS},metrics.pods=true");
    arguments.extend(["--set", &reports]);
    let values: Vec<String> = values.iter().map(|value| value.replace("helm/meridian", &chart)).collect();
    arguments.extend(values.iter().map(String::as_str));
    cluster.script(&arguments);
}

fn uninstall(cluster: &Cluster) {
    cluster.script(&["helm", "uninstall", "meridian", "--namespace", "meridian", "--wait", "--timeout", "3m"]);
}
