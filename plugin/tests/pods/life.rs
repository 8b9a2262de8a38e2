//! A life of Meridian in a cluster.

use crate::{
    advice::{self, PRICES},
    load,
    nodes::{
        actions::{burst, burst_while, ready, restart_agents, send, send_from_each_client, services_are_settled},
        cluster::{Cluster, NODES, OUTSIDE, until},
        machine::Machine,
        offsets::{Offsets, REPORTS},
        pages, timed,
        wire::{By, Pair, Wire},
    },
    processes::{Process, must_have_left_nothing},
    totals::Totals,
    trouble,
    typist::Typist,
};
use serde_json::Value;

/// Beside a cluster that a person has, and one with Cilium. Both tests run at once.
const NAME: &str = "meridian-pods";
const ADVICE: &str = "meridian-advice";

/// As README.md and docs/install.md have them.
pub const INSTALL: &str = "helm install meridian helm/meridian --namespace meridian --create-namespace --set image.repository=REGISTRY/meridian";
pub const UPGRADE: &str = "helm upgrade meridian helm/meridian --namespace meridian --reuse-values";
pub const UNINSTALL: &str = "helm uninstall meridian --namespace meridian";
/// Another image with the same program.
pub const NEXT: &str = "image.tag=0.1.0-next";
/// The port of pods on their nodes' own network.
const HOST_PORT: u16 = 8081;

#[test]
#[ignore = "brings a cluster up: scripts/test.sh pods"]
fn totals_equal_the_wire_through_every_event_of_a_cluster() {
    let machine = Machine::look(NAME);
    {
        let cluster = timed("the cluster", || Cluster::up(NAME, None));
        let mut typist = Typist::new(&cluster);
        timed("a namespace that forbids agents", || trouble::pod_security(&cluster, &mut typist));
        timed("installation", || install(&cluster, &mut typist, &relay_values()));
        Totals::watch(&cluster, |totals| Life::begin(&cluster, totals).run(&mut typist));
        timed("uninstallation", || typist.types(UNINSTALL, &["--wait"]));
        must_have_left_nothing(&cluster);
        timed("a node dies before the uninstallation", || trouble::dead_node(&cluster, &mut typist));
        timed("helm 4", || with_helm_4(&cluster));
        must_have_left_nothing(&cluster);
        typist.must_have_typed_all();
    }
    machine.must_be_as_before();
}

/// Without the watch over totals: all controllers end at once, and with them what nodes had counted before they were
/// switched off.
#[test]
#[ignore = "brings a cluster up: scripts/test.sh pods"]
fn a_preference_for_the_zone_is_proposed_applied_and_followed() {
    let machine = Machine::look(ADVICE);
    {
        let cluster = timed("the cluster", || Cluster::up(ADVICE, None));
        let mut typist = Typist::new(&cluster);
        timed("installation", || install(&cluster, &mut typist, &["--set-json", PRICES]));
        cluster.apply("conformance/cluster/workloads.yaml");
        for (namespace, workload) in [("shop", "deployment/web"), ("billing", "daemonset/client")] {
            cluster.rolled_out(namespace, workload);
        }
        advice::works(&cluster);
    }
    machine.must_be_as_before();
}

fn relay_values() -> Vec<&'static str> {
    let mut values = vec!["--values", "helm/meridian/presets/generic.yaml"];
    values.extend(["--set", "relay.enabled=true,relay.image.repository=meridian.test/hubble-relay"]);
    values
}

/// Installs it, and waits until all of it is ready.
pub fn install(cluster: &Cluster, typist: &mut Typist, values: &[&str]) {
    let reports = format!("agent.reportInterval={REPORTS},metrics.pods=true");
    typist.types(INSTALL, &[&["--wait", "--timeout=3m", "--set", &reports], values].concat());
    typist.types("kubectl -n meridian rollout status daemonset/meridian-agent", &["--timeout=120s"]);
    let ready = ["--namespace=meridian", "wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s"];
    cluster.kubectl(&ready);
}

/// The other helm, from installation to uninstallation.
fn with_helm_4(cluster: &Cluster) {
    let helm = |arguments: &[&str]| {
        let output = cluster.command(arguments).env("MERIDIAN_HELM_VERSION", "4").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    let install = INSTALL.replace("REGISTRY", "meridian.test");
    helm(&install.split(' ').chain(["--wait", "--timeout=3m"]).collect::<Vec<_>>());
    cluster.rolled_out("meridian", "daemonset/meridian-agent");
    helm(&UNINSTALL.split(' ').chain(["--wait", "--timeout=3m"]).collect::<Vec<_>>());
}

/// Meridian's numbers, followed from one event to the next.
struct Life<'c> {
    cluster: &'c Cluster,
    totals: &'c Totals,
    wire: Wire<'c>,
    offsets: Offsets<(By, Pair)>,
}

