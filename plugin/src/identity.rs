//! Who has an address: namespace, pod, workload, labels, services, node. Pure: it is filled from
//! outside.

use crate::zones::{EndpointEntry, WorkloadEntry};
use dashmap::DashMap;
use std::{
    collections::{BTreeMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
    time::SystemTime,
};

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

/// Labels, by their keys.
pub type Labels = BTreeMap<String, String>;

/// The owner of an address. What the pods of a workload have in common can be shared: see [`Pool`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The namespace; empty for a node.
    pub namespace: Arc<str>,
    /// The pod's name; empty for a node.
    pub pod: Arc<str>,
    /// What the pod belongs to, if that is known.
    pub workload: Option<Arc<Workload>>,
    /// The pod's labels.
    pub labels: Arc<Labels>,
    /// Services of the namespace that send to it: those with an address of their own, or if there is none,
    /// headless ones.
    pub services: Arc<[String]>,
    /// The node where it is; empty if that is not known.
    pub node: Arc<str>,
    /// Since when it can have had the address, where that is known.
    pub since: Option<SystemTime>,
}

impl Endpoint {
    /// The node of this name itself.
    pub fn node(name: &str) -> Self {
        let workload = Some(Arc::new(Workload { kind: NODE.to_owned(), name: name.to_owned() }));
        Self { workload, node: name.into(), ..Self::default() }
    }

    /// Whether it is a node.
    pub fn is_node(&self) -> bool {
        self.pod.is_empty() && self.workload.as_ref().is_some_and(|workload| workload.kind == NODE)
    }

    /// Namespace, kind and name of what the pod belongs to; a pod of nobody is its own workload.
    pub fn workload_id(&self) -> (&str, &str, &str) {
        let workload = self.workload.as_ref();
        let (kind, name) = workload.map_or(("Pod", &*self.pod), |workload| (&workload.kind, &workload.name));
        (&self.namespace, kind, name)
    }
}

/// What becomes of an address: who has it from now on, or nobody.
pub type Change = (IpAddr, Option<Arc<Endpoint>>);

/// Who has an address, and who had it before.
#[derive(Debug)]
struct Occupant {
    now: Arc<Endpoint>,
    before: Option<Arc<Endpoint>>,
}

/// Owners by address. Written by the feed or the static table, read for every flow.
#[derive(Debug, Default)]
pub struct Index {
    by_address: DashMap<IpAddr, Occupant, ahash::RandomState>,
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
            let known =
                self.by_address.get(&address).map(|endpoint| (Arc::clone(&endpoint.now), endpoint.before.clone()));
            let before = known.and_then(|(endpoint, before)| {
                let is_same =
                    (&endpoint.namespace, &endpoint.pod, endpoint.since) == (&now.namespace, &now.pod, now.since);
                if is_same { before } else { Some(endpoint) }
            });
            self.by_address.insert(address, Occupant { now, before });
        }
    }

    /// Who had the address at that time: an address that was given to another is still that of the one
    /// before for what was sent then.
    pub fn at(&self, address: IpAddr, time: SystemTime) -> Option<Arc<Endpoint>> {
        let endpoint = self.by_address.get(&address)?;
        let before = endpoint.before.as_ref().filter(|_| endpoint.now.since.is_some_and(|since| time < since));
        Some(Arc::clone(before.unwrap_or(&endpoint.now)))
    }

    /// Shows every address and who has it now.
    pub fn each(&self, mut see: impl FnMut(IpAddr, &Arc<Endpoint>)) {
        self.by_address.iter().for_each(|endpoint| see(*endpoint.key(), &endpoint.now));
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

/// Keeps what many endpoints have in common once.
#[derive(Debug, Default)]
pub struct Pool {
    texts: Interner<str>,
    workloads: Interner<Workload>,
    labels: Interner<Labels>,
    services: Interner<[String]>,
}

/// Values of which equal ones are one.
#[derive(Debug)]
pub struct Interner<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// With so many, those that nobody uses any more are forgotten.
    full: usize,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), full: Self::LEAST }
    }
}

