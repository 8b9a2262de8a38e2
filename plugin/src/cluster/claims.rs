//! Claims of objects about the zones of prefixes, and the table that follows from them.
//!
//! The rank of the source counts first, then the most specific prefix. Objects of one rank that put the same prefix
//! into different zones are a conflict: it is reported, and the prefix is unknown. An address of a pod gets its own
//! prefix only if no wider prefix has the same zone.

mod claim;

pub(super) use claim::{Claim, ObjectClaim};

use super::{facts::ObjectRef, source::Rank};
use crate::zones::{self, Place, Placement, Table, Zone};
use claim::{Few, Prefixes};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use meridian_abi::zone::PrefixKind;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::Bound,
    sync::{Arc, LazyLock},
};

/// The limit of objects that a conflict names, one for each zone.
const MAX_NAMED: usize = 4;

/// The zone of a node, and the kind of its prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodePlace {
    /// `None` for a node without a zone.
    pub(super) zone: Option<Arc<Zone>>,
    /// External for a node without an agent: the receiving nodes count its traffic.
    pub(super) kind: PrefixKind,
}

/// Objects that put one prefix into different zones.
#[derive(Clone, Debug)]
pub(super) struct Conflict {
    /// One object for each zone.
    pub(super) named: Vec<(ObjectRef, Place)>,
    /// The number of further objects with claims.
    pub(super) more: usize,
    /// The claimed zones.
    zones: BTreeSet<Place>,
}

/// A prefix of the static table, a part of which is in another zone.
#[derive(Clone, Debug)]
pub(super) struct Overruled {
    /// The prefix and its placement in the static table.
    pub(super) prefix: IpNetwork,
    pub(super) fixed: Placement,
    /// The first part with another placement.
    pub(super) part: IpNetwork,
    pub(super) placement: Placement,
}

/// A notice for a person.
#[derive(Clone, Debug)]
pub(super) enum ClaimProblem {
    Conflict(IpNetwork, Conflict),
    Overruled(Box<Overruled>),
}

/// Claims by prefix, and the table that follows from them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_prefix: BTreeMap<IpNetwork, Few>,
    /// The known nodes.
    nodes: HashMap<Arc<str>, NodePlace>,
    /// Prefixes of the static table.
    fixed: BTreeMap<IpNetwork, Placement>,
    /// The claimed prefixes, by node.
    by_node: HashMap<Arc<str>, Prefixes>,
    /// The table that follows from the claims.
    table: BTreeMap<IpNetwork, Placement>,
    /// The part of the table that not only single addresses need, with the ranks.
    wide: BTreeMap<IpNetwork, Wide>,
    lengths: Lengths,
    /// Prefixes to evaluate, the widest first.
    dirty: BTreeSet<(u8, IpNetwork)>,
    conflicts: BTreeMap<IpNetwork, Conflict>,
    /// Prefixes of the static table whose overruling was reported.
    overruled: BTreeSet<IpNetwork>,
    /// Notices since the last call of [`take_problems`](Self::take_problems).
    problems: Vec<ClaimProblem>,
}

/// The placement of a wide prefix, which narrower prefixes may repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wide {
    rank: Rank,
    place: Place,
    kind: PrefixKind,
}

impl Wide {
    fn new(rank: Rank, placement: &Placement) -> Self {
        Self { rank, place: placement.place.clone(), kind: placement.kind }
    }
}

/// The table without any named prefix.
static UNNAMED: LazyLock<Table> = LazyLock::new(Table::new);