impl<'c> Life<'c> {
    /// The first pods come when agents are there.
    fn begin(cluster: &'c Cluster, totals: &'c Totals) -> Self {
        for process in Process::all(cluster) {
            process.must_have_its_rights();
        }
        cluster.apply("conformance/cluster/workloads.yaml");
        cluster.apply("conformance/cluster/host-network.yaml");
        for (namespace, workload) in
            [("shop", "deployment/web"), ("shop", "daemonset/host"), ("billing", "daemonset/client")]
        {
            cluster.rolled_out(namespace, workload);
        }
        let wire = Wire::tap(cluster);
        let offsets = timed("a first look", || Offsets::look(cluster, &wire));
        Self { cluster, totals, wire, offsets }
    }

    /// Meridian must say of an event what the wire carried meanwhile.
    fn goes_through(&mut self, what: &str, event: impl FnOnce(&Self)) {
        self.totals.gap();
        timed(what, || event(self));
        timed("what Meridian says of it", || self.offsets.must_be_as_before(what, self.cluster, &self.wire));
        eprintln!("    without totals at most: {:.1} s", self.totals.gap().as_secs_f64());
    }

    /// After an event that changes which pod has which address, the next ones are looked at from here on.
    fn look_anew(&mut self) {
        self.wire.look_for_pods();
        self.offsets = Offsets::look(self.cluster, &self.wire);
    }

    fn run(mut self, typist: &mut Typist) {
        self.goes_through("TCP, UDP, fragments, IPv6, services, the nodes' own network", Self::all_traffic);
        self.offsets.must_be_nothing();
        timed("what the pages have to type", || self.pages(typist));
        self.goes_through("agents are deleted", |life| {
            burst_while(|| burst(life.cluster), || life.delete("agent", "daemonset/meridian-agent"));
        });
        self.goes_through("both controllers are deleted", |life| {
            burst_while(|| burst(life.cluster), || life.delete("controller", "deployment/meridian-controller"));
        });
        self.goes_through("an upgrade of the image", |life| {
            burst_while(|| burst(life.cluster), || life.upgrade(typist, &["--set", NEXT]));
        });
        self.goes_through("an upgrade of the values", |life| {
            let profile =
                "agent.seccompProfile.type=Localhost,agent.seccompProfile.localhostProfile=meridian-agent.json";
            let values = ["--set", "hubble.capacity=8191,pairLog.interval=2s", "--set", profile];
            burst_while(|| burst(life.cluster), || life.upgrade(typist, &values));
        });
        self.goes_through("agents start again", |life| {
            burst_while(|| burst(life.cluster), || restart_agents(life.cluster))
        });
        timed("a node is drained", || self.drain());
        self.goes_through("traffic after it", |life| burst(life.cluster));
        self.loses_a_controller();
        self.goes_through("traffic after the node has come back", |life| burst(life.cluster));
        timed("ten thousand flows, and clients that follow them", || load::bear(self.cluster));
        self.goes_through("traffic after it", |life| burst(life.cluster));
    }

    /// Every kind of traffic, of which the wire must have carried its part.
    fn all_traffic(&self) {
        let before = self.wire.carried();
        burst(self.cluster);
        let hosts = NODES.map(|(_, address)| format!("tcp:{address}:{HOST_PORT}:50000:200000:2"));
        send_from_each_client(self.cluster, &hosts);
        let servers = ready(self.cluster, "shop", "web");
        for host in ready(self.cluster, "shop", "host") {
            let flows: Vec<String> =
                servers.iter().map(|pod| format!("udp:{}:8080:1000:20", pod.addresses[0])).collect();
            assert!(send(self.cluster, &host, &flows).wait().unwrap().success());
        }
        let (then, now) = (self.wire.by(By::Pod, &before), self.wire.by(By::Pod, &self.wire.carried()));
        assert_eq!(now.len(), 8, "clients and servers on different nodes, there and back: {now:#?}");
        let enough = now.iter().all(|(pair, bytes)| bytes - then.get(pair).unwrap_or(&0) > 1_800_000);
        assert!(enough, "the wire carried too little: {then:#?} to {now:#?}");
    }

