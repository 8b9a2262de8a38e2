//! The promises beside Cilium, in each of its modes.

use crate::{
    actions::{burst, upgrade_cilium},
    beside::Objects,
    cluster::{Cluster, NODES},
    machine::Machine,
    nodes::{
        actions::{burst_while, node_port, restart_agents, restart_cilium},
        offsets::{Offsets, REPORTS},
        pages, timed,
    },
    outside, policies, relay,
    wire::{Pair, Wire},
};
use std::collections::{BTreeMap, BTreeSet};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/meridian");
pub const PRESET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/meridian/presets/cilium.yaml");

/// A mode of Cilium, and what is tried in it beside what every mode must hold.
struct Mode {
    name: &'static str,
    /// The hook with the preset for Cilium, which lets the agent read Cilium's configuration.
    hook: &'static str,
    /// The values beside the preset.
    values: &'static [&'static str],
    /// Whether packets to outside get their node's address by iptables: then traffic control sees them with it.
    iptables: bool,
    change: Change,
}

/// The actions on cilium-agents while Meridian counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Restart,
    Upgrade,
    /// A restart, and policies by which they drop packets.
    Policies,
}

impl Mode {
    /// Cilium masquerades by eBPF.
    const fn ebpf(name: &'static str) -> Self {
        Self { name, hook: "tcx", values: &[], iptables: false, change: Change::Restart }
    }

