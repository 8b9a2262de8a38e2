//! The bill and the history side by side: for each day and node the bytes of both, and what can explain the rest.

use super::{
    charges::{Charges, Resource},
    day::Day,
    measured::{MeasuredDay, MeasuredNode, NodeId},
};
use crate::history::Span;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
};

/// Rows beyond which further ones are one row.
const MAX_ROWS: usize = 100_000;

/// The key of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// A day and a node or resource.
    #[default]
    DayNode,
    /// A day.
    Day,
    /// A node or resource.
    Node,
}

/// A text that is no key.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is none of day-node, day and node")]
pub struct UnknownBy(String);

impl FromStr for GroupBy {
    type Err = UnknownBy;

    fn from_str(text: &str) -> Result<Self, UnknownBy> {
        Ok(match text {
            "day-node" => Self::DayNode,
            "day" => Self::Day,
            "node" => Self::Node,
            _ => return Err(UnknownBy(text.chars().filter(|c| !c.is_control()).take(60).collect())),
        })
    }
}

/// What can explain the difference between the bill and the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Load balancers.
    LoadBalancer,
    /// NAT gateways.
    NatGateway,
    /// Managed databases and caches.
    Database,
    /// Traffic by way of public addresses.
    PublicAddress,
    /// Machines that are no nodes of the cluster.
    OutsideCluster,
    /// Other resources.
    OtherResource,
    /// Lines of the bill that name no resource.
    NoResource,
    /// Instances beyond the limit.
    Further,
    /// A node without an agent on that day.
    NoAgent,
    /// A node whose agent reported for a part of the time.
    SilentAgent,
    /// Time that the history lacks.
    NotRecorded,
    /// Bytes between zones of the history that belong to no known node.
    Unattributed,
    /// Bytes of a node that the bill does not have.
    NotBilled,
    /// More bytes than on the bill.
    MoreThanBilled,
    /// Nothing of these.
    Unexplained,
}

impl Reason {
    /// The name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoadBalancer => "load balancers",
            Self::NatGateway => "NAT gateways",
            Self::Database => "managed databases",
            Self::PublicAddress => "public addresses",
            Self::OutsideCluster => "outside the cluster",
            Self::OtherResource => "other resources",
            Self::NoResource => "no resource named",
            Self::Further => "further instances",
            Self::NoAgent => "no agent",
            Self::SilentAgent => "agent silent for a part of the time",
            Self::NotRecorded => "not recorded for a part of the time",
            Self::Unattributed => "unattributed",
            Self::NotBilled => "not on the bill",
            Self::MoreThanBilled => "more than billed",
            Self::Unexplained => "unexplained",
        }
    }

    const fn of_class(resource: &Resource) -> Self {
        match resource {
            Resource::LoadBalancer => Self::LoadBalancer,
            Resource::NatGateway => Self::NatGateway,
            Resource::Database => Self::Database,
            Resource::PublicAddress => Self::PublicAddress,
            Resource::Other => Self::OtherResource,
            Resource::None => Self::NoResource,
            Resource::Further => Self::Further,
            Resource::Instance(_) => Self::OutsideCluster,
        }
    }
}

/// The provider of a bill: the ends of a byte that it charges, and the names of its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// AWS charges both ends.
    Aws,
    /// Google Cloud charges the sender.
    Gcp,
}

impl Payer {
    /// The providers whose bills have traffic between zones.
    pub const ALL: [Self; 2] = [Self::Aws, Self::Gcp];

    /// The provider's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Gcp => "gcp",
        }
    }

    /// The bytes of a node that it charges.
    pub const fn charged(self, node: &MeasuredNode) -> u64 {
        match self {
            Self::Aws => node.sent_bytes.saturating_add(node.received_bytes),
            Self::Gcp => node.sent_bytes,
        }
    }

    /// The instance of a node, as [`Resource::Instance`] has it. Without a provider ID the node's name shows it.
    fn instance(self, id: &NodeId) -> String {
        let mut parts = id.provider_id.rsplit('/');
        let (last, before) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
        match self {
            Self::Aws if id.provider_id.is_empty() => id.node.split('.').next().unwrap_or_default().to_owned(),
            Self::Aws => last.to_owned(),
            Self::Gcp if id.provider_id.is_empty() => format!("/{}", id.node),
            Self::Gcp => format!("{before}/{last}"),
        }
    }

    fn is_of(self, node: &MeasuredNode) -> bool {
        node.provider.is_empty() || node.provider == self.name()
    }
}

/// A row: a day, a node, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The day, if rows are of days.
    pub day: Option<Day>,
    /// The node; empty for other resources.
    pub node: String,
    /// The instance or the kind of resource, as the bill has it.
    pub resource: String,
    /// Bytes on the bill.
    pub billed: u64,
    /// Bytes of the history.
    pub measured: u64,
    /// What can explain the bytes that only one of them has.
    pub reasons: BTreeMap<Reason, u64>,
}

