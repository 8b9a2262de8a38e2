//! The agents' kernel maps equal the cluster's table after every change.

use crate::{
    lab::{Agent, Controller, Lab, inside},
    objects::Object,
};
use serde_json::json;
use std::collections::BTreeMap;

const DATABASE: &[u8] = b"zones: [{name: eu-1b, region: eu-1}]
external: [{name: orders-db, cidr: 10.9.8.0/24, zone: eu-1b, class: database}]
";

/// The agents, and their expected tables.
struct Watched {
    controller: Controller,
    agents: Vec<Agent>,
    expected: BTreeMap<String, String>,
}

impl Watched {
    fn expect(&mut self, prefixes: &[(&str, &str)]) {
        self.expected.extend(prefixes.iter().map(|(prefix, zone)| (prefix.to_string(), zone.to_string())));
    }

    fn forget(&mut self, prefixes: &[&str]) {
        for prefix in prefixes {
            self.expected.remove(*prefix).unwrap();
        }
    }

    /// Waits until the agents have acknowledged this version, and checks that their tables are the expected ones.
    async fn holds(&self, kind: &str, resource_version: &str) {
        self.controller.settle(kind, resource_version, self.agents.len()).await;
        for agent in &self.agents {
            agent.has_exactly(&self.expected).await;
        }
    }
}