    const fn iptables(name: &'static str) -> Self {
        Self { iptables: true, ..Self::ebpf(name) }
    }
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh default"]
fn default() {
    holds(&Mode::iptables("default"));
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh tunnel-ebpf"]
fn tunnel_ebpf() {
    holds(&Mode::ebpf("tunnel-ebpf"));
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh native-ebpf"]
fn native_ebpf() {
    holds(&Mode::ebpf("native-ebpf"));
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh native-legacy"]
fn native_legacy() {
    holds(&Mode::ebpf("native-legacy"));
}

/// The only one in which every packet of a pod passes netfilter, so that it may be asked for.
#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh native-iptables"]
fn native_iptables() {
    let values = &["--set", "agent.hook=netfilter"];
    holds(&Mode { hook: "netfilter", values, ..Mode::iptables("native-iptables") });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh endpoint-slices"]
fn endpoint_slices() {
    holds(&Mode { values: &["--set", "agent.hook=tcx"], ..Mode::iptables("endpoint-slices") });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh multi-pool"]
fn multi_pool() {
    holds(&Mode::ebpf("multi-pool"));
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh dual-stack"]
fn dual_stack() {
    holds(&Mode::iptables("dual-stack"));
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh dual-stack-ebpf"]
fn dual_stack_ebpf() {
    holds(&Mode::ebpf("dual-stack-ebpf"));
}

/// Servers answer clients outside by themselves, with the address of the node that was asked.
#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh dsr"]
fn dsr() {
    holds(&Mode::ebpf("dsr"));
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh host-firewall"]
fn host_firewall() {
    holds(&Mode { change: Change::Policies, ..Mode::iptables("host-firewall") });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh upgrade"]
fn upgrade() {
    holds(&Mode { change: Change::Upgrade, ..Mode::iptables("upgrade") });
}

#[test]
#[ignore = "brings a cluster up: scripts/test-cilium.sh relay"]
fn relay() {
    relay::has_both();
}

/// After each action, Meridian's numbers have grown by the wire's traffic; Cilium keeps what it has; and when all is
/// over, nothing is left.
fn holds(mode: &Mode) {
    let machine = Machine::look(crate::NAME);
    {
        let cluster = with_pods(mode.name);
        let _outside = outside::Server::start(&cluster);
        let mut wire = Wire::tap(&cluster);
        let mut ciliums = Objects::look(&cluster);

        timed("installation with the preset", || install(&cluster, &[&["--values", PRESET], mode.values].concat()));
        assert_eq!(pages::hooks(&cluster), BTreeSet::from([mode.hook.to_owned()]));
        wire.masqueraded = mode.iptables && mode.hook == "tcx";
        let mut sums = Sums::start(&cluster, &wire);
        sums.grow("pods to pods, to a service, to outside, and from there to a node's port", |sums| sums.all_traffic());
        ciliums.must_still_be(&cluster);
        sums.change_cilium(mode.change);
        ciliums = ciliums.after_restart(&cluster);
        sums.grow("while our agents start again", |_| burst_while(|| burst(&cluster), || restart_agents(&cluster)));
        timed("uninstallation", || uninstall(&cluster));
        ciliums.must_be_as_before(&cluster);

        timed("installation without a preset", || install(&cluster, &[]));
        wire.masqueraded = mode.iptables;
        let mut sums = Sums::start(&cluster, &wire);
        sums.grow("the same without a preset", |sums| sums.all_traffic());
        timed("uninstallation", || uninstall(&cluster));
        ciliums.must_be_as_before(&cluster);
        timed("traffic without Meridian", || burst(&cluster));
    }
    machine.must_be_as_before();
}

/// A cluster with Cilium in this mode, and the pods that talk.
pub fn with_pods(mode: &str) -> Cluster {
    let cluster = timed("the cluster", || Cluster::up(crate::NAME, Some(mode)));
    timed("its pods", || {
        cluster.apply("conformance/cluster/workloads.yaml");
        // Where there is IPv6, too; elsewhere it changes nothing.
        let both = r#"{"spec": {"ipFamilyPolicy": "PreferDualStack"}}"#;
        cluster.kubectl(&["--namespace=shop", "patch", "service", "web", "--patch", both]);
        cluster.rolled_out("shop", "deployment/web");
        cluster.rolled_out("billing", "daemonset/client");
    });
    cluster
}

/// Meridian's numbers, followed from one action to the next.
struct Sums<'c> {
    cluster: &'c Cluster,
    wire: &'c Wire<'c>,
    offsets: Offsets<Pair>,
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

    /// The cilium-agents start again, or others do, while pods talk.
    fn change_cilium(&mut self, change: Change) {
        let cluster = self.cluster;
        match change {
            Change::Restart => self.grow("while cilium-agents start again", |_| {
                burst_while(|| burst(cluster), || restart_cilium(cluster, &[]));
            }),
            Change::Upgrade => self.grow("while cilium-agents are upgraded", |_| {
                burst_while(|| burst(cluster), || upgrade_cilium(cluster));
            }),
            Change::Policies => {
                self.grow("while cilium-agents start again", |_| {
                    burst_while(|| burst(cluster), || restart_cilium(cluster, &[]));
                });
                self.grow("while policies drop packets", |sums| policies::drop_packets(cluster, sums.wire));
            }
        }
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
        assert_eq!(grown.len(), 8 + 3, "clients and servers on different nodes, there and back; outside: {grown:#?}");
        assert!(grown.values().all(|bytes| *bytes > 900_000), "the wire carried too little: {grown:#?}");
        node_port(self.cluster, &self.cluster.addresses(NODES[0].0));
        let grown = growth(&zones, &carried().1);
        let to_servers = |((from, to), _): &(&Pair, &u64)| from == "eu-1a" && matches!(to.as_str(), "eu-1b" | "eu-2a");
        let forwarded: u64 = grown.iter().filter(to_servers).map(|(_, bytes)| bytes).sum();
        assert!(forwarded > 1_500_000, "the wire carried too little from the node to the servers: {grown:#?}");
    }
}

/// The names that have grown, and by how much.
pub fn growth(before: &BTreeMap<Pair, u64>, after: &BTreeMap<Pair, u64>) -> BTreeMap<Pair, u64> {
    let differences = after.iter().map(|(pair, bytes)| (pair.clone(), bytes - before.get(pair).unwrap_or(&0)));
    differences.filter(|(_, bytes)| *bytes > 0).collect()
}

pub fn install(cluster: &Cluster, values: &[&str]) {
    let mut arguments = vec!["helm", "install", "meridian", CHART, "--namespace", "meridian", "--create-namespace"];
    arguments.extend(["--wait", "--timeout", "3m", "--set", "image.repository=meridian.test/meridian"]);
    let reports = format!("agent.reportInterval={REPORTS},metrics.pods=true");
    arguments.extend(["--set", &reports]);
    arguments.extend(values);
    cluster.script(&arguments);
    // helm is content with fewer agents.
    cluster.rolled_out("meridian", "daemonset/meridian-agent");
}

pub fn uninstall(cluster: &Cluster) {
    cluster.script(&["helm", "uninstall", "meridian", "--namespace", "meridian", "--wait", "--timeout", "3m"]);
}