impl Row {
    /// Hundredths of a percent of the billed bytes that were measured; `None` without billed bytes.
    pub fn coverage(&self) -> Option<u64> {
        let (billed, measured) = (u128::from(self.billed), u128::from(self.measured));
        (billed > 0).then(|| u64::try_from((measured * 10_000 + billed / 2) / billed).unwrap_or(u64::MAX))
    }

    fn merge(&mut self, other: &Self) {
        self.billed = self.billed.saturating_add(other.billed);
        self.measured = self.measured.saturating_add(other.measured);
        for (reason, bytes) in &other.reasons {
            let sum = self.reasons.entry(*reason).or_default();
            *sum = sum.saturating_add(*bytes);
        }
    }

    /// Explains the rest of the row.
    fn explained(mut self, missing: Reason, surplus: Reason) -> Self {
        let (billed, measured) = (self.billed, self.measured);
        let reason = if measured < billed { missing } else { surplus };
        if measured != billed {
            self.reasons.insert(reason, billed.abs_diff(measured));
        }
        self
    }
}

/// The bill compared with the history.
#[derive(Clone, Debug)]
pub struct Reconciliation {
    /// The provider.
    pub payer: Payer,
    /// The key of the rows.
    pub by: GroupBy,
    /// The first day and the last one.
    pub days: (Day, Day),
    /// The rows, by day and node.
    pub rows: Vec<Row>,
    /// The sum of the rows.
    pub total: Row,
    /// The sum of the nodes that reported all of the time.
    pub complete: Row,
}

impl Reconciliation {
    /// Puts the days of a bill beside those of a history, of which `day` gives one after the other.
    ///
    /// # Errors
    /// Those of `day`.
    pub fn new<E>(
        (payer, by): (Payer, GroupBy),
        charges: &Charges,
        days: (Day, Day),
        mut day: impl FnMut(Day) -> Result<MeasuredDay, E>,
    ) -> Result<Self, E> {
        let mut sums = Sums { payer, by, rows: BTreeMap::new(), further: Row::default(), complete: Row::default() };
        let billed = charges.sorted();
        let mut rest = billed.as_slice();
        for of_day in Day::each(days) {
            let skipped = rest.iter().take_while(|(day, ..)| *day < of_day).count();
            let count = rest[skipped..].iter().take_while(|(day, ..)| *day == of_day).count();
            let lines = &rest[skipped..skipped + count];
            rest = &rest[skipped + count..];
            sums.add_day(of_day, lines, &day(of_day)?);
        }
        Ok(sums.finish(days))
    }

    /// Puts one number of an invoice beside all days of a history, whatever the provider of its nodes.
    pub fn of_invoice(bytes: u64, days: (Day, Day), measured: &super::Measured) -> Self {
        let mut row = Row { resource: "invoice".to_owned(), billed: bytes, ..Row::default() };
        let mut missing = Reason::Unexplained;
        for of_day in Day::each(days) {
            let Some(day) = measured.day(of_day) else {
                missing = Reason::NotRecorded;
                continue;
            };
            for payer in Payer::ALL {
                let is_of = |node: &&MeasuredNode| node.provider == payer.name();
                let bytes: u64 =
                    day.nodes.values().chain([&day.no_node]).filter(is_of).map(|node| payer.charged(node)).sum();
                row.measured = row.measured.saturating_add(bytes);
            }
            missing = match day.gap() {
                Some(Reason::NotRecorded) => Reason::NotRecorded,
                Some(gap) if missing == Reason::Unexplained => gap,
                _ => missing,
            };
        }
        let row = row.explained(missing, Reason::MoreThanBilled);
        let complete = Row::default();
        Self { payer: Payer::Aws, by: GroupBy::Node, days, rows: vec![row.clone()], total: row, complete }
    }

    /// Whether the bytes of the nodes that reported all of the time are those of the bill if its GB are 2³⁰ bytes.
    pub fn looks_binary(&self) -> bool {
        let Row { billed, measured, .. } = self.complete;
        let (billed, measured) = (u128::from(billed), u128::from(measured));
        // 2³⁰ ÷ 10⁹, to two thousandths.
        let expected = billed * (1 << 30) / 1_000_000_000;
        billed > 0 && measured.abs_diff(expected) * 500 <= expected
    }
}

impl MeasuredDay {
    /// The reason why the day is incomplete.
    fn gap(&self) -> Option<Reason> {
        let is_silent = |node: &MeasuredNode| is_less(node.reported_seconds, self.recorded_seconds);
        if is_less(self.recorded_seconds, Span::DAY.into()) {
            Some(Reason::NotRecorded)
        } else {
            self.nodes.values().any(is_silent).then_some(Reason::SilentAgent)
        }
    }
}

/// Whether a time is clearly shorter than another one: by more than a hundredth.
const fn is_less(seconds: u64, all: u64) -> bool {
    seconds.saturating_mul(100) < all.saturating_mul(99)
}

/// The key of a row, in the order of the rows: nodes before other resources.
type Key = (Option<Day>, bool, String, String);

struct Sums {
    payer: Payer,
    by: GroupBy,
    rows: BTreeMap<Key, Row>,
    further: Row,
    complete: Row,
}

