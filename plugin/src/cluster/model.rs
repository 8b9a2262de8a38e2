//! All that is known of the cluster, and the zone table and identities that follow from it. Without
//! kube: it is fed by the watches, and by whoever wants to know what would follow.

use super::{
    claims::{Claim, Claims},
    facts::{Fact, Key, Kind, Node, NodeName, ObjectRef, Owner, Pod, Range},
    identities::Identities,
    objects::Seen,
};
use crate::{
    feed::Changes,
    identity::{Endpoint, Kept, Pool},
    zones::StaticTable,
};
use ipnetwork::IpNetwork;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// Something that a person should know of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// The object.
    pub object: ObjectRef,
    /// Its uid, where that is known.
    pub uid: Arc<str>,
    /// What it is, in one word.
    pub reason: &'static str,
    /// The whole of it.
    pub message: String,
}

impl Notice {
    /// The hook of a node was changed, because it did not see the node's packets.
    pub fn hook_changed(node: &str, hook: &str, reason: &str) -> Self {
        let key = Key { namespace: Arc::default(), name: node.into() };
        Self {
            object: ObjectRef::new(Kind::Node, key),
            // As the kubelet does for its own Events of the node.
            uid: node.into(),
            reason: "HookChanged",
            message: format!("packets of this node are counted at {hook} now: {reason}"),
        }
    }
}

/// The cluster as far as it has been seen.
#[derive(Debug, Default)]
pub struct Model {
    /// By kind.
    facts: HashMap<Kind, HashMap<Key, Fact>>,
    claims: Claims,
    identities: Identities,
    /// Objects that name a node by an address.
    by_node_address: HashMap<IpAddr, BTreeSet<(Kind, Key)>>,
    /// Nodes without a zone.
    zoneless: BTreeSet<Arc<str>>,
    /// Regions of zones, and how many nodes say so.
    regions: HashMap<String, BTreeMap<String, usize>>,
    /// Objects of which something could not be understood.
    unreadable: BTreeSet<(Kind, Key)>,
    notices: Vec<Notice>,
    pool: Pool,
    owners: Kept<Owner>,
}

impl Model {
    /// Takes the static table.
    pub fn set_static(&mut self, table: &StaticTable) {
        self.claims.set_fixed(&table.zones);
        let endpoints = table.endpoints.iter().map(|entry| (entry.ip, Arc::new(Endpoint::from(entry))));
        self.identities.set_fixed(endpoints.collect());
    }

    /// Takes an object as it is now.
    pub(super) fn apply(&mut self, kind: Kind, seen: Seen) {
        let Seen { mut key, mut fact, problems, .. } = seen;
        if let Fact::Pod(pod) = &mut fact {
            // There are many, and much of each is that of others, too.
            key.namespace = self.pool.text(key.namespace);
            let mut own = Pod::clone(pod);
            own.node = self.pool.text(own.node);
            own.labels = self.pool.labels(own.labels);
            own.owner = own.owner.map(|owner| self.owners.keep(owner));
            *pod = Arc::new(own);
        }
        self.note_problems(kind, &key, &problems);
        let known = self.facts.entry(kind).or_default();
        if known.get(&key) == Some(&fact) {
            return;
        }
        let before = known.insert(key.clone(), fact.clone());
        self.change(kind, &key, before, Some(fact));
    }

    /// Forgets an object.
    pub(super) fn remove(&mut self, kind: Kind, key: &Key) {
        self.unreadable.remove(&(kind, key.clone()));
        if let Some(before) = self.facts.get_mut(&kind).and_then(|known| known.remove(key)) {
            self.change(kind, key, Some(before), None);
        }
    }

    /// Forgets the objects of a kind that are not among these.
    pub(super) fn retain(&mut self, kind: Kind, keys: &HashSet<Key>) {
        let known = self.facts.get(&kind).into_iter().flat_map(HashMap::keys);
        let gone: Vec<Key> = known.filter(|key| !keys.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(kind, key));
    }

    /// How many objects of a kind are known, and of how many something could not be understood.
    pub fn count(&self, kind: Kind) -> (usize, usize) {
        let known = self.facts.get(&kind).map_or(0, HashMap::len);
        (known, self.unreadable.iter().filter(|(of, _)| *of == kind).count())
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        let zones = self.claims.evaluate();
        for (prefix, conflict) in self.claims.take_news() {
            let said: Vec<String> = conflict.said.iter().map(|(object, place)| format!("{object}: {place}")).collect();
            let message = format!(
                "prefix {prefix} is said to be in different zones ({}): its traffic counts as unknown",
                said.join(", ")
            );
            for (object, _) in conflict.said {
                self.notice(object, "PrefixConflict", message.clone());
            }
        }
        Changes { zones, identities: self.identities.evaluate() }
    }

