//! Cilium's own settings, as far as they decide whether a preferred zone is followed: one value of its ConfigMap, and the
//! version in the name of its image. Neither need be readable.

use crate::catalogue::{CiliumVersion, ServiceTopology};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::ConfigMap};
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::timeout;

/// The namespaces in which Cilium is installed.
const NAMESPACES: [&str; 2] = ["kube-system", "cilium"];
const CONFIG: &str = "cilium-config";
const AGENT: &str = "cilium";
const SERVICE_TOPOLOGY: &str = "enable-service-topology";
/// How long the API server may take for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CiliumSettings {
    pub(super) version: Option<CiliumVersion>,
    pub(super) topology: ServiceTopology,
}

impl CiliumSettings {
    /// Asks the API server. Unreadable settings are unknown.
    pub(super) async fn read(client: &Client) -> Self {
        let mut settings = Self::default();
        for namespace in NAMESPACES {
            let configs = Api::<ConfigMap>::namespaced(client.clone(), namespace);
            let sets = Api::<DaemonSet>::namespaced(client.clone(), namespace);
            let (config, set) = tokio::join!(answered(configs.get_opt(CONFIG)), answered(sets.get_opt(AGENT)));
            if let Some(config) = config {
                settings.topology = topology(&config);
            }
            if let Some(set) = set {
                settings.version = version(&set);
            }
        }
        settings
    }
}

async fn answered<T>(asked: impl Future<Output = kube::Result<Option<T>>>) -> Option<T> {
    match timeout(RESPONSE_TIMEOUT, asked).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%error, "Cilium's settings can't be read");
            None
        }
        Err(_) => None,
    }
}

fn topology(config: &ConfigMap) -> ServiceTopology {
    let value = config.data.as_ref().and_then(|data| data.get(SERVICE_TOPOLOGY));
    if value.is_some_and(|value| value == "true") { ServiceTopology::On } else { ServiceTopology::Off }
}

fn version(set: &DaemonSet) -> Option<CiliumVersion> {
    let containers = &set.spec.template.spec.as_ref()?.containers;
    let agent = containers.iter().find(|container| container.name == "cilium-agent");
    CiliumVersion::of_image(agent.or_else(|| containers.first())?.image.as_deref()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    #[test]
    fn the_settings_are_in_the_config_map_and_the_image() {
        let of = |data: Value| topology(&from_value(json!({"metadata": {}, "data": data})).unwrap());
        assert_eq!(of(json!({SERVICE_TOPOLOGY: "true"})), ServiceTopology::On);
        assert_eq!([of(json!({SERVICE_TOPOLOGY: "false"})), of(json!({}))], [ServiceTopology::Off; 2]);
        let containers = json!([
            {"name": "sidecar", "image": "x:v9.9"},
            {"name": "cilium-agent", "image": "quay.io/cilium/cilium:v1.19.2@sha256:00"}
        ]);
        let template = json!({"metadata": {}, "spec": {"containers": containers}});
        let set = json!({"metadata": {}, "spec": {"selector": {}, "template": template}});
        assert_eq!(version(&from_value(set).unwrap()), Some(CiliumVersion { major: 1, minor: 19 }));
    }
}
