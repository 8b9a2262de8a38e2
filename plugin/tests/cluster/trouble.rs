//! With any failure of the API server the table stays right, metrics and logs show the failure, and the controller
//! recovers by itself.

use crate::{
    lab::{CONTROLLER, Lab, NAMESPACE, inside, inside_with, until},
    objects::Object,
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1 as core};
use kube::{Api, api::Patch};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

/// A short watch timeout, so that the tests are fast.
const WATCH: u64 = 2;

fn expected(prefixes: &[(&str, &str)]) -> BTreeMap<String, String> {
    prefixes.iter().map(|(prefix, zone)| (prefix.to_string(), zone.to_string())).collect()
}

fn node(name: &str, zone: &str, third: u8) -> Object {
    Object::node(name, zone, &[&format!("10.0.{third}.0/24")], &[])
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn the_table_outlives_failures_of_the_api_server() {
    inside_with("restarts", &[], async |lab: &mut Lab| {
        lab.put(node("node-a", "eu-1a", 1)).await;
        lab.put(node("node-b", "eu-1b", 2)).await;
        let timeout = format!("{WATCH}s");
        let controller = lab.controller(&["--agent-accounts", "off", "--watch-timeout", &timeout]).await;
        let agent = lab.agent("node-a", &controller, &[]);
        let mut table = expected(&[("10.0.1.0/24", "eu-1a"), ("10.0.2.0/24", "eu-1b")]);
        let version = lab.mark(&node("", "", 0)).await;
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table).await;

        // Watches end and continue from their version, without a new list.
        tokio::time::sleep(Duration::from_secs(2 * WATCH)).await;
        assert_eq!(controller.metric(r#"meridian_watch_relists_total{kind="Node"}"#).await, Some(0.0));
        assert_eq!(controller.metric(r#"meridian_watch_errors_total{kind="Node"}"#).await, Some(0.0));

        // The API server is away for longer than a watch lasts.
        lab.stop_api();
        controller.watches("Node", "failing").await;
        tokio::time::sleep(Duration::from_secs(WATCH + 1)).await;
        agent.has_exactly(&table).await;
        assert!(controller.metric(r#"meridian_watch_errors_total{kind="Node"}"#).await.unwrap() > 0.0);
        assert!(controller.log().contains("the watch fails: the objects of this kind stay in force"));
        lab.start_api().await;
        controller.watches("Node", "watching").await;
        let version = lab.put(node("node-b", "eu-1c", 2)).await;
        table.extend(expected(&[("10.0.2.0/24", "eu-1c")]));
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table).await;

        // Nodes are added, changed and deleted while the controller is disconnected, and the restarted API server has
        // lost the history: the controller's version has expired.
        lab.stop_api();
        controller.watches("Node", "failing").await;
        controller.process.signal(Signal::SIGSTOP);
        lab.start_api().await;
        lab.delete(node("node-b", "", 2)).await;
        lab.put(node("node-a", "eu-1b", 1)).await;
        let version = lab.put(node("node-c", "eu-1c", 3)).await;
        lab.stop_api();
        lab.start_api().await;
        controller.process.signal(Signal::SIGCONT);
        table = expected(&[("10.0.1.0/24", "eu-1b"), ("10.0.3.0/24", "eu-1c")]);
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table).await;
        assert!(controller.metric(r#"meridian_watch_relists_total{kind="Node"}"#).await.unwrap() > 0.0);
        assert!(controller.log().contains("the watch has expired: listing again"));
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn the_role_allows_exactly_the_used_requests() {
    inside("role", async |lab: &mut Lab| {
        lab.put(node("node-a", "eu-1a", 1)).await;
        let client = lab.as_controller().await;
        let code = |result: kube::Result<()>| match result {
            Ok(()) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(error) => panic!("{error}"),
        };
        let (nodes, secrets): (Api<core::Node>, Api<core::Secret>) =
            (Api::all(client.clone()), Api::all(client.clone()));
        assert_eq!(code(nodes.list(&Default::default()).await.map(drop)), 200);
        assert_eq!(code(nodes.delete("node-a", &Default::default()).await.map(drop)), 403);
        let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        assert_eq!(code(nodes.patch("node-a", &Default::default(), &patch).await.map(drop)), 403);
        assert_eq!(code(secrets.list(&Default::default()).await.map(drop)), 403);
        // Only this Lease, by name.
        let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
        let lease: Lease = serde_json::from_value(json!({"metadata": {"name": CONTROLLER}, "spec": {}})).unwrap();
        let made = leases.create(&Default::default(), &lease).await.map(drop);
        // It already exists if the API server stays.
        assert!(matches!(code(made), 200 | 409));
        let taken = Patch::Merge(json!({"spec": {"holderIdentity": "me"}}));
        assert_eq!(code(leases.patch(CONTROLLER, &Default::default(), &taken).await.map(drop)), 200);
        assert_eq!(code(leases.patch("another", &Default::default(), &taken).await.map(drop)), 403);
        let elsewhere: Api<Lease> = Api::namespaced(client, "kube-system");
        assert_eq!(code(elsewhere.patch(CONTROLLER, &Default::default(), &taken).await.map(drop)), 403);
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn one_kind_that_may_not_be_read_harms_no_other() {
    inside("forbidden", async |lab: &mut Lab| {
        lab.put(Object::namespace("shop")).await;
        lab.put(node("node-a", "eu-1a", 1)).await;
        lab.put(Object::pod("far", "node-a", "Running", &["10.7.0.5"])).await;
        let timeout = format!("{WATCH}s");
        let args = ["--agent-accounts", "off", "--watch-timeout", &timeout];
        let controller = lab.controller(&args).await;
        let agent = lab.agent("node-a", &controller, &[]);
        let mut table = expected(&[("10.0.1.0/24", "eu-1a"), ("10.7.0.5/32", "eu-1a")]);
        let version = lab.mark(&node("", "", 0)).await;
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table).await;

        // The permission to read pods is removed.
        lab.set_role(|resource| resource != "pods").await;
        controller.watches("Pod", "forbidden").await;
        assert_eq!(controller.metric(r#"meridian_watch_state{kind="Pod",state="forbidden"}"#).await, Some(1.0));
        assert!(controller.log().contains("cannot"), "the server's own words are in the log");
        let version = lab.put(node("node-b", "eu-1b", 2)).await;
        table.extend(expected(&[("10.0.2.0/24", "eu-1b")]));
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table).await;

        // A controller that starts now gets everything except pods.
        let second = lab.controller(&args).await;
        second.watches("Pod", "forbidden").await;
        second.watches("Node", "watching").await;
        until("its table", async || (second.metric("meridian_table_prefixes").await? == 2.0).then_some(())).await;

        lab.set_role(|_| true).await;
        controller.watches("Pod", "watching").await;
        second.watches("Pod", "watching").await;
        let version = lab.delete(Object::pod("far", "", "", &[])).await;
        table.remove("10.7.0.5/32");
        controller.settle("Pod", &version, 1).await;
        agent.has_exactly(&table).await;
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn invalid_objects_are_reported_and_the_rest_counts() {
    inside("malformed", async |lab: &mut Lab| {
        lab.put(node("node-a", "eu-1a", 1)).await;
        lab.put(node("node-b", "eu-1b", 2)).await;
        lab.put(Object::definition("cilium.io", "v2", "CiliumNode", "ciliumnodes", "Cluster")).await;
        let controller = lab.controller(&["--agent-accounts", "off"]).await;
        let agent = lab.agent("node-a", &controller, &[]);
        controller.watches("CiliumNode", "watching").await;
        // All malformed values that a definition without a schema allows.
        for (name, spec) in [
            ("text", json!("nonsense")),
            ("list", json!({"ipam": [1, 2, 3]})),
            ("number", json!({"ipam": {"podCIDRs": 7, "pools": "x", "pool": ["10.0.0.1"]}, "addresses": {"a": 1}})),
            ("deep", json!({"ipam": {"pools": {"allocated": [{"cidrs": [[["10.5.0.0/16"]]]}, 5]}}})),
        ] {
            lab.put(Object::cilium_node(name, spec, json!("nonsense"))).await;
        }
        let spec = json!({"ipam": {"podCIDRs": ["10.1.2.0/24", "10.1.2.0/99", "ten"]}});
        lab.put(Object::cilium_node("node-b", spec, json!({"eni": {"enis": {"x": {"addresses": ["y"]}}}}))).await;
        let spec = json!({"ipam": {"podCIDRs": ["10.1.1.0/24"]}});
        let version = lab.put(Object::cilium_node("node-a", spec, json!({}))).await;
        controller.settle("CiliumNode", &version, 1).await;
        // The nodes have ranges of Cilium's, so their own prefixes no longer count.
        agent.has_exactly(&expected(&[("10.1.1.0/24", "eu-1a"), ("10.1.2.0/24", "eu-1b")])).await;
        let unreadable = r#"meridian_watch_unreadable_objects{kind="CiliumNode"}"#;
        // The first two have no values at the paths that are read.
        assert_eq!(controller.metric(unreadable).await, Some(3.0));
        assert!(controller.log().contains("spec.ipam.podCIDRs: `ten` is not a prefix"));
        // A corrected object counts.
        let spec = json!({"ipam": {"podCIDRs": ["10.1.2.0/24"]}});
        let version = lab.put(Object::cilium_node("node-b", spec, json!({}))).await;
        controller.settle("CiliumNode", &version, 1).await;
        assert_eq!(controller.metric(unreadable).await, Some(2.0));
    });
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn a_server_that_can_t_stream_lists_is_asked_for_pages() {
    inside_with("pages", &["--feature-gates=WatchList=false"], async |lab: &mut Lab| {
        // More than one page.
        let mut table = BTreeMap::new();
        let mut last = String::new();
        for n in 0..=500 {
            let cidr = format!("10.{}.{}.0/24", n / 250, n % 250);
            last = lab.put(Object::node(&format!("node-{n}"), "eu-1a", &[&cidr], &[])).await;
            table.insert(cidr, "eu-1a".to_owned());
        }
        let controller = lab.controller(&["--agent-accounts", "off"]).await;
        let agent = lab.agent("node-0", &controller, &[]);
        controller.settle("Node", &last, 1).await;
        agent.has_exactly(&table).await;
        assert!(controller.log().contains("lists are not streamed"));
        let version = lab.put(Object::node("node-7", "eu-1b", &["10.0.7.0/24"], &[])).await;
        table.insert("10.0.7.0/24".into(), "eu-1b".into());
        controller.settle("Node", &version, 1).await;
        agent.has_exactly(&table).await;
    });
}