/// The number of wide prefixes by length, so that a look-up tries only existing lengths.
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
    /// Sets a node's place; `None` removes the node.
    pub(super) fn set_node(&mut self, node: &Arc<str>, place: Option<NodePlace>) {
        let before = match place.clone() {
            Some(place) => self.nodes.insert(Arc::clone(node), place),
            None => self.nodes.remove(node),
        };
        if before == place {
            return;
        }
        let touched = self.by_node.get(node).into_iter().flat_map(Prefixes::iter);
        self.dirty.extend(touched.map(|prefix| (prefix.prefix(), *prefix)));
    }

    /// Sets an object's claim about a prefix, in place of its earlier one.
    pub(super) fn put(&mut self, prefix: IpNetwork, claim: Claim) {
        let node = Arc::clone(claim.node());
        let claimed = self.by_prefix.entry(prefix).or_default();
        match claimed.iter_mut().find(|known| known.is_of_same(&claim)) {
            Some(known) if *known == claim => return,
            Some(known) => {
                let before = std::mem::replace(known, claim);
                forget(&mut self.by_node, claimed, before.node(), &prefix);
            }
            None => claimed.push(claim),
        }
        self.by_node.entry(node).or_default().insert(prefix);
        self.dirty.insert((prefix.prefix(), prefix));
    }

    /// Removes an object's claim about a prefix.
    pub(super) fn remove(&mut self, prefix: IpNetwork, object: &ObjectRef) {
        let Some(claimed) = self.by_prefix.get_mut(&prefix) else { return };
        let Some(claim) = claimed.take(|claim| claim.is_of(object)) else { return };
        forget(&mut self.by_node, claimed, claim.node(), &prefix);
        if claimed.is_empty() {
            self.by_prefix.remove(&prefix);
        }
        self.dirty.insert((prefix.prefix(), prefix));
    }

    /// Replaces the static table.
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

    /// The changes of the table that follow from all changes since the last call.
    pub(super) fn evaluate(&mut self) -> Vec<zones::Change> {
        let mut changes = Vec::new();
        while let Some((length, prefix)) = self.dirty.pop_first() {
            let decided = self.decide(&prefix);
            let is_wide = self.is_wide(&prefix);
            let wide = decided.as_ref().filter(|_| is_wide).map(|(rank, now)| Wide::new(*rank, now));
            let now = decided.map(|(_, now)| now);
            if self.set_wide(prefix, wide) {
                // Narrower prefixes may depend on it.
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

    /// Sets the placement of a wide prefix; returns whether it changed.
    fn set_wide(&mut self, prefix: IpNetwork, wide: Option<Wide>) -> bool {
        let is_there = wide.is_some();
        let before = match wide.clone() {
            Some(wide) => self.wide.insert(prefix, wide),
            None => self.wide.remove(&prefix),
        };
        let count = self.lengths.count(&prefix);
        *count = *count + u32::from(is_there) - u32::from(before.is_some());
        before != wide
    }

    /// The number of current conflicts.
    pub(super) fn conflicts(&self) -> usize {
        self.conflicts.len()
    }

    /// Takes the notices since the last call.
    pub(super) fn take_problems(&mut self) -> Vec<ClaimProblem> {
        std::mem::take(&mut self.problems)
    }

    fn place(&self, node: &str) -> Place {
        self.nodes.get(node).and_then(|node| node.zone.clone()).map_or(Place::Unknown, Place::Zone)
    }

    fn kind(&self, node: &str) -> PrefixKind {
        self.nodes.get(node).map_or(PrefixKind::Cluster, |node| node.kind)
    }

    /// Whether the prefix is wide: it has a claim that is not about a single address.
    fn is_wide(&self, prefix: &IpNetwork) -> bool {
        let claimed = self.by_prefix.get(prefix);
        self.fixed.contains_key(prefix)
            || claimed.is_some_and(|claimed| claimed.iter().any(|claim| !claim.is_address()))
    }

    /// The claims that count: those of known nodes with the highest rank, and of pods the newest.
    fn counted(&self, prefix: &IpNetwork) -> Vec<&Claim> {
        let claimed = self.by_prefix.get(prefix).map(Few::as_slice).unwrap_or_default();
        // A claim about an unknown node contradicts no other claim.
        let order = |claim: &Claim| (!self.nodes.contains_key(claim.node()), claim.rank(), Reverse(claim.since()));
        let best = claimed.iter().map(order).min();
        claimed.iter().filter(|claimed| Some(order(claimed)) == best).collect()
    }

    /// The placement of a prefix and its rank, if the table needs the prefix.
    fn decide(&mut self, prefix: &IpNetwork) -> Option<(Rank, Placement)> {
        let fixed = self.fixed.get(prefix).map(|fixed| (rank_of(fixed), fixed.clone()));
        let counted = self.counted(prefix);
        // Prefers the claim with a known zone, then the one about more than an address.
        let best = counted
            .iter()
            .min_by_key(|claim| (self.place(claim.node()) == Place::Unknown, claim.is_address(), claim.object()));
        let Some(claim) = best else {
            self.conflicts.remove(prefix);
            return fixed;
        };
        let (rank, place, kind) = (claim.rank(), self.place(claim.node()), self.kind(claim.node()));
        let is_fixed = fixed.as_ref().is_some_and(|(of, _)| *of < rank || place == Place::Unknown);
        if is_fixed || (rank.is_range() && self.is_outranked(prefix, claim)) {
            self.conflicts.remove(prefix);
            return fixed;
        }
        // A node without a zone contradicts no other node.
        let claimed = counted.iter().map(|claim| (claim.object(), self.place(claim.node())));
        let claimed: Vec<_> = claimed.filter(|(_, place)| *place != Place::Unknown).collect();
        let zones: BTreeSet<Place> = claimed.iter().map(|(_, place)| place.clone()).collect();
        let covering = self.fixed_covering(prefix).filter(|(_, covering)| covering.place != Place::Unknown);
        if zones.len() > 1 {
            if covering.is_some_and(|(_, covering)| rank_of(covering) == Rank::Fixed) {
                // The static table resolves the conflict.
                self.conflicts.remove(prefix);
                return None;
            }
            let conflict = Conflict::new(claimed, zones);
            let placement =
                Placement { place: Place::Unknown, kind: PrefixKind::Cluster, origin: conflict.origin().into() };
            self.report(*prefix, conflict);
            return Some((rank, placement));
        }
        // An unknown place would hide the static table's placement.
        let hides = place == Place::Unknown && covering.is_some();
        let is_said = !self.is_wide(prefix) && self.follows(prefix, &place, kind);
        let object = claim.object();
        let origin = if object.is_node() { object.to_string() } else { format!("{object} on {}", claim.node()) }.into();
        let placement = Placement { place, kind, origin };
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
            self.problems.push(ClaimProblem::Overruled(Box::new(Overruled { prefix: wider, fixed, part, placement })));
        }
        Some((rank, placement))
    }

    fn report(&mut self, prefix: IpNetwork, conflict: Conflict) {
        // A further object with an already reported zone causes no notice.
        if self.conflicts.get(&prefix).is_none_or(|known| known.zones != conflict.zones) {
            self.problems.push(ClaimProblem::Conflict(prefix, conflict.clone()));
        }
        self.conflicts.insert(prefix, conflict);
    }

    /// The placements of wider prefixes, the longest prefix first.
    fn wider(&self, prefix: &IpNetwork) -> impl Iterator<Item = &Wide> {
        let (lengths, address) = (self.lengths.of(prefix), prefix.ip());
        let shorter = (0..prefix.prefix()).rev().filter(|length| lengths[usize::from(*length)] > 0);
        shorter.filter_map(move |length| truncate(address, length)).filter_map(|wider| self.wide.get(&wider))
    }

    /// The longest wide prefix that contains the prefix.
    fn covering(&self, prefix: &IpNetwork) -> Option<&Wide> {
        self.wider(prefix).next()
    }

    /// Whether an address has this place and kind without a prefix of its own.
    fn follows(&self, prefix: &IpNetwork, place: &Place, kind: PrefixKind) -> bool {
        match self.covering(prefix) {
            Some(wide) => (&wide.place, wide.kind) == (place, kind),
            // A private address in no named prefix.
            None => {
                let nothing =
                    || UNNAMED.lookup(prefix.ip()).is_some_and(|(_, unnamed)| unnamed.place == Place::Unknown);
                *place == Place::Unknown && kind == PrefixKind::Cluster && nothing()
            }
        }
    }

    /// Whether a wider prefix with a zone has a higher rank, or any rank if the claim is about an unknown node: what a
    /// removed node or a former CNI has left behind says nothing about a range of a node that is there.
    fn is_outranked(&self, prefix: &IpNetwork, claim: &Claim) -> bool {
        let is_left_behind = !self.nodes.contains_key(claim.node());
        let counts = |wide: &Wide| wide.place != Place::Unknown && (is_left_behind || wide.rank < claim.rank());
        self.wider(prefix).any(counts)
    }

    /// The longest prefix of the static table that contains the prefix.
    fn fixed_covering(&self, prefix: &IpNetwork) -> Option<(&IpNetwork, &Placement)> {
        if self.fixed.is_empty() {
            return None;
        }
        (0..=prefix.prefix()).rev().find_map(|length| self.fixed.get_key_value(&truncate(prefix.ip(), length)?))
    }
}

impl Conflict {
    /// Names one object for each zone, so that the text does not grow with the number of objects.
    fn new(mut claimed: Vec<(ObjectRef, Place)>, zones: BTreeSet<Place>) -> Self {
        claimed.sort_unstable();
        let all = claimed.len();
        let mut seen = BTreeSet::new();
        claimed.retain(|(_, place)| seen.len() < MAX_NAMED && seen.insert(place.clone()));
        Self { more: all - claimed.len(), named: claimed, zones }
    }

    fn names(&self) -> String {
        let named: Vec<String> = self.named.iter().map(|(object, place)| format!("{object}: {place}")).collect();
        named.join(", ")
    }

    /// The origin for the table; it does not change with each further object.
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

/// The static table has the highest rank for addresses that it puts into a zone as ours, and the lowest for external
/// ones.
fn rank_of(fixed: &Placement) -> Rank {
    let is_ours = fixed.kind == PrefixKind::Cluster && fixed.place != Place::Unknown;
    if is_ours { Rank::Fixed } else { Rank::Outside }
}

/// Removes the prefix from the node's prefixes, unless another object of the node still claims it.
fn forget(by_node: &mut HashMap<Arc<str>, Prefixes>, claimed: &Few, node: &Arc<str>, prefix: &IpNetwork) {
    if claimed.iter().any(|claim| claim.node() == node) {
        return;
    }
    if let Some(prefixes) = by_node.get_mut(node) {
        prefixes.remove(prefix);
        if prefixes.is_empty() {
            by_node.remove(node);
        }
    }
}

/// The prefix of this length that contains the address.
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
