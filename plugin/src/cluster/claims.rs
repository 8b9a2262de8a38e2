//! Which object says where which prefix is, and what follows from all of them.
//!
//! The most specific prefix wins. Objects that say different things of the same prefix are a conflict:
//! it is reported, and the prefix is unknown. An address of a pod needs a prefix of its own only where
//! no wider one says the same.

use super::facts::ObjectRef;
use crate::zones::{self, Place, Placement, Table, Zone};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use meridian_abi::zone::PrefixKind;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
};

/// What an object says of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The node that the addresses are of.
    pub(super) node: Arc<str>,
    /// Whether it is said of single addresses: such a prefix is left out where a wider one says the same.
    pub(super) is_address: bool,
    /// Whether the object is about to go: it counts only if no other one says anything.
    pub(super) is_ending: bool,
}

/// Objects that say different things of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The objects, and the zone that each one says.
    pub(super) said: Vec<(ObjectRef, Place)>,
}

/// Claims by prefix, and the table that follows from them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_prefix: BTreeMap<IpNetwork, Vec<(ObjectRef, Claim)>>,
    /// The zones of the nodes that are known; `None` for a node without a zone.
    nodes: HashMap<Arc<str>, Option<Arc<Zone>>>,
    /// What the static table says.
    fixed: BTreeMap<IpNetwork, Placement>,
    /// The prefixes that objects speak of by node.
    by_node: HashMap<Arc<str>, BTreeSet<IpNetwork>>,
    /// What follows.
    table: BTreeMap<IpNetwork, Placement>,
    /// The same without the prefixes that only single addresses have asked for.
    wide: BTreeMap<IpNetwork, Place>,
    lengths: Lengths,
    /// Prefixes to look at, the widest first.
    dirty: BTreeSet<(u8, IpNetwork)>,
    conflicts: BTreeMap<IpNetwork, Conflict>,
    /// Conflicts that have begun or changed since they were asked for.
    news: Vec<(IpNetwork, Conflict)>,
}

/// How many wide prefixes there are of each length, so that a look-up tries only lengths that there are.
#[derive(Debug)]
struct Lengths {
    v4: [u32; 33],
    v6: [u32; 129],
}

impl Default for Lengths {
    fn default() -> Self {
        Self { v4: [0; 33], v6: [0; 129] }
    }
}

impl Lengths {
    fn of(&self, prefix: &IpNetwork) -> &[u32] {
        if prefix.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    fn count(&mut self, prefix: &IpNetwork) -> &mut u32 {
        let length = usize::from(prefix.prefix());
        if prefix.is_ipv4() { &mut self.v4[length] } else { &mut self.v6[length] }
    }
}

impl Claims {
    /// Says where a node is; `None` if it is no more, `Some(None)` if it has no zone.
    pub(super) fn set_node(&mut self, node: &Arc<str>, zone: Option<Option<Arc<Zone>>>) {
        let before = match zone {
            Some(zone) => {
                let before = self.nodes.insert(Arc::clone(node), zone.clone());
                if before.as_ref() == Some(&zone) {
                    return;
                }
                before
            }
            None => self.nodes.remove(node),
        };
        // Nobody who is on a node that was not known and has no zone moves.
        if before.flatten().is_none() && self.place(node) == Place::Unknown {
            return;
        }
        let touched = self.by_node.get(node).into_iter().flatten();
        self.dirty.extend(touched.map(|prefix| (prefix.prefix(), *prefix)));
    }

    /// Says what an object says of a prefix, in place of what it said before.
    pub(super) fn put(&mut self, prefix: IpNetwork, object: &ObjectRef, claim: Claim) {
        // As a rule one object speaks of a prefix, and there are many.
        let said = self.by_prefix.entry(prefix).or_insert_with(|| Vec::with_capacity(1));
        match said.iter_mut().find(|(by, _)| by == object) {
            Some((_, known)) if *known == claim => return,
            Some((_, known)) => {
                let node = std::mem::replace(known, claim.clone()).node;
                forget(&mut self.by_node, said, &node, &prefix);
            }
            None => said.push((object.clone(), claim.clone())),
        }
        self.by_node.entry(claim.node).or_default().insert(prefix);
        self.dirty.insert((prefix.prefix(), prefix));
    }

