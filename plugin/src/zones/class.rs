//! The class of an external prefix, which decides the price of its traffic.

use serde::Deserialize;

/// The kind of service behind an external prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A database that the provider runs: its own end is not charged.
    Database,
    /// A load balancer.
    Loadbalancer,
    /// A NAT gateway: its own end is not charged.
    Nat,
    /// A virtual machine: charged as a node.
    Vm,
    /// Addresses that are not ours. No prefix has this class: it is for addresses outside all prefixes.
    Internet,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Database, Self::Loadbalancer, Self::Nat, Self::Vm, Self::Internet];

    /// The name in files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Loadbalancer => "loadbalancer",
            Self::Nat => "nat",
            Self::Vm => "vm",
            Self::Internet => "internet",
        }
    }

    /// The class of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}
