//! The reasons for which a static table is refused.

use super::{InvalidProvider, Place, Provider};
use crate::yaml;
use ipnetwork::{IpNetwork, IpNetworkError};
use std::net::IpAddr;

/// The reason for which a line of a static table is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTable {
    /// The text is not YAML of this form.
    #[error(transparent)]
    Yaml(#[from] yaml::Invalid),
    /// An external prefix has no name.
    #[error("an external prefix has an empty name")]
    UnnamedExternal,
    /// An external prefix is in a zone that the table lacks.
    #[error("{name} is in zone {zone}, which is not one of `zones`")]
    UnlistedZone {
        /// The external prefix.
        name: String,
        /// The zone.
        zone: String,
    },
    /// An external prefix has the class of addresses in no prefix.
    #[error("class internet is for addresses in no prefix: database, loadbalancer, nat or vm")]
    InternetPrefix,
    /// Two endpoints have one address.
    #[error("two endpoints have the address {address} (the other: line {first})")]
    SameAddress {
        /// The address.
        address: IpAddr,
        /// The line of the first.
        first: u64,
    },
    /// A zone lacks its name or its region.
    #[error("a zone needs a name and a region")]
    IncompleteZone,
    /// A zone has the name of the internet.
    #[error("`{name}` is reserved for addresses that are not ours, so no zone can have this name")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// A zone is in two regions.
    #[error("zone {zone} is in region {region} and in region {other} (line {first})")]
    TwoRegions {
        /// The zone.
        zone: String,
        /// Its region in this line.
        region: String,
        /// Its region before.
        other: String,
        /// The line of the first.
        first: u64,
    },
    /// The provider's name is invalid.
    #[error(transparent)]
    Provider(#[from] InvalidProvider),
    /// A zone has two providers.
    #[error("zone {zone} is of provider {provider} and of provider {other}")]
    TwoProviders {
        /// The zone.
        zone: Place,
        /// Its provider in this line.
        provider: Provider,
        /// Its provider before.
        other: Provider,
    },
    /// A text is no prefix.
    #[error("`{text}` is not a prefix like 10.0.1.0/24 or fd00:1::/64: {reason}")]
    Prefix {
        /// The text.
        text: String,
        /// The reason.
        reason: InvalidPrefix,
    },
    /// A prefix is in two zones.
    #[error("prefix {prefix} is in zone {place} and in zone {other} (line {first})")]
    TwoZones {
        /// The prefix.
        prefix: IpNetwork,
        /// Its zone in this line.
        place: Place,
        /// Its zone before.
        other: Place,
        /// The line of the first.
        first: u64,
    },
}

/// The reason for which a text is no prefix.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPrefix {
    /// It is an address without a length.
    #[error("it has no length")]
    NoLength,
    /// Address or length are invalid.
    #[error(transparent)]
    Syntax(#[from] IpNetworkError),
    /// Bits after the length are set.
    #[error("bits are set after the length; {prefix} is")]
    HostBits {
        /// The prefix without these bits.
        prefix: IpNetwork,
    },
}
