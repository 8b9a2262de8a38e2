//! The state of the cluster, and the zone table and endpoints that follow from it. Independent of kube: the watches
//! and tests feed it.

mod catalogue;
mod places;
mod shared;

use super::{
    claims::{Claim, ClaimProblem, Claims, ObjectClaim},
    facts::{Fact, Key, Kind, NamedPod, Node, NodeName, ObjectRef, Range},
    identities::Identities,
    objects::ReadObject,
    source::{Rank, Source},
};
use crate::{
    feed::Changes,
    identity::Endpoint,
    zones::{Provider, StaticTable, Zone},
};
use ipnetwork::IpNetwork;
use places::Places;
use shared::Shared;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::SystemTime,
};

/// The reason of notices that several objects get.
pub(super) const CONFLICT: &str = "PrefixConflict";
/// The reasons of notices.
pub(super) const REASONS: [&str; 6] =
    [CONFLICT, "HookChanged", "NodeWithoutZone", "StaticPrefixOverruled", "Unreadable", "ZoneInTwoRegions"];

/// A notice about an object, for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// The object.
    pub object: ObjectRef,
    /// The object's uid, where it is known.
    pub uid: Arc<str>,
    /// The reason in one word.
    pub reason: &'static str,
    /// The full text.
    pub message: String,
}

impl Notice {
    /// A node's hook was changed, because it missed the node's packets.
    pub fn hook_changed(node: &str, hook: &str, reason: &str) -> Self {
        let key = Key { namespace: Arc::default(), name: node.into() };
        Self {
            object: ObjectRef::new(Kind::Node, key),
            // As the kubelet does for its own Events about the node.
            uid: node.into(),
            reason: "HookChanged",
            message: format!("packets of this node are counted at {hook} now: {reason}"),
        }
    }
}

/// The numbers of prefixes and nodes that need attention or count in another way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableTally {
    /// Prefixes with conflicting zones.
    pub conflicts: usize,
    /// Nodes without a zone.
    pub nodes_without_zone: usize,
    /// Nodes without an agent.
    pub nodes_without_agent: usize,
    /// Addresses whose endpoint has more labels or services than are kept, or too long names.
    pub cut_endpoints: usize,
}

/// A node and the cloud provider that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProvider {
    /// The node's name.
    pub name: Arc<str>,
    /// Its zone's name, if it has one.
    pub zone: Option<String>,
    /// Its provider, if that is known.
    pub provider: Option<Provider>,
    /// `spec.providerID`, or nothing.
    pub provider_id: Arc<str>,
}

/// The state of the cluster, as far as it was received.
#[derive(Debug, Default)]
pub struct Model {
    /// By kind, without pods.
    facts: HashMap<Kind, HashMap<Key, Fact>>,
    claims: Claims,
    identities: Identities,
    /// Objects that name a node by its address.
    by_node_address: HashMap<IpAddr, BTreeSet<(Kind, Key)>>,
    /// The zones of nodes, and the nodes without one.
    places: Places,
    /// The claims from Nodes themselves.
    of_nodes: HashMap<Arc<str>, BTreeMap<IpNetwork, Claim>>,
    /// The number of ranges that a CNI assigned to a node; `spec.podCIDRs` is ignored if there are any.
    ranges: HashMap<Arc<str>, usize>,
    /// Sources that are ignored.
    ignored: BTreeSet<Source>,
    /// Objects with parts that could not be read.
    unreadable: BTreeSet<(Kind, Key)>,
    notices: Vec<Notice>,
    shared: Shared,
}

impl Model {
    /// Ignores the claims of these sources. Must be called first.
    pub fn ignore(&mut self, sources: impl IntoIterator<Item = Source>) {
        self.ignored.extend(sources);
    }

    /// Replaces the static table.
    pub fn set_static(&mut self, table: &StaticTable) {
        self.claims.set_fixed(&table.zones);
        self.places.set_fixed(&table.zones);
        self.place_nodes(|_| true);
        let endpoints = table.endpoints.iter().map(|entry| {
            let (endpoint, is_cut) = Endpoint::from(entry).bounded();
            if is_cut {
                tracing::warn!(address = %entry.ip, "the static table's endpoint has too many labels or too long names");
            }
            (entry.ip, Arc::new(endpoint))
        });
        self.identities.set_fixed(endpoints.collect());
    }

