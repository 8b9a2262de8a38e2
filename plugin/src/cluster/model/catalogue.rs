//! The catalogue of the cluster: services with their endpoints, workloads with their pods, versions.

use super::{
    super::facts::{Fact, Key, Kind},
    Model,
};
use crate::catalogue::{Catalogue, DataPlane, Endpoints, PodsByZone, Service, ServiceTopology, WorkloadName};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The namespace and the beginning of the names of kube-proxy's pods.
const KUBE_PROXY: (&str, &str) = ("kube-system", "kube-proxy");

impl Model {
    /// The catalogue of the received objects, without Cilium's settings.
    pub fn catalogue(&self) -> Catalogue {
        Catalogue {
            services: self.services(),
            workloads: self.workloads(),
            kubernetes: self.of_kind(Kind::Node).filter_map(|(_, fact)| version(fact)).min(),
            data_plane: self.data_plane(),
        }
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Fact)> {
        self.facts.get(&kind).into_iter().flatten()
    }

    fn services(&self) -> BTreeMap<String, Service> {
        let mut endpoints: HashMap<(&str, &str), [Endpoints; 2]> = HashMap::new();
        for (key, fact) in self.of_kind(Kind::EndpointSlice) {
            let Fact::Slice(slice) = fact else { continue };
            let families = endpoints.entry((&key.namespace, &slice.service)).or_default();
            families[usize::from(slice.is_ipv6)].merge(&slice.ready);
        }
        let service = |(key, fact): (&Key, &Fact)| {
            let Fact::Service(service) = fact else { return None };
            let [v4, v6] = endpoints.get(&(&*key.namespace, &*key.name)).cloned().unwrap_or_default();
            let endpoints = if v6.count() > v4.count() { v6 } else { v4 };
            Some((format!("{}/{}", key.namespace, key.name), Service { endpoints, ..Service::clone(service) }))
        };
        self.of_kind(Kind::Service).filter_map(service).collect()
    }

    fn workloads(&self) -> BTreeMap<WorkloadName, PodsByZone> {
        let zone = |(key, fact): (&Key, &Fact)| {
            let Fact::Node(node) = fact else { return None };
            Some((Arc::clone(&key.name), node.zone.as_ref()?.name.clone()))
        };
        let zones: HashMap<Arc<str>, String> = self.of_kind(Kind::Node).filter_map(zone).collect();
        let mut workloads: BTreeMap<WorkloadName, PodsByZone> = BTreeMap::new();
        for (name, node) in self.identities.workloads() {
            let zone = zones.get(node).cloned().unwrap_or_default();
            *workloads.entry(name).or_default().entry(zone).or_default() += 1;
        }
        workloads
    }

    fn data_plane(&self) -> DataPlane {
        let (namespace, start) = KUBE_PROXY;
        let is_kube_proxy = |key: &Key| &*key.namespace == namespace && key.name.starts_with(start);
        if self.identities.pods().any(|pod| is_kube_proxy(&pod.key)) {
            DataPlane::KubeProxy
        } else if self.of_kind(Kind::CiliumNode).next().is_some() {
            DataPlane::Cilium { version: None, topology: ServiceTopology::Unknown }
        } else {
            DataPlane::Unknown
        }
    }
}

const fn version(fact: &Fact) -> Option<crate::catalogue::Kubernetes> {
    match fact {
        Fact::Node(node) => node.kubernetes,
        _ => None,
    }
}