    /// The commands in the docs that show something.
    fn pages(&self, typist: &mut Typist) {
        let check = "kubectl -n meridian exec ds/meridian-agent -- /meridian check";
        assert!(typist.types(check, &["--duration", "1s"]).contains("an agent can run here"));
        let client = &ready(self.cluster, "billing", "client")[0];
        let holder = |address: &str| format!("{address}  Pod billing/{}, DaemonSet client", client.name);
        let address = client.addresses[0].as_str();
        typist.types("meridian zones lookup 10.0.1.7", &[]);
        let lookup =
            ["--namespace=meridian", "exec", "daemonset/meridian-agent", "--", "/meridian", "zones", "lookup", address];
        let output = self.cluster.kubectl(&lookup);
        assert!(output.contains("eu-") && output.contains(&holder(address)), "{output}");
        let output = typist.types("meridian zones list", &[]);
        assert!(["eu-1a", "eu-1b", "eu-2a"].iter().all(|zone| output.contains(zone)), "{output}");
        let in_pod = "kubectl -n meridian exec deploy/meridian-controller -- /meridian zones status";
        for status in ["meridian zones status", in_pod] {
            let output = typist.types(status, &[]);
            assert!(output.contains("Node") || output.contains("nodes"), "{output}");
        }
        let output = typist.types("meridian top --server 127.0.0.1:4344", &["--count", "1"]);
        assert!(
            output.contains("node-1, node-2, node-3") && output.contains("client") && output.contains("web"),
            "{output}"
        );
        let report = "kubectl -n meridian exec deploy/meridian-controller -- /meridian report --by workload";
        let output = typist.types(report, &[]);
        assert!(output.contains("client") && output.contains("web"), "{output}");
        let logged = self.cluster.kubectl(&[
            "--namespace=meridian",
            "logs",
            "--selector=app.kubernetes.io/component=controller",
            "--tail=-1",
        ]);
        let lines: Vec<Value> = logged.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let crossing = lines.iter().any(|line| line.to_string().contains("web") && line.to_string().contains("client"));
        assert!(crossing, "the pair log: {logged}");
        let _forwarding = typist.starts("kubectl -n meridian port-forward service/meridian-relay 4245:80");
        let observe = "hubble observe --server localhost:4245 --label meridian.io/locality=cross-zone --follow";
        typist.prints(observe, &["billing/client-", "shop/web-"], || burst(self.cluster));
    }

    /// Deletes the pods of a part, at once, and waits for those that follow.
    fn delete(&self, part: &str, workload: &str) {
        let selector = format!("--selector=app.kubernetes.io/component={part}");
        self.cluster.kubectl(&["--namespace=meridian", "delete", "pods", &selector]);
        self.cluster.rolled_out("meridian", workload);
    }

    fn upgrade(&self, typist: &mut Typist, values: &[&str]) {
        typist.types(UPGRADE, &[&["--wait", "--timeout=3m"], values].concat());
        self.cluster.rolled_out("meridian", "daemonset/meridian-agent");
    }

    /// Its pods go elsewhere, and it takes pods again.
    fn drain(&mut self) {
        let node = &ready(self.cluster, "shop", "web")[0].node;
        let drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s", "--force"];
        self.cluster.kubectl(&drain[..5]);
        self.cluster.kubectl(&["uncordon", node]);
        self.cluster.rolled_out("shop", "deployment/web");
        self.cluster.rolled_out("meridian", "deployment/meridian-controller");
        self.look_anew();
    }

    /// The node of the controller that sums up is switched off, and comes back.
    fn loses_a_controller(&mut self) {
        let (lost, address) = pages::holder(self.cluster).expect("a controller has the Lease");
        self.goes_through("the node of the controller that sums up is lost", |life| {
            life.cluster.lose(&lost);
            life.totals.forget(&lost);
            until("another controller has the Lease", || {
                pages::holder(life.cluster).filter(|(_, now)| *now != address)
            });
            until("the lost node's pods are not ready", || {
                let all = ["shop", "billing"].map(|namespace| {
                    ready(life.cluster, namespace, if namespace == "shop" { "web" } else { "client" })
                });
                all.iter().flatten().all(|pod| pod.node != lost).then_some(())
            });
            services_are_settled(life.cluster);
            burst(life.cluster);
            // The lost node's report is waited for, not for long.
            until("totals", || {
                pages::totals(life.cluster)
                    .iter()
                    .any(|series| series.name == "meridian_cluster_zone_bytes_total")
                    .then_some(())
            });
        });
        self.cluster.boot(&lost);
        until("its agent", || {
            let health =
                ["curl", "--silent", "--fail", "--max-time", "2", &format!("http://{}:9980/readyz", of(&lost))];
            self.cluster.in_network(OUTSIDE, &health.map(str::to_owned)).status.success().then_some(())
        });
        for (namespace, workload) in
            [("shop", "deployment/web"), ("billing", "daemonset/client"), ("meridian", "daemonset/meridian-agent")]
        {
            self.cluster.rolled_out(namespace, workload);
        }
        self.look_anew();
    }
}

/// A node's address.
fn of(node: &str) -> &'static str {
    NODES.iter().find(|(name, _)| *name == node).unwrap().1
}
