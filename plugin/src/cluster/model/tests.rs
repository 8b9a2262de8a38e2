//! The tables that follow from objects, in any order of arrival.

mod agents;
mod azure;
mod catalogue;
mod cnis;
mod growth;
mod hostile;
mod namespaces;
mod nodes;
mod partial;
mod sources;

use super::{
    super::{
        facts::{Owner, Pod},
        objects,
    },
    *,
};
use crate::{
    cluster::LabelKeys,
    zones::{Place, Placement, Table, Zone},
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

fn key(namespace: &str, name: &str) -> Key {
    Key { namespace: namespace.into(), name: name.into() }
}

fn seen(key: Key, fact: Fact) -> ReadObject {
    ReadObject { key, resource_version: "1".into(), fact, problems: Vec::new() }
}

fn node(zone: Option<&str>, prefixes: &[&str], addresses: &[&str]) -> Fact {
    Fact::Node(Box::new(Node {
        uid: "uid".into(),
        zone: zone.map(|name| Arc::new(Zone { name: name.into(), region: "r".into() })),
        zoneless: Default::default(),
        agency: Default::default(),
        created: None,
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        subnets: Vec::new(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        cni_addresses: Vec::new(),
        provider: None,
        provider_id: Arc::default(),
        kubernetes: None,
    }))
}

fn pod(node: &str, addresses: &[&str], created: u64) -> Pod {
    Pod {
        node: node.into(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        is_ending: false,
        created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(created)),
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

/// A model, and the table from its changes.
#[derive(Default)]
struct TestModel {
    model: Model,
    table: BTreeMap<IpNetwork, Placement>,
    identities: BTreeMap<IpAddr, Arc<Endpoint>>,
    labels: LabelKeys,
}

impl TestModel {
    /// A model with these objects, in the API server's JSON, applied in this order or backwards.
    fn of(objects: &[Value], is_forwards: bool) -> Self {
        let mut model = Self::default();
        let mut all: Vec<&Value> = objects.iter().collect();
        if !is_forwards {
            all.reverse();
        }
        all.into_iter().for_each(|object| model.read(object));
        model
    }

    fn read(&mut self, object: &Value) {
        let is_of = |kind: &&Kind| {
            let (group, version, name, _) = kind.resource();
            let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            (object["apiVersion"].as_str(), object["kind"].as_str()) == (Some(&version), Some(name))
        };
        let kind = *Kind::ALL.iter().find(is_of).unwrap_or_else(|| panic!("no kind: {object}"));
        let seen = objects::read(kind, object.to_string().as_bytes(), &self.labels).unwrap();
        self.model.apply(kind, seen);
    }

    fn fixed(&mut self, yaml: &str) {
        self.model.set_static(&StaticTable::parse(Path::new("zones.yaml"), yaml.as_bytes()).unwrap());
    }

    /// The zone of an address, and its origin.
    fn zone(&mut self, address: &str) -> String {
        self.apply_changes();
        lookup(&self.table, address.parse().unwrap()).to_string()
    }

    fn region(&mut self, address: &str) -> String {
        self.apply_changes();
        lookup(&self.table, address.parse().unwrap()).zone().unwrap().region.clone()
    }

    /// The endpoint behind an address: `Node NAME` or NAMESPACE/POD.
    fn endpoint(&mut self, address: &str) -> String {
        self.apply_changes();
        let Some(endpoint) = self.identities.get(&address.parse().unwrap()) else { return "nobody".into() };
        if endpoint.pod.is_empty() {
            return format!("Node {}", endpoint.node);
        }
        format!("{}/{}", endpoint.namespace, endpoint.pod)
    }

    /// Reasons and messages of the notices, long after the start.
    fn notices(&mut self) -> Vec<(&'static str, String)> {
        self.apply_changes();
        let mut notices = self.model.take_notices(SystemTime::now());
        notices.extend(self.model.take_notices(SystemTime::now() + Duration::from_secs(3600)));
        notices.into_iter().map(|notice| (notice.reason, notice.message)).collect()
    }

    fn notices_now(&mut self) -> Vec<String> {
        self.apply_changes();
        self.model.take_notices(SystemTime::now()).into_iter().map(|notice| notice.message).collect()
    }

    fn set(&mut self, kind: Kind, key: Key, fact: Fact) {
        self.model.apply(kind, seen(key, fact));
    }

    fn apply_changes(&mut self) {
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
        self.apply_changes();
        self.table.iter().map(|(prefix, placement)| (prefix.to_string(), placement.place.to_string())).collect()
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(prefix, zone)| (prefix.to_string(), zone.to_string())).collect()
}

#[test]
fn a_node_without_a_zone_hides_no_prefix_of_the_static_table() {
    let mut model = TestModel::default();
    let yaml = "zones: [{name: a, region: r, cidrs: [10.0.0.0/16]}]\n";
    model.model.set_static(&StaticTable::parse(Path::new("zones.yaml"), yaml.as_bytes()).unwrap());
    model.set(Kind::Node, key("", "n"), node(None, &["10.0.1.0/24", "2a00:1::/64"], &["10.0.2.1"]));
    // A public prefix in zone `unknown` is not the internet.
    assert_eq!(model.zones(), pairs(&[("10.0.0.0/16", "a"), ("2a00:1::/64", "unknown")]));
    assert_eq!(model.model.take_notices(SystemTime::now()).len(), 1);
    model.set(Kind::Node, key("", "n"), node(Some("b"), &["10.0.1.0/24"], &[]));
    assert_eq!(model.zones(), pairs(&[("10.0.0.0/16", "a")]), "nor does one with a zone");
}

#[test]
fn an_address_needs_a_prefix_only_where_no_wider_one_has_the_same_zone() {
    let mut model = TestModel::default();
    model.set(Kind::Pod, key("s", "p"), Fact::Pod(Arc::new(pod("n", &["10.0.1.5"], 1))));
    assert_eq!(model.zones(), [], "private, and nobody knows more of it");
    model.set(Kind::Node, key("", "n"), node(Some("a"), &["10.0.1.0/24"], &[]));
    model.set(Kind::Node, key("", "m"), node(Some("b"), &["10.0.0.0/16"], &[]));
    assert_eq!(model.zones(), pairs(&[("10.0.0.0/16", "b"), ("10.0.1.0/24", "a")]));
    model.model.remove(Kind::Node, &key("", "n"));
    // Its node is gone, so the pod's zone is unknown.
    assert_eq!(model.zones(), pairs(&[("10.0.0.0/16", "b"), ("10.0.1.5/32", "unknown")]));
    model.set(Kind::Node, key("", "n"), node(Some("b"), &[], &[]));
    assert_eq!(model.zones(), pairs(&[("10.0.0.0/16", "b")]));
}

#[test]
fn a_conflict_is_unknown_and_reported_on_both_objects() {
    let mut model = TestModel::default();
    model.set(Kind::Node, key("", "n"), node(Some("a"), &[], &[]));
    let ranges = |node: &str| range(NodeName::Name(node.into()), &["10.0.1.0/24"], &[]);
    model.set(Kind::CiliumNode, key("", "n"), ranges("n"));
    model.set(Kind::BlockAffinity, key("", "m"), ranges("m"));
    assert_eq!(model.zones(), pairs(&[("10.0.1.0/24", "a")]), "a node that is not known contradicts nobody");
    model.set(Kind::Node, key("", "m"), node(Some("b"), &[], &[]));
    assert_eq!(model.zones(), pairs(&[("10.0.1.0/24", "unknown")]));
    let notices = model.model.take_notices(SystemTime::now());
    let objects: Vec<String> = notices.iter().map(|notice| notice.object.to_string()).collect();
    assert_eq!(objects, ["CiliumNode n", "BlockAffinity m"]);
    assert!(notices[0].message.contains("(CiliumNode n: a, BlockAffinity m: b)"), "{}", notices[0].message);
    model.model.remove(Kind::BlockAffinity, &key("", "m"));
    assert_eq!(model.zones(), pairs(&[("10.0.1.0/24", "a")]));
    assert_eq!((model.model.tally().conflicts, model.model.tally().nodes_without_zone), (0, 0));
}

#[test]
fn a_pod_that_is_about_to_go_gives_way() {
    let mut model = TestModel::default();
    model.set(Kind::Node, key("", "n"), node(Some("a"), &[], &[]));
    model.set(Kind::Node, key("", "m"), node(Some("b"), &[], &[]));
    model.set(Kind::Pod, key("s", "old"), Fact::Pod(Arc::new(pod("n", &["10.0.0.5"], 1))));
    let ending = Pod { is_ending: true, ..pod("n", &["10.0.0.5"], 1) };
    model.set(Kind::Pod, key("s", "old"), Fact::Pod(Arc::new(ending.clone())));
    assert_eq!(model.zones(), pairs(&[("10.0.0.5/32", "a")]), "it has the address still");
    model.set(Kind::Pod, key("s", "new"), Fact::Pod(Arc::new(pod("m", &["10.0.0.5"], 2))));
    assert_eq!(model.zones(), pairs(&[("10.0.0.5/32", "b")]));
    let endpoint = |model: &TestModel| model.identities[&"10.0.0.5".parse().unwrap()].pod.to_string();
    assert_eq!(endpoint(&model), "new");
    model.model.remove(Kind::Pod, &key("s", "old"));
    model.apply_changes();
    assert_eq!((&*endpoint(&model), model.model.tally().conflicts), ("new", 0));
}

#[test]
fn an_owner_that_is_read_later_changes_the_identity() {
    let mut model = TestModel::default();
    let owner =
        |kind: &str, name: &str, uid: &str| Arc::new(Owner { kind: kind.into(), name: name.into(), uid: uid.into() });
    let of_set = Pod { owner: Some(owner("ReplicaSet", "cart-1", "u1")), ..pod("n", &["10.0.0.5"], 1) };
    model.set(Kind::Pod, key("s", "cart-1-x"), Fact::Pod(Arc::new(of_set)));
    model.apply_changes();
    let workload = |model: &TestModel| model.identities[&"10.0.0.5".parse().unwrap()].workload.clone().unwrap();
    assert_eq!((&*workload(&model).kind, &*workload(&model).name), ("ReplicaSet", "cart-1"));
    let fact = Fact::Owner { uid: "u1".into(), owner: Some(owner("Deployment", "cart", "u0")) };
    model.set(Kind::ReplicaSet, key("s", "cart-1"), fact);
    model.apply_changes();
    assert_eq!((&*workload(&model).kind, &*workload(&model).name), ("Deployment", "cart"));
}

#[test]
fn an_endpoint_that_names_its_node_by_address_follows_the_node() {
    let mut model = TestModel::default();
    let ranges = range(NodeName::Address("192.168.0.1".parse().unwrap()), &[], &["10.0.0.5"]);
    model.set(Kind::CiliumEndpoint, key("s", "p"), ranges);
    assert_eq!(model.zones(), []);
    model.set(Kind::Node, key("", "n"), node(Some("a"), &[], &["192.168.0.1"]));
    assert_eq!(model.zones(), pairs(&[("10.0.0.5/32", "a"), ("192.168.0.1/32", "a")]));
    model.set(Kind::Node, key("", "n"), node(Some("a"), &[], &["192.168.0.2"]));
    assert_eq!(model.zones(), pairs(&[("192.168.0.2/32", "a")]));
}

/// Random facts of a small cluster, which collide often.
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

    /// An object with its new state; `None` deletes it.
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
                let node = Node {
                    uid: "u".into(),
                    zone,
                    zoneless: Default::default(),
                    agency: Default::default(),
                    created: None,
                    prefixes,
                    subnets: if self.below(4) == 0 { self.several(Self::prefix) } else { Vec::new() },
                    addresses,
                    cni_addresses: self.several(Self::address),
                    provider: None,
                    provider_id: Arc::default(),
                    kubernetes: None,
                };
                (Kind::Node, key("", &name), Fact::Node(Box::new(node)))
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

/// The place of an address in a table.
fn lookup(table: &BTreeMap<IpNetwork, Placement>, address: IpAddr) -> Place {
    let mut all = Table::new();
    table.iter().for_each(|(prefix, placement)| all.insert(*prefix, placement.clone()));
    all.lookup(address.to_canonical()).unwrap().1.place.clone()
}

#[test]
fn whatever_the_order_the_same_cluster_leads_to_the_same_table() {
    for seed in 0..300 {
        let mut world = World(seed);
        let (mut model, mut last) = (TestModel::default(), BTreeMap::new());
        let yaml = "zones: [{name: z9, region: r, cidrs: [10.1.0.0/16, 10.0.1.16/28]}]\n";
        let fixed = StaticTable::parse(Path::new("zones.yaml"), yaml.as_bytes()).unwrap();
        if seed % 2 == 0 {
            model.model.set_static(&fixed);
        }
        for step in 0..60 {
            let (kind, key, fact) = world.event();
            match fact.clone() {
                Some(fact) => model.set(kind, key.clone(), fact),
                None => model.model.remove(kind, &key),
            }
            last.insert((kind, key), fact);
            if step % 7 == 0 {
                model.apply_changes();
            }
        }
        model.apply_changes();
        let mut fresh = TestModel::default();
        for ((kind, key), fact) in last.iter().rev() {
            if let Some(fact) = fact {
                fresh.set(*kind, key.clone(), fact.clone());
            }
        }
        if seed % 2 == 0 {
            fresh.model.set_static(&fixed);
        }
        fresh.apply_changes();
        let places = |model: &TestModel| -> Vec<(IpNetwork, Place)> {
            model.table.iter().map(|(prefix, placement)| (*prefix, placement.place.clone())).collect()
        };
        assert_eq!(places(&model), places(&fresh), "seed {seed}");
        assert_eq!(model.identities, fresh.identities, "seed {seed}");
        assert_eq!(model.model.tally(), fresh.model.tally(), "seed {seed}");

        // A pod that has an address alone is in its node's zone, whichever prefixes are left out.
        let zone = |name: &str| match last.get(&(Kind::Node, self::key("", name))) {
            Some(Some(Fact::Node(node))) => node.zone.clone().map_or(Place::Unknown, Place::Zone),
            _ => Place::Unknown,
        };
        let facts = last.iter().filter_map(|((kind, key), fact)| Some((kind, key, fact.as_ref()?)));
        let speaks = |fact: &Fact, address: &IpAddr| match fact {
            Fact::Node(node) => {
                let mut prefixes = node.prefixes.iter().chain(&node.subnets);
                node.has(address) || prefixes.any(|prefix| *prefix == single(*address))
            }
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
                    assert_eq!(lookup(&model.table, *address), place, "seed {seed}, {address}");
                }
            }
        }
    }
}
