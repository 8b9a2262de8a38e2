//! The catalogue that follows from objects.

use super::*;
use crate::catalogue::{Catalogue, DataPlane, Kind as ServiceKind, Kubernetes, MAX_PORTS, MAX_SELECTOR, MAX_ZONES};

fn node(name: &str, zone: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {}, "status": {"nodeInfo": {"kubeletVersion": version}},
    })
}

fn pod(namespace: &str, name: &str, node: &str, replica_set: &str) -> Value {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set, "uid": replica_set, "controller": true}]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "ownerReferences": owner},
        "spec": {"nodeName": node}, "status": {"phase": "Running", "podIP": format!("10.0.0.{}", name.len())},
    })
}

fn service(spec: Value, annotations: Value) -> Value {
    let metadata = json!({"namespace": "shop", "name": "cart", "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

fn slice(name: &str, family: &str, endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": "cart"}},
        "endpoints": endpoints,
    })
}

fn endpoint(address: &str, zone: &str, ready: Value, hints: &[&str]) -> Value {
    let hints: Vec<Value> = hints.iter().map(|zone| json!({"name": zone})).collect();
    json!({"addresses": [address], "zone": zone, "conditions": {"ready": ready}, "hints": {"forZones": hints}})
}

fn catalogue(objects: &[Value]) -> Catalogue {
    let [forwards, backwards] = [true, false].map(|forwards| TestModel::of(objects, forwards).model.catalogue());
    assert_eq!(forwards, backwards);
    forwards
}

#[test]
fn a_service_has_what_steers_it_and_its_ready_endpoints_by_zone() {
    let spec = json!({
        "clusterIP": "10.9.0.1", "type": "NodePort", "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Local",
        "trafficDistribution": "PreferClose", "selector": {"app": "cart"},
        "ports": [{"name": "web", "port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
    });
    let four = json!([
        endpoint("10.0.0.1", "a", json!(true), &["a"]),
        endpoint("10.0.0.2", "b", Value::Null, &["a", "b"]),
        endpoint("10.0.0.3", "b", json!(false), &["b"]),
        endpoint("10.0.0.4", "", json!(true), &[]),
    ]);
    let objects = [
        service(spec, json!({"service.kubernetes.io/topology-mode": "Auto"})),
        slice("cart-1", "IPv4", four),
        slice("cart-2", "IPv4", json!([endpoint("10.0.0.5", "a", json!(true), &["a"])])),
        // The same pods by their other addresses.
        slice("cart-3", "IPv6", json!([endpoint("fd00::1", "a", json!(true), &["a"])])),
        slice("cart-4", "FQDN", json!([endpoint("x.example", "a", json!(true), &["a"])])),
    ];
    let catalogue = catalogue(&objects);
    let cart = &catalogue.services["shop/cart"];
    assert_eq!(
        (cart.kind, cart.is_headless, cart.is_node_local, cart.has_affinity),
        (ServiceKind::NodePort, false, true, true)
    );
    assert_eq!((cart.distribution.as_deref(), cart.topology_annotation()), (Some("PreferClose"), Some("Auto")));
    let ports: Vec<_> = cart.ports.iter().map(|port| (port.name.as_str(), port.port, port.protocol)).collect();
    assert_eq!(ports, [("web", 80, 6), ("", 53, 17)]);
    assert_eq!(cart.selector["app"], "cart");
    let counts =
        |of: &BTreeMap<String, u32>| of.iter().map(|(zone, count)| format!("{zone}:{count}")).collect::<Vec<_>>();
    assert_eq!(counts(&cart.endpoints.ready), [":1", "a:2", "b:1"]);
    assert_eq!((counts(&cart.endpoints.hinted), cart.endpoints.unhinted), (vec!["a:3".into(), "b:1".into()], 1));
    assert_eq!(cart.endpoints.count(), 4);
}

#[test]
fn workloads_have_their_pods_by_zone_and_the_cluster_its_oldest_version() {
    let set = |name: &str| {
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]);
        let metadata = json!({"namespace": "shop", "name": name, "uid": name, "ownerReferences": owner});
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata})
    };
    let mut objects = vec![
        node("n1", "a", "v1.34.1"),
        node("n2", "b", "v1.33.4-eks-1"),
        set("web-1"),
        pod("shop", "p", "n1", "web-1"),
        pod("shop", "pp", "n2", "web-1"),
        pod("shop", "ppp", "n2", "web-1"),
        pod("shop", "pppp", "gone", "web-1"),
    ];
    let found = catalogue(&objects);
    let pods: Vec<_> =
        found.workloads.iter().map(|(name, pods)| (name.kind.as_str(), name.name.as_str(), pods.clone())).collect();
    let expected = BTreeMap::from([(String::new(), 1), ("a".to_owned(), 1), ("b".to_owned(), 2)]);
    assert_eq!(pods, [("Deployment", "web", expected)]);
    assert_eq!((found.kubernetes, found.data_plane), (Some(Kubernetes { major: 1, minor: 33 }), DataPlane::Unknown));

    objects.push(json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "n1"}}));
    assert!(matches!(catalogue(&objects).data_plane, DataPlane::Cilium { version: None, .. }));
    objects.push(pod("kube-system", "kube-proxy-x", "n1", "kube-proxy"));
    assert_eq!(catalogue(&objects).data_plane, DataPlane::KubeProxy, "Cilium beside kube-proxy");
}

#[test]
fn whatever_a_tenant_writes_into_a_service_the_catalogue_keeps_little_and_the_rest_is_said() {
    let long = "a".repeat(1_000_000);
    let ports: Vec<Value> = (0..10_000).map(|n| json!({"name": format!("p{n}"), "port": n})).collect();
    let labels: BTreeMap<String, String> = (0..10_000).map(|n| (format!("l{n}"), String::new())).collect();
    let spec = json!({
        "clusterIP": "10.9.0.1", "ports": ports, "selector": labels, "trafficDistribution": long,
    });
    let endpoints: Vec<Value> =
        (0..1000).map(|n| endpoint("10.0.0.1", &format!("z{n}"), json!(true), &[&format!("h{n}")])).collect();
    let mut model = TestModel::of(
        &[
            service(
                spec,
                json!({"service.kubernetes.io/topology-mode": long, "networking.istio.io/traffic-distribution": long}),
            ),
            slice("cart-1", "IPv4", endpoints.into()),
            slice("cart-2", "IPv4", json!([endpoint("10.0.0.1", &long, json!(true), &[&long])])),
        ],
        true,
    );
    let catalogue = model.model.catalogue();
    let cart = &catalogue.services["shop/cart"];
    assert!(cart.ports.len() <= MAX_PORTS && cart.selector.len() <= MAX_SELECTOR && cart.distribution.is_none());
    assert!(cart.topology_mode.is_none() && cart.mesh_distribution.is_none());
    assert!(cart.endpoints.ready.len() <= MAX_ZONES && cart.endpoints.hinted.len() <= MAX_ZONES);
    assert_eq!((model.model.count(Kind::Service), model.model.count(Kind::EndpointSlice)), ((1, 1), (2, 2)));
    let notices = model.notices();
    assert!(notices.len() == 3 && notices.iter().all(|(_, message)| message.len() < 2500), "{notices:?}");
}