    /// What a person should know and has not been told.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Prefixes of which objects say different things, and nodes without a zone.
    pub fn troubles(&self) -> (usize, usize) {
        (self.claims.conflicts(), self.zoneless.len())
    }

    fn fact(&self, kind: Kind, key: &Key) -> Option<&Fact> {
        self.facts.get(&kind)?.get(key)
    }

    fn notice(&mut self, object: ObjectRef, reason: &'static str, message: String) {
        let uid = match object.kind.and_then(|kind| self.fact(kind, &object.key)) {
            Some(Fact::Node(node)) => Arc::clone(&node.uid),
            _ => Arc::default(),
        };
        self.notices.push(Notice { object, uid, reason, message });
    }

    fn note_problems(&mut self, kind: Kind, key: &Key, problems: &[String]) {
        let id = (kind, key.clone());
        if problems.is_empty() {
            self.unreadable.remove(&id);
        } else if self.unreadable.insert(id) {
            let message = format!("a part of it can't be understood and does not count: {}", problems.join("; "));
            self.notice(ObjectRef::new(kind, key.clone()), "Unreadable", message);
        }
    }

    fn change(&mut self, kind: Kind, key: &Key, before: Option<Fact>, now: Option<Fact>) {
        match (before, now) {
            (Some(Fact::Node(before)), Some(Fact::Node(now))) => self.change_node(key, Some(&before), Some(&now)),
            (before, now) => {
                self.end(kind, key, before, now.is_some());
                self.begin(kind, key, now);
            }
        }
    }

    /// Takes back what followed from an object; `is_replaced` if it is told anew at once.
    fn end(&mut self, kind: Kind, key: &Key, fact: Option<Fact>, is_replaced: bool) {
        let object = ObjectRef::new(kind, key.clone());
        match fact {
            Some(Fact::Node(node)) => self.change_node(key, Some(&node), None),
            Some(Fact::Pod(pod)) => {
                pod.addresses.iter().for_each(|address| self.claims.remove(single(*address), &object));
                if !is_replaced {
                    self.identities.set_pod(key, None);
                }
            }
            Some(Fact::Owner { uid, .. }) if !is_replaced => self.identities.set_owner(&uid, None),
            Some(Fact::Service(_)) if !is_replaced => self.identities.set_service(key, None),
            Some(Fact::Slice(_)) if !is_replaced => self.identities.set_slice(key, None),
            Some(Fact::Ranges(ranges)) => {
                for range in &ranges {
                    self.end_range(kind, key, &object, range);
                }
            }
            // They are put in the place of what was there.
            Some(Fact::Owner { .. } | Fact::Service(_) | Fact::Slice(_)) | None => {}
        }
    }

    fn begin(&mut self, kind: Kind, key: &Key, fact: Option<Fact>) {
        let object = ObjectRef::new(kind, key.clone());
        match fact {
            Some(Fact::Node(node)) => self.change_node(key, None, Some(&node)),
            Some(Fact::Pod(pod)) => {
                for address in &pod.addresses {
                    let claim = Claim { node: Arc::clone(&pod.node), is_address: true, is_ending: pod.is_ending };
                    self.claims.put(single(*address), &object, claim);
                }
                self.identities.set_pod(key, Some(pod));
            }
            Some(Fact::Owner { uid, owner }) => self.identities.set_owner(&uid, Some(owner)),
            Some(Fact::Service(service)) => self.identities.set_service(key, Some(service)),
            Some(Fact::Slice(slice)) => self.identities.set_slice(key, Some(slice)),
            Some(Fact::Ranges(ranges)) => {
                for range in &ranges {
                    self.begin_range(kind, key, &object, range);
                }
            }
            None => {}
        }
    }

    fn begin_range(&mut self, kind: Kind, key: &Key, object: &ObjectRef, range: &Range) {
        if let NodeName::Address(address) = range.node {
            self.by_node_address.entry(address).or_default().insert((kind, key.clone()));
        }
        let Some(node) = self.node_of(range) else { return };
        let claim = |is_address| Claim { node: Arc::clone(&node), is_address, is_ending: false };
        range.prefixes.iter().for_each(|prefix| self.claims.put(*prefix, object, claim(false)));
        for address in range.addresses.iter().chain(&range.own) {
            self.claims.put(single(*address), object, claim(true));
        }
        range.own.iter().for_each(|address| self.set_node_address(*address, &node, true));
    }

