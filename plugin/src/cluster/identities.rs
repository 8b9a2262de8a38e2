//! The endpoint behind each address, from pods, their owners, services and nodes.

mod addresses;

use super::facts::{Key, NamedPod, Owner, Pod, PodByKey, Slice};
use crate::{
    catalogue::{Service, WorkloadName},
    identity::{self, Endpoint, Labels, NAMESPACE_LABEL, Pool, Workload},
};
use addresses::Addresses;
use std::{
    borrow::Borrow,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

/// The pods, and the objects around them.
#[derive(Debug, Default)]
pub(super) struct Identities {
    pods: HashSet<PodByKey>,
    addresses: Addresses,
    /// The owners of ReplicaSets and Jobs, by uid.
    owners: HashMap<Arc<str>, Option<Arc<Owner>>>,
    /// Pods whose owner was not known yet, by the owner's uid.
    waiting: HashMap<Arc<str>, BTreeSet<Key>>,
    services: HashMap<Key, Arc<Service>>,
    slices: HashMap<Arc<Key>, Arc<Slice>>,
    slices_of_service: HashMap<Key, BTreeSet<Arc<Key>>>,
    nodes: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    /// The chosen labels of namespaces that have some.
    namespaces: HashMap<Arc<str>, Arc<Labels>>,
    /// Namespaces whose pods are to evaluate.
    dirty_namespaces: HashSet<Arc<str>>,
    /// Endpoints of the static table.
    fixed: BTreeMap<IpAddr, Arc<Endpoint>>,
    /// Addresses to evaluate.
    dirty: HashSet<IpAddr>,
    /// Addresses whose endpoint exceeds the limits.
    cut: HashSet<IpAddr>,
    pool: Pool,
}

impl Identities {
    /// The pods.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Arc<NamedPod>> {
        self.pods.iter().map(|PodByKey(pod)| pod)
    }

    /// The number of pods.
    pub(super) fn count(&self) -> usize {
        self.pods.len()
    }

    /// The pod of this name.
    pub(super) fn pod(&self, key: &Key) -> Option<&Arc<NamedPod>> {
        self.pods.get(key).map(|PodByKey(pod)| pod)
    }

    /// Sets the state of a pod; `None` removes it.
    pub(super) fn set_pod(&mut self, key: &Key, now: Option<&Arc<NamedPod>>) {
        let before = self.pods.take(key).map(|PodByKey(pod)| pod);
        if let Some(owner) = before.as_ref().and_then(|before| before.pod.owner.as_ref()) {
            take(&mut self.waiting, &owner.uid, key);
        }
        let addresses = |pod: Option<&Arc<NamedPod>>| -> BTreeSet<IpAddr> {
            pod.into_iter().flat_map(|pod| &pod.pod.addresses).copied().collect()
        };
        let (old, new) = (addresses(before.as_ref()), addresses(now));
        for address in old.difference(&new) {
            self.addresses.drop_pod(address, key);
        }
        if let Some(now) = now {
            new.iter().for_each(|address| self.addresses.put_pod(*address, now));
            self.pods.insert(PodByKey(Arc::clone(now)));
        }
        self.dirty.extend(old.union(&new));
    }

    pub(super) fn set_owner(&mut self, uid: &Arc<str>, owner: Option<Option<Arc<Owner>>>) {
        match owner {
            Some(owner) => {
                self.owners.insert(Arc::clone(uid), owner);
                let pods = self.waiting.remove(uid).unwrap_or_default();
                let pods = pods.iter().filter_map(|key| self.pods.get(key));
                let addresses = pods.flat_map(|PodByKey(pod)| &pod.pod.addresses);
                self.dirty.extend(addresses);
            }
            None => {
                self.owners.remove(uid);
            }
        }
    }

    pub(super) fn set_service(&mut self, key: &Key, service: Option<Arc<Service>>) {
        let is_headless = service.as_ref().map(|service| service.is_headless);
        let before = match service {
            Some(service) => self.services.insert(key.clone(), service),
            None => self.services.remove(key),
        };
        // Nothing else of a service changes the names of its endpoints.
        if before.map(|before| before.is_headless) == is_headless {
            return;
        }
        let slices = self.slices_of_service.get(key).into_iter().flatten();
        let addresses = slices.filter_map(|slice| self.slices.get(slice)).flat_map(|slice| &slice.addresses);
        self.dirty.extend(addresses.map(|(address, _)| address));
    }

    pub(super) fn set_slice(&mut self, key: &Key, slice: Option<Arc<Slice>>) {
        if let (Some(slice), Some(before)) = (&slice, self.slices.get_mut(key))
            && (&slice.service, &slice.addresses) == (&before.service, &before.addresses)
        {
            // An endpoint became ready, or is so no more.
            *before = Arc::clone(slice);
            return;
        }
        let service = |slice: &Slice| Key { namespace: Arc::clone(&key.namespace), name: Arc::clone(&slice.service) };
        let now = slice.clone();
        let before = match slice {
            Some(slice) => {
                let known = self.slices.get_key_value(key).map(|(known, _)| Arc::clone(known));
                let shared = known.unwrap_or_else(|| Arc::new(key.clone()));
                self.slices_of_service.entry(service(&slice)).or_default().insert(Arc::clone(&shared));
                for (address, _) in &slice.addresses {
                    self.addresses.put_slice(*address, &shared);
                    self.dirty.insert(*address);
                }
                self.slices.insert(shared, slice)
            }
            None => self.slices.remove(key),
        };
        let Some(before) = before else { return };
        if now.as_ref().is_none_or(|now| now.service != before.service) {
            take(&mut self.slices_of_service, &service(&before), key);
        }
        for (address, _) in &before.addresses {
            self.dirty.insert(*address);
            if now.as_ref().is_none_or(|now| now.addresses.iter().all(|(kept, _)| kept != address)) {
                self.addresses.drop_slice(address, key);
            }
        }
    }

    pub(super) fn set_namespace(&mut self, name: &Arc<str>, labels: Option<Arc<Labels>>) {
        let labels = labels.filter(|labels| !labels.is_empty());
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(Arc::clone(name), labels),
            None => self.namespaces.remove(name),
        };
        self.dirty_namespaces.insert(Arc::clone(name));
    }

    /// Records that an address is a node's own, or no longer is.
    pub(super) fn set_node_address(&mut self, address: IpAddr, node: &Arc<str>, is_own: bool) {
        if is_own {
            self.nodes.entry(address).or_default().insert(Arc::clone(node));
        } else {
            take(&mut self.nodes, &address, node);
        }
        self.dirty.insert(address);
    }

    /// The node with this address, if there is one.
    pub(super) fn node_at(&self, address: IpAddr) -> Option<&Arc<str>> {
        let mut nodes = self.nodes.get(&address)?.iter();
        nodes.next().filter(|_| nodes.next().is_none())
    }

    pub(super) fn set_fixed(&mut self, fixed: BTreeMap<IpAddr, Arc<Endpoint>>) {
        let before = std::mem::replace(&mut self.fixed, fixed);
        self.dirty.extend(before.keys().chain(self.fixed.keys()));
    }

    /// The endpoints behind the addresses whose endpoint may have changed.
    pub(super) fn evaluate(&mut self) -> Vec<identity::Change> {
        let namespaces = std::mem::take(&mut self.dirty_namespaces);
        if !namespaces.is_empty() {
            let of_them = self.pods.iter().filter(|PodByKey(pod)| namespaces.contains(&pod.key.namespace));
            self.dirty.extend(of_them.flat_map(|PodByKey(pod)| &pod.pod.addresses));
        }
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|address| (address, self.resolve(address))).collect()
    }

    fn resolve(&mut self, address: IpAddr) -> Option<Arc<Endpoint>> {
        // A pod that is not ending, and among those the newest.
        let best = self.addresses.pods(&address).min_by_key(|pod| {
            let NamedPod { key, pod } = &***pod;
            (pod.is_ending, Reverse(pod.created), key)
        });
        if let Some(NamedPod { key, pod }) = best.map(|pod| &**pod) {
            let is_unknown = |owner: &&Arc<Owner>| is_chained(owner) && !self.owners.contains_key(&owner.uid);
            let unknown = pod.owner.as_ref().filter(is_unknown).cloned();
            let (endpoint, is_cut) = self.endpoint(address, key, pod).bounded();
            let (key, endpoint) = (key.clone(), self.pool.endpoint(endpoint));
            self.note_cut(address, is_cut);
            if let Some(owner) = unknown {
                self.waiting.entry(Arc::clone(&owner.uid)).or_default().insert(key);
            }
            return Some(Arc::new(endpoint));
        }
        self.note_cut(address, false);
        let node = self.node_at(address).map(|node| Arc::new(Endpoint::node(node)));
        node.or_else(|| self.fixed.get(&address).cloned())
    }

    /// The workloads with the nodes of their pods, one for each pod that has an address.
    pub(super) fn workloads(&self) -> impl Iterator<Item = (WorkloadName, &Arc<str>)> {
        let running =
            self.pods().map(|pod| &**pod).filter(|NamedPod { pod, .. }| !pod.addresses.is_empty() && !pod.is_ending);
        running.filter_map(|NamedPod { key, pod }| {
            let top = self.top(pod.owner.as_ref()?);
            let (kind, name) = (top.kind.clone(), top.name.clone());
            Some((WorkloadName { namespace: key.namespace.to_string(), kind, name }, &pod.node))
        })
    }

    /// The owner of an owner that usually has one, or the owner itself.
    fn top<'a>(&'a self, owner: &'a Arc<Owner>) -> &'a Arc<Owner> {
        let above = self.owners.get(&owner.uid).filter(|_| is_chained(owner));
        above.and_then(Option::as_ref).unwrap_or(owner)
    }

    fn note_cut(&mut self, address: IpAddr, is_cut: bool) {
        if is_cut {
            self.cut.insert(address);
        } else {
            self.cut.remove(&address);
        }
    }

    /// Addresses whose endpoint lacks labels, services or its workload, because it had too many or too long ones.
    pub(super) fn cut(&self) -> usize {
        self.cut.len()
    }

    fn endpoint(&self, address: IpAddr, key: &Key, pod: &Pod) -> Endpoint {
        let top = pod.owner.as_ref().map(|owner| self.top(owner));
        Endpoint {
            namespace: Arc::clone(&key.namespace),
            pod: Arc::clone(&key.name),
            workload: top.map(|owner| Arc::new(Workload { kind: owner.kind.clone(), name: owner.name.clone() })),
            labels: self.labels(key, pod),
            services: self.services(address, key).into(),
            node: Arc::clone(&pod.node),
            since: pod.started.or(pod.created),
        }
    }

    /// The labels of a pod, and those of its namespace under the key that Cilium has for them.
    fn labels(&self, key: &Key, pod: &Pod) -> Arc<Labels> {
        let Some(of_namespace) = self.namespaces.get(&key.namespace) else { return Arc::clone(&pod.labels) };
        let of_namespace = of_namespace.iter().map(|(key, value)| (format!("{NAMESPACE_LABEL}{key}"), value.clone()));
        let own = pod.labels.iter().map(|(key, value)| (key.clone(), value.clone()));
        Arc::new(own.chain(of_namespace).collect())
    }

    /// The services that select the pod at an address: those with a cluster address, or, if there are none, headless
    /// services. An endpoint that names another pod belongs to an earlier pod with the address.
    fn services(&self, address: IpAddr, pod: &Key) -> Vec<String> {
        let namespace = &pod.namespace;
        let slices = self.addresses.slices(&address);
        let of_namespace = slices.filter(|key| key.namespace == *namespace).filter_map(|key| self.slices.get(key));
        let is_meant = |name: &Option<Arc<str>>| name.as_ref().is_none_or(|name| *name == pod.name);
        let of_pod = of_namespace.filter(|slice| slice.pods_at(address).any(is_meant));
        let names: BTreeSet<&Arc<str>> = of_pod.map(|slice| &slice.service).collect();
        let known = names.into_iter().filter_map(|name| {
            let key = Key { namespace: Arc::clone(namespace), name: Arc::clone(name) };
            self.services.get(&key).map(|service| (service.is_headless, name.to_string()))
        });
        let (headless, own): (Vec<_>, Vec<_>) = known.partition(|(is_headless, _)| *is_headless);
        let chosen = if own.is_empty() { headless } else { own };
        chosen.into_iter().map(|(_, name)| name).collect()
    }
}

/// Whether an owner of this kind usually has an owner itself.
fn is_chained(owner: &Owner) -> bool {
    matches!(&*owner.kind, "ReplicaSet" | "Job")
}

fn take<K: Hash + Eq, V: Ord + Borrow<Q>, Q: Ord>(from: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &Q) {
    if let Some(values) = from.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            from.remove(key);
        }
    }
}