    /// Applies the new state of an object.
    pub(super) fn apply(&mut self, kind: Kind, seen: ReadObject) {
        let ReadObject { mut key, mut fact, problems, .. } = seen;
        self.strip(kind, &mut fact);
        key.namespace = self.shared.texts.text(key.namespace);
        self.note_problems(kind, &key, &problems);
        let fact = match self.shared.fact(fact) {
            Fact::Pod(pod) => {
                let now = NamedPod { key: key.clone(), pod: Arc::unwrap_or_clone(pod) };
                return self.change_pod(&key, Some(&Arc::new(now)));
            }
            fact => fact,
        };
        let known = self.facts.entry(kind).or_default();
        if known.get(&key) == Some(&fact) {
            return;
        }
        let before = known.insert(key.clone(), fact.clone());
        self.change(kind, &key, before, Some(fact));
    }

    /// Removes an object.
    pub(super) fn remove(&mut self, kind: Kind, key: &Key) {
        self.unreadable.remove(&(kind, key.clone()));
        if kind == Kind::Pod {
            self.change_pod(key, None);
        } else if let Some(before) = self.facts.get_mut(&kind).and_then(|known| known.remove(key)) {
            self.change(kind, key, Some(before), None);
        }
    }

    /// Removes the objects of a kind that are not in `keys`.
    pub(super) fn retain(&mut self, kind: Kind, keys: &HashSet<Key>) {
        let known = self.facts.get(&kind).into_iter().flat_map(HashMap::keys);
        let pods = self.identities.pods().filter(|_| kind == Kind::Pod).map(|pod| &pod.key);
        let gone: Vec<Key> = known.chain(pods).filter(|key| !keys.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(kind, key));
    }

    /// The numbers of a kind's objects, and of those with parts that could not be read.
    pub fn count(&self, kind: Kind) -> (usize, usize) {
        let known = match kind {
            Kind::Pod => self.identities.count(),
            _ => self.facts.get(&kind).map_or(0, HashMap::len),
        };
        (known, self.unreadable.iter().filter(|(of, _)| *of == kind).count())
    }

