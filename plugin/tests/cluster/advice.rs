//! Advice about the objects of a real API server, which takes the patches.

use crate::{
    common::{
        history::{location, workload},
        meridian,
    },
    lab::{Controller, Lab, inside, until},
    objects::Object,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use meridian::{
    archive::{Archive, Limits},
    history::{Builder, Ends, Server, Span, TransferService},
};
use meridian_abi::Counter;
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The hour before this one: a report asks a store, and web asks cart from the zones a and c, half of it in zone b.
pub fn history(folder: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |zone: &str| location(zone, "eu-1");
    let (web, cart) = (workload("Deployment", "web"), workload("Deployment", "cart"));
    let (report, store) = (workload("Deployment", "report"), workload("StatefulSet", "store"));
    let mut builder = Builder::new(Span::hour_of(now - 3600), 100);
    for (client, server, zones, service) in [
        (&web, &cart, ["eu-1a", "eu-1b"], "shop/cart"),
        (&web, &cart, ["eu-1a", "eu-1a"], "shop/cart"),
        (&web, &cart, ["eu-1b", "eu-1b"], "shop/cart"),
        (&web, &cart, ["eu-1c", "eu-1b"], "shop/cart"),
        (&report, &store, ["eu-1a", "eu-1b"], ""),
    ] {
        let sites = zones.map(at);
        let serving = TransferService { service, port: 8080, protocol: 6, server: Server::Destination };
        let ends = Ends { workloads: [client, server], sites: sites.each_ref() };
        builder.add(ends, serving, Counter { bytes: 1_000_000_000, packets: 1 });
    }
    builder.add_recorded(3600);
    let mut archive = Archive::open(folder, Limits::default(), Arc::default()).unwrap();
    archive.write(&builder.block()).unwrap();
}

fn owned(name: &str, node: &str, address: &str, [kind, owner]: [&str; 2]) -> Object {
    let owner = json!([{"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": owner, "controller": true}]);
    Object::pod(name, node, "Running", &[address]).with("/metadata/ownerReferences", owner)
}

fn deployment(name: &str) -> Object {
    let template = json!({
        "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "main"}]},
    });
    let spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template});
    let body = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
    Object::new("apps", "v1", "Deployment", "deployments", body)
}

fn slice(hints: &[Option<&str>; 2]) -> Object {
    let endpoint = |(at, hint): (usize, &Option<&str>)| {
        let (address, zone) = (format!("10.0.{}.9", at + 1), ["eu-1a", "eu-1b"][at]);
        let mut endpoint = json!({"addresses": [address], "zone": zone, "conditions": {"ready": true}});
        if let Some(zone) = hint {
            endpoint["hints"] = json!({"forZones": [{"name": zone}]});
        }
        endpoint
    };
    let endpoints: Vec<Value> = hints.iter().enumerate().map(endpoint).collect();
    let labels = json!({"kubernetes.io/service-name": "cart"});
    let metadata = json!({"namespace": "shop", "name": "cart-1", "labels": labels});
    let body = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": []});
    Object::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", body)
}

/// The findings. There are none while the controller has not read the cluster.
fn advise(controller: &Controller) -> Vec<Value> {
    let output = meridian(&["advise", "--server", &controller.http, "--min-data", "0s", "--output", "json"]).output();
    let output = output.unwrap();
    let refusal = String::from_utf8_lossy(&output.stderr);
    if refusal.contains("the cluster is not known yet") {
        return Vec::new();
    }
    assert!(output.status.success(), "{refusal}");
    let advice: Value = serde_json::from_slice(&output.stdout).unwrap();
    advice["findings"].as_array().unwrap().clone()
}

/// Waits until a finding of this rule has this text.
async fn found(controller: &Controller, rule: &str, text: &str) -> Value {
    until(&format!("{rule} with `{text}`"), async || {
        advise(controller).into_iter().find(|one| one["rule"] == rule && one.to_string().contains(text))
    })
    .await
}

