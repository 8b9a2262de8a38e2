//! Which object says where which prefix is, and what follows from all of them.
//!
//! What counts most is the rank of the source, then the most specific prefix. Objects of one rank that say
//! different things of the same prefix are a conflict: it is reported, and the prefix is unknown. An address
//! of a pod needs a prefix of its own only where no wider one says the same.

use super::{facts::ObjectRef, source::Rank};
use crate::zones::{self, Place, Placement, Table, Zone};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use meridian_abi::zone::PrefixKind;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
    time::SystemTime,
};

/// Objects of a conflict that are named, one for each zone.
const NAMED: usize = 4;

/// What an object says of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The node that the addresses are of.
    pub(super) node: Arc<str>,
    /// How much it counts.
    pub(super) rank: Rank,
    /// Whether it is said of single addresses: such a prefix is left out where a wider one says the same.
    pub(super) is_address: bool,
    /// Of pods with one address the newest counts.
    pub(super) since: Option<SystemTime>,
}

/// Objects that say different things of one prefix.
#[derive(Clone, Debug)]
pub(super) struct Conflict {
    /// An object for each zone, and the zone that it says.
    pub(super) named: Vec<(ObjectRef, Place)>,
    /// How many objects more say something.
    pub(super) more: usize,
    /// The zones.
    zones: BTreeSet<Place>,
}

/// A prefix of the static table of which a part is in another zone.
#[derive(Clone, Debug)]
pub(super) struct Overruled {
    /// The prefix, and what the table says of it.
    pub(super) prefix: IpNetwork,
    pub(super) fixed: Placement,
    /// The first part that is elsewhere.
    pub(super) part: IpNetwork,
    pub(super) placement: Placement,
}

/// A notice for a person.
#[derive(Clone, Debug)]
pub(super) enum News {
    Conflict(IpNetwork, Conflict),
    Overruled(Box<Overruled>),
}