/// The nodes of a day by their instances.
struct Nodes<'d> {
    payer: Payer,
    by_instance: BTreeMap<String, (&'d NodeId, MeasuredNode)>,
    /// Those of Google Cloud whose project is not known on one side, by name.
    by_name: HashMap<String, String>,
}

impl<'d> Nodes<'d> {
    fn new(payer: Payer, day: &'d MeasuredDay) -> Self {
        let (mut by_instance, mut by_name) = (BTreeMap::new(), HashMap::new());
        for (id, node) in day.nodes.iter().filter(|(_, node)| payer.is_of(node)) {
            let instance = payer.instance(id);
            if let Some((_, name)) = instance.split_once('/') {
                by_name.insert(name.to_owned(), instance.clone());
            }
            let (_, sum) = by_instance.entry(instance).or_insert_with(|| (id, MeasuredNode::default()));
            sum.reported_seconds = sum.reported_seconds.saturating_add(node.reported_seconds);
            sum.sent_bytes = sum.sent_bytes.saturating_add(node.sent_bytes);
            sum.received_bytes = sum.received_bytes.saturating_add(node.received_bytes);
        }
        Self { payer, by_instance, by_name }
    }

    /// The node of an instance, which is taken.
    fn take(&mut self, instance: &str) -> Option<(&'d NodeId, MeasuredNode)> {
        if let Some(found) = self.by_instance.remove(instance) {
            return Some(found);
        }
        let (project, name) = instance.split_once('/').filter(|_| self.payer == Payer::Gcp)?;
        let of_name = self.by_name.get(name).filter(|of_name| project.is_empty() || of_name.starts_with('/'))?;
        self.by_instance.remove(of_name)
    }
}

impl Sums {
    fn add_day(&mut self, day: Day, billed: &[(Day, Resource, u64)], measured: &MeasuredDay) {
        let mut nodes = Nodes::new(self.payer, measured);
        for (_, resource, bytes) in billed {
            let row = Row { day: Some(day), billed: *bytes, ..Row::default() };
            let Resource::Instance(instance) = resource else {
                let reason = Reason::of_class(resource);
                self.add(Row { resource: reason.name().to_owned(), ..row }.explained(reason, reason));
                continue;
            };
            match nodes.take(instance) {
                Some((id, node)) => self.add_node(Row { resource: instance.clone(), ..row }, id, &node, measured),
                None => {
                    let reason =
                        if measured.recorded_seconds == 0 { Reason::NotRecorded } else { Reason::OutsideCluster };
                    self.add(Row { resource: instance.clone(), ..row }.explained(reason, reason));
                }
            }
        }
        for (instance, (id, node)) in nodes.by_instance {
            let row = Row { day: Some(day), node: id.node.clone(), resource: instance, ..Row::default() };
            let measured = self.payer.charged(&node);
            if measured > 0 {
                self.add(Row { measured, ..row }.explained(Reason::NotBilled, Reason::NotBilled));
            }
        }
        let unattributed = if self.payer.is_of(&measured.no_node) { self.payer.charged(&measured.no_node) } else { 0 };
        if unattributed > 0 {
            let (resource, reason) = (Reason::Unattributed.name().to_owned(), Reason::Unattributed);
            self.add(
                Row { day: Some(day), resource, measured: unattributed, ..Row::default() }.explained(reason, reason),
            );
        }
    }

    fn add_node(&mut self, row: Row, id: &NodeId, node: &MeasuredNode, day: &MeasuredDay) {
        let row = Row { node: id.node.clone(), measured: self.payer.charged(node), ..row };
        let missing = match node.reported_seconds {
            0 => Reason::NoAgent,
            seconds if is_less(seconds, day.recorded_seconds) => Reason::SilentAgent,
            _ if is_less(day.recorded_seconds, Span::DAY.into()) => Reason::NotRecorded,
            _ => Reason::Unexplained,
        };
        if missing == Reason::Unexplained {
            self.complete.merge(&row);
        }
        self.add(row.explained(missing, Reason::MoreThanBilled));
    }

    fn add(&mut self, mut row: Row) {
        match self.by {
            GroupBy::DayNode => {}
            GroupBy::Day => (row.node, row.resource) = (String::new(), String::new()),
            GroupBy::Node => row.day = None,
        }
        let key = (row.day, row.node.is_empty(), row.node.clone(), row.resource.clone());
        if self.rows.len() < MAX_ROWS || self.rows.contains_key(&key) {
            let fresh = || Row { billed: 0, measured: 0, reasons: BTreeMap::new(), ..row.clone() };
            self.rows.entry(key).or_insert_with(fresh).merge(&row);
        } else {
            self.further.merge(&row);
        }
    }

    fn finish(self, days: (Day, Day)) -> Reconciliation {
        let Self { payer, by, rows, further, complete } = self;
        let mut rows: Vec<Row> = rows.into_values().collect();
        if further.billed > 0 || further.measured > 0 {
            rows.push(Row { resource: "further rows".to_owned(), ..further });
        }
        let mut total = Row::default();
        rows.iter().for_each(|row| total.merge(row));
        Reconciliation { payer, by, days, rows, total, complete }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
