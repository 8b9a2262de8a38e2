//! The objects of a cluster with thousands of nodes.

use meridian::cluster::{Key, Kind, LabelKeys, Message, read};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use tokio::sync::mpsc;

pub const PODS_OF_NODE: usize = 30;
/// Pods of one workload.
const PODS_OF_SET: usize = 15;

/// Objects as an API server sends them.
pub struct Objects {
    /// Whether nodes have no prefix.
    pub addresses: bool,
    /// The last resource version.
    pub version: u64,
    pub nodes: usize,
    pub labels: LabelKeys,
}

impl Objects {
    fn set(&mut self, kind: Kind, mut object: serde_json::Value) -> Message {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        // Fields that are not needed: most of an object.
        object["metadata"]["managedFields"] = json!([{"manager": "kubelet", "operation": "Update", "fieldsV1":
            {"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {}, "f:status": {}}}}}}]);
        Message::Set(kind, read(kind, &serde_json::to_vec(&object).unwrap(), &self.labels).unwrap())
    }

    pub fn node(&mut self, n: usize, zone: usize) -> Message {
        let cidrs = if self.addresses { json!([]) } else { json!([format!("10.{}.{}.0/24", n / 250, n % 250)]) };
        let labels = json!({"topology.kubernetes.io/zone": format!("eu-1{}", (b'a' + zone as u8) as char),
                            "topology.kubernetes.io/region": "eu-1", "kubernetes.io/hostname": node_name(n)});
        let address = format!("172.16.{}.{}", n / 250, n % 250);
        self.set(
            Kind::Node,
            json!({
                "metadata": {"name": node_name(n), "uid": format!("n-{n}"), "labels": labels},
                "spec": {"podCIDRs": cidrs}, "status": {"addresses": [{"type": "InternalIP", "address": address}]},
            }),
        )
    }

    pub fn pod(&mut self, n: usize, life: usize) -> Message {
        let (node, set) = (n % self.nodes, n / PODS_OF_SET);
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app-{set}-6d8f7c9b5"),
                           "uid": format!("rs-{set}"), "controller": true});
        let key = pod_key(n, life);
        let container = json!({"name": "main", "image": "registry.example/app:1.2.3", "resources": {"limits": {"memory": "1Gi"}},
                               "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
        self.set(
            Kind::Pod,
            json!({
                "metadata": {"name": &*key.name, "namespace": &*key.namespace, "uid": format!("p-{n}-{life}"),
                             "creationTimestamp": "2026-11-23T10:00:00Z", "ownerReferences": [owner],
                             "labels": {"app": format!("app-{set}"), "pod-template-hash": "6d8f7c9b5", "team": "shop"}},
                "spec": {"nodeName": node_name(node), "containers": [container], "serviceAccountName": "default"},
                "status": {"phase": "Running", "startTime": "2026-11-23T10:00:01Z",
                           "podIPs": [{"ip": pod_address(n, self.nodes)}], "hostIPs": [{"ip": "172.16.0.1"}]},
            }),
        )
    }

    fn replica_set(&mut self, set: usize) -> Message {
        let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("app-{set}"),
                           "uid": format!("d-{set}"), "controller": true});
        let metadata = json!({"name": format!("app-{set}-6d8f7c9b5"), "namespace": namespace(set),
                              "uid": format!("rs-{set}"), "ownerReferences": [owner]});
        self.set(Kind::ReplicaSet, json!({ "metadata": metadata }))
    }

    fn service(&mut self, set: usize) -> Message {
        let metadata = json!({"name": format!("app-{set}"), "namespace": namespace(set)});
        self.set(Kind::Service, json!({"metadata": metadata, "spec": {"clusterIP": "10.96.0.10"}}))
    }

    fn slice(&mut self, set: usize) -> Message {
        let endpoints: Vec<_> = (set * PODS_OF_SET..(set + 1) * PODS_OF_SET)
            .map(|n| json!({"addresses": [pod_address(n, self.nodes)], "nodeName": node_name(n % self.nodes)}))
            .collect();
        let labels = json!({"kubernetes.io/service-name": format!("app-{set}")});
        let metadata = json!({"name": format!("app-{set}-x"), "namespace": namespace(set), "labels": labels});
        let types = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"});
        self.set(
            Kind::EndpointSlice,
            json!({"apiVersion": types["apiVersion"], "kind": types["kind"],
                 "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints}),
        )
    }
}

pub fn node_name(n: usize) -> String {
    format!("ip-172-16-{}-{}.eu-1.compute.internal", n / 250, n % 250)
}

fn namespace(set: usize) -> String {
    format!("team-{}", set % 200)
}

pub fn pod_key(n: usize, life: usize) -> Key {
    let set = n / PODS_OF_SET;
    Key { namespace: namespace(set).into(), name: format!("app-{set}-6d8f7c9b5-{n:05x}{life}").into() }
}

fn pod_address(n: usize, nodes: usize) -> String {
    let (node, slot) = (n % nodes, n / nodes);
    format!("10.{}.{}.{}", node / 250, node % 250, slot + 2)
}

/// Lists everything, as the watches do at first.
pub async fn list(objects: &mut Objects, sender: &mpsc::Sender<Message>) {
    let pods = objects.nodes * PODS_OF_NODE;
    let sets = pods / PODS_OF_SET;
    let mut keys: BTreeMap<Kind, HashSet<Key>> = Kind::ALL.map(|kind| (kind, HashSet::new())).into();
    let mut send = async |kind: Kind, message: Message| {
        if let Message::Set(_, seen) = &message {
            keys.get_mut(&kind).unwrap().insert(seen.key().clone());
        }
        sender.send(message).await.unwrap();
    };
    for n in 0..objects.nodes {
        let message = objects.node(n, n % 3);
        send(Kind::Node, message).await;
    }
    for n in 0..pods {
        let message = objects.pod(n, 0);
        send(Kind::Pod, message).await;
    }
    for set in 0..sets {
        for (kind, message) in [
            (Kind::ReplicaSet, objects.replica_set(set)),
            (Kind::Service, objects.service(set)),
            (Kind::EndpointSlice, objects.slice(set)),
        ] {
            send(kind, message).await;
        }
    }
    for (kind, keys) in keys {
        sender.send(Message::Listed(kind, keys, objects.version.to_string())).await.unwrap();
    }
}