impl<T: ?Sized> Interner<T> {
    const LEAST: usize = 1024;
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// The value that is kept, if there is an equal one.
    pub fn keep(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.full {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.full = (2 * self.values.len()).max(Self::LEAST);
        }
        self.values.insert(Arc::clone(&value));
        value
    }
}

impl Pool {
    /// The same endpoint, with parts that other endpoints have, too.
    pub fn endpoint(&mut self, endpoint: Endpoint) -> Endpoint {
        Endpoint {
            namespace: self.text(endpoint.namespace),
            workload: endpoint.workload.map(|workload| self.workloads.keep(workload)),
            labels: self.labels(endpoint.labels),
            services: self.services.keep(endpoint.services),
            node: self.text(endpoint.node),
            ..endpoint
        }
    }

    /// The same text.
    pub fn text(&mut self, text: Arc<str>) -> Arc<str> {
        self.texts.keep(text)
    }

    /// The same labels.
    pub fn labels(&mut self, labels: Arc<Labels>) -> Arc<Labels> {
        self.labels.keep(labels)
    }
}

impl From<&EndpointEntry> for Endpoint {
    fn from(entry: &EndpointEntry) -> Self {
        let workload = |of: &WorkloadEntry| Arc::new(Workload { kind: of.kind.clone(), name: of.name.clone() });
        Self {
            namespace: entry.namespace.as_str().into(),
            pod: entry.pod.as_str().into(),
            workload: entry.workload.as_ref().map(workload),
            labels: Arc::new(entry.labels.clone()),
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
        let pod = |ip: &str| index.at(ip.parse().unwrap(), now).map(|endpoint| endpoint.pod.to_string());
        assert_eq!(pod("10.0.0.1"), None);
        assert_eq!(pod("10.0.0.2").as_deref(), Some("web-0"));
        assert_eq!(pod("fd00::2").as_deref(), Some("web-0"));
    }

    #[test]
    fn what_is_equal_is_kept_once_and_what_nobody_uses_not_at_all() {
        let mut pool = Pool::default();
        let endpoint = |n: usize| Endpoint {
            namespace: "shop".into(),
            pod: format!("cart-{n}").into(),
            labels: Arc::new([("app".to_owned(), format!("app-{}", n / 2))].into()),
            ..Endpoint::default()
        };
        let (a, b) = (pool.endpoint(endpoint(0)), pool.endpoint(endpoint(1)));
        assert!(Arc::ptr_eq(&a.namespace, &b.namespace) && Arc::ptr_eq(&a.labels, &b.labels));
        assert_eq!((a, b), (endpoint(0), endpoint(1)));
        (0..100_000).for_each(|n| drop(pool.endpoint(endpoint(n))));
        assert!(pool.labels.values.len() <= 2048, "{}", pool.labels.values.len());
    }

    #[test]
    fn an_address_that_is_reused_is_resolved_by_the_time_of_the_traffic() {
        let (index, address) = (Index::default(), IpAddr::from([10, 0, 0, 1]));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = |seconds| start + Duration::from_secs(seconds);
        let pod = |name: &str, since| Endpoint { pod: name.into(), since: Some(at(since)), ..Endpoint::default() };
        let tell = |endpoint: Endpoint| index.apply([(address, Some(Arc::new(endpoint)))]);
        let endpoint = |seconds| index.at(address, at(seconds)).map(|endpoint| endpoint.pod.to_string());
        tell(pod("a", 10));
        // Nobody else is known to have had it.
        assert_eq!(endpoint(5).as_deref(), Some("a"));
        tell(pod("b", 20));
        assert_eq!((endpoint(19).as_deref(), endpoint(20).as_deref()), (Some("a"), Some("b")));
        // News of the same pod do not make it its own predecessor.
        tell(Endpoint { services: ["cart".to_owned()].into(), ..pod("b", 20) });
        assert_eq!((endpoint(19).as_deref(), endpoint(20).as_deref()), (Some("a"), Some("b")));
        index.apply([(address, None)]);
        assert_eq!(endpoint(30), None);
    }
}