    /// Says that an object says nothing of a prefix any more.
    pub(super) fn remove(&mut self, prefix: IpNetwork, object: &ObjectRef) {
        let Some(said) = self.by_prefix.get_mut(&prefix) else { return };
        let Some(index) = said.iter().position(|(by, _)| by == object) else { return };
        let (_, claim) = said.swap_remove(index);
        forget(&mut self.by_node, said, &claim.node, &prefix);
        if said.is_empty() {
            self.by_prefix.remove(&prefix);
        }
        self.dirty.insert((prefix.prefix(), prefix));
    }

    /// Takes another static table.
    pub(super) fn set_fixed(&mut self, table: &Table) {
        let named = table.prefixes().filter(|(_, placement)| placement.kind != PrefixKind::Default);
        let fixed: BTreeMap<_, _> = named.map(|(prefix, placement)| (*prefix, placement.clone())).collect();
        let before = std::mem::replace(&mut self.fixed, fixed);
        let differs = |prefix: &&IpNetwork| self.fixed.get(prefix) != before.get(prefix);
        let changed: Vec<IpNetwork> = before.keys().chain(self.fixed.keys()).filter(differs).copied().collect();
        self.dirty.extend(changed.into_iter().map(|prefix| (prefix.prefix(), prefix)));
    }

    /// What the changes since the last time make of the table.
    pub(super) fn evaluate(&mut self) -> Vec<zones::Change> {
        let mut changes = Vec::new();
        while let Some((length, prefix)) = self.dirty.pop_first() {
            let now = self.decide(&prefix);
            let wide = now.as_ref().filter(|_| self.is_wide(&prefix)).map(|now| now.place.clone());
            if self.set_wide(prefix, wide) {
                // What is within may follow from it.
                let within = self.by_prefix.range((Bound::Excluded(prefix), Bound::Unbounded));
                let within = within.take_while(|(inner, _)| prefix.contains(inner.ip()));
                let longer = within.filter(|(inner, _)| inner.prefix() > length);
                self.dirty.extend(longer.map(|(inner, _)| (inner.prefix(), *inner)));
            }
            let before = match now.clone() {
                Some(now) => self.table.insert(prefix, now),
                None => self.table.remove(&prefix),
            };
            if before != now {
                changes.push((prefix, now));
            }
        }
        changes
    }

    /// Says where a wide prefix is; returns whether that is news.
    fn set_wide(&mut self, prefix: IpNetwork, place: Option<Place>) -> bool {
        let is_there = place.is_some();
        let before = match place.clone() {
            Some(place) => self.wide.insert(prefix, place),
            None => self.wide.remove(&prefix),
        };
        let count = self.lengths.count(&prefix);
        *count = *count + u32::from(is_there) - u32::from(before.is_some());
        before != place
    }

    /// Conflicts now.
    pub(super) fn conflicts(&self) -> usize {
        self.conflicts.len()
    }

    /// Conflicts that have begun or changed since the last call.
    pub(super) fn take_news(&mut self) -> Vec<(IpNetwork, Conflict)> {
        std::mem::take(&mut self.news)
    }

    fn place(&self, node: &str) -> Place {
        self.nodes.get(node).cloned().flatten().map_or(Place::Unknown, Place::Zone)
    }

    /// A wide prefix is one of which something else than single addresses' objects speaks.
    fn is_wide(&self, prefix: &IpNetwork) -> bool {
        let said = self.by_prefix.get(prefix);
        self.fixed.contains_key(prefix) || said.is_some_and(|said| said.iter().any(|(_, claim)| !claim.is_address))
    }

