//! The catalogue of a cluster: its services with their ready endpoints by zone, its workloads with their pods by zone,
//! its version and data plane. A snapshot for advice; bounded, and pure.

mod plane;
mod service;
mod source;

pub use plane::{CiliumVersion, DataPlane, Kubernetes, ServiceTopology};
pub use service::{
    Endpoints, Kind, MAX_ANNOTATION, MAX_NAME, MAX_PORTS, MAX_SELECTOR, MAX_ZONES, Service, ServicePort,
};
pub use source::CatalogueSource;

use crate::zones::StaticTable;
use std::collections::{BTreeMap, BTreeSet};

/// A workload by its namespace, kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadName {
    /// The namespace.
    pub namespace: String,
    /// Deployment, StatefulSet …
    pub kind: String,
    /// The name.
    pub name: String,
}

/// Pods by zone; the empty name is no known zone.
pub type PodsByZone = BTreeMap<String, u32>;

/// The services, the workloads and the data plane of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The services, by `namespace/name`.
    pub services: BTreeMap<String, Service>,
    /// The pods of each workload.
    pub workloads: BTreeMap<WorkloadName, PodsByZone>,
    /// The oldest kubelet's version; `None` without Kubernetes.
    pub kubernetes: Option<Kubernetes>,
    /// The program that sends a connection to an endpoint of its service.
    pub data_plane: DataPlane,
}

impl Catalogue {
    /// The catalogue of a static table: workloads alone.
    pub fn of_static(table: &StaticTable) -> Self {
        let mut pods: BTreeMap<WorkloadName, BTreeMap<&str, String>> = BTreeMap::new();
        for entry in &table.endpoints {
            let Some(workload) = &entry.workload else { continue };
            let placement = table.zones.lookup(entry.ip);
            let zone = placement.and_then(|(_, placement)| placement.place.zone()).map(|zone| zone.name.clone());
            let name = WorkloadName {
                namespace: entry.namespace.clone(),
                kind: workload.kind.clone(),
                name: workload.name.clone(),
            };
            // A pod has an address of each family.
            pods.entry(name).or_default().insert(&entry.pod, zone.unwrap_or_default());
        }
        let by_zone = |pods: BTreeMap<&str, String>| {
            let mut by_zone = PodsByZone::new();
            pods.into_values().for_each(|zone| *by_zone.entry(zone).or_default() += 1);
            by_zone
        };
        let workloads = pods.into_iter().map(|(name, pods)| (name, by_zone(pods))).collect();
        Self { workloads, ..Self::default() }
    }

    /// The zones in which a pod or a ready endpoint is.
    pub fn zones(&self) -> BTreeSet<&str> {
        let of_pods = self.workloads.values().flat_map(BTreeMap::keys);
        let of_services = self.services.values().flat_map(|service| service.endpoints.ready.keys());
        of_pods.chain(of_services).map(String::as_str).filter(|zone| !zone.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_pod_with_an_address_of_each_family_is_one_pod() {
        let yaml = r#"
zones:
  - {name: a, region: r, cidrs: [10.0.0.0/24, "fd00::/64"]}
  - {name: b, region: r, cidrs: [10.0.1.0/24]}
endpoints:
  - {ip: 10.0.0.1, namespace: shop, pod: web-1, workload: {kind: Deployment, name: web}}
  - {ip: "fd00::1", namespace: shop, pod: web-1, workload: {kind: Deployment, name: web}}
  - {ip: 10.0.1.1, namespace: shop, pod: web-2, workload: {kind: Deployment, name: web}}
  - {ip: 10.9.0.1, namespace: shop, pod: web-3, workload: {kind: Deployment, name: web}}
  - {ip: 10.0.1.2, namespace: shop, pod: bare}
"#;
        let table = StaticTable::parse(Path::new("z"), yaml.as_bytes()).unwrap();
        let catalogue = Catalogue::of_static(&table);
        let pods: Vec<_> = catalogue.workloads.values().flatten().map(|(zone, pods)| (zone.as_str(), *pods)).collect();
        assert_eq!(pods, [("", 1), ("a", 1), ("b", 1)]);
        assert_eq!(catalogue.zones(), ["a", "b"].into());
    }
}
