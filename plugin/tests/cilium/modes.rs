//! What must hold beside Cilium, in each of its modes.

use crate::{
    actions::{burst, burst_while, node_port, restart_agents, restart_cilium},
    beside::Objects,
    cluster::Cluster,
    machine::Machine,
    offsets::{Offsets, REPORTS},
    said,
    wire::{Pair, Wire},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/meridian");
const PRESET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/meridian/presets/cilium.yaml");

/// What a mode of Cilium asks for.
struct Mode {
    name: &'static str,
    /// The hook with the preset for Cilium, which lets the agent read Cilium's configuration.
    hook: &'static str,
    /// What is asked for beside the preset.
    values: &'static [&'static str],
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh default"]
fn default() {
    holds(&Mode { name: "default", hook: "tcx", values: &[] });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh tunnel-ebpf"]
fn tunnel_ebpf() {
    holds(&Mode { name: "tunnel-ebpf", hook: "tcx", values: &[] });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh native-ebpf"]
fn native_ebpf() {
    holds(&Mode { name: "native-ebpf", hook: "tcx", values: &[] });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh native-legacy"]
fn native_legacy() {
    holds(&Mode { name: "native-legacy", hook: "tcx", values: &[] });
}

/// The only one in which every packet of a pod passes netfilter, so that it may be asked for.
#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh native-iptables"]
fn native_iptables() {
    holds(&Mode { name: "native-iptables", hook: "netfilter", values: &["--set", "agent.hook=netfilter"] });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh endpoint-slices"]
fn endpoint_slices() {
    holds(&Mode { name: "endpoint-slices", hook: "tcx", values: &["--set", "agent.hook=tcx"] });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh multi-pool"]
fn multi_pool() {
    holds(&Mode { name: "multi-pool", hook: "tcx", values: &[] });
}

/// Whatever happens, what Meridian says grows by what the wire carried; Cilium keeps what it has; and when all is
/// over, nothing is left.
fn holds(mode: &Mode) {
    let machine = Machine::look();
    {
        let cluster = timed("the cluster", || Cluster::up(mode.name));
        timed("its pods", || {
            cluster.apply("conformance/cluster/workloads.yaml");
            cluster.rolled_out("shop", "deployment/web");
            cluster.rolled_out("billing", "daemonset/client");
        });
        let wire = Wire::tap(&cluster);
        let mut ciliums = Objects::look(&cluster);

        timed("installation with the preset", || install(&cluster, &[&["--values", PRESET], mode.values].concat()));
        assert_eq!(said::hooks(&cluster), BTreeSet::from([mode.hook.to_owned()]));
        let mut sums = Sums::start(&cluster, &wire);
        sums.grow("pods to pods, to a service, and from outside to a node's port", |sums| sums.all_traffic());
        ciliums.must_still_be(&cluster);
        sums.grow("while cilium-agents start again", |_| burst_while(&cluster, || restart_cilium(&cluster)));
        ciliums = ciliums.after_restart(&cluster);
        sums.grow("while our agents start again", |_| burst_while(&cluster, || restart_agents(&cluster)));
        timed("uninstallation", || uninstall(&cluster));
        ciliums.must_be_as_before(&cluster);

        timed("installation without a preset", || install(&cluster, &[]));
        let mut sums = Sums::start(&cluster, &wire);
        sums.grow("the same without a preset", |sums| sums.all_traffic());
        timed("uninstallation", || uninstall(&cluster));
        ciliums.must_be_as_before(&cluster);
        timed("traffic without Meridian", || burst(&cluster));
    }
    machine.must_be_as_before();
}

/// What Meridian says, followed from one action to the next.
struct Sums<'c> {
    cluster: &'c Cluster,
    wire: &'c Wire<'c>,
    offsets: Offsets,
}

impl<'c> Sums<'c> {
    fn start(cluster: &'c Cluster, wire: &'c Wire<'c>) -> Self {
        let offsets = timed("a first look", || Offsets::look(cluster, wire));
        Self { cluster, wire, offsets }
    }

    /// Meridian must say of the action what the wire carried.
    fn grow(&mut self, what: &str, action: impl FnOnce(&Self)) {
        timed(what, || action(self));
        timed("what Meridian says of it", || {
            self.offsets.must_be_as_before(what, self.cluster, self.wire);
        });
    }

    /// Every kind of traffic, of which the wire must have carried its part.
    fn all_traffic(&self) {
        let carried = || {
            let carried = self.wire.carried();
            (self.wire.by_pods(&carried), self.wire.by_zones(&carried))
        };
        let (before, _) = carried();
        burst(self.cluster);
        let (after, zones) = carried();
        let grown = growth(&before, &after);
        assert_eq!(grown.len(), 8, "clients and servers on different nodes, there and back: {grown:#?}");
        assert!(grown.values().all(|bytes| *bytes > 900_000), "the wire carried too little: {grown:#?}");
        node_port(self.cluster);
        let grown = growth(&zones, &carried().1);
        let to_servers = |((from, to), _): &(&Pair, &u64)| from == "eu-1a" && matches!(to.as_str(), "eu-1b" | "eu-2a");
        let forwarded: u64 = grown.iter().filter(to_servers).map(|(_, bytes)| bytes).sum();
        assert!(forwarded > 1_500_000, "the wire carried too little from the node to the servers: {grown:#?}");
    }
}

/// What has grown, and by how much.
fn growth(before: &BTreeMap<Pair, u64>, after: &BTreeMap<Pair, u64>) -> BTreeMap<Pair, u64> {
    let differences = after.iter().map(|(pair, bytes)| (pair.clone(), bytes - before.get(pair).unwrap_or(&0)));
    differences.filter(|(_, bytes)| *bytes > 0).collect()
}

/// Prints how long it took: for people, who wait.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    eprintln!("    {what}: {:.0} s", start.elapsed().as_secs_f64());
    result
}

fn install(cluster: &Cluster, values: &[&str]) {
    let mut arguments = vec!["helm", "install", "meridian", CHART, "--namespace", "meridian", "--create-namespace"];
    arguments.extend(["--wait", "--timeout", "3m", "--set", "image.repository=meridian.test/meridian"]);
    let reports = format!("agent.reportInterval={REPORTS},metrics.pods=true");
    arguments.extend(["--set", &reports]);
    arguments.extend(values);
    cluster.script(&arguments);
    // helm is content with fewer agents.
    cluster.rolled_out("meridian", "daemonset/meridian-agent");
}

fn uninstall(cluster: &Cluster) {
    cluster.script(&["helm", "uninstall", "meridian", "--namespace", "meridian", "--wait", "--timeout", "3m"]);
}
