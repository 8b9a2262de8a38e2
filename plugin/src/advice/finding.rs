//! Findings: each is one change, with its savings and risks.

use super::patch::Patch;
use crate::cost::Money;

/// The rules, by their numbers in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Prefer endpoints of the client's zone.
    PreferZone,
    /// A preference that is not honoured.
    NotHonoured,
    /// Spread the endpoints over the zones of the clients first.
    Spread,
    /// Move one of two single pods.
    Move,
    /// Endpoints on every node: stay on the node.
    NodeLocal,
    /// DNS.
    Dns,
    /// Scrape in the zone.
    ScrapeInZone,
    /// Two clients that fetch the same.
    Duplicate,
    /// Kafka: fetch from the zone's replica.
    KafkaRack,
    /// Replication: the price of redundancy.
    Replication,
    /// Cassandra, ScyllaDB: a rack-aware driver.
    CassandraRack,
    /// Caches: read from the zone's replica.
    Cache,
    /// Databases: read from the zone's replica, or cache.
    Database,
    /// Search: nodes that coordinate in the zone.
    Search,
    /// Clients that choose pods by a ring.
    Ring,
    /// Load balancers.
    LoadBalancer,
    /// NAT gateways.
    Nat,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::PreferZone,
        Self::NotHonoured,
        Self::Spread,
        Self::Move,
        Self::NodeLocal,
        Self::Dns,
        Self::ScrapeInZone,
        Self::Duplicate,
        Self::KafkaRack,
        Self::Replication,
        Self::CassandraRack,
        Self::Cache,
        Self::Database,
        Self::Search,
        Self::Ring,
        Self::LoadBalancer,
        Self::Nat,
    ];

    /// The number.
    pub const fn number(self) -> &'static str {
        match self {
            Self::PreferZone => "R1",
            Self::NotHonoured => "R2",
            Self::Spread => "R3",
            Self::Move => "R4",
            Self::NodeLocal => "R5",
            Self::Dns => "R6",
            Self::ScrapeInZone => "R7",
            Self::Duplicate => "R8",
            Self::KafkaRack => "R9",
            Self::Replication => "R10",
            Self::CassandraRack => "R11",
            Self::Cache => "R12",
            Self::Database => "R13",
            Self::Search => "R14",
            Self::Ring => "R15",
            Self::LoadBalancer => "R16",
            Self::Nat => "R17",
        }
    }
}

/// The confidence in a saving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// It depends on facts that Meridian can't observe.
    Low,
    /// It is likely.
    #[default]
    Medium,
    /// It follows from measurements.
    High,
}

impl Confidence {
    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// How far a change is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is not made.
    #[default]
    Proposed,
    /// It is made, and traffic still crosses.
    NotHonoured,
    /// It is made, and traffic crosses no more.
    Working,
    /// It was made and worked, and traffic crosses again.
    Regressed,
}

impl State {
    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::NotHonoured => "not honoured",
            Self::Working => "working",
            Self::Regressed => "regressed",
        }
    }
}

/// An amount of traffic in a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Monthly {
    /// Bytes between zones.
    pub bytes: u64,
    /// The cost of the priced bytes.
    pub cost: Money,
    /// Bytes without a price.
    pub unpriced_bytes: u64,
}

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A name that stays the same as long as the finding does.
    pub id: String,
    /// The rule.
    pub rule: Rule,
    /// The service or workloads concerned.
    pub subject: String,
    /// The change, in one sentence.
    pub action: String,
    /// The saving in a month; nothing if the finding only explains traffic.
    pub saving: Monthly,
    /// The traffic between zones concerned, per month.
    pub traffic: Monthly,
    /// The observations.
    pub evidence: Vec<String>,
    /// The risks of the change.
    pub risk: Vec<String>,
    /// The change, where it can be written down.
    pub patch: Option<Patch>,
    /// How sure the saving is.
    pub confidence: Confidence,
    /// How far the change is.
    pub state: State,
}