    /// The nodes with their providers, by name.
    pub fn nodes(&self) -> Vec<NodeProvider> {
        let of = |(key, fact): (&Key, &Fact)| match fact {
            Fact::Node(node) => Some(NodeProvider {
                name: Arc::clone(&key.name),
                zone: node.zone.as_ref().map(|zone| zone.name.clone()),
                provider: node.provider.clone(),
                provider_id: Arc::clone(&node.provider_id),
            }),
            _ => None,
        };
        let mut nodes: Vec<_> = self.facts.get(&Kind::Node).into_iter().flatten().filter_map(of).collect();
        nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    /// The changes since the last call.
    pub fn take_changes(&mut self) -> Changes {
        let zones = self.claims.evaluate();
        for problem in self.claims.take_problems() {
            match problem {
                ClaimProblem::Conflict(prefix, conflict) => {
                    let message =
                        format!("prefix {prefix} is in different zones ({conflict}): its traffic counts as unknown");
                    for (object, _) in conflict.named {
                        self.notice(object, CONFLICT, message.clone());
                    }
                }
                ClaimProblem::Overruled(overruled) => {
                    let message = format!(
                        "{} is in zone {} by the static table, but {} in zone {} by {}, which counts: take it out of \
                         the static table, or correct it",
                        overruled.prefix,
                        overruled.fixed.place,
                        overruled.part,
                        overruled.placement.place,
                        overruled.placement.origin
                    );
                    self.notice(ObjectRef::fixed(&overruled.fixed.origin), "StaticPrefixOverruled", message);
                }
            }
        }
        Changes { zones, identities: self.identities.evaluate() }
    }

    /// Takes the new notices. A node without a zone is reported only after it has had time to get one.
    pub fn take_notices(&mut self, now: SystemTime) -> Vec<Notice> {
        for name in self.places.take_zoneless(now) {
            let message = "the node has no zone: the traffic of its pods counts as unknown";
            let key = Key { namespace: Arc::default(), name };
            self.notice(ObjectRef::new(Kind::Node, key), "NodeWithoutZone", message.to_owned());
        }
        std::mem::take(&mut self.notices)
    }

    /// The numbers of prefixes and nodes that need attention or count in another way.
    pub fn tally(&self) -> TableTally {
        TableTally {
            conflicts: self.claims.conflicts(),
            nodes_without_zone: self.places.zoneless(),
            nodes_without_agent: self.places.agentless(),
            cut_endpoints: self.identities.cut(),
        }
    }

    /// Removes ignored claims from an object. Endpoints are never ignored.
    fn strip(&self, kind: Kind, fact: &mut Fact) {
        match fact {
            Fact::Ranges(ranges) if Source::of(kind).is_some_and(|source| self.ignored.contains(&source)) => {
                ranges.clear();
            }
            Fact::Node(node) => {
                if self.ignored.contains(&Source::NodeAddresses) {
                    node.addresses.clear();
                }
                if self.ignored.contains(&Source::NodeAnnotations) {
                    node.subnets.clear();
                    node.cni_addresses.clear();
                }
                if self.ignored.contains(&Source::NodePodCidrs) {
                    node.prefixes.clear();
                }
            }
            Fact::Ranges(_)
            | Fact::Pod(_)
            | Fact::Owner { .. }
            | Fact::Service(_)
            | Fact::Slice(_)
            | Fact::Namespace(_) => {}
        }
    }

    fn fact(&self, kind: Kind, key: &Key) -> Option<&Fact> {
        self.facts.get(&kind)?.get(key)
    }

    fn notice(&mut self, object: ObjectRef, reason: &'static str, message: String) {
        let uid = match object.kind.and_then(|kind| self.fact(kind, &object.key)) {
            Some(Fact::Node(node)) => Arc::clone(&node.uid),
            _ => Arc::default(),
        };
        debug_assert!(REASONS.contains(&reason), "{reason}");
        self.notices.push(Notice { object, uid, reason, message });
    }

    fn note_problems(&mut self, kind: Kind, key: &Key, problems: &[String]) {
        let id = (kind, key.clone());
        if problems.is_empty() {
            self.unreadable.remove(&id);
        } else if self.unreadable.insert(id) {
            let message = format!("a part of it can't be read and does not count: {}", problems.join("; "));
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

    /// Removes everything that followed from an object; `is_replaced` if a new state follows at once.
    fn end(&mut self, kind: Kind, key: &Key, fact: Option<Fact>, is_replaced: bool) {
        let object = ObjectRef::new(kind, key.clone());
        match fact {
            Some(Fact::Node(node)) => self.change_node(key, Some(&node), None),
            Some(Fact::Owner { uid, .. }) if !is_replaced => self.identities.set_owner(&uid, None),
            Some(Fact::Service(_)) if !is_replaced => self.identities.set_service(key, None),
            Some(Fact::Slice(_)) if !is_replaced => self.identities.set_slice(key, None),
            Some(Fact::Namespace(_)) if !is_replaced => self.identities.set_namespace(&key.name, None),
            Some(Fact::Ranges(ranges)) => {
                for range in &ranges {
                    self.end_range(kind, key, &object, range);
                }
            }
            // Their new state replaces the old one in place. Pods are changed by themselves.
            Some(Fact::Owner { .. } | Fact::Service(_) | Fact::Slice(_) | Fact::Namespace(_) | Fact::Pod(_)) | None => {
            }
        }
    }

    fn begin(&mut self, kind: Kind, key: &Key, fact: Option<Fact>) {
        let object = ObjectRef::new(kind, key.clone());
        match fact {
            Some(Fact::Node(node)) => self.change_node(key, None, Some(&node)),
            Some(Fact::Owner { uid, owner }) => self.identities.set_owner(&uid, Some(owner)),
            Some(Fact::Service(service)) => self.identities.set_service(key, Some(service)),
            Some(Fact::Slice(slice)) => self.identities.set_slice(key, Some(slice)),
            Some(Fact::Namespace(labels)) => self.identities.set_namespace(&key.name, Some(labels)),
            Some(Fact::Ranges(ranges)) => {
                for range in &ranges {
                    self.begin_range(kind, key, &object, range);
                }
            }
            Some(Fact::Pod(_)) | None => {}
        }
    }

    /// Sets the state of a pod; `None` removes it.
    fn change_pod(&mut self, key: &Key, now: Option<&Arc<NamedPod>>) {
        let before = self.identities.pod(key).cloned();
        if before.as_ref() == now {
            return;
        }
        let object = ObjectRef::new(Kind::Pod, key.clone());
        for address in before.iter().flat_map(|before| &before.pod.addresses) {
            self.claims.remove(single(*address), &object);
        }
        for now in now.into_iter().filter(|_| !self.ignored.contains(&Source::Pods)) {
            let addresses = now.pod.addresses.iter();
            addresses.for_each(|address| self.claims.put(single(*address), Claim::Pod(Arc::clone(now))));
        }
        self.identities.set_pod(key, now);
    }

    fn begin_range(&mut self, kind: Kind, key: &Key, object: &ObjectRef, range: &Range) {
        if let NodeName::Address(address) = range.node {
            self.by_node_address.entry(address).or_default().insert((kind, key.clone()));
        }
        self.count_range(range, true);
        let Some(node) = self.node_of(range) else { return };
        let rank = if Source::of(kind) == Some(Source::CiliumEndpoints) { Rank::Endpoint } else { Rank::CniRange };
        let claim = |rank, is_address| claim_of(object, &node, rank, is_address);
        let (of_prefix, of_address) = (claim(rank, false), claim(rank, true));
        range.prefixes.iter().for_each(|prefix| self.claims.put(*prefix, of_prefix.clone()));
        range.addresses.iter().for_each(|address| self.claims.put(single(*address), of_address.clone()));
        let own = claim(Rank::CniNodeAddress, true);
        range.own.iter().for_each(|address| self.claims.put(single(*address), own.clone()));
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
        self.count_range(range, false);
        range.prefixes.iter().for_each(|prefix| self.claims.remove(*prefix, object));
        let addresses = range.addresses.iter().chain(&range.own);
        addresses.for_each(|address| self.claims.remove(single(*address), object));
        if let NodeName::Name(node) = &range.node {
            for address in &range.own {
                // The address may be a Node's as well.
                let key = Key { namespace: Arc::default(), name: Arc::clone(node) };
                let is_own = matches!(self.fact(Kind::Node, &key), Some(Fact::Node(node)) if node.has(address));
                self.set_node_address(*address, node, is_own);
            }
        }
    }

    /// Records that an address is a node's own, or no longer is.
    fn set_node_address(&mut self, address: IpAddr, node: &Arc<str>, is_own: bool) {
        self.identities.set_node_address(address, node, is_own);
        // Objects that name a node by this address now mean another node, or none.
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

    /// Counts the ranges that a CNI has assigned to a node.
    fn count_range(&mut self, range: &Range, is_new: bool) {
        let NodeName::Name(node) = &range.node else { return };
        if range.prefixes.is_empty() && range.addresses.is_empty() {
            return;
        }
        let count = self.ranges.entry(Arc::clone(node)).or_default();
        let before = *count;
        *count = if is_new { before + 1 } else { before.saturating_sub(1) };
        let now = *count;
        if now == 0 {
            self.ranges.remove(node);
        }
        if (before == 0) != (now == 0) {
            self.claim_of_node(node);
        }
    }

    fn change_node(&mut self, key: &Key, before: Option<&Node>, now: Option<&Node>) {
        let name = &key.name;
        self.note_zone(key, before, now);
        self.claim_of_node(name);
        let addresses = |node: Option<&Node>| -> BTreeSet<IpAddr> {
            node.into_iter().flat_map(|node| node.addresses.iter().chain(&node.cni_addresses)).copied().collect()
        };
        let (old, new) = (addresses(before), addresses(now));
        for address in old.symmetric_difference(&new) {
            let is_own = new.contains(address) || self.is_cilium_own(name, address);
            self.set_node_address(*address, name, is_own);
        }
    }

    /// Sets a Node's claims, in place of its earlier ones.
    fn claim_of_node(&mut self, name: &Arc<str>) {
        let key = Key { namespace: Arc::default(), name: Arc::clone(name) };
        let object = ObjectRef::new(Kind::Node, key);
        let now = match self.fact(Kind::Node, &object.key) {
            Some(Fact::Node(node)) => claims_of(&object, node, self.ranges.contains_key(name)),
            _ => BTreeMap::new(),
        };
        let before = self.of_nodes.remove(name).unwrap_or_default();
        let gone = before.keys().filter(|prefix| !now.contains_key(prefix));
        gone.for_each(|prefix| self.claims.remove(*prefix, &object));
        now.iter().for_each(|(prefix, claim)| self.claims.put(*prefix, claim.clone()));
        if !now.is_empty() {
            self.of_nodes.insert(Arc::clone(name), now);
        }
    }

    fn is_cilium_own(&self, node: &Arc<str>, address: &IpAddr) -> bool {
        let key = Key { namespace: Arc::default(), name: Arc::clone(node) };
        matches!(self.fact(Kind::CiliumNode, &key), Some(Fact::Ranges(ranges)) if ranges.iter().any(|range| range.own.contains(address)))
    }

    /// Records a node's zone, and collects notices about it.
    fn note_zone(&mut self, key: &Key, before: Option<&Node>, now: Option<&Node>) {
        let zone = |node: Option<&Node>| node.and_then(|node| node.zone.clone());
        let (old, new) = (zone(before), zone(now));
        let names: BTreeSet<String> = [&old, &new].into_iter().flatten().map(|zone| zone.name.clone()).collect();
        let regions: Vec<String> = names.iter().map(|name| self.places.region(name)).collect();
        self.places.set(&key.name, before, now);
        self.claims.set_node(&key.name, now.map(|node| self.places.place(node)));
        for (name, region) in names.iter().zip(regions) {
            if self.places.region(name) != region {
                self.place_nodes(|zone| zone.name == *name);
            }
        }
        let Some(zone) = new.filter(|zone| !zone.region.is_empty()) else { return };
        let others = self.places.other_regions(&zone);
        if !others.is_empty() && old.as_ref() != Some(&zone) {
            let message = format!(
                "zone {} is in region {} here and in {others} at other nodes: a zone belongs to one region",
                zone.name, zone.region
            );
            self.notice(ObjectRef::new(Kind::Node, key.clone()), "ZoneInTwoRegions", message);
        }
    }

    /// Sets the zones of nodes again whose zone has a new region.
    fn place_nodes(&mut self, concerned: impl Fn(&Zone) -> bool) {
        for (key, fact) in self.facts.get(&Kind::Node).into_iter().flatten() {
            let Fact::Node(node) = fact else { continue };
            if node.zone.as_ref().is_some_and(|zone| zone.region.is_empty() && concerned(zone)) {
                self.claims.set_node(&key.name, Some(self.places.place(node)));
            }
        }
    }
}

/// The claims of a Node. Its `spec.podCIDRs` are ignored if a CNI assigns its own ranges.
fn claims_of(object: &ObjectRef, node: &Node, has_ranges: bool) -> BTreeMap<IpNetwork, Claim> {
    let claim = |rank, is_address| claim_of(object, &object.key.name, rank, is_address);
    let mut claims = BTreeMap::new();
    let is_used = node.subnets.is_empty() && !has_ranges;
    let prefixes = node.prefixes.iter().filter(|_| is_used);
    // Later entries replace earlier ones, so the highest rank comes last.
    claims.extend(prefixes.map(|prefix| (*prefix, claim(Rank::PodCidr, false))));
    claims.extend(node.subnets.iter().map(|prefix| (*prefix, claim(Rank::CniRange, false))));
    claims.extend(node.cni_addresses.iter().map(|address| (single(*address), claim(Rank::CniNodeAddress, true))));
    claims.extend(node.addresses.iter().map(|address| (single(*address), claim(Rank::NodeAddress, false))));
    claims
}

/// The claim of an object that is no pod.
fn claim_of(object: &ObjectRef, node: &Arc<str>, rank: Rank, is_address: bool) -> Claim {
    Claim::Object(Arc::new(ObjectClaim { object: object.clone(), node: Arc::clone(node), rank, is_address }))
}

/// The prefix of a single address.
fn single(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

#[cfg(test)]
mod tests;