    /// What is said of a prefix, if the table needs it.
    fn decide(&mut self, prefix: &IpNetwork) -> Option<Placement> {
        let said = self.by_prefix.get(prefix).map(Vec::as_slice).unwrap_or_default();
        let fixed = self.fixed.get(prefix);
        let staying = |(_, claim): &&(ObjectRef, Claim)| !claim.is_ending;
        let is_ending = said.iter().all(|said| !staying(&said));
        let counted: Vec<&(ObjectRef, Claim)> = said.iter().filter(|said| is_ending || staying(said)).collect();
        let mut places: Vec<(ObjectRef, Place)> =
            counted.iter().map(|(object, claim)| (object.clone(), self.place(&claim.node))).collect();
        if let Some(fixed) = fixed {
            places.push((ObjectRef::fixed(&fixed.origin), fixed.place.clone()));
        }
        // A node without a zone contradicts nobody.
        let mut named: Vec<&Place> =
            places.iter().map(|(_, place)| place).filter(|place| **place != Place::Unknown).collect();
        named.sort_unstable();
        named.dedup();
        if named.len() > 1 {
            let text: Vec<String> = places.iter().map(|(object, place)| format!("{object}: {place}")).collect();
            let origin = format!("conflict ({})", text.join(", ")).into();
            self.report(*prefix, Conflict { said: places });
            return Some(Placement { place: Place::Unknown, kind: PrefixKind::Cluster, origin });
        }
        let place = named.first().map_or(Place::Unknown, |place| (*place).clone());
        self.conflicts.remove(prefix);
        // Who says the most of it: the one that speaks of more than an address.
        let best = counted.iter().min_by_key(|(object, claim)| {
            (self.place(&claim.node) == Place::Unknown, claim.is_address, object.clone())
        });
        let Some((object, claim)) = best else { return fixed.cloned() };
        if let Some(fixed) = fixed.filter(|_| self.place(&claim.node) == Place::Unknown) {
            return Some(fixed.clone());
        }
        if place == Place::Unknown {
            // It would hide what the static table says of it.
            let covering = self.fixed_covering(prefix);
            if covering.is_some_and(|covering| covering.place != Place::Unknown) {
                return None;
            }
        }
        if !self.is_wide(prefix) && self.covering(prefix) == Some(&place) {
            return None;
        }
        let origin = if object.is_node() { object.to_string() } else { format!("{object} on {}", claim.node) }.into();
        // An external prefix is one that only the static table knows.
        Some(Placement { place, kind: PrefixKind::Cluster, origin })
    }

    fn report(&mut self, prefix: IpNetwork, conflict: Conflict) {
        if self.conflicts.get(&prefix) != Some(&conflict) {
            self.news.push((prefix, conflict.clone()));
            self.conflicts.insert(prefix, conflict);
        }
    }

    /// Where the longest wide prefix is that holds a prefix and is shorter.
    fn covering(&self, prefix: &IpNetwork) -> Option<&Place> {
        let lengths = self.lengths.of(prefix);
        let shorter = (0..prefix.prefix()).rev().filter(|length| lengths[usize::from(*length)] > 0);
        shorter.filter_map(|length| truncate(prefix.ip(), length)).find_map(|wider| self.wide.get(&wider))
    }

    /// The longest prefix of the static table that holds a prefix.
    fn fixed_covering(&self, prefix: &IpNetwork) -> Option<&Placement> {
        if self.fixed.is_empty() {
            return None;
        }
        (0..=prefix.prefix()).rev().find_map(|length| self.fixed.get(&truncate(prefix.ip(), length)?))
    }
}

/// A node's objects speak of a prefix no more, if no other one does.
fn forget(
    by_node: &mut HashMap<Arc<str>, BTreeSet<IpNetwork>>,
    said: &[(ObjectRef, Claim)],
    node: &Arc<str>,
    prefix: &IpNetwork,
) {
    if said.iter().any(|(_, claim)| claim.node == *node) {
        return;
    }
    if let Some(prefixes) = by_node.get_mut(node) {
        prefixes.remove(prefix);
        if prefixes.is_empty() {
            by_node.remove(node);
        }
    }
}

/// The prefix of this length that holds the address.
pub(super) fn truncate(address: IpAddr, length: u8) -> Option<IpNetwork> {
    match address {
        IpAddr::V4(v4) => {
            let network = Ipv4Network::new(v4, length).ok()?;
            Ipv4Network::new(network.network(), length).ok().map(IpNetwork::V4)
        }
        IpAddr::V6(v6) => {
            let network = Ipv6Network::new(v6, length).ok()?;
            Ipv6Network::new(network.network(), length).ok().map(IpNetwork::V6)
        }
    }
}
