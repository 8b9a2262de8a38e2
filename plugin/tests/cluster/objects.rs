//! Objects of the API server.

use crate::lab::Lab;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
};

/// An object, with the API path of its kind.
#[derive(Clone)]
pub struct Object {
    resource: ApiResource,
    body: Value,
    /// Whether its status is a subresource.
    has_status: bool,
}

impl Object {
    pub fn new(group: &str, version: &str, kind: &str, plural: &str, body: Value) -> Self {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Self { resource, body, has_status: group.is_empty() }
    }

    pub fn namespace(name: &str) -> Self {
        Self::new("", "v1", "Namespace", "namespaces", json!({"metadata": {"name": name}}))
    }

    pub fn account(namespace: &str, name: &str) -> Self {
        let meta = json!({"metadata": {"name": name, "namespace": namespace}});
        Self::new("", "v1", "ServiceAccount", "serviceaccounts", meta)
    }

    pub fn role(name: &str, rules: Value) -> Self {
        let body = json!({"metadata": {"name": name}, "rules": rules});
        Self::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", body)
    }

    pub fn role_binding(name: &str, subjects: Value) -> Self {
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
        let body = json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects});
        Self::new("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", body)
    }

    /// The role that the chart has for a namespace, with its binding.
    pub fn namespace_role(namespace: &str, name: &str, subjects: Value) -> [Self; 2] {
        let group = "rbac.authorization.k8s.io";
        let metadata = json!({"name": name, "namespace": namespace});
        let role = json!({"apiGroup": group, "kind": "Role", "name": name});
        let body = json!({"metadata": metadata, "rules": rules_of("controller-namespace-rules.yaml")});
        let bound = json!({"metadata": metadata, "roleRef": role, "subjects": subjects});
        [Self::new(group, "v1", "Role", "roles", body), Self::new(group, "v1", "RoleBinding", "rolebindings", bound)]
    }

    /// A node; an empty zone means no zone.
    pub fn node(name: &str, zone: &str, pod_cidrs: &[&str], addresses: &[&str]) -> Self {
        let mut labels = json!({"kubernetes.io/hostname": name});
        if !zone.is_empty() {
            labels["topology.kubernetes.io/zone"] = zone.into();
            labels["topology.kubernetes.io/region"] = "eu-1".into();
        }
        let addresses: Vec<Value> =
            addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let mut spec = json!({"podCIDRs": pod_cidrs});
        if let Some(first) = pod_cidrs.first() {
            spec["podCIDR"] = (*first).into();
        }
        let body =
            json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"addresses": addresses}});
        Self::new("", "v1", "Node", "nodes", body)
    }

    /// A pod of the namespace `shop`.
    pub fn pod(name: &str, node: &str, phase: &str, addresses: &[&str]) -> Self {
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let spec = json!({
            "containers": [{"name": "main", "image": "main"}], "nodeName": node, "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 0,
        });
        let mut status = json!({"phase": phase, "podIPs": ips});
        if let Some(first) = addresses.first() {
            status["podIP"] = (*first).into();
        }
        let meta = json!({"name": name, "namespace": "shop", "labels": {"app": "cart", "pod-template-hash": "x"}});
        Self::new("", "v1", "Pod", "pods", json!({"metadata": meta, "spec": spec, "status": status}))
    }

    /// The object with a value set at a path.
    pub fn with(mut self, path: &str, value: Value) -> Self {
        let (parent, key) = path.rsplit_once('/').unwrap();
        self.body.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    /// A CustomResourceDefinition without a schema.
    pub fn definition(group: &str, version: &str, kind: &str, plural: &str, scope: &str) -> Self {
        let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let body = json!({
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": scope,
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
                "versions": [{"name": version, "served": true, "storage": true, "schema": schema}],
            },
        });
        Self::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", body)
    }

    pub fn cilium_node(name: &str, spec: Value, status: Value) -> Self {
        let body = json!({"metadata": {"name": name}, "spec": spec, "status": status});
        Self::new("cilium.io", "v2", "CiliumNode", "ciliumnodes", body)
    }

    pub fn block(name: &str, spec: Value) -> Self {
        let body = json!({"metadata": {"name": name}, "spec": spec});
        Self::new("crd.projectcalico.org", "v1", "BlockAffinity", "blockaffinities", body)
    }

    fn text(&self, path: &str) -> String {
        self.body.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

fn rules_of(file: &str) -> Value {
    let path = format!("{}/../helm/meridian/files/{file}", env!("CARGO_MANIFEST_DIR"));
    meridian::yaml::parse(&fs::read(path).unwrap(), "rules").unwrap()
}

/// The rules of the role in the chart, without unwanted resources.
pub fn json_rules(wanted: impl Fn(&str) -> bool) -> Value {
    let mut rules = rules_of("controller-cluster-rules.yaml");
    for rule in rules.as_array_mut().unwrap() {
        let resources = rule["resources"].as_array_mut().unwrap();
        resources.retain(|resource| wanted(resource.as_str().unwrap()));
        if resources.is_empty() {
            resources.push("none".into());
        }
    }
    rules
}

impl Lab {
    fn api(&self, object: &Object) -> Api<DynamicObject> {
        let namespace = object.text("/metadata/namespace");
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), &object.resource)
        } else {
            Api::namespaced_with(self.client.clone(), &namespace, &object.resource)
        }
    }

    /// Creates or changes an object; returns its new version.
    pub async fn put(&self, object: Object) -> String {
        self.made.borrow_mut().push(object.clone());
        let (api, name) = (self.api(&object), object.text("/metadata/name"));
        let mut body = object.body.clone();
        body["apiVersion"] = object.resource.api_version.as_str().into();
        body["kind"] = object.resource.kind.as_str().into();
        let status = object.has_status.then(|| body.as_object_mut().unwrap().remove("status")).flatten();
        let params = PatchParams::apply("test").force();
        let made =
            api.patch(&name, &params, &Patch::Apply(&body)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let Some(status) = status else { return made.metadata.resource_version.unwrap() };
        let patch = json!({ "status": status });
        let made = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        made.unwrap_or_else(|error| panic!("{name}: {error}")).metadata.resource_version.unwrap()
    }

    /// Deletes an object; returns a later version of its kind.
    pub async fn delete(&self, object: Object) -> String {
        let api = self.api(&object);
        api.delete(&object.text("/metadata/name"), &DeleteParams::default().grace_period(0)).await.unwrap();
        self.mark(&object).await
    }

    /// Deletes an object if it exists. Namespaces stay: an API server alone can't delete them.
    pub async fn forget(&self, object: &Object) {
        if object.resource.kind == "Namespace" {
            return;
        }
        let now = DeleteParams::default().grace_period(0);
        let _ = self.api(object).delete(&object.text("/metadata/name"), &now).await;
    }

    /// Deletes a definition.
    pub async fn delete_definition(&self, name: &str) {
        let api = self.api(&Object::definition("", "", "", "", ""));
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A version of an object's kind that is later than all changes before: that of another object without content.
    pub async fn mark(&self, like: &Object) -> String {
        static MARKS: AtomicU32 = AtomicU32::new(0);
        let mark = MARKS.fetch_add(1, Ordering::Relaxed);
        let mut object = match like.resource.kind.as_str() {
            "Node" => Object::node("mark", "eu-1a", &[], &[]),
            "Pod" => Object::pod("mark", "", "Pending", &[]),
            _ => {
                let mut object = like.clone();
                object.body = json!({"metadata": {"name": "mark"}, "spec": {"node": "mark", "cidr": "192.0.2.0/24", "deleted": "true"}});
                object
            }
        };
        object.body["metadata"]["annotations"] = json!({"mark": mark.to_string()});
        self.put(object).await
    }

    /// A token of a service account, bound to a pod if one is named.
    pub async fn token(&self, account: &str, pod: Option<&str>, audience: &str) -> String {
        self.token_in(crate::lab::NAMESPACE, account, pod, audience).await
    }

    /// A token of an account in another namespace.
    pub async fn token_in(&self, namespace: &str, account: &str, pod: Option<&str>, audience: &str) -> String {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let bound = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.to_owned()),
            uid: None,
        });
        let audiences = if audience.is_empty() { Vec::new() } else { vec![audience.to_owned()] };
        let spec = TokenRequestSpec {
            audiences: Some(audiences),
            bound_object_ref: bound,
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let made = api.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        made.status.unwrap().token.unwrap()
    }
}

impl Lab {
    pub async fn uid(&self, object: &Object) -> String {
        self.api(object).get(&object.text("/metadata/name")).await.unwrap().metadata.uid.unwrap()
    }

    /// A string field of an object, read from the server.
    #[expect(clippy::too_many_arguments, reason = "where it is, and what of it")]
    pub async fn text(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        namespace: &str,
        name: &str,
        path: &str,
    ) -> String {
        let body = json!({"metadata": {"name": name, "namespace": namespace}});
        let found = self.api(&Object::new(group, version, kind, plural, body)).get(name).await.unwrap();
        found.data.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Waits for Events with these reasons on objects of these kinds.
    pub async fn has_events(&self, wanted: &[(&str, &str)]) {
        let api: Api<k8s_openapi::api::core::v1::Event> = Api::all(self.client.clone());
        crate::lab::until("the events", async || {
            let events = api.list(&Default::default()).await.ok()?;
            let has = |(reason, kind): &(&str, &str)| {
                events.items.iter().any(|event| {
                    event.reason.as_deref() == Some(reason) && event.involved_object.kind.as_deref() == Some(kind)
                })
            };
            wanted.iter().all(has).then_some(())
        })
        .await;
    }
}
