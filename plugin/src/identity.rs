//! Who has an address: namespace, pod, workload, labels. Pure: it is filled from outside.

use crate::zones::EndpointEntry;
use dashmap::DashMap;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// What a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Deployment, StatefulSet, DaemonSet …
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// The owner of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// What the pod belongs to, if that is known.
    pub workload: Option<Workload>,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
}

impl Endpoint {
    /// Namespace, kind and name of what the pod belongs to; a pod of nobody is its own workload.
    pub fn workload_id(&self) -> (&str, &str, &str) {
        let workload = self.workload.as_ref();
        let (kind, name) = workload.map_or(("Pod", self.pod.as_str()), |workload| (&workload.kind, &workload.name));
        (&self.namespace, kind, name)
    }
}

/// Owners by address. Written by the feed or the static table, read for every flow.
#[derive(Debug, Default)]
pub struct Index {
    by_address: DashMap<IpAddr, Arc<Endpoint>, ahash::RandomState>,
}

impl Index {
    /// Takes in the endpoints of a static table; those that it no longer names are forgotten.
    pub fn replace(&self, entries: &[EndpointEntry]) {
        let named: BTreeMap<IpAddr, Arc<Endpoint>> =
            entries.iter().map(|entry| (entry.ip, Arc::new(Endpoint::from(entry)))).collect();
        self.by_address.retain(|address, _| named.contains_key(address));
        for (address, endpoint) in named {
            self.by_address.insert(address, endpoint);
        }
    }

    /// Who has the address.
    pub fn get(&self, address: IpAddr) -> Option<Arc<Endpoint>> {
        self.by_address.get(&address).map(|endpoint| Arc::clone(&endpoint))
    }
}

impl From<&EndpointEntry> for Endpoint {
    fn from(entry: &EndpointEntry) -> Self {
        let workload = entry.workload.as_ref();
        Self {
            namespace: entry.namespace.clone(),
            pod: entry.pod.clone(),
            workload: workload.map(|workload| Workload { kind: workload.kind.clone(), name: workload.name.clone() }),
            labels: entry.labels.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ip: &str, pod: &str) -> EndpointEntry {
        let ip = ip.parse().unwrap();
        EndpointEntry { ip, namespace: "shop".into(), pod: pod.into(), workload: None, labels: BTreeMap::new() }
    }

    #[test]
    fn a_new_table_replaces_the_old_one() {
        let index = Index::default();
        index.replace(&[entry("10.0.0.1", "cart-0"), entry("10.0.0.2", "cart-1")]);
        index.replace(&[entry("10.0.0.2", "web-0"), entry("fd00::2", "web-0")]);
        let pod = |ip: &str| index.get(ip.parse().unwrap()).map(|endpoint| endpoint.pod.clone());
        assert_eq!(pod("10.0.0.1"), None);
        assert_eq!(pod("10.0.0.2").as_deref(), Some("web-0"));
        assert_eq!(pod("fd00::2").as_deref(), Some("web-0"));
    }
}