/// Makes a finding's change; `is_dry`: only asks whether the API server would take it.
async fn change(lab: &Lab, finding: &Value, is_dry: bool) {
    let patch = &finding["patch"];
    let (name, body) = (patch["name"].as_str().unwrap(), patch["body"].clone());
    let params = PatchParams { dry_run: is_dry, ..PatchParams::default() };
    let body = match patch["type"].as_str() {
        Some("strategic") => Patch::Strategic(body),
        _ => Patch::Merge(body),
    };
    match patch["resource"].as_str() {
        Some("service") => {
            let changed = Api::<Service>::namespaced(lab.client.clone(), "shop").patch(name, &params, &body).await;
            assert!(changed.unwrap().spec.unwrap().traffic_distribution.is_some());
        }
        _ => {
            let changed = Api::<Deployment>::namespaced(lab.client.clone(), "shop").patch(name, &params, &body).await;
            let pod = serde_json::to_value(changed.unwrap()).unwrap()["spec"]["template"]["spec"].clone();
            assert!(!pod["affinity"].is_null() || !pod["topologySpreadConstraints"].is_null(), "{pod}");
        }
    }
}

#[test]
#[ignore = "needs the program of conformance/cluster: scripts/test.sh cluster"]
fn an_api_server_takes_the_patches_and_a_preference_without_hints_is_named() {
    inside("advice", async |lab: &mut Lab| {
        lab.put(Object::namespace("shop")).await;
        for (at, zone) in ["eu-1a", "eu-1b", "eu-1c"].into_iter().enumerate() {
            let info = json!({
                "kubeletVersion": "v1.34.1", "operatingSystem": "linux", "architecture": "amd64", "bootID": "",
                "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "machineID": "",
                "osImage": "", "systemUUID": "",
            });
            let [cidr, address] = [format!("10.0.{}.0/24", at + 1), format!("192.168.1.{}", at + 1)];
            let node = Object::node(&format!("node-{at}"), zone, &[&cidr], &[&address]);
            lab.put(node.with("/status/nodeInfo", info)).await;
        }
        let spec = json!({"selector": {"app": "cart"}, "ports": [{"port": 80}]});
        let metadata = json!({"namespace": "shop", "name": "cart"});
        lab.put(Object::new("", "v1", "Service", "services", json!({"metadata": metadata, "spec": spec}))).await;
        lab.put(slice(&[None, None])).await;
        for name in ["cart", "report"] {
            lab.put(deployment(name)).await;
        }
        lab.put(owned("report-1", "node-0", "10.0.1.8", ["Deployment", "report"])).await;
        lab.put(owned("store-0", "node-1", "10.0.2.8", ["StatefulSet", "store"])).await;
        let folder = lab.folder.as_ref().join("history");
        history(&folder);
        let controller = lab.controller(&["--agent-accounts", "off", "--history-dir", folder.to_str().unwrap()]).await;

        let prefer = found(&controller, "R1", "PreferSameZone").await;
        // A gigabyte an hour of clients in a zone with an endpoint, at 0.02.
        assert_eq!(
            (&prefer["subject"], &prefer["bytes_per_month"]),
            (&"Service shop/cart".into(), &730_000_000_000_u64.into())
        );
        assert_eq!(prefer["saving_usd_per_month"], "14.6");
        let moves = found(&controller, "R4", "Deployment shop/report").await;
        let spread = found(&controller, "R3", "Service shop/cart in eu-1c").await;
        for finding in [&prefer, &moves, &spread] {
            change(lab, finding, true).await;
        }

        let asked = ["whatif", "shop/cart=PreferSameZone", "--endpoints", "eu-1c=1", "--server", &controller.http];
        let output = meridian(&[&asked[..], &["--output", "json"]].concat()).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        // Two gigabytes an hour crossed; with an endpoint in each zone none would.
        let crossing = |side: &str| answer["crossing"][side]["bytes_per_month"].as_u64();
        assert_eq!((crossing("before"), crossing("after")), (Some(1_460_000_000_000), Some(0)), "{answer}");

        change(lab, &prefer, false).await;
        found(&controller, "R2", "2 of 2 ready endpoints have no hint").await;
        lab.put(slice(&[Some("eu-1a"), Some("eu-1b")])).await;
        let old = found(&controller, "R2", "the connections are older than the change").await;
        assert_eq!((&old["state"], &old["confidence"]), (&"not honoured".into(), &"medium".into()));
    });
}