/// Claims by prefix, and the table that follows from them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_prefix: BTreeMap<IpNetwork, Vec<(ObjectRef, Claim)>>,
    /// The zones of the nodes that are known; `None` for a node without a zone.
    nodes: HashMap<Arc<str>, Option<Arc<Zone>>>,
    /// Prefixes of the static table.
    fixed: BTreeMap<IpNetwork, Placement>,
    /// The prefixes that objects speak of by node.
    by_node: HashMap<Arc<str>, BTreeSet<IpNetwork>>,
    /// What follows.
    table: BTreeMap<IpNetwork, Placement>,
    /// The same without the prefixes that only single addresses have asked for, and how much it counts.
    wide: BTreeMap<IpNetwork, (Rank, Place)>,
    lengths: Lengths,
    /// Prefixes to look at, the widest first.
    dirty: BTreeSet<(u8, IpNetwork)>,
    conflicts: BTreeMap<IpNetwork, Conflict>,
    /// Prefixes of the static table that were said to be overruled.
    overruled: BTreeSet<IpNetwork>,
    /// What has begun or changed since it was asked for.
    news: Vec<News>,
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
        let before = match zone.clone() {
            Some(zone) => self.nodes.insert(Arc::clone(node), zone),
            None => self.nodes.remove(node),
        };
        if before == zone {
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
        changed.iter().for_each(|prefix| {
            self.overruled.remove(prefix);
        });
        self.dirty.extend(changed.into_iter().map(|prefix| (prefix.prefix(), prefix)));
    }

    /// What the changes since the last time make of the table.
    pub(super) fn evaluate(&mut self) -> Vec<zones::Change> {
        let mut changes = Vec::new();
        while let Some((length, prefix)) = self.dirty.pop_first() {
            let decided = self.decide(&prefix);
            let is_wide = self.is_wide(&prefix);
            let wide = decided.as_ref().filter(|_| is_wide).map(|(rank, now)| (*rank, now.place.clone()));
            let now = decided.map(|(_, now)| now);
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
    fn set_wide(&mut self, prefix: IpNetwork, wide: Option<(Rank, Place)>) -> bool {
        let is_there = wide.is_some();
        let before = match wide.clone() {
            Some(wide) => self.wide.insert(prefix, wide),
            None => self.wide.remove(&prefix),
        };
        let count = self.lengths.count(&prefix);
        *count = *count + u32::from(is_there) - u32::from(before.is_some());
        before != wide
    }

    /// Conflicts now.
    pub(super) fn conflicts(&self) -> usize {
        self.conflicts.len()
    }

    /// What has begun or changed since the last call.
    pub(super) fn take_news(&mut self) -> Vec<News> {
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

    /// The claims that count: of nodes that are known those of the highest rank, and of pods the newest.
    fn counted(&self, prefix: &IpNetwork) -> Vec<&(ObjectRef, Claim)> {
        let said = self.by_prefix.get(prefix).map(Vec::as_slice).unwrap_or_default();
        // A node that is not known contradicts nobody.
        let order =
            |(_, claim): &(ObjectRef, Claim)| (!self.nodes.contains_key(&claim.node), claim.rank, Reverse(claim.since));
        let best = said.iter().map(order).min();
        said.iter().filter(|said| Some(order(said)) == best).collect()
    }

    /// What is said of a prefix, and how much that counts, if the table needs it.
    fn decide(&mut self, prefix: &IpNetwork) -> Option<(Rank, Placement)> {
        let fixed = self.fixed.get(prefix).map(|fixed| (rank_of(fixed), fixed.clone()));
        let counted = self.counted(prefix);
        // Who says the most of it: the one that speaks of more than an address.
        let best = counted.iter().min_by_key(|(object, claim)| {
            (self.place(&claim.node) == Place::Unknown, claim.is_address, object.clone())
        });
        let Some((object, claim)) = best else {
            self.conflicts.remove(prefix);
            return fixed;
        };
        let (rank, place) = (claim.rank, self.place(&claim.node));
        let is_fixed = fixed.as_ref().is_some_and(|(of, _)| *of < rank || place == Place::Unknown);
        if is_fixed || (rank.is_range() && self.is_outranked(prefix, rank)) {
            self.conflicts.remove(prefix);
            return fixed;
        }
        // A node without a zone contradicts nobody.
        let said = counted.iter().map(|(object, claim)| (object.clone(), self.place(&claim.node)));
        let said: Vec<_> = said.filter(|(_, place)| *place != Place::Unknown).collect();
        let zones: BTreeSet<Place> = said.iter().map(|(_, place)| place.clone()).collect();
        let covering = self.fixed_covering(prefix).filter(|(_, covering)| covering.place != Place::Unknown);
        if zones.len() > 1 {
            if covering.is_some_and(|(_, covering)| rank_of(covering) == Rank::Fixed) {
                // The static table settles it.
                self.conflicts.remove(prefix);
                return None;
            }
            let conflict = Conflict::new(said, zones);
            let placement =
                Placement { place: Place::Unknown, kind: PrefixKind::Cluster, origin: conflict.origin().into() };
            self.report(*prefix, conflict);
            return Some((rank, placement));
        }
        // It would hide what the static table says of it.
        let hides = place == Place::Unknown && covering.is_some();
        let is_said = !self.is_wide(prefix) && self.covering(prefix) == Some(&place);
        let origin = if object.is_node() { object.to_string() } else { format!("{object} on {}", claim.node) }.into();
        // An external prefix is one that only the static table knows.
        let placement = Placement { place, kind: PrefixKind::Cluster, origin };
        let other = covering.filter(|(_, covering)| covering.place != placement.place);
        let other = other.map(|(wider, fixed)| (*wider, fixed.clone()));
        self.conflicts.remove(prefix);
        if hides || is_said {
            return None;
        }
        if let Some((wider, fixed)) = other
            && self.overruled.insert(wider)
        {
            let (part, placement) = (*prefix, placement.clone());
            self.news.push(News::Overruled(Box::new(Overruled { prefix: wider, fixed, part, placement })));
        }
        Some((rank, placement))
    }

    fn report(&mut self, prefix: IpNetwork, conflict: Conflict) {
        // Another object that says the same as one before is no news.
        if self.conflicts.get(&prefix).is_none_or(|known| known.zones != conflict.zones) {
            self.news.push(News::Conflict(prefix, conflict.clone()));
        }
        self.conflicts.insert(prefix, conflict);
    }

    /// What wider prefixes say, the longest first.
    fn wider(&self, prefix: &IpNetwork) -> impl Iterator<Item = &(Rank, Place)> {
        let (lengths, address) = (self.lengths.of(prefix), prefix.ip());
        let shorter = (0..prefix.prefix()).rev().filter(|length| lengths[usize::from(*length)] > 0);
        shorter.filter_map(move |length| truncate(address, length)).filter_map(|wider| self.wide.get(&wider))
    }

    /// Where the longest wide prefix is that holds a prefix and is shorter.
    fn covering(&self, prefix: &IpNetwork) -> Option<&Place> {
        self.wider(prefix).next().map(|(_, place)| place)
    }

    /// Whether a wider prefix with a zone counts more.
    fn is_outranked(&self, prefix: &IpNetwork, rank: Rank) -> bool {
        self.wider(prefix).any(|(wider, place)| *wider < rank && *place != Place::Unknown)
    }

    /// The longest prefix of the static table that holds a prefix.
    fn fixed_covering(&self, prefix: &IpNetwork) -> Option<(&IpNetwork, &Placement)> {
        if self.fixed.is_empty() {
            return None;
        }
        (0..=prefix.prefix()).rev().find_map(|length| self.fixed.get_key_value(&truncate(prefix.ip(), length)?))
    }
}

impl Conflict {
    /// Names one object for each zone, so that what is said does not grow with the number of objects.
    fn new(mut said: Vec<(ObjectRef, Place)>, zones: BTreeSet<Place>) -> Self {
        said.sort_unstable();
        let all = said.len();
        let mut seen = BTreeSet::new();
        said.retain(|(_, place)| seen.len() < NAMED && seen.insert(place.clone()));
        Self { more: all - said.len(), named: said, zones }
    }

    fn names(&self) -> String {
        let named: Vec<String> = self.named.iter().map(|(object, place)| format!("{object}: {place}")).collect();
        named.join(", ")
    }

    /// For the table, which must not change with each object more.
    fn origin(&self) -> String {
        let more = if self.more > 0 { " and more" } else { "" };
        format!("conflict ({}{more})", self.names())
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.more > 0 { format!(" and {} more", self.more) } else { String::new() };
        write!(f, "{}{more}", self.names())
    }
}

/// The static table counts first for what it puts into a zone as ours, and last for what is outside.
fn rank_of(fixed: &Placement) -> Rank {
    let is_ours = fixed.kind == PrefixKind::Cluster && fixed.place != Place::Unknown;
    if is_ours { Rank::Fixed } else { Rank::Outside }
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
