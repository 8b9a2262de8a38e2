//! The endpoint behind an address: namespace, pod, workload, labels, services, node. Pure: the feed and the
//! static table fill it.

mod bounds;

pub use bounds::{KIND_BYTES, LABEL_BYTES, LABELS, NAME_BYTES, SERVICES, bounded_labels};

use crate::zones::{Class, EndpointEntry, WorkloadEntry};
use dashmap::DashMap;
use std::{
    collections::{BTreeMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

/// The workload that a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Deployment, StatefulSet, DaemonSet …, or [`NODE`].
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// The workload kind of a node. Traffic of pods on the host network can't be distinguished from the node's own.
pub const NODE: &str = "Node";

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// The pod or node behind an address. Endpoints of the same workload can share their parts: see [`Pool`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The namespace; empty for a node.
    pub namespace: Arc<str>,
    /// The pod's name; empty for a node.
    pub pod: Arc<str>,
    /// The pod's workload, if it is known.
    pub workload: Option<Arc<Workload>>,
    /// The pod's labels.
    pub labels: Arc<Labels>,
    /// Services of the namespace that select the pod: those with a cluster address, or, if there are none, headless
    /// services.
    pub services: Arc<[String]>,
    /// The endpoint's node; empty if it is unknown.
    pub node: Arc<str>,
    /// The earliest time at which the endpoint can have had the address, where it is known.
    pub since: Option<SystemTime>,
}

/// The beginning of the keys under which the labels of a pod's namespace are among the pod's labels, as in Cilium.
pub const NAMESPACE_LABEL: &str = "io.cilium.k8s.namespace.labels.";

impl Endpoint {
    /// The pod's label, or else that of its namespace.
    pub fn label(&self, key: &str) -> Option<&str> {
        let of_namespace = || self.labels.get(&format!("{NAMESPACE_LABEL}{key}"));
        self.labels.get(key).or_else(of_namespace).map(String::as_str)
    }

    /// The endpoint of the node of this name.
    pub fn node(name: &str) -> Self {
        let workload = Some(Arc::new(Workload { kind: NODE.to_owned(), name: name.to_owned() }));
        Self { workload, node: name.into(), ..Self::default() }
    }

    /// Whether the endpoint is a node.
    pub fn is_node(&self) -> bool {
        self.pod.is_empty() && self.workload.as_ref().is_some_and(|workload| workload.kind == NODE)
    }

    /// An external prefix of this name and class.
    pub fn external(name: &str, class: Class) -> Self {
        let workload = Some(Arc::new(Workload { kind: class.name().to_owned(), name: name.to_owned() }));
        Self { workload, ..Self::default() }
    }

    /// The class of an external prefix, if it is one.
    pub fn class(&self) -> Option<Class> {
        let has_none = self.pod.is_empty() && self.namespace.is_empty();
        self.workload.as_ref().filter(|_| has_none).and_then(|workload| Class::of_name(&workload.kind))
    }

    /// Namespace, kind and name of the workload; a pod without an owner is its own workload.
    pub fn workload_id(&self) -> (&str, &str, &str) {
        let workload = self.workload.as_ref();
        let (kind, name) = workload.map_or(("Pod", &*self.pod), |workload| (&workload.kind, &workload.name));
        (&self.namespace, kind, name)
    }
}

/// A change of one address: its new endpoint, or `None` if the address has none any more.
pub type Change = (IpAddr, Option<Arc<Endpoint>>);

/// The endpoint behind an address, and the one before it.
#[derive(Debug)]
struct Occupant {
    now: Arc<Endpoint>,
    before: Option<Arc<Endpoint>>,
}

/// Endpoints by address. The feed or the static table writes it; it is read for every flow.
#[derive(Debug, Default)]
pub struct Index {
    by_address: DashMap<IpAddr, Occupant, ahash::RandomState>,
    version: AtomicU64,
}

impl Index {
    /// Applies the endpoints of a static table, and removes endpoints that the table no longer names.
    pub fn replace(&self, entries: &[EndpointEntry]) {
        let named: BTreeMap<IpAddr, Arc<Endpoint>> =
            entries.iter().map(|entry| (entry.ip, Arc::new(Endpoint::from(entry)))).collect();
        self.by_address.retain(|address, _| named.contains_key(address));
        self.apply(named.into_iter().map(|(address, endpoint)| (address, Some(endpoint))));
        // Also where endpoints were only removed.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Applies changes.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut is_changed = false;
        for (address, endpoint) in changes {
            is_changed = true;
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
        if is_changed {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// A number that rises after each change. A look-up after this number was read holds until the number is another one.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The endpoint that had the address at that time. An address that moved to another endpoint still resolves to the
    /// previous one for traffic sent before the move.
    pub fn at(&self, address: IpAddr, time: SystemTime) -> Option<Arc<Endpoint>> {
        let endpoint = self.by_address.get(&address)?;
        let before = endpoint.before.as_ref().filter(|_| endpoint.now.since.is_some_and(|since| time < since));
        Some(Arc::clone(before.unwrap_or(&endpoint.now)))
    }

    /// The endpoint that has the address, if that will stay until the next [version](Self::version): the address is not
    /// about to move to an endpoint that begins later.
    pub fn settled(&self, address: IpAddr, time: SystemTime) -> Option<Option<Arc<Endpoint>>> {
        let Some(endpoint) = self.by_address.get(&address) else { return Some(None) };
        let is_early = endpoint.before.is_some() && endpoint.now.since.is_some_and(|since| time < since);
        (!is_early).then(|| Some(Arc::clone(&endpoint.now)))
    }

    /// Calls `visit` with every address and its current endpoint.
    pub fn each(&self, mut visit: impl FnMut(IpAddr, &Arc<Endpoint>)) {
        self.by_address.iter().for_each(|endpoint| visit(*endpoint.key(), &endpoint.now));
    }

    /// The number of addresses with an endpoint.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether no address has an endpoint.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }
}

/// Shares the equal parts of endpoints.
#[derive(Debug, Default)]
pub struct Pool {
    texts: Interner<str>,
    workloads: Interner<Workload>,
    labels: Interner<Labels>,
    services: Interner<[String]>,
}

/// Keeps one copy of equal values.
#[derive(Debug)]
pub struct Interner<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// The number of values at which values that nothing else uses are dropped.
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
    /// The shared value equal to this one; adds it if there is none.
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
    /// The same endpoint, with its parts shared.
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

    /// The same text, shared.
    pub fn text(&mut self, text: Arc<str>) -> Arc<str> {
        self.texts.keep(text)
    }

    /// The same labels, shared.
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
    fn equal_values_are_stored_once_and_unused_ones_not_at_all() {
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
        let set = |endpoint: Endpoint| index.apply([(address, Some(Arc::new(endpoint)))]);
        let endpoint = |seconds| index.at(address, at(seconds)).map(|endpoint| endpoint.pod.to_string());
        set(pod("a", 10));
        // No earlier endpoint is known for this address.
        assert_eq!(endpoint(5).as_deref(), Some("a"));
        set(pod("b", 20));
        assert_eq!((endpoint(19).as_deref(), endpoint(20).as_deref()), (Some("a"), Some("b")));
        // An update of the same pod does not make the pod its own predecessor.
        set(Endpoint { services: ["cart".to_owned()].into(), ..pod("b", 20) });
        assert_eq!((endpoint(19).as_deref(), endpoint(20).as_deref()), (Some("a"), Some("b")));
        index.apply([(address, None)]);
        assert_eq!(endpoint(30), None);
    }
}