fn node_d(zone: &str) -> Object {
    Object::node("node-d", zone, &["10.0.4.0/24"], &["192.168.1.4"])
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn kernel_maps_equal_the_clusters_table_after_every_change() {
    inside("tables", async |lab: &mut Lab| {
        lab.put(Object::namespace("shop")).await;
        lab.put(Object::node("node-a", "eu-1a", &["10.0.1.0/24", "fd00:1::/64"], &["192.168.1.1", "fd00::1"])).await;
        lab.put(Object::node("node-b", "eu-1b", &["10.0.2.0/24"], &["192.168.1.2"])).await;
        lab.put(Object::node("node-c", "eu-1c", &["10.0.3.0/24"], &["192.168.1.3"])).await;
        lab.put(node_d("eu-1c")).await;
        lab.put(Object::definition("cilium.io", "v2", "CiliumNode", "ciliumnodes", "Cluster")).await;
        let zones = lab.folder.file("zones.yaml", DATABASE);
        let controller = lab.controller(&["--agent-accounts", "off", "--zones-file", zones.to_str().unwrap()]).await;
        let agents = ["node-a", "node-c"].map(|node| lab.agent(node, &controller, &[])).into();
        let mut watched = Watched { controller, agents, expected: BTreeMap::new() };
        watched.expect(&[
            ("10.0.1.0/24", "eu-1a"),
            ("fd00:1::/64", "eu-1a"),
            ("192.168.1.1/32", "eu-1a"),
            ("fd00::1/128", "eu-1a"),
            ("10.0.2.0/24", "eu-1b"),
            ("192.168.1.2/32", "eu-1b"),
            ("10.0.3.0/24", "eu-1c"),
            ("192.168.1.3/32", "eu-1c"),
            ("10.0.4.0/24", "eu-1c"),
            ("192.168.1.4/32", "eu-1c"),
            ("10.9.8.0/24", "eu-1b"),
        ]);
        // A pod inside its node's prefix needs no prefix of its own.
        let version = lab.put(Object::pod("cart-0", "node-a", "Running", &["10.0.1.5", "fd00:1::5"])).await;
        watched.holds("Pod", &version).await;

        // All forms of a CiliumNode.
        watched.controller.watches("CiliumNode", "watching").await;
        lab.put(Object::cilium_node("node-a", json!({"ipam": {"podCIDRs": ["10.1.1.0/24"]}}), json!({}))).await;
        let pool = json!({"10.2.0.5": {}, "10.2.0.6": {"owner": "shop/cart-1", "resource": "eni-1"}});
        let interfaces = json!({"eni": {"enis": {"eni-1": {"addresses": ["10.2.0.7"], "prefixes": ["10.2.16.0/28"]}}}});
        lab.put(Object::cilium_node("node-b", json!({"ipam": {"pool": pool}}), interfaces)).await;
        let pools = json!([{"pool": "default", "cidrs": ["10.3.1.0/24", "fd00:3::/80"]}, {"pool": "big", "cidrs": ["10.3.64.0/20"]}]);
        let spec = json!({"ipam": {"pools": {"allocated": pools}}, "addresses": [{"type": "CiliumInternalIP", "ip": "10.3.1.77"}]});
        let version = lab.put(Object::cilium_node("node-c", spec, json!({}))).await;
        watched.expect(&[
            ("10.1.1.0/24", "eu-1a"),
            ("10.2.0.5/32", "eu-1b"),
            ("10.2.0.6/32", "eu-1b"),
            ("10.2.0.7/32", "eu-1b"),
            ("10.2.16.0/28", "eu-1b"),
            ("10.3.1.0/24", "eu-1c"),
            ("fd00:3::/80", "eu-1c"),
            ("10.3.64.0/20", "eu-1c"),
            ("10.0.1.5/32", "eu-1a"),
            ("fd00:1::5/128", "eu-1a"),
        ]);
        // With a CNI's own ranges, the nodes' prefixes are ignored.
        watched.forget(&["10.0.1.0/24", "fd00:1::/64", "10.0.2.0/24", "10.0.3.0/24"]);
        watched.holds("CiliumNode", &version).await;
        assert_eq!(
            watched.agents[0].pod("10.3.1.77").await,
            "/ Node node-c",
            "the node's own address in the pod network"
        );

        // A definition that is installed later; a block, and an address that another node has borrowed.
        let version = lab.put(Object::pod("borrower", "node-a", "Running", &["10.4.1.7"])).await;
        watched.expect(&[("10.4.1.7/32", "eu-1a")]);
        watched.holds("Pod", &version).await;
        lab.put(Object::definition("crd.projectcalico.org", "v1", "BlockAffinity", "blockaffinities", "Cluster")).await;
        watched.controller.watches("BlockAffinity", "watching").await;
        let block = |state: &str, deleted: &str| {
            Object::block(
                "node-d-10-4-1-0-26",
                json!({"cidr": "10.4.1.0/26", "node": "node-d", "state": state, "deleted": deleted}),
            )
        };
        let version = lab.put(block("confirmed", "false")).await;
        watched.expect(&[("10.4.1.0/26", "eu-1c")]);
        watched.forget(&["10.0.4.0/24"]);
        watched.holds("BlockAffinity", &version).await;
        let version = lab.put(Object::pod("at-home", "node-d", "Running", &["10.4.1.8"])).await;
        watched.holds("Pod", &version).await;
        let version = lab.put(block("confirmed", "true")).await;
        watched.forget(&["10.4.1.0/26"]);
        watched.expect(&[("10.4.1.8/32", "eu-1c"), ("10.0.4.0/24", "eu-1c")]);
        watched.holds("BlockAffinity", &version).await;

        // The definition is deleted, and its blocks with it.
        let version = lab.put(block("confirmed", "false")).await;
        watched.expect(&[("10.4.1.0/26", "eu-1c")]);
        watched.forget(&["10.4.1.8/32", "10.0.4.0/24"]);
        watched.holds("BlockAffinity", &version).await;
        lab.delete_definition("blockaffinities.crd.projectcalico.org").await;
        watched.controller.watches("BlockAffinity", "not installed").await;
        watched.forget(&["10.4.1.0/26"]);
        watched.expect(&[("10.4.1.8/32", "eu-1c"), ("10.0.4.0/24", "eu-1c")]);
        let version = lab.mark(&node_d("")).await;
        watched.holds("Node", &version).await;

        // A node's zone changes, for everything on the node.
        let version = lab.put(node_d("eu-1a")).await;
        watched.expect(&[("10.0.4.0/24", "eu-1a"), ("192.168.1.4/32", "eu-1a"), ("10.4.1.8/32", "eu-1a")]);
        watched.holds("Node", &version).await;
        // The node loses its zone: unknown is a value of its own.
        let version = lab.put(node_d("").with("/metadata/labels", json!({"topology.kubernetes.io/zone": ""}))).await;
        watched.expect(&[("10.0.4.0/24", "unknown"), ("192.168.1.4/32", "unknown")]);
        // No prefix covers the address, so that it is unknown without one of its own.
        watched.forget(&["10.4.1.8/32"]);
        watched.holds("Node", &version).await;
        assert_eq!(watched.controller.metric("meridian_nodes_without_zone").await, Some(1.0));
        let version = lab.delete(node_d("")).await;
        watched.forget(&["10.0.4.0/24", "192.168.1.4/32"]);
        watched.holds("Node", &version).await;
        let version = lab.put(Object::node("node-e", "us-1a", &["10.0.5.0/24"], &["192.168.1.5"])).await;
        watched.expect(&[("10.0.5.0/24", "us-1a"), ("192.168.1.5/32", "us-1a")]);
        watched.holds("Node", &version).await;

        // Two nodes claim the same prefix.
        let version = lab.put(Object::node("node-f", "eu-1b", &["10.0.5.0/24"], &[])).await;
        watched.expect(&[("10.0.5.0/24", "unknown")]);
        watched.holds("Node", &version).await;
        assert_eq!(watched.controller.metric("meridian_table_conflicts").await, Some(1.0));
        assert!(watched.controller.log().contains("prefix 10.0.5.0/24 is in different zones"));
        let version = lab.delete(Object::node("node-f", "", &[], &[])).await;
        watched.expect(&[("10.0.5.0/24", "us-1a")]);
        watched.holds("Node", &version).await;
        assert_eq!(watched.controller.metric("meridian_table_conflicts").await, Some(0.0));
        let expected = ["NodeWithoutZone", "PrefixConflict"].map(|reason| (reason, "Node"));
        lab.has_events(&expected).await;

        // The static table changes.
        let more = String::from_utf8_lossy(DATABASE).replace("10.9.8.0/24", "10.9.9.0/24");
        lab.folder.file("zones.yaml", more.as_bytes());
        crate::lab::until("the new static table", async || {
            (watched.controller.metric(r#"meridian_static_table_reloads_total{result="taken"}"#).await? > 0.0)
                .then_some(())
        })
        .await;
        watched.forget(&["10.9.8.0/24"]);
        watched.expect(&[("10.9.9.0/24", "eu-1b")]);
        let version = lab.mark(&node_d("")).await;
        watched.holds("Node", &version).await;
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn an_address_is_that_of_the_pod_that_has_it_now() {
    inside("identities", async |lab: &mut Lab| {
        lab.put(Object::namespace("shop")).await;
        lab.put(Object::node("node-a", "eu-1a", &["10.0.1.0/24"], &["192.168.1.1"])).await;
        let controller = lab.controller(&["--agent-accounts", "off"]).await;
        let agents = vec![lab.agent("node-a", &controller, &[])];
        let watched = Watched {
            controller,
            agents,
            expected: BTreeMap::from([
                ("10.0.1.0/24".to_owned(), "eu-1a".to_owned()),
                ("192.168.1.1/32".to_owned(), "eu-1a".to_owned()),
            ]),
        };
        let agent = &watched.agents[0];

        // A chain of owners: the ReplicaSet arrives after its pod.
        let owner = |kind: &str, name: &str, uid: &str, version: &str| json!([{"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true}]);
        let set = |owners| {
            let meta = json!({"name": "cart-6d8f", "namespace": "shop", "ownerReferences": owners});
            let template =
                json!({"metadata": {"labels": {"app": "cart"}}, "spec": {"containers": [{"name": "c", "image": "c"}]}});
            let spec = json!({"selector": {"matchLabels": {"app": "cart"}}, "template": template});
            Object::new("apps", "v1", "ReplicaSet", "replicasets", json!({"metadata": meta, "spec": spec}))
        };
        let version =
            lab.put(set(owner("Deployment", "cart", "11111111-0000-0000-0000-000000000001", "apps/v1"))).await;
        let uid = lab.uid(&set(json!([]))).await;
        let cart = |name: &str, phase: &str, ip: &str| {
            Object::pod(name, "node-a", phase, &[ip])
                .with("/metadata/ownerReferences", owner("ReplicaSet", "cart-6d8f", &uid, "apps/v1"))
        };
        watched.holds("ReplicaSet", &version).await;
        let version = lab.put(cart("cart-6d8f-1", "Running", "10.0.1.5")).await;
        watched.holds("Pod", &version).await;
        let endpoint = agent.endpoint("10.0.1.5").await.unwrap();
        assert_eq!((&*endpoint.workload_kind, &*endpoint.workload, &*endpoint.node), ("Deployment", "cart", "node-a"));
        assert_eq!(endpoint.labels, ["app=cart"], "those that are chosen");

        // A service selects the pod.
        let service = json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": {"selector": {"app": "cart"}, "ports": [{"port": 80}]}});
        // Kinds are watched one by one: their changes arrive in any order.
        let version = lab.put(Object::new("", "v1", "Service", "services", service)).await;
        watched.holds("Service", &version).await;
        let slice = json!({
            "metadata": {"name": "cart-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.0.1.5"]}],
        });
        let version = lab.put(Object::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", slice)).await;
        watched.holds("EndpointSlice", &version).await;
        assert_eq!(agent.endpoint("10.0.1.5").await.unwrap().services, ["cart"]);
        // A service's address has no endpoint: its traffic is forwarded to a pod.
        let address = lab.text("", "v1", "Service", "services", "shop", "cart", "/spec/clusterIP").await;
        assert_eq!(agent.pod(&address).await, "");

        // A new pod gets the address after the old one has ended; late updates of the old pod change nothing.
        lab.put(cart("cart-6d8f-1", "Succeeded", "10.0.1.5")).await;
        let version = lab.put(cart("cart-6d8f-2", "Running", "10.0.1.5")).await;
        watched.holds("Pod", &version).await;
        let is_second = async || assert_eq!(agent.pod("10.0.1.5").await, "shop/cart-6d8f-2 Deployment cart");
        is_second().await;
        let late = cart("cart-6d8f-1", "Failed", "10.0.1.5").with("/metadata/annotations", json!({"late": "news"}));
        watched.holds("Pod", &lab.put(late).await).await;
        is_second().await;
        let version = lab.delete(cart("cart-6d8f-1", "Failed", "10.0.1.5")).await;
        watched.holds("Pod", &version).await;
        is_second().await;
        let version = lab.delete(cart("cart-6d8f-2", "Running", "10.0.1.5")).await;
        watched.holds("Pod", &version).await;
        assert_eq!(agent.pod("10.0.1.5").await, "");

        // A pod on the host network resolves to the node.
        let on_host =
            Object::pod("proxy", "node-a", "Running", &["192.168.1.1"]).with("/spec/hostNetwork", json!(true));
        let version = lab.put(on_host).await;
        watched.holds("Pod", &version).await;
        assert_eq!(agent.pod("192.168.1.1").await, "/ Node node-a");
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn a_label_of_a_namespace_that_the_history_keeps_follows_the_namespace_to_its_pods() {
    inside("namespaces", async |lab: &mut Lab| {
        let shop = |team: &str| Object::namespace("shop").with("/metadata/labels", json!({"team": team, "other": "x"}));
        lab.put(shop("red")).await;
        lab.put(Object::node("node-a", "eu-1a", &["10.0.1.0/24"], &["192.168.1.1"])).await;
        let controller = lab.controller(&["--agent-accounts", "off", "--history-labels", "team"]).await;
        let agent = lab.agent("node-a", &controller, &[]);
        let version = lab.put(Object::pod("cart-0", "node-a", "Running", &["10.0.1.5"])).await;
        controller.settle("Pod", &version, 1).await;
        let labels = async || agent.endpoint("10.0.1.5").await.unwrap().labels;
        assert_eq!(labels().await, ["app=cart", "io.cilium.k8s.namespace.labels.team=red"]);
        let version = lab.put(shop("blue")).await;
        controller.settle("Namespace", &version, 1).await;
        assert_eq!(labels().await, ["app=cart", "io.cilium.k8s.namespace.labels.team=blue"]);
    });
}