    fn end_range(&mut self, kind: Kind, key: &Key, object: &ObjectRef, range: &Range) {
        if let NodeName::Address(address) = range.node
            && let Some(objects) = self.by_node_address.get_mut(&address)
        {
            objects.remove(&(kind, key.clone()));
            if objects.is_empty() {
                self.by_node_address.remove(&address);
            }
        }
        range.prefixes.iter().for_each(|prefix| self.claims.remove(*prefix, object));
        let addresses = range.addresses.iter().chain(&range.own);
        addresses.for_each(|address| self.claims.remove(single(*address), object));
        if let NodeName::Name(node) = &range.node {
            for address in &range.own {
                // It may be a Node's as well.
                let key = Key { namespace: Arc::default(), name: Arc::clone(node) };
                let is_own =
                    matches!(self.fact(Kind::Node, &key), Some(Fact::Node(node)) if node.addresses.contains(address));
                self.set_node_address(*address, node, is_own);
            }
        }
    }

    /// Says that an address is a node's own, or that it no longer is.
    fn set_node_address(&mut self, address: IpAddr, node: &Arc<str>, is_own: bool) {
        self.identities.set_node_address(address, node, is_own);
        // Those that name a node by this address mean another one now, or none.
        for (kind, key) in self.by_node_address.get(&address).cloned().unwrap_or_default() {
            let fact = self.fact(kind, &key).cloned();
            self.end(kind, &key, fact.clone(), true);
            self.begin(kind, &key, fact);
        }
    }

    fn node_of(&self, range: &Range) -> Option<Arc<str>> {
        match &range.node {
            NodeName::Name(name) => Some(Arc::clone(name)),
            NodeName::Address(address) => self.identities.node_at(*address).cloned(),
        }
    }

    fn change_node(&mut self, key: &Key, before: Option<&Node>, now: Option<&Node>) {
        let (name, object) = (&key.name, ObjectRef::new(Kind::Node, key.clone()));
        self.note_zone(key, before, now);
        self.claims.set_node(name, now.map(|node| node.zone.clone()));
        let prefixes = |node: Option<&Node>| -> BTreeSet<IpNetwork> {
            let node = node.into_iter();
            node.flat_map(|node| node.prefixes.iter().copied().chain(node.addresses.iter().copied().map(single)))
                .collect()
        };
        let (old, new) = (prefixes(before), prefixes(now));
        old.difference(&new).for_each(|prefix| self.claims.remove(*prefix, &object));
        for prefix in new.difference(&old) {
            let claim = Claim { node: Arc::clone(name), is_address: false, is_ending: false };
            self.claims.put(*prefix, &object, claim);
        }
        let addresses = |node: Option<&Node>| -> BTreeSet<IpAddr> {
            node.into_iter().flat_map(|node| node.addresses.clone()).collect()
        };
        let (old, new) = (addresses(before), addresses(now));
        for address in old.symmetric_difference(&new) {
            let is_own = new.contains(address) || self.is_cilium_own(name, address);
            self.set_node_address(*address, name, is_own);
        }
    }

    fn is_cilium_own(&self, node: &Arc<str>, address: &IpAddr) -> bool {
        let key = Key { namespace: Arc::default(), name: Arc::clone(node) };
        matches!(self.fact(Kind::CiliumNode, &key), Some(Fact::Ranges(ranges)) if ranges.iter().any(|range| range.own.contains(address)))
    }

    /// Says of a node what a person should know of its zone.
    fn note_zone(&mut self, key: &Key, before: Option<&Node>, now: Option<&Node>) {
        let zone = |node: Option<&Node>| node.and_then(|node| node.zone.clone());
        let (old, new) = (zone(before), zone(now));
        if let Some(zone) = &old
            && let Some(regions) = self.regions.get_mut(&zone.name)
        {
            if let Some(count) = regions.get_mut(&zone.region) {
                *count -= 1;
            }
            regions.retain(|_, count| *count > 0);
            if regions.is_empty() {
                self.regions.remove(&zone.name);
            }
        }
        let object = ObjectRef::new(Kind::Node, key.clone());
        match (&new, now) {
            (Some(zone), _) => {
                self.zoneless.remove(&key.name);
                let regions = self.regions.entry(zone.name.clone()).or_default();
                *regions.entry(zone.region.clone()).or_default() += 1;
                // A node that names no region contradicts none.
                let others = regions.keys().filter(|region| **region != zone.region && !region.is_empty());
                let others: Vec<String> = others.cloned().collect();
                if !others.is_empty() && !zone.region.is_empty() && old != new {
                    let message = format!(
                        "zone {} is in region {} here and in {} at other nodes: a zone belongs to one region",
                        zone.name,
                        zone.region,
                        others.join(", ")
                    );
                    self.notice(object, "ZoneInTwoRegions", message);
                }
            }
            (None, Some(_)) => {
                if self.zoneless.insert(Arc::clone(&key.name)) {
                    let message = "the node has no zone: what its pods send and receive counts as unknown";
                    self.notice(object, "NodeWithoutZone", message.to_owned());
                }
            }
            (None, None) => {
                self.zoneless.remove(&key.name);
            }
        }
    }
}

/// The prefix of one address.
fn single(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

#[cfg(test)]
mod tests;
