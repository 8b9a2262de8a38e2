//! Who has an address: namespace, pod, workload, labels, services, node. Pure: it is filled from
//! outside.

use crate::zones::EndpointEntry;
use dashmap::DashMap;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::SystemTime};

/// What a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Deployment, StatefulSet, DaemonSet …, or [`NODE`].
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// The kind of the workload that a node is: pods on the node's own network can't be told from it.
pub const NODE: &str = "Node";

/// The owner of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The namespace; empty for a node.
    pub namespace: String,
    /// The pod's name; empty for a node.
    pub pod: String,
    /// What the pod belongs to, if that is known.
    pub workload: Option<Workload>,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// Services of the namespace that send to it: those with an address of their own, or if there is none,
    /// headless ones.
    pub services: Vec<String>,
    /// The node where it is; empty if that is not known.
    pub node: String,
    /// Since when it can have had the address, where that is known.
    pub since: Option<SystemTime>,
}

impl Endpoint {
    /// The node of this name itself.
    pub fn node(name: &str) -> Self {
        let workload = Some(Workload { kind: NODE.to_owned(), name: name.to_owned() });
        Self { workload, node: name.to_owned(), ..Self::default() }
    }

    /// Whether it is a node.
    pub fn is_node(&self) -> bool {
        self.pod.is_empty() && self.workload.as_ref().is_some_and(|workload| workload.kind == NODE)
    }

    /// Namespace, kind and name of what the pod belongs to; a pod of nobody is its own workload.
    pub fn workload_id(&self) -> (&str, &str, &str) {
        let workload = self.workload.as_ref();
        let (kind, name) = workload.map_or(("Pod", self.pod.as_str()), |workload| (&workload.kind, &workload.name));
        (&self.namespace, kind, name)
    }
}

/// What becomes of an address: who has it from now on, or nobody.
pub type Change = (IpAddr, Option<Arc<Endpoint>>);

/// Who has an address, and who had it before.
#[derive(Debug)]
struct Holder {
    now: Arc<Endpoint>,
    before: Option<Arc<Endpoint>>,
}

/// Owners by address. Written by the feed or the static table, read for every flow.
#[derive(Debug, Default)]
pub struct Index {
    by_address: DashMap<IpAddr, Holder, ahash::RandomState>,
}

impl Index {
    /// Takes in the endpoints of a static table; those that it no longer names are forgotten.
    pub fn replace(&self, entries: &[EndpointEntry]) {
        let named: BTreeMap<IpAddr, Arc<Endpoint>> =
            entries.iter().map(|entry| (entry.ip, Arc::new(Endpoint::from(entry)))).collect();
        self.by_address.retain(|address, _| named.contains_key(address));
        self.apply(named.into_iter().map(|(address, endpoint)| (address, Some(endpoint))));
    }

    /// Takes changes in.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        for (address, endpoint) in changes {
            let Some(now) = endpoint else {
                self.by_address.remove(&address);
                continue;
            };
            let known = self.by_address.get(&address).map(|holder| (Arc::clone(&holder.now), holder.before.clone()));
            let before = known.and_then(|(holder, before)| {
                let is_same = (&holder.namespace, &holder.pod, holder.since) == (&now.namespace, &now.pod, now.since);
                if is_same { before } else { Some(holder) }
            });
            self.by_address.insert(address, Holder { now, before });
        }
    }

    /// Who had the address at that time: an address that was given to another is still that of the one
    /// before for what was sent then.
    pub fn at(&self, address: IpAddr, time: SystemTime) -> Option<Arc<Endpoint>> {
        let holder = self.by_address.get(&address)?;
        let before = holder.before.as_ref().filter(|_| holder.now.since.is_some_and(|since| time < since));
        Some(Arc::clone(before.unwrap_or(&holder.now)))
    }

    /// Shows every address and who has it now.
    pub fn each(&self, mut see: impl FnMut(IpAddr, &Arc<Endpoint>)) {
        self.by_address.iter().for_each(|holder| see(*holder.key(), &holder.now));
    }

    /// How many addresses have an owner.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
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
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn entry(ip: &str, pod: &str) -> EndpointEntry {
        let ip = ip.parse().unwrap();
        EndpointEntry { ip, namespace: "shop".into(), pod: pod.into(), workload: None, labels: BTreeMap::new() }
    }

    #[test]
    fn a_new_table_replaces_the_old_one() {
        let index = Index::default();
        index.replace(&[entry("10.0.0.1", "cart-0"), entry("10.0.0.2", "cart-1")]);
        index.replace(&[entry("10.0.0.2", "web-0"), entry("fd00::2", "web-0")]);
        let now = SystemTime::now();
        let pod = |ip: &str| index.at(ip.parse().unwrap(), now).map(|endpoint| endpoint.pod.clone());
        assert_eq!(pod("10.0.0.1"), None);
        assert_eq!(pod("10.0.0.2").as_deref(), Some("web-0"));
        assert_eq!(pod("fd00::2").as_deref(), Some("web-0"));
    }

    #[test]
    fn an_address_that_is_reused_is_resolved_by_the_time_of_the_traffic() {
        let (index, address) = (Index::default(), IpAddr::from([10, 0, 0, 1]));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = |seconds| start + Duration::from_secs(seconds);
        let pod = |name: &str, since| Endpoint { pod: name.into(), since: Some(at(since)), ..Endpoint::default() };
        let tell = |endpoint: Endpoint| index.apply([(address, Some(Arc::new(endpoint)))]);
        let holder = |seconds| index.at(address, at(seconds)).map(|endpoint| endpoint.pod.clone());
        tell(pod("a", 10));
        // Nobody else is known to have had it.
        assert_eq!(holder(5).as_deref(), Some("a"));
        tell(pod("b", 20));
        assert_eq!((holder(19).as_deref(), holder(20).as_deref()), (Some("a"), Some("b")));
        // News of the same pod do not make it its own predecessor.
        tell(Endpoint { services: vec!["cart".into()], ..pod("b", 20) });
        assert_eq!((holder(19).as_deref(), holder(20).as_deref()), (Some("a"), Some("b")));
        index.apply([(address, None)]);
        assert_eq!(holder(30), None);
    }
}
