//! All that is known of the cluster, and the zone table and identities that follow from it. Without
//! kube: it is fed by the watches, and by whoever wants to know what would follow.

use super::{
    claims::{Claim, Claims},
    facts::{Fact, Key, Kind, Node, NodeName, ObjectRef, Owner, Pod, Range},
    identities::Identities,
    reduce::Seen,
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

    /// Whether something may have changed.
    pub fn is_dirty(&self) -> bool {
        self.claims.is_dirty() || self.identities.is_dirty()
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
            _ => {}
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
                let others: Vec<String> = regions.keys().filter(|region| **region != zone.region).cloned().collect();
                if !others.is_empty() && old != new {
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
mod tests {
    use super::*;
    use crate::zones::{Place, Placement, Table, Zone};
    use std::{path::Path, time::SystemTime};

    fn key(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    fn seen(key: Key, fact: Fact) -> Seen {
        Seen { key, resource_version: "1".into(), fact, problems: Vec::new() }
    }

    fn node(zone: Option<&str>, prefixes: &[&str], addresses: &[&str]) -> Fact {
        Fact::Node(Box::new(Node {
            uid: "uid".into(),
            zone: zone.map(|name| Arc::new(Zone { name: name.into(), region: "r".into() })),
            prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }))
    }

    fn pod(node: &str, addresses: &[&str], created: u64) -> Pod {
        Pod {
            node: node.into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            is_ending: false,
            created: Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(created)),
            started: None,
            owner: None,
            labels: Arc::default(),
        }
    }

    fn range(node: NodeName, prefixes: &[&str], addresses: &[&str]) -> Fact {
        Fact::Ranges(vec![Range {
            node,
            prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            own: Vec::new(),
        }])
    }

    /// A model, and the table that its changes have led to.
    #[derive(Default)]
    struct Told {
        model: Model,
        table: BTreeMap<IpNetwork, Placement>,
        identities: BTreeMap<IpAddr, Arc<Endpoint>>,
    }

    impl Told {
        fn set(&mut self, kind: Kind, key: Key, fact: Fact) {
            self.model.apply(kind, seen(key, fact));
        }

        fn tell(&mut self) {
            let changes = self.model.take_changes();
            for (prefix, placement) in changes.zones {
                match placement {
                    Some(placement) => self.table.insert(prefix, placement),
                    None => self.table.remove(&prefix),
                };
            }
            for (address, endpoint) in changes.identities {
                match endpoint {
                    Some(endpoint) => self.identities.insert(address, endpoint),
                    None => self.identities.remove(&address),
                };
            }
        }

        fn zones(&mut self) -> Vec<(String, String)> {
            self.tell();
            self.table.iter().map(|(prefix, said)| (prefix.to_string(), said.place.to_string())).collect()
        }
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(prefix, zone)| (prefix.to_string(), zone.to_string())).collect()
    }

    #[test]
    fn a_node_without_a_zone_hides_nothing_that_the_static_table_knows() {
        let mut told = Told::default();
        let yaml = "zones: [{name: a, region: r, cidrs: [10.0.0.0/16]}]\n";
        told.model.set_static(&StaticTable::parse(Path::new("zones.yaml"), yaml.as_bytes()).unwrap());
        told.set(Kind::Node, key("", "n"), node(None, &["10.0.1.0/24", "2a00:1::/64"], &["10.0.2.1"]));
        // The public prefix is not the internet.
        assert_eq!(told.zones(), pairs(&[("10.0.0.0/16", "a"), ("2a00:1::/64", "unknown")]));
        told.set(Kind::Node, key("", "n"), node(Some("b"), &["10.0.1.0/24"], &[]));
        assert_eq!(told.zones(), pairs(&[("10.0.0.0/16", "a"), ("10.0.1.0/24", "b")]));
        assert_eq!(told.model.take_notices().len(), 1);
    }

    #[test]
    fn an_address_needs_a_prefix_only_where_no_wider_one_says_the_same() {
        let mut told = Told::default();
        told.set(Kind::Pod, key("s", "p"), Fact::Pod(Arc::new(pod("n", &["10.0.1.5"], 1))));
        assert_eq!(told.zones(), pairs(&[("10.0.1.5/32", "unknown")]));
        told.set(Kind::Node, key("", "n"), node(Some("a"), &["10.0.1.0/24"], &[]));
        told.set(Kind::Node, key("", "m"), node(Some("b"), &["10.0.0.0/16"], &[]));
        assert_eq!(told.zones(), pairs(&[("10.0.0.0/16", "b"), ("10.0.1.0/24", "a")]));
        told.model.remove(Kind::Node, &key("", "n"));
        // Its node is gone: nobody knows where the pod is.
        assert_eq!(told.zones(), pairs(&[("10.0.0.0/16", "b"), ("10.0.1.5/32", "unknown")]));
        told.set(Kind::Node, key("", "n"), node(Some("b"), &[], &[]));
        assert_eq!(told.zones(), pairs(&[("10.0.0.0/16", "b")]));
    }

    #[test]
    fn a_conflict_is_unknown_and_told_to_both() {
        let mut told = Told::default();
        told.set(Kind::Node, key("", "n"), node(Some("a"), &["10.0.1.0/24"], &[]));
        let ranges = range(NodeName::Name("m".into()), &["10.0.1.0/24"], &[]);
        told.set(Kind::CiliumNode, key("", "m"), ranges);
        assert_eq!(told.zones(), pairs(&[("10.0.1.0/24", "a")]), "a node that is not known contradicts nobody");
        told.set(Kind::Node, key("", "m"), node(Some("b"), &[], &[]));
        assert_eq!(told.zones(), pairs(&[("10.0.1.0/24", "unknown")]));
        let notices = told.model.take_notices();
        let objects: Vec<String> = notices.iter().map(|notice| notice.object.to_string()).collect();
        assert_eq!(objects, ["Node n", "CiliumNode m"]);
        assert!(notices[0].message.contains("(Node n: a, CiliumNode m: b)"), "{}", notices[0].message);
        told.model.remove(Kind::CiliumNode, &key("", "m"));
        assert_eq!(told.zones(), pairs(&[("10.0.1.0/24", "a")]));
        assert_eq!(told.model.troubles(), (0, 0));
    }

    #[test]
    fn a_pod_that_is_about_to_go_gives_way() {
        let mut told = Told::default();
        told.set(Kind::Node, key("", "n"), node(Some("a"), &[], &[]));
        told.set(Kind::Node, key("", "m"), node(Some("b"), &[], &[]));
        told.set(Kind::Pod, key("s", "old"), Fact::Pod(Arc::new(pod("n", &["10.0.0.5"], 1))));
        let ending = Pod { is_ending: true, ..pod("n", &["10.0.0.5"], 1) };
        told.set(Kind::Pod, key("s", "old"), Fact::Pod(Arc::new(ending.clone())));
        assert_eq!(told.zones(), pairs(&[("10.0.0.5/32", "a")]), "it has the address still");
        told.set(Kind::Pod, key("s", "new"), Fact::Pod(Arc::new(pod("m", &["10.0.0.5"], 2))));
        assert_eq!(told.zones(), pairs(&[("10.0.0.5/32", "b")]));
        let holder = |told: &Told| told.identities[&"10.0.0.5".parse().unwrap()].pod.to_string();
        assert_eq!(holder(&told), "new");
        told.model.remove(Kind::Pod, &key("s", "old"));
        told.tell();
        assert_eq!((&*holder(&told), told.model.troubles().0), ("new", 0));
    }

    #[test]
    fn an_owner_that_is_known_later_is_told() {
        let mut told = Told::default();
        let owner = |kind: &str, name: &str, uid: &str| {
            Arc::new(Owner { kind: kind.into(), name: name.into(), uid: uid.into() })
        };
        let of_set = Pod { owner: Some(owner("ReplicaSet", "cart-1", "u1")), ..pod("n", &["10.0.0.5"], 1) };
        told.set(Kind::Pod, key("s", "cart-1-x"), Fact::Pod(Arc::new(of_set)));
        told.tell();
        let workload = |told: &Told| told.identities[&"10.0.0.5".parse().unwrap()].workload.clone().unwrap();
        assert_eq!((&*workload(&told).kind, &*workload(&told).name), ("ReplicaSet", "cart-1"));
        let fact = Fact::Owner { uid: "u1".into(), owner: Some(owner("Deployment", "cart", "u0")) };
        told.set(Kind::ReplicaSet, key("s", "cart-1"), fact);
        told.tell();
        assert_eq!((&*workload(&told).kind, &*workload(&told).name), ("Deployment", "cart"));
    }

    #[test]
    fn an_endpoint_that_names_its_node_by_address_follows_the_node() {
        let mut told = Told::default();
        let ranges = range(NodeName::Address("192.168.0.1".parse().unwrap()), &[], &["10.0.0.5"]);
        told.set(Kind::CiliumEndpoint, key("s", "p"), ranges);
        assert_eq!(told.zones(), []);
        told.set(Kind::Node, key("", "n"), node(Some("a"), &[], &["192.168.0.1"]));
        assert_eq!(told.zones(), pairs(&[("10.0.0.5/32", "a"), ("192.168.0.1/32", "a")]));
        told.set(Kind::Node, key("", "n"), node(Some("a"), &[], &["192.168.0.2"]));
        assert_eq!(told.zones(), pairs(&[("192.168.0.2/32", "a")]));
    }

    /// Facts of a small world, in which things collide often.
    struct World(u64);

    impl World {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }

        fn node_name(&mut self) -> String {
            format!("n{}", self.below(4))
        }

        fn prefix(&mut self) -> IpNetwork {
            let length = [8, 16, 24, 28, 32][self.below(5) as usize];
            crate::cluster::claims::truncate(self.address(), length).unwrap()
        }

        fn address(&mut self) -> IpAddr {
            [10, self.below(2) as u8, self.below(2) as u8, 16 * self.below(2) as u8 + self.below(2) as u8].into()
        }

        fn several<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
            (0..self.below(3)).map(|_| one(self)).collect()
        }

        /// An object, and what it is now; `None` if it goes.
        fn event(&mut self) -> (Kind, Key, Option<Fact>) {
            let goes = self.below(4) == 0;
            let (kind, key, fact) = match self.below(4) {
                0 => {
                    let name = self.node_name();
                    let zone = match self.below(4) {
                        0 => None,
                        n => Some(Arc::new(Zone { name: format!("z{n}"), region: "r".into() })),
                    };
                    let (prefixes, addresses) = (self.several(Self::prefix), self.several(Self::address));
                    let unique: BTreeSet<IpAddr> = addresses.into_iter().collect();
                    let addresses = unique.into_iter().collect();
                    (
                        Kind::Node,
                        key("", &name),
                        Fact::Node(Box::new(Node { uid: "u".into(), zone, prefixes, addresses })),
                    )
                }
                1 => {
                    let (name, node) = (format!("p{}", self.below(6)), self.node_name());
                    let addresses = self.several(Self::address).into_iter().collect::<BTreeSet<_>>().into_iter();
                    let is_ending = self.below(3) == 0;
                    let created = self.below(9);
                    let pod = Pod { addresses: addresses.collect(), is_ending, ..pod(&node, &[], created) };
                    (Kind::Pod, key("s", &name), Fact::Pod(Arc::new(pod)))
                }
                2 => {
                    let name = self.node_name();
                    let range = Range {
                        node: NodeName::Name(name.as_str().into()),
                        prefixes: self.several(Self::prefix),
                        addresses: self.several(Self::address),
                        own: self.several(Self::address),
                    };
                    (Kind::CiliumNode, key("", &name), Fact::Ranges(vec![range]))
                }
                _ => {
                    let (name, node) = (format!("p{}", self.below(6)), NodeName::Address(self.address()));
                    let range =
                        Range { node, prefixes: Vec::new(), addresses: self.several(Self::address), own: Vec::new() };
                    (Kind::CiliumEndpoint, key("s", &name), Fact::Ranges(vec![range]))
                }
            };
            (kind, key, (!goes).then_some(fact))
        }
    }

    /// What a table says of an address.
    fn lookup(table: &BTreeMap<IpNetwork, Placement>, address: IpAddr) -> Place {
        let mut all = Table::new();
        table.iter().for_each(|(prefix, placement)| all.insert(*prefix, placement.clone()));
        all.lookup(address).unwrap().1.place.clone()
    }

    #[test]
    fn whatever_the_order_the_same_cluster_leads_to_the_same_table() {
        for seed in 0..300 {
            let mut world = World(seed);
            let (mut told, mut last) = (Told::default(), BTreeMap::new());
            let yaml = "zones: [{name: z9, region: r, cidrs: [10.1.0.0/16, 10.0.1.16/28]}]\n";
            let fixed = StaticTable::parse(Path::new("zones.yaml"), yaml.as_bytes()).unwrap();
            if seed % 2 == 0 {
                told.model.set_static(&fixed);
            }
            for step in 0..60 {
                let (kind, key, fact) = world.event();
                match fact.clone() {
                    Some(fact) => told.set(kind, key.clone(), fact),
                    None => told.model.remove(kind, &key),
                }
                last.insert((kind, key), fact);
                if step % 7 == 0 {
                    told.tell();
                }
            }
            told.tell();
            let mut fresh = Told::default();
            for ((kind, key), fact) in last.iter().rev() {
                if let Some(fact) = fact {
                    fresh.set(*kind, key.clone(), fact.clone());
                }
            }
            if seed % 2 == 0 {
                fresh.model.set_static(&fixed);
            }
            fresh.tell();
            let places = |told: &Told| -> Vec<(IpNetwork, Place)> {
                told.table.iter().map(|(prefix, said)| (*prefix, said.place.clone())).collect()
            };
            assert_eq!(places(&told), places(&fresh), "seed {seed}");
            assert_eq!(told.identities, fresh.identities, "seed {seed}");
            assert_eq!(told.model.troubles(), fresh.model.troubles(), "seed {seed}");

            // A pod that has its address alone is in its node's zone, whatever prefixes are left out.
            let zone = |name: &str| match last.get(&(Kind::Node, self::key("", name))) {
                Some(Some(Fact::Node(node))) => node.zone.clone().map_or(Place::Unknown, Place::Zone),
                _ => Place::Unknown,
            };
            let facts = last.iter().filter_map(|((kind, key), fact)| Some((kind, key, fact.as_ref()?)));
            let speaks = |fact: &Fact, address: &IpAddr| match fact {
                Fact::Node(node) => node.addresses.contains(address) || node.prefixes.contains(&single(*address)),
                Fact::Pod(pod) => pod.addresses.contains(address),
                Fact::Ranges(ranges) => ranges.iter().any(|range| {
                    let mut all = range.addresses.iter().chain(&range.own);
                    all.any(|one| one == address) || range.prefixes.contains(&single(*address))
                }),
                _ => false,
            };
            for (_, _, fact) in facts.clone() {
                let Fact::Pod(pod) = fact else { continue };
                for address in &pod.addresses {
                    let speakers = facts.clone().filter(|(_, _, fact)| speaks(fact, address)).count();
                    let place = zone(&pod.node);
                    if speakers == 1 && place != Place::Unknown {
                        assert_eq!(lookup(&told.table, *address), place, "seed {seed}, {address}");
                    }
                }
            }
        }
    }
}
